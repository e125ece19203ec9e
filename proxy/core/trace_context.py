"""W3C trace context and baggage, as a caller sends them: read strictly, within bounds, and never raising.

What is malformed is as if it had not been sent, as the standard asks: a broken header must not cost a call.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

TRACE_STATE_CHARS_MAX = 512
"""What the standard asks every party to carry on; a longer one is dropped as a whole."""
TRACE_STATE_MEMBERS_MAX = 32
BAGGAGE_CHARS_MAX = 8192
"""The limits of the OpenTelemetry propagators, which write what we read."""
BAGGAGE_PAIRS_MAX = 180
BAGGAGE_PAIR_CHARS_MAX = 4096
FLAGS_KNOWN = 0x03
"""sampled and random; the other bits have no meaning yet and must not be carried on."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_KEY = re.compile(r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}")
_STATE_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class TraceParent(msgspec.Struct, frozen=True):
    """The caller's span. `flags` as sent, of the bits that are known: 1 sampled, 2 random trace id."""

    trace_id: str
    span_id: str
    flags: int


def parse_traceparent(text: str) -> TraceParent | None:
    """`00-<32 hex>-<16 hex>-<2 hex>`; None for anything else, and for ids of zeros.

    A later version may have more fields after these four; version 00 may not, and ff never comes to be.
    """
    found = _PARENT.fullmatch(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    if found[2] == "0" * 32 or found[3] == "0" * 16:
        return None
    return TraceParent(found[2], found[3], int(found[4], 16) & FLAGS_KNOWN)


def parse_tracestate(text: str) -> str:
    """The list in its plain form, or "" where any part of it is malformed: half of it would be somebody's lie."""
    if len(text) > TRACE_STATE_CHARS_MAX:
        return ""
    members: dict[str, str] = {}
    for part in text.split(","):
        member = part.strip(" \t")
        if not member:
            continue
        key, equals, value = member.partition("=")
        if not equals or key in members or not _STATE_KEY.fullmatch(key) or not _STATE_VALUE.fullmatch(value):
            return ""
        members[key] = value
    if len(members) > TRACE_STATE_MEMBERS_MAX:
        return ""
    return ",".join(f"{key}={value}" for key, value in members.items())


def parse_baggage(text: str) -> dict[str, str]:
    """Names and values, percent-decoded, without their properties. What is malformed or over a bound is left out.

    A name that comes twice counts as it came first: what a later hop appends cannot change it.
    """
    pairs: dict[str, str] = {}
    if len(text) > BAGGAGE_CHARS_MAX:
        return pairs
    for member in text.split(",", BAGGAGE_PAIRS_MAX)[:BAGGAGE_PAIRS_MAX]:
        if len(member) > BAGGAGE_PAIR_CHARS_MAX:
            continue
        name, equals, rest = member.partition("=")
        name = name.strip(" \t")
        if not equals or name in pairs or not _TOKEN.fullmatch(name):
            continue
        try:
            pairs[name] = unquote(rest.partition(";")[0].strip(" \t"), errors="strict")
        except UnicodeDecodeError:
            continue
    return pairs
