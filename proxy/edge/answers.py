"""Answers to the agent: the provider's headers as they came, ours beside them, and our refusals."""

from __future__ import annotations

import re
from functools import lru_cache

from aiohttp import web
from aiohttp.http_writer import StreamWriter
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

_NEVER_ADDED = ("server", "content-type")
"""What aiohttp says of an answer that says nothing of it. The date stays: RFC 9110 (6.6.1) asks it of proxies too."""
_BYTES_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
_NEVER_IN_A_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class StreamedAnswer(web.StreamResponse):
    """An answer whose headers leave with the bytes with which they came, and with no others of the server's own.

    aiohttp adds some, and knows values in UTF-8 alone; bytes that are none come here as lone surrogates, and its
    writer would leave them out.
    """

    async def _prepare_headers(self) -> None:
        absent = [name for name in _NEVER_ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in absent:
            self.headers.popall(name, None)

    async def _write_headers(self) -> None:
        writer, request = self._payload_writer, self._req
        odd = any(not value.isascii() and _BYTES_NOT_UTF8.search(value) for value in self.headers.values())
        if not odd or request is None or not isinstance(writer, StreamWriter):
            await super()._write_headers()
            return
        lines = [f"HTTP/{request.version.major}.{request.version.minor} {self.status} {self.reason}"]
        lines.extend(f"{name}: {value}" for name, value in self.headers.items())
        if any(_NEVER_IN_A_HEADER.search(line) for line in lines):
            raise ValueError("a header of the answer holds a control character")
        writer._headers_written = False
        writer._headers_buf = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        if self._send_headers_immediately:
            writer.send_headers()


class WholeAnswer(StreamedAnswer, web.Response):
    """The same for an answer whose body is all there, and that leaves in one write."""


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


def refusal_answer(answer: Answer) -> web.Response:
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
