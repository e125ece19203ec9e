"""One HTTP/1.1 connection to a provider: writes a request, reads one answer at a time, keeps back-pressure.

An own client rather than a general one because it is on the path of every call and of every chunk: it parses with
llhttp (httptools), hands on the bytes as they are, never decompresses, redirects or retries, and can be left and
taken up again by another task, so that a call whose agent went away can be read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

import httptools

BUFFER_BYTES_MAX = 256 * 1024
"""Reading from the provider pauses above this, so that a slow agent never grows our memory."""
HEADERS_BYTES_MAX = 256 * 1024
"""All header lines of an answer together; far above what providers send, far below what would hurt."""


class UpstreamFailure(Exception):
    """The provider could not be reached or did not answer as HTTP. `sent` tells whether it may have seen the call.

    reason   connect_refused | connect_failed | connect_timeout | dns | tls | reset | first_byte_timeout |
             idle_timeout | bad_answer
    """

    def __init__(self, reason: str, sentence: str, *, sent: bool) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.sent = sent

    @property
    def is_timeout(self) -> bool:
        return self.reason.endswith("_timeout")


class Connection(asyncio.Protocol):
    """A socket with at most one answer under way. Events from the loop come in below, `Exchange` reads above."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.headers_complete = False
        self.complete = True
        self.failure: UpstreamFailure | None = None
        self.reusable = True
        self.idle_since_s = 0.0
        self.keep_alive_s: float | None = None
        self._head_only = False
        self._until_close = False
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline_s: float | None = None
        self._deadline_reason = ""
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)

    # -- above: what an exchange does ---------------------------------------------------------------------------

    def begin(self, parts: Iterable[bytes], *, head_only: bool) -> None:
        """Writes a request. The connection must be open and idle."""
        assert self.complete, "an answer is still under way"
        assert self.transport is not None
        self.status, self.headers, self.fields = 0, [], {}
        self.headers_complete = self.complete = False
        self._head_only, self._until_close, self._header_bytes = head_only, False, 0
        self.failure = None
        self.transport.writelines(list(parts))

    def limit(self, seconds: float, reason: str) -> None:
        """From now on, `seconds` may pass without progress; then the exchange fails with `reason`. Nothing is
        waited for once the answer has come whole."""
        if self.complete:
            return
        self._deadline_s = self.loop.time() + seconds
        self._deadline_reason = reason
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._check_deadline)
        elif self._timer.when() > self._deadline_s:
            self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self._check_deadline)

    async def wait(self) -> None:
        """Until something new is there: headers, bytes, the end or a failure. May be cancelled and waited again."""
        assert self._waiter is None, "only one task at a time reads an answer"
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """All bytes of the body that have arrived and were not taken yet."""
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered_bytes = 0
        if self._paused:
            self._paused = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()
        return data

    def rest(self) -> None:
        """The answer is at its end and the connection goes back to its pool."""
        self._deadline_s = None
        self.idle_since_s = self.loop.time()

    def abort(self) -> None:
        """Closes at once; also what tells a provider that nobody wants the rest of a stream."""
        self.reusable = False
        self._deadline_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abort()

    @property
    def open(self) -> bool:
        return self.reusable and self.transport is not None and not self.transport.is_closing()

    # -- below: what the loop and the parser say ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nobody asked: a late answer or an error page of the server; the connection is spoilt
            self.abort()
            return
        if not self.headers_complete:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._header_bytes > HEADERS_BYTES_MAX and not self.headers_complete:
                self._fail("bad_answer", "the headers of the provider's answer have no end")
        except httptools.HttpParserError as error:
            self._fail("bad_answer", f"the provider's answer is not HTTP: {error}")
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if not self.complete and self.failure is None:
            if self._until_close and error is None:
                self.complete = True
            else:
                where = "in mid-answer" if self.headers_complete else "before it answered"
                self._fail("reset", f"the provider closed the connection {where}")
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headers_complete:  # else it is a trailer, which nobody reads
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            return
        self.headers_complete = True
        if self._header_bytes > HEADERS_BYTES_MAX:  # what came of the body may be counted in it
            if sum([len(name) + len(value) for name, value in self.headers]) > HEADERS_BYTES_MAX:
                raise ValueError("headers too large")
        # Of a header that comes twice the first counts.
        fields = self.fields = {name.lower(): value for name, value in reversed(self.headers)}
        if b"keep-alive" in fields:
            self.keep_alive_s = keep_alive_timeout(fields[b"keep-alive"].decode("latin-1"))
        framed = b"content-length" in fields or b"transfer-encoding" in fields
        self._until_close = not framed and self.status not in (204, 304)
        if not self._parser.should_keep_alive():
            self.reusable = False
        if self._head_only:
            self.reusable = False  # llhttp would take the next answer for the body that a HEAD has not
            self.complete = True

    def on_body(self, body: bytes) -> None:
        if self.complete:
            return
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > BUFFER_BYTES_MAX and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if 100 <= self.status < 200:  # an interim answer; the real one follows
            self.headers = []
            return
        self.complete = True

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline_s is None or self.complete or self.failure is not None:
            return
        left_s = self._deadline_s - self.loop.time()
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._check_deadline)
        elif self._paused or self._chunks:  # it is the agent that is slow, not the provider
            self.limit(1.0, self._deadline_reason)
        else:
            sentence = "the provider did not answer in time"
            if self.headers_complete:
                sentence = "the provider fell silent in mid-answer"
            self._fail(self._deadline_reason, sentence)
            self._wake()

    def _fail(self, reason: str, sentence: str) -> None:
        self.failure = UpstreamFailure(reason, sentence, sent=True)
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def keep_alive_timeout(value: str) -> float | None:
    """The seconds of a `Keep-Alive: timeout=5, max=100` header."""
    for part in value.split(","):
        name, _, number = part.strip().partition("=")
        if name.lower() == "timeout" and number.isascii() and number.isdigit():
            return float(number)
    return None
