"""Answers to the agent: the provider's headers as they came, ours beside them, and our refusals."""

from __future__ import annotations

import re
from functools import lru_cache

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import must_be_empty_body, rfc822_formatted_time, should_remove_content_length
from aiohttp.http_writer import HttpVersion11, StreamWriter
from multidict import CIMultiDict

from ..core.identity import HOP_BY_HOP, OWN_PREFIX
from ..core.money import decimal_usd
from ..core.record import Record
from ..core.refusal import Answer

NOT_PASSED_ON = HOP_BY_HOP | {"alt-svc"}  # which speaks of the provider's own ports and would send agents past us
HEADER_NAMES_REMEMBERED = 1024
"""All providers together send a few hundred different names."""
ACCEPTED_REMEMBERED = 256
"""Clients differ little in what they accept; most of them say one of a dozen things."""

_NEVER_ADDED = ("server", "content-type", "date", "connection")
"""What aiohttp says of an answer that says nothing of it, beside what `head_of` adds."""
_NEVER_IN_A_HEADER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Besides the line feed, which is looked for apart."""


def head_of(response: web.StreamResponse, request: web.BaseRequest) -> bytes:
    """The status line and headers of an answer as they leave, with the very bytes with which they came.

    Written here and not by aiohttp, which adds headers of its own, knows values in UTF-8 alone (bytes that are none
    come here as lone surrogates) and takes five times as long. Only the date is added where it is missing: RFC 9110
    (6.6.1) asks that of proxies too. Raises ValueError for a header that would begin another.
    """
    headers, version = response.headers, request.version
    lines = [f"HTTP/{version[0]}.{version[1]} {response.status} {response.reason}"]
    lines.extend([f"{name}: {value}" for name, value in headers.items()])
    if "date" not in headers:
        lines.append(f"date: {rfc822_formatted_time()}")
    if response.keep_alive:
        if version < HttpVersion11:
            lines.append("connection: keep-alive")
    elif version >= HttpVersion11:
        lines.append("connection: close")
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1 or _NEVER_IN_A_HEADER.search(text):
        raise ValueError("a header of the answer holds a control character")
    return (text.replace("\n", "\r\n") + "\r\n\r\n").encode("utf-8", "surrogateescape")


class WholeAnswer(web.StreamResponse):
    """An answer whose body is all there: it leaves in one write. A `content-length` among the headers tells the length
    of what a HEAD leaves out; any other is worked out."""

    def __init__(self, *, status: int = 200, headers: CIMultiDict[str], body: bytes) -> None:
        super().__init__(status=status, _real_headers=headers)
        self.body = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes it all. Raises ConnectionError where the agent is gone."""
        if self._eof_sent:
            return None
        self._eof_sent = True
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        body = self.body
        if must_be_empty_body(request.method, self.status):
            body = b""
            if should_remove_content_length(request.method, self.status):
                self.headers.popall("content-length", None)
        else:
            self.headers["content-length"] = str(len(body))
        head = head_of(self, request)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the agent is gone")
        transport.write(head + body)
        await request.writer.drain()
        return None


class StreamedAnswer(web.StreamResponse):
    """An answer whose body comes piece by piece; its head leaves at once."""

    async def _prepare_headers(self) -> None:
        absent = [name for name in _NEVER_ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in absent:
            self.headers.popall(name, None)
        request = self._req
        if request is not None and request.version < HttpVersion11 and "content-length" not in self.headers:
            self.force_close()  # there the end of the connection is the end of the answer

    async def _write_headers(self) -> None:
        writer, request = self._payload_writer, self._req
        assert request is not None
        assert isinstance(writer, StreamWriter)
        writer._headers_written = False
        writer._headers_buf = head_of(self, request)
        writer.send_headers()


def passed_on(headers: list[tuple[str, str]], record: Record, limits: list[tuple[str, str]]) -> CIMultiDict[str]:
    """The provider's headers as the agent shall see them, and ours."""
    kept = []
    named: set[str] = set()
    for pair in headers:
        if _is_passed(pair[0]):
            kept.append(pair)
        elif pair[0].lower() == "connection":
            named.update(part.strip().lower() for part in pair[1].split(","))
    if not named <= NOT_PASSED_ON:
        kept = [pair for pair in kept if pair[0].lower() not in named]
    passed: CIMultiDict[str] = CIMultiDict(kept)
    add_own(passed, record, limits)
    return passed


@lru_cache(maxsize=HEADER_NAMES_REMEMBERED)
def _is_passed(name: str) -> bool:
    lower = name.lower()
    return lower not in NOT_PASSED_ON and not lower.startswith(OWN_PREFIX)


def add_own(headers: CIMultiDict[str], record: Record, limits: list[tuple[str, str]]) -> None:
    """The headers that every answer to a known caller carries."""
    headers["x-callmeter-call"] = record.call_id
    if record.degraded:
        headers["x-callmeter-degraded"] = "store"
    for warning in record.warnings:
        headers.add("x-callmeter-warning", warning)
    for name, value in limits:
        headers[name] = value


def cost_header(record: Record) -> str | None:
    """The cost in dollars, or None where it is not known: known zero and unknown must differ."""
    return None if record.cost_nusd is None else decimal_usd(record.cost_nusd)


def refusal_answer(answer: Answer) -> WholeAnswer:
    headers: CIMultiDict[str] = CIMultiDict(answer.headers)
    return WholeAnswer(status=answer.status, headers=headers, body=answer.body)


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
