"""Values: careful looks into JSON that strangers wrote. Nothing here raises; what is not as expected is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

COUNT_MAX = 10**12
"""A count beyond this is no count: no answer holds a million million tokens, and sums must stay plain integers."""
NAME_CHARACTERS_MAX = 256
"""Longest text taken over as a name (session, end user, task): names are short, and a record must stay small."""
INLINE_CHARACTERS_MIN = 64
"""Shorter values of a `data` field are left out: they weigh nothing, and words may look like base64."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\-]+")

NOTHING: Mapping[str, Any] = {}


def decode(data: bytes) -> Any:
    """The JSON document in `data`, or None where there is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def plain(value: Any) -> Any:
    """`value` with a piece of undecoded JSON decoded, where it is one."""
    return decode(bytes(value)) if isinstance(value, msgspec.Raw) else value


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a JSON object, else an empty one."""
    value = plain(value)
    return value if isinstance(value, dict) else NOTHING


def listed(value: Any) -> list[Any]:
    """`value` where it is a JSON array, else an empty one."""
    value = plain(value)
    return value if isinstance(value, list) else []


def text(fields: Mapping[str, Any], name: str) -> str | None:
    """The text in a field, or None where it is absent, empty or not a text."""
    value = plain(fields.get(name))
    return value if isinstance(value, str) and value else None


def short_name(value: Any) -> str | None:
    """`value` where it can serve as a name, else None."""
    return value if isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX else None


def count(fields: Mapping[str, Any], name: str) -> int:
    """The count in a field; 0 where it is absent, negative, absurd or not a whole number."""
    return whole(fields.get(name)) or 0


def whole(value: Any) -> int | None:
    """`value` as a count from 0 to COUNT_MAX, else None. Some providers write counts as `12.0` or `"12"`."""
    value = plain(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(COUNT_MAX)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        return None
    return value


def text_bytes(value: Any) -> int:
    """Length of a text in UTF-8; 0 for anything else."""
    if not isinstance(value, str):
        return 0
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def json_bytes(value: Any) -> int:
    """Length of a value written as JSON: what the model generated to make it (tool arguments)."""
    try:
        return len(msgspec.json.encode(value))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return 0


def inline_bytes(value: Any) -> int:
    """Bytes of base64 in the `data` fields anywhere in a part of a request: images, audio, files.

    Takes undecoded JSON as well as decoded, since the large parts of a request are best left undecoded.
    """
    if isinstance(value, (bytes, msgspec.Raw)):
        return _inline_bytes_undecoded(bytes(value))
    total = 0
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            data = value.get("data")
            if isinstance(data, str) and _is_base64(data[:INLINE_CHARACTERS_MIN].encode("utf-8", "replace"), len(data)):
                total += len(data)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return total


def _inline_bytes_undecoded(raw: bytes) -> int:
    """The same on undecoded JSON. Base64 holds no quote, so that the next quote ends it: two searches in C a value."""
    total = 0
    position = raw.find(b'"data"')
    while position >= 0:
        position += len(b'"data"')
        start = raw.find(b'"', position) + 1
        if start <= 0:
            break
        if raw[position : start - 1].strip() == b":":
            end = raw.find(b'"', start)
            length = (end if end >= 0 else len(raw)) - start
            if _is_base64(raw[start : start + INLINE_CHARACTERS_MIN], length):
                total += length
                position = start + length
        position = raw.find(b'"data"', position)
    return total


def _is_base64(beginning: bytes, length: int) -> bool:
    return length >= INLINE_CHARACTERS_MIN and _BASE64.fullmatch(beginning) is not None
