"""Parameters of the admin API, read strictly: a wrong one is an answer that names it and the forms it may have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from ..core.keys import TIME_MS_MAX
from ..ledger.reports import ReportInvalid, zone
from ..ledger.rollups import hour_of
from .answers import Problem

_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_EPOCH_MS = re.compile(r"\d{10,15}", re.ASCII)
# A `+` that nobody quoted arrives as a space; before an offset it can mean nothing else.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)([Zz]|[+ -]\d\d:\d\d)?)?", re.ASCII)
TIME_FORMS = "`1h`, `7d`, `2026-11-01`, `2026-11-01T08:00:00Z` or milliseconds since the epoch"

_S = TypeVar("_S", bound=msgspec.Struct)


def known_only(query: Mapping[str, str], known: Collection[str]) -> None:
    """A misspelled filter must not be a report about everyone."""
    for name in query:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise Problem(400, f"`{name}` is no parameter here; there are {allowed}", parameter=name)


def moment_ms(query: Mapping[str, str], name: str, now_ms: int, zone: tzinfo = UTC) -> int | None:
    """`since` or `until`: a time, or how long ago. Times without an offset are those of `zone`."""
    text = query.get(name)
    if text is None or text == "":
        return None
    moment = read_moment_ms(text.strip(), now_ms, zone)
    if moment is None:
        raise Problem(400, f"`{name}` is `{text}`; write {TIME_FORMS}", parameter=name)
    return moment


def in_order(query: Mapping[str, str], since_ms: int | None, until_ms: int | None) -> None:
    """Two times the wrong way round must not be a report about nothing."""
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        since, until = query.get("since"), query.get("until")
        raise Problem(400, f"`since` (`{since}`) is after `until` (`{until}`); write the earlier time as `since`")


def read_moment_ms(text: str, now_ms: int, zone: tzinfo = UTC) -> int | None:
    """None for a text that is no time."""
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return max(0, now_ms - int(duration[1]) * _UNIT_MS[duration[2]])
    if _EPOCH_MS.fullmatch(text):
        return int(text) if int(text) <= TIME_MS_MAX else None
    parts = _RFC3339.fullmatch(text)
    if parts is None:
        return None
    day, clock, offset = parts[1], parts[2] or "00:00", (parts[3] or "").replace(" ", "+").upper()
    if "." in clock:  # older Pythons read three or six digits only
        clock, _, fraction = clock.partition(".")
        clock += "." + fraction[:6].ljust(6, "0")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset.replace('Z', '+00:00')}")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return min(max(0, round(moment.timestamp() * 1000)), TIME_MS_MAX)


def zone_of(query: Mapping[str, str]) -> ZoneInfo:
    """The time zone of `timezone`, UTC without one."""
    try:
        return zone(query.get("timezone") or "UTC")
    except ReportInvalid as error:
        raise Problem(400, f"`timezone`: {error}", parameter="timezone") from None


def whole_hour(query: Mapping[str, str], name: str, at_ms: int) -> int:
    """A report since `7d` begins with a whole hour, which roll-ups have; a time that was written out is kept."""
    return hour_of(at_ms) if _DURATION.fullmatch(query.get(name, "").strip()) else at_ms


def number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise Problem(400, f"`{name}` is `{text}`; write a whole number from 1 to {most}", parameter=name)
    return int(text)


def chosen(query: Mapping[str, str], name: str, choices: Collection[str]) -> str | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    if text not in choices:
        raise Problem(400, f"`{name}` is `{text}`; write one of {', '.join(choices)}", parameter=name)
    return text


async def body_of(request: web.Request, kind: type[_S]) -> _S:
    """The JSON body as a `kind`. Every fault is an answer that says where it is."""
    data: Any = await request.read()
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
