"""The data port: HTTP in, one handler, no routes. Health is answered here; everything else is the relay's."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..core.refusal import Refusal, answer
from .answers import refusal_answer
from .flight import new_call_id
from .own_pages import json_response
from .relay import Relay

HEADER_LINE_BYTES_MAX = 16 * 1024
"""A request line or header. Agents send turn metadata and baggage in headers; 8 KB was seen."""
HEADERS_MAX = 200
KEEPALIVE_S = 75.0
"""An idle agent connection. Longer than the pools of the SDKs keep theirs, so that it is they who close."""
LINGER_S = 2.0
"""How long the rest of a refused upload is read, so that the agent can read our answer before a reset."""
BACKLOG = 4096
NOT_HTTP = (
    f"a line is malformed or longer than {HEADER_LINE_BYTES_MAX // 1024} KB, or there are more than {HEADERS_MAX} "
    "headers; they are written `name: value`, each in a line that ends with CR LF"
)

log = logging.getLogger("callmeter.edge")


class Connection(web.RequestHandler):
    """An agent's connection. What cannot be read as HTTP gets an answer of our own, and a line in the log that shows
    nothing of it: there may be a key in it."""

    __slots__ = ()

    @property
    def idle(self) -> bool:
        """It waits for a request of which nothing has come yet."""
        return self._waiter is not None and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the agent went away while it was answered: nothing to tell anybody, and no fault to log
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        now_ms = int(time.time() * 1000)
        log.info("what came from %s could not be read as HTTP (%s)", request.remote, type(exc).__name__)
        refusal = Refusal(code="body_invalid", sentence=f"the request cannot be read as HTTP/1.1: {NOT_HTTP}")
        response = refusal_answer(answer(refusal, dialect="", call_id=new_call_id(now_ms), now_ms=now_ms))
        response.force_close()
        return response


class Server(web.Server):
    """aiohttp's server, with our own kind of connection."""

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class DataPort:
    """Listens with SO_REUSEPORT, so that several workers share the port; drains before it closes."""

    def __init__(self, relay: Relay, ready: Callable[[], list[str]]) -> None:
        self._relay = relay
        self._ready = ready
        self._draining = False
        # handler_cancellation: a call whose agent goes away is cancelled at once, in whatever step it is, and the
        # relay decides there whether to cancel at the provider or to read on.
        self._server = Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,  # bodies go on as they came; the relay unpacks a copy to read
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        self._listener: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = await loop.create_server(
            self._server, host, port, family=family, backlog=BACKLOG, reuse_address=True, reuse_port=True
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        if path == "/healthz":
            return json_response({"status": "ok"})
        if path == "/readyz":
            missing = self._ready()
            return json_response({"ready": not missing, "missing": missing}, status=503 if missing else 200)
        response = await self._relay.handle(request)
        if self._draining:
            response.force_close()
        return response

    async def drain(self, within_s: float) -> None:
        """Takes no new connections, lets running calls end, then cuts those that are left."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        # Busy connections close after their answer; told to close now, they would not hear the rest of an upload.
        for connection in self._server.connections:
            if isinstance(connection, Connection) and connection.idle:
                connection.force_close()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while self._relay.running and loop.time() < deadline_s:
            await asyncio.sleep(0.05)
        if self._relay.running:
            log.warning("%d calls still run after %.0f s and are cut", self._relay.running, within_s)
        await self._server.shutdown(timeout=0.1)
