"""Supervisor: `callmeter serve`. Starts the embedded server, the workers and the bookkeeper, restarts what dies, and
drains on SIGTERM. Serves nothing itself, so that it has no reason to die."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from contextlib import suppress

import msgspec

from .child import EXIT_SETTINGS, encode_settings
from .settings import Settings

READY_S_MAX = 60.0
"""From the start of a child to its ready line; far more than it takes, for a busy machine."""
RESTART_S_FIRST = 0.05
RESTART_S_MAX = 5.0
STEADY_S = 10.0
"""A child that lived this long is restarted at once when it dies; one that dies faster waits longer each time."""
STOP_S_GRACE = 10.0
"""Beyond the drain time, for settling and closing; then a child is killed."""

log = logging.getLogger("callmeter.supervisor")


class StartFailed(Exception):
    """Nothing can be served. The text is for the person who started it."""


class Child:
    """A process that is kept alive. `kind` is `worker` or `bookkeeper`."""

    def __init__(self, kind: str, settings: Settings) -> None:
        self.kind = kind
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None
        self.facts: dict[str, object] = {}
        self.stopping = False
        self._started_s = 0.0

    async def start(self) -> None:
        """Starts the process and waits until it is ready. Raises StartFailed."""
        self._started_s = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "proxy",
            self.kind,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which stops its children in order
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(encode_settings(self.settings))
        try:
            async with asyncio.timeout(READY_S_MAX):
                await self.process.stdin.drain()
                line = await self.process.stdout.readline()
        except (TimeoutError, ConnectionError):
            line = b""
        if not line:
            with suppress(ProcessLookupError):
                self.process.kill()
            status = await self.process.wait()
            raise StartFailed(f"the {self.kind} did not start (exit status {status}); its reason stands above")
        self.facts = msgspec.json.decode(line)

    async def keep_alive(self) -> None:
        """Restarts the process whenever it ends, until told to stop."""
        pause_s = RESTART_S_FIRST
        while True:
            assert self.process is not None
            status = await self.process.wait()
            if self.stopping:
                return
            log.error("the %s (process %d) ended with status %d; restarting it", self.kind, self.process.pid, status)
            if time.monotonic() - self._started_s > STEADY_S:
                pause_s = RESTART_S_FIRST
            await asyncio.sleep(pause_s)
            pause_s = min(RESTART_S_MAX, pause_s * 2)
            await self._restart()

    async def _restart(self) -> None:
        if not self.stopping:
            with suppress(StartFailed):  # it has said why; the next round tries again
                await self.start()

    async def stop(self, within_s: float) -> None:
        self.stopping = True
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self.process.wait()
        except TimeoutError:
            log.error("the %s did not stop within %.0f s and is killed", self.kind, within_s)
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def claim_port(host: str, port: int, what: str) -> tuple[int, socket.socket]:
    """Makes sure that nobody else listens, then holds the port for processes that share it. Raises StartFailed.

    The first bind is without SO_REUSEPORT: with it, a second Callmeter would silently get half of the first's calls.
    The held socket never listens, so no connection can be lost in it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)  # on Linux only listening conflicts with a listener that set SO_REUSEADDR as well
            port = alone.getsockname()[1]
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {host}:{port} for the {what} port: {error.strerror}; "
            "stop what uses it or choose another with --port / --admin-port"
        ) from None
    return port, held


__all__ = ["EXIT_SETTINGS", "Child", "StartFailed", "claim_port"]
