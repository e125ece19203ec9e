"""Answers to the agent: the provider's headers as they came, ours beside them, and our refusals."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from ..core.money import decimal_usd
from ..core.record import Record
from ..core.refusal import Answer

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "alt-svc",  # speaks of the provider's own ports; here it would send agents past the proxy
    }
)
OWN_PREFIX = "x-callmeter-"


def passed_on(headers: list[tuple[str, str]], record: Record) -> CIMultiDict[str]:
    """The provider's headers as the agent shall see them, and ours."""
    passed: CIMultiDict[str] = CIMultiDict()
    dropped = HOP_BY_HOP
    for name, value in headers:
        if name.lower() == "connection":
            dropped = dropped | {part.strip().lower() for part in value.split(",")}
    for name, value in headers:
        lower = name.lower()
        if lower not in dropped and not lower.startswith(OWN_PREFIX):
            passed.add(name, value)
    add_own(passed, record)
    return passed


def add_own(headers: CIMultiDict[str], record: Record) -> None:
    """The headers that every answer to a known caller carries."""
    headers["x-callmeter-call"] = record.call_id
    if record.degraded:
        headers["x-callmeter-degraded"] = "store"
    for warning in record.warnings:
        headers.add("x-callmeter-warning", warning)


def cost_header(record: Record) -> str | None:
    """The cost in dollars, or None where it is not known: known zero and unknown must differ."""
    return None if record.cost_nusd is None else decimal_usd(record.cost_nusd)


def refusal_answer(answer: Answer) -> web.Response:
    headers: CIMultiDict[str] = CIMultiDict(answer.headers)
    return web.Response(status=answer.status, headers=headers, body=answer.body)


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
