"""Answers to the agent: the provider's headers as they came, ours beside them, our refusals and our own pages.

A provider's headers are never decoded: they leave with the bytes with which they came.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec

from ..core.identity import HOP_BY_HOP, OWN_PREFIX
from ..core.money import decimal_usd
from ..core.record import Record
from ..core.refusal import Answer
from .request import Request

NOT_PASSED_ON = HOP_BY_HOP | {"alt-svc", "content-length"}
"""`alt-svc` speaks of the provider's own ports and would send agents past us; the length is set with the framing."""
HEADER_ORDERS_REMEMBERED = 64
"""A provider sends a handful of different sets of headers; one that sends others each time fills 16 MB at most."""
STATUS_LINES_REMEMBERED = 256
ACCEPTED_REMEMBERED = 256
"""Clients differ little in what they accept; most of them say one of a dozen things."""
UNFLUSHED_BYTES_MAX = 64 * 1024
"""After so many bytes of a stream it is asked whether the agent still takes them."""

_CR, _LF = b"\r\n"

Fields = list[tuple[bytes, bytes]]
"""Header lines in their order, names as sent."""


class _Answer:
    """What both kinds of answer share: their head, and whether their connection may go on."""

    def __init__(self, *, status: int = 200, fields: Fields) -> None:
        self.status = status
        self.fields = fields
        self._keep_alive: bool | None = None
        self._ended = False

    @property
    def keep_alive(self) -> bool:
        """The connection may serve another request. Known once the head is out."""
        return bool(self._keep_alive)

    @property
    def ended(self) -> bool:
        """All of it was written."""
        return self._ended

    def force_close(self) -> None:
        """The connection closes behind this answer."""
        self._keep_alive = False

    def _head(self, request: Request, framing: bytes) -> bytes:
        """The status line and headers as they leave. `framing` is a line that tells where the body ends, or nothing.
        Raises ValueError for a header that would begin another."""
        version = request.version
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        lines = [_status_line(version[0], version[1], self.status)]
        lines += map(b": ".join, self.fields)
        if framing:
            lines.append(framing)
        if self._keep_alive:
            if version < (1, 1):
                lines.append(b"connection: keep-alive")
        elif version >= (1, 1):
            lines.append(b"connection: close")
        # Searched for in all lines at once, which costs next to nothing; to look at each byte cost more than all else
        # about a head. Other control characters come through neither the parser of answers nor `header_text`.
        told = b"".join(lines)
        if _CR in told or _LF in told or 0 in told:
            raise ValueError("a header of the answer holds a control character")
        lines += (b"", b"")
        return b"\r\n".join(lines)


class WholeAnswer(_Answer):
    """An answer whose body is all there: it leaves in one write. `length` is that of a body which is left out."""

    def __init__(self, *, status: int = 200, fields: Fields, body: bytes, length: int | None = None) -> None:
        super().__init__(status=status, fields=fields)
        self.body = body
        self._length_left_out = length

    async def prepare(self, request: Request) -> None:
        """Writes it all, once. Raises ConnectionError where the agent is gone."""
        if self._ended:
            return
        self._ended = True
        body = self.body
        if not _without_body(request.method, self.status):
            framing = b"content-length: %d" % len(body)
        else:
            length = None if _without_length(self.status) else self._length_left_out
            framing = b"" if length is None else b"content-length: %d" % length
            body = b""
        request.write(self._head(request, framing) + body)
        await request.drain()

    async def write_eof(self) -> None:
        """Nothing is left to be written."""


class StreamedAnswer(_Answer):
    """An answer whose body comes piece by piece; its head leaves at once. `length` is that of the body where it is
    known; else it comes in chunks, and to a client of HTTP/1.0 it ends with its connection."""

    def __init__(self, *, status: int = 200, fields: Fields, length: int | None = None) -> None:
        super().__init__(status=status, fields=fields)
        self._bytes_left = length
        self._in_chunks = False
        self._without_body = False
        self._unflushed_bytes = 0
        self._request: Request | None = None

    async def prepare(self, request: Request) -> None:
        """Writes the head, once. Raises ConnectionError where the agent is gone."""
        if self._request is not None:
            return
        self._request = request
        self._without_body = _without_body(request.method, self.status)
        framing = b""
        if self._bytes_left is not None and not _without_length(self.status):
            framing = b"content-length: %d" % self._bytes_left
        elif not self._without_body:
            self._in_chunks = request.version >= (1, 1)
            if self._in_chunks:
                framing = b"transfer-encoding: chunked"
            else:
                self.force_close()
        request.write(self._head(request, framing))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes a piece of the body; waits while the agent takes none. Raises ConnectionError where it is gone."""
        request = self._request
        assert request is not None, "the answer has no head yet"
        if self._bytes_left is not None:
            data = data[: self._bytes_left]
            self._bytes_left -= len(data)
        if not data or self._without_body:
            return
        request.write(b"".join((b"%x\r\n" % len(data), data, b"\r\n")) if self._in_chunks else data)
        self._unflushed_bytes += len(data)
        if self._unflushed_bytes > UNFLUSHED_BYTES_MAX:
            self._unflushed_bytes = 0
            await request.drain()

    async def write_eof(self) -> None:
        """Ends the body. Raises ConnectionError where the agent is gone."""
        if self._ended:
            return
        request = self._request
        assert request is not None, "the answer has no head yet"
        self._ended = True
        if self._in_chunks:
            request.write(b"0\r\n\r\n")
        elif self._bytes_left and not self._without_body:
            self.force_close()  # less than was announced: only the end of the connection can say so
        await request.drain()


AgentAnswer = WholeAnswer | StreamedAnswer


def _without_body(method: str, status: int) -> bool:
    """RFC 9112, 6.3."""
    return method == "HEAD" or status in (204, 304) or 100 <= status < 200


def _without_length(status: int) -> bool:
    """RFC 9110, 8.6."""
    return status == 204 or 100 <= status < 200


def json_answer(shown: Any, status: int = 200, kind: bytes = b"application/json") -> WholeAnswer:
    """A page of our own."""
    fields = [(b"content-type", kind), (b"date", _date())]
    return WholeAnswer(status=status, fields=fields, body=msgspec.json.encode(shown))


def _date() -> bytes:
    return _date_of(int(time.time()))


@lru_cache(maxsize=2)
def _date_of(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()


@lru_cache(maxsize=STATUS_LINES_REMEMBERED)
def _status_line(major: int, minor: int, status: int) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    return b"HTTP/%d.%d %d %s" % (major, minor, status, reason.encode())


def passed_on(headers: Fields, record: Record, limits: list[tuple[str, str]]) -> Fields:
    """The provider's headers as the agent shall see them, and ours; none that tells where the body ends.

    The date is added where it is missing: RFC 9110 (6.6.1) asks that of proxies too."""
    order = _order_of(tuple([name for name, _ in headers]))
    fields = [headers[place] for place in (order.beside_ours if limits else order.passed)]
    if order.connection:
        named = {
            part.strip().lower()
            for place in order.connection
            for part in headers[place][1].decode("latin-1").split(",")
        }
        if not named <= NOT_PASSED_ON:
            fields = [pair for pair in fields if pair[0].decode("latin-1").lower() not in named]
    if not order.dated:
        fields.append((b"date", _date()))
    fields.append((b"x-callmeter-call", record.call_id.encode()))
    add_own(fields, record, limits)
    return fields


class _Order(msgspec.Struct, frozen=True):
    """What becomes of a provider's headers, by their places: they pass; pass also beside limits of ours, which take the
    place of theirs, since it is ours that will refuse; or name others that are not to go on (`Connection`)."""

    passed: tuple[int, ...]
    beside_ours: tuple[int, ...]
    connection: tuple[int, ...]
    dated: bool


@lru_cache(maxsize=HEADER_ORDERS_REMEMBERED)
def _order_of(names: tuple[bytes, ...]) -> _Order:
    """Remembered, since a provider's answers have the same headers in the same order."""
    lowered = [name.decode("latin-1").lower() for name in names]
    passed, beside_ours, connection = [], [], []
    for place, name in enumerate(lowered):
        if name == "connection":
            connection.append(place)
        elif name not in NOT_PASSED_ON and not name.startswith(OWN_PREFIX):
            passed.append(place)
            if name not in ("ratelimit", "ratelimit-policy"):
                beside_ours.append(place)
    return _Order(tuple(passed), tuple(beside_ours), tuple(connection), "date" in lowered)


def add_own(fields: Fields, record: Record, limits: list[tuple[str, str]]) -> None:
    """What was decided about a call, as every answer to a known caller tells it. A refusal names its call itself."""
    if record.degraded:
        fields.append((b"x-callmeter-degraded", b"store"))
    for warning in record.warnings:
        fields.append((b"x-callmeter-warning", warning.encode("utf-8", "surrogateescape")))
    for name, value in limits:
        fields.append((name.encode(), value.encode("utf-8", "surrogateescape")))


def cost_header(record: Record) -> bytes | None:
    """The cost in dollars, or None where it is not known: known zero and unknown must differ."""
    return None if record.cost_nusd is None else decimal_usd(record.cost_nusd).encode()


def refusal_answer(answer: Answer) -> WholeAnswer:
    fields: Fields = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in answer.headers]
    fields.append((b"date", _date()))
    return WholeAnswer(status=answer.status, fields=fields, body=answer.body)


@lru_cache(maxsize=ACCEPTED_REMEMBERED)
def wanted_encodings(accepted: str, readable: frozenset[str]) -> str:
    """What to accept from the provider: what the agent takes and the meter reads, in the agent's own words.

    An agent that sends no accept-encoding gets identity: some send none because they cannot unpack.
    """
    chosen = [
        part.strip()
        for part in accepted.split(",")
        if part.partition(";")[0].strip().lower() in readable | {"identity"}
    ]
    return ", ".join(chosen) or "identity"
