"""Supervisor: `callmeter serve`. Starts the embedded server, the workers and the bookkeeper, restarts what dies, and
drains on SIGTERM. Serves nothing itself, so that it has no reason to die."""

from __future__ import annotations

import asyncio
import errno
import getpass
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from .child import EXIT_SETTINGS, encode_settings
from .core.caller import KeyInfo
from .core.keys import make_key, new_key_id
from .desk import PolicyDesk
from .policy_watch import PolicyFaulty
from .settings import Settings, make_private
from .store.client import Client
from .store.embedded import EmbeddedFailed, EmbeddedServer
from .store.errors import StoreError, StoreRefused
from .store.identity import claim

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


class Announcement(msgspec.Struct, frozen=True):
    """What a person is told who started it: where it serves, the first key, if one was made, and the upstreams that
    have no provider key of their own."""

    settings: Settings
    first_key: str | None
    keyless: list[str]


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
        """Restarts the process whenever it ends, until told to stop. Raises StartFailed where it says that it cannot
        run with these settings: then nothing can, and trying again would not help."""
        pause_s = RESTART_S_FIRST
        while True:
            assert self.process is not None
            status = await self.process.wait()
            if self.stopping:
                return
            if status == EXIT_SETTINGS:
                raise StartFailed(f"the {self.kind} cannot go on with these settings; its reason stands above")
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
        advice = "stop what uses it or choose another with --port / --admin-port"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            advice = "name an address of this machine with --host / --admin-host"
        raise StartFailed(f"cannot listen on {host}:{port} for the {what} port: {error.strerror}; {advice}") from None
    return port, held


def are_one(held: socket.socket, other: socket.socket) -> bool:
    """Whether two claimed ports would share their connections, since both were claimed for several listeners."""
    (host, port, *_), (other_host, other_port, *_) = held.getsockname(), other.getsockname()
    return port == other_port and (host == other_host or not {host, other_host}.isdisjoint(("0.0.0.0", "::")))


class Supervisor:
    """All processes of one `callmeter serve`. `run` returns when it was told to stop and everything has stopped."""

    def __init__(self, settings: Settings, announce: Callable[[Announcement], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._embedded: EmbeddedServer | None = None
        self._workers: list[Child] = []
        self._bookkeeper: Child | None = None
        self._held: list[socket.socket] = []

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartFailed where it could not begin, or where a child found that it
        must not go on."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        watches: list[asyncio.Task[None]] = []
        try:
            self._announce(await self._start(watches))
            children = [*self._workers, *([self._bookkeeper] if self._bookkeeper else [])]
            watches += [asyncio.create_task(child.keep_alive()) for child in children]
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([stopping, *watches], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for watch in watches:
                if watch.done():
                    watch.result()
        finally:
            await self._stop()
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            if self._embedded is not None:
                await self._embedded.close()
            for held in self._held:
                held.close()

    async def _start(self, watches: list[asyncio.Task[None]]) -> Announcement:
        """Everything that can be wrong is found before the first process starts."""
        settings = self._settings
        self._claim_ports()
        settings = self._settings
        if open_to_others := make_private(settings.data):
            log.warning("%s", open_to_others)
        try:
            # Finds every fault of the policy files at once, and makes the price book once for all.
            desk = PolicyDesk(settings, beginning=True)
        except PolicyFaulty as faulty:
            faults = "\n".join(str(fault) for fault in faulty.faults)
            raise StartFailed(f"{faults}\nthe policy files have faults; mend them and start again") from None
        if settings.redis_url is None:
            self._embedded = EmbeddedServer(settings.data)
            try:
                await self._embedded.open()
            except EmbeddedFailed as failed:
                self._embedded = None
                raise StartFailed(str(failed)) from None
            watches.append(asyncio.create_task(self._embedded.watch()))
            settings = self._settings = msgspec.structs.replace(settings, redis_url=self._embedded.url)
        first_key, ledger_id = await asyncio.to_thread(prepare_ledger, settings)
        settings = self._settings = msgspec.structs.replace(settings, ledger_id=ledger_id or "")
        await self._check_store(ledger_id)
        if settings.only != "workers":
            self._bookkeeper = Child("bookkeeper", settings)
        if settings.only != "bookkeeper":
            self._workers = [Child("worker", settings) for _ in range(settings.workers)]
        await asyncio.gather(*(child.start() for child in (self._bookkeeper, *self._workers) if child is not None))
        keyless = [name for name, upstream in sorted(desk.policy.upstreams.items()) if not upstream.key]
        return Announcement(self._settings, first_key, keyless)

    def _claim_ports(self) -> None:
        settings, changes = self._settings, {}
        if settings.only != "bookkeeper":
            changes["port"], held = claim_port(settings.host, settings.port, "data")
            self._held.append(held)
        if settings.only != "workers":
            changes["admin_port"], held = claim_port(settings.admin_host, settings.admin_port, "admin")
            self._held.append(held)
        if len(self._held) == 2 and are_one(*self._held):
            both = changes["port"]
            raise StartFailed(f"the data port and the admin port are both {both}; give them different ones")
        self._settings = msgspec.structs.replace(settings, **changes)

    async def _check_store(self, ledger_id: str | None) -> None:
        """The store must take us and be ours. One that is away is waited for while serving."""
        client = Client(self._settings.redis_url or "")
        try:
            await client.open()
            if ledger_id is not None:
                await claim(client, ledger_id=ledger_id, secrets=self._settings.secrets)
        except StoreRefused as refused:
            raise StartFailed(str(refused)) from None
        except StoreError as away:
            log.warning("%s", away)
        finally:
            await client.close()

    async def _stop(self) -> None:
        """Workers first: they settle what runs. Then the bookkeeper, which takes it into the ledger."""
        drain_s = self._settings.drain_s + STOP_S_GRACE
        await asyncio.gather(*(worker.stop(drain_s) for worker in self._workers))
        if self._bookkeeper is not None:
            await self._bookkeeper.stop(STOP_S_GRACE)


def prepare_ledger(settings: Settings) -> tuple[str | None, str | None]:
    """Makes the tables, and for a ledger without any key the key of this machine's user. Gives that key, or None, and
    the ledger's id, or None where its database is away. Raises StartFailed for a ledger that must not be used."""
    # Here, since SQLAlchemy takes longer to import than all faults of settings and policies to find.
    from .ledger.database import open_ledger
    from .ledger.errors import LedgerRefused, LedgerUnavailable

    try:
        ledger = open_ledger(settings.ledger_url)
    except LedgerRefused as refused:
        raise StartFailed(str(refused)) from None
    except LedgerUnavailable as away:
        log.warning("%s; calls are refused until it is there, since their keys cannot be looked up", away)
        return None, None
    try:
        if ledger.keys.list():
            return None, ledger.id
        key_id = new_key_id(os.urandom(16))
        ledger.keys.create(KeyInfo(key_id=key_id, user=machine_user(), created_at_ms=int(time.time() * 1000)))
        return make_key(settings.secrets[0], key_id), ledger.id
    finally:
        ledger.close()


def machine_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "admin"
