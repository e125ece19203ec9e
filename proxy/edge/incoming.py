"""One HTTP/1.1 connection of an agent: reads one request after the other, has each answered, keeps back-pressure.

An own server rather than a general one for the same reason as the client in `http1.py`, whose other half it is: it is
on the path of every call and of every piece of a stream. It parses with llhttp (httptools), keeps headers as the bytes
that came, and has one task answer its requests, which is cancelled when its agent goes away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httptools

from .heads import Head, head_of
from .request import Request

HEADER_LINE_BYTES_MAX = 16 * 1024
"""A request line or header. Agents send turn metadata and baggage in headers; 8 KB was seen."""
HEADERS_MAX = 200
HEAD_BYTES_MAX = 1024 * 1024
"""A head that has not come to its end by then never will; with what came in one piece with its beginning. Likewise what
stands around the chunks of a body, and its trailers: the parser gathers those, however long they are."""
HEADS_IN_VAIN_MAX = 3
"""Of an agent whose head is another with every call none is kept any more: to keep one costs more than to parse it."""
LINGER_S = 2.0
"""How long the rest of a refused upload is read, so that the agent can read our answer before a reset."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_CODING = b"transfer-encoding"
_CODING_BYTES = len(_CODING)

log = logging.getLogger("callmeter.edge")


class Answering(Protocol):
    """An answer that knows how to leave. `prepare` writes its head, once; `write_eof` ends it."""

    @property
    def keep_alive(self) -> bool:
        """The connection may serve another request."""

    @property
    def ended(self) -> bool:
        """All of it was written."""

    def force_close(self) -> None: ...

    async def prepare(self, request: Request) -> None: ...

    async def write_eof(self) -> None: ...


Handler = Callable[[Request], Awaitable[Answering]]
"""Answers requests, and tells of what is no request (`wrong`) that it is none."""


class AgentConnection(asyncio.Protocol):
    """A socket with one request answered at a time; those that are sent ahead wait, and so does the reading."""

    def __init__(self, handle: Handler, loop: asyncio.AbstractEventLoop, open_ones: set[AgentConnection]) -> None:
        self.transport: asyncio.Transport | None = None
        self.since_s = loop.time()
        """Since when it waits for a request to be whole up to the end of its head."""
        self.closing_since_s = 0.0
        """Since when it is to close once what was written is taken; 0 while it is not."""
        self.full_since_s = 0.0
        """Since when its agent does not take what is written; 0 while it does."""
        self.ending = False
        """It is to close behind its next answer."""
        self._handle = handle
        self._loop = loop
        self._open_ones = open_ones
        self._task: asyncio.Task[None] | None = None
        self._answering: Request | None = None
        self._waiting: deque[Request] = deque()
        self._asked: asyncio.Future[None] | None = None
        """What the task waits for while it has nothing to answer."""
        self._receiving: Request | None = None
        self._upgrading: Request | None = None
        self._going_on: Request | None = None
        self._in_head = False
        self._in_vain = False
        """What came last was neither a head nor of a body."""
        self._head_bytes = 0
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._ended: Request | None = None
        """The last request that ended in the piece that is read."""
        self._head: Head | None = None
        """How the next request may begin."""
        self._heads_in_vain = 0
        """Requests in a row that began otherwise than the one before."""
        self._unreadable = False
        self._lingering = False
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._parser = httptools.HttpRequestParser(self)

    # -- above: what requests and the server do -------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """It waits for a request of which nothing has come yet."""
        return self._answering is None and not self._in_head

    @property
    def waiting(self) -> bool:
        """No request is answered, and none is whole up to the end of its head."""
        return self._answering is None and not self.closing_since_s

    @property
    def gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def read_on(self) -> None:
        """Reads from the agent again, unless something still says not to."""
        over = self._receiving is not None and self._receiving.body.over
        if self._paused and not over and not self._waiting and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    async def drain(self) -> None:
        while self.full_since_s:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await self._drained
        if self.transport is None:
            raise ConnectionResetError("the agent is gone")

    def close(self) -> None:
        """Closes once what was written is taken."""
        if self.transport is not None and not self.closing_since_s:
            self.closing_since_s = self._loop.time()
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def end(self) -> None:
        """Cuts the request that is answered; else closes."""
        if self._answering is not None and self._task is not None:
            self._task.cancel()
            self.abort()
        else:
            self.close()

    # -- the walk of a request --------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._answering = request
        if self._task is None:
            self._task = self._loop.create_task(self._serve())
        elif self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    async def _serve(self) -> None:
        """Answers one request after the other, for as long as the connection serves."""
        try:
            while self._answering is not None and await self._answer(self._answering):
                if self._waiting:
                    self._answering = self._waiting.popleft()
                    self.read_on()
                    await asyncio.sleep(0)  # an agent that sends thousands ahead is one of many
                else:
                    self._answering, self.since_s = None, self._loop.time()
                    self._asked = self._loop.create_future()
                    await self._asked
        except asyncio.CancelledError:
            self.abort()
        finally:
            self._answering = self._task = None

    async def _answer(self, request: Request) -> bool:
        """Whether the connection may serve another request."""
        response: Answering | None = None
        try:
            response = await self._handle(request)
            if self.ending:
                response.force_close()
            if not response.ended:
                await response.prepare(request)
                await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.abort()
        except Exception:
            log.exception("an answer could not be written")
            self.abort()
        if self.gone:
            return False
        if not request.body.complete or request.wrong:
            self._linger(request)
            return False
        if response is None or not response.keep_alive:
            self.close()
            return False
        return True

    def _linger(self, request: Request) -> None:
        """Says that nothing more comes, and reads over the rest, without which a reset would overtake our answer."""
        self._lingering = True
        self._waiting.clear()
        request.body.drop()
        if self.transport is not None:
            self.transport.write_eof()
        self._loop.call_later(LINGER_S, self.close)

    # -- below: what the loop and the parser say ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        if self._unreadable:
            return
        between = not self._in_head and self._receiving is None and not self._lingering
        if not between or not self._take_known(data):
            self._parse(data)
            request, self._ended = self._ended, None
            if between and request is not None and self._heads_in_vain < HEADS_IN_VAIN_MAX:
                self._heads_in_vain += self._head is not None
                request.head = self._head = head_of(data, request)
        receiving = self._receiving
        if not self._paused and (self._waiting or (receiving is not None and receiving.body.over)):
            if self.transport is not None and not self.transport.is_closing():
                self._paused = True
                self.transport.pause_reading()

    def _take_known(self, data: bytes) -> bool:
        """Whether it is a whole request that begins as one did before. It stands behind those that wait, as one that
        the parser made would."""
        head = self._head
        if head is None or (found := head.body(data)) is None:
            return False
        self._heads_in_vain = 0
        length, body = found
        before, after = head.headers
        request = Request(self, head.method, head.path, (*before, (head.length_name, length), *after))
        request.head = head
        request.body.add(body)
        request.body.complete = True
        self._take(request)
        return True

    def _parse(self, data: bytes) -> None:
        # At least as many as of the head that is read: another request may have ended in the same piece.
        self._head_bytes = self._head_bytes + len(data) if self._in_head or self._in_vain else len(data)
        receiving = self._receiving
        had_bytes = receiving.body.size if receiving is not None else 0
        try:
            while True:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = data[upgrade.args[0] :]
                    self._stay()
        except httptools.HttpParserError as error:
            self._cannot_read(type(error.__context__ or error).__name__)
        self._in_vain = receiving is not None and receiving is self._receiving and receiving.body.size == had_bytes
        if (self._in_head or self._in_vain) and self._head_bytes > HEAD_BYTES_MAX:
            self._cannot_read("LineTooLong")

    def _stay(self) -> None:
        """An agent offers to go over to another protocol, as Java's does to HTTP/2. We do not, and its request goes on
        as it is. The parser has left out its body: another one is begun in the midst of the request."""
        self._parser = httptools.HttpRequestParser(self)
        request, self._upgrading = self._upgrading, None
        if request is not None:
            self._going_on = request
            framing = [b"%b: %b\r\n" % pair for pair in request.raw_headers if pair[0].lower() in _FRAMING]
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))

    def _cannot_read(self, what: str) -> None:
        """Nothing more is read. In the midst of a body it is the reader of that who is told, else the agent is, after
        the answers to what came before."""
        self._unreadable, self._in_head = True, False
        if self._receiving is not None:
            self._receiving.body.failure = "its chunks are malformed"
            self._receiving.body.wake()
            return
        request = Request(self)
        request.wrong, request.keep_alive, request.body.complete = what, False, True
        self._take(request)

    def _take(self, request: Request) -> None:
        if self._lingering or self.closing_since_s:
            request.body.drop()
        elif self._answering is None:
            self._begin(request)
        else:
            self._waiting.append(request)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self.transport = None
        self.full_since_s = 0.0
        self._waiting.clear()
        # Each knows the other: left so, both and the last headers would stay until the collector comes by, which
        # looks seldom at what is old.
        self._unreadable = True
        del self._parser
        self._receiving = self._upgrading = self._going_on = self._head = None
        # Likewise an error that was raised in a task keeps the frames that it passed: one that has nothing to do is
        # woken instead, and ends by itself.
        if self._answering is not None and self._task is not None:
            self._task.cancel()
        elif self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self.full_since_s = self._loop.time()

    def resume_writing(self) -> None:
        self.full_since_s = 0.0
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def on_message_begin(self) -> None:
        self._in_head = self._going_on is None
        self._path = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._path += url
        if len(self._path) > HEADER_LINE_BYTES_MAX:
            raise ValueError("the request line is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer: nobody reads it, and it does not go on
            self._headers.append((name, value))
            if len(self._headers) > HEADERS_MAX:
                raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        if self._going_on is not None:
            self._receiving, self._going_on = self._going_on, None
            return
        codings = [value.lower() for name, value in headers if len(name) == _CODING_BYTES and name.lower() == _CODING]
        if set(codings) - {b"chunked"}:
            raise ValueError("a body that is packed for its way alone")  # none but chunks would be undone
        if self._head_bytes > HEADER_LINE_BYTES_MAX:  # of a shorter head no line is longer
            if max([len(name) + len(value) for name, value in headers], default=0) > HEADER_LINE_BYTES_MAX:
                raise ValueError("a header is too long")
        path = self._path.decode("utf-8", "surrogateescape")
        request = Request(self, parser.get_method().decode(), path, tuple(headers))
        if parser.get_http_version() != "1.1":
            request.version = (1, 0)
        request.keep_alive = parser.should_keep_alive()
        self._in_head = False
        self._receiving = request
        if parser.should_upgrade():
            self._upgrading = request
        self._take(request)

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.body.add(data)

    def on_message_complete(self) -> None:
        if self._upgrading is not None:
            return  # that was its head alone
        request, self._receiving = self._receiving, None
        self._ended = request
        if request is not None:
            request.body.complete = True
            request.body.wake()
        if self._lingering:
            self.close()
