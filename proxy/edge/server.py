"""The data port: HTTP in, one handler, no routes. Health is answered here; everything else is the relay's."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable

from ..core.refusal import Refusal, answer
from .answers import AgentAnswer, WholeAnswer, json_answer, refusal_answer
from .flight import new_call_id
from .incoming import HEADER_LINE_BYTES_MAX, HEADERS_MAX, AgentConnection
from .relay import Relay
from .request import Request

KEEPALIVE_S = 75.0
"""An idle agent connection, or one whose request does not come to the end of its head. Longer than the pools of the
SDKs keep theirs, so that it is they who close."""
TAKE_S_MAX = 300.0
"""How long a connection waits for its agent to take what was written, whether it closes then or goes on."""
SWEEP_S = 5.0
"""How often the two limits above are looked at: one look for all connections, rather than a timer for each."""
DRAIN_LOOK_S = 0.05
CUT_S_MAX = 0.1
"""For calls that are cut to give up."""
BACKLOG = 4096
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
OWN_PATHS = frozenset({HEALTH_PATH, READY_PATH})
NOT_HTTP = (
    f"a line is malformed or longer than {HEADER_LINE_BYTES_MAX // 1024} KB, there are over {HEADERS_MAX} headers, "
    "the method or version is unknown, or the length of the body is told twice or wrongly; headers are written "
    "`name: value`, each in a line that ends with CR LF"
)

log = logging.getLogger("callmeter.edge")


class DataPort:
    """Listens with SO_REUSEPORT, so that several workers share the port; drains before it closes."""

    def __init__(self, relay: Relay, ready: Callable[[], list[str]]) -> None:
        self._relay = relay
        self._ready = ready
        self._listener: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.connections: set[AgentConnection] = set()

    async def open(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = await loop.create_server(
            lambda: AgentConnection(self._handle, loop, self.connections),
            host,
            port,
            family=family,
            backlog=BACKLOG,
            reuse_address=True,
            reuse_port=True,
        )
        self._sweeping = loop.create_task(self._sweep())

    def _handle(self, request: Request) -> Awaitable[AgentAnswer]:
        if request.wrong or request.raw_path in OWN_PATHS:
            return self._own(request)
        return self._relay.handle(request)

    async def _own(self, request: Request) -> AgentAnswer:
        if request.wrong:
            return self._not_http(request)
        if request.raw_path == HEALTH_PATH:
            return json_answer({"status": "ok"})
        missing = self._ready()
        return json_answer({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    def _not_http(self, request: Request) -> WholeAnswer:
        """What cannot be read as HTTP gets an answer of our own, and a line in the log that shows nothing of it: there
        may be a key in it."""
        now_ms = int(time.time() * 1000)
        log.info("what came from an agent could not be read as HTTP (%s)", request.wrong)
        refusal = Refusal(code="body_invalid", sentence=f"the request cannot be read as HTTP/1.1: {NOT_HTTP}")
        response = refusal_answer(answer(refusal, dialect="", call_id=new_call_id(now_ms), now_ms=now_ms))
        response.force_close()
        return response

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = loop.time()
            for connection in list(self.connections):
                if stuck_since_s := connection.closing_since_s or connection.full_since_s:
                    if now_s - stuck_since_s > TAKE_S_MAX:
                        connection.abort()
                elif connection.waiting and now_s - connection.since_s > KEEPALIVE_S:
                    connection.close()

    async def drain(self, within_s: float) -> None:
        """Takes no new connections, lets running calls end, then cuts those that are left."""
        if self._listener is not None:
            self._listener.close()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while True:
            # Busy connections close after their answer; told to close now, they would not hear the rest of an upload.
            # Looked at again and again: some may have waited to be accepted since before.
            for connection in list(self.connections):
                connection.ending = True
                if connection.idle:
                    connection.close()
            if not self._relay.running or loop.time() >= deadline_s:
                break
            await asyncio.sleep(DRAIN_LOOK_S)
        if self._relay.running:
            log.warning("calls that still run after %.0f s and are cut: %d", within_s, self._relay.running)
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            await asyncio.sleep(CUT_S_MAX)
        if self._sweeping is not None:
            self._sweeping.cancel()
