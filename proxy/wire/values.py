"""Values: careful looks into JSON that strangers wrote. Nothing here raises; what is not as expected is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

COUNT_MAX = 10**12
"""A count beyond this is no count: no answer holds a million million tokens, and sums must stay plain integers."""
CHOICES_MAX = 128
"""Answers to one call that an estimate reckons with: the most that OpenAI gives, and no provider gives more."""
PARTS_MAX = 2_000_000
"""Lists and objects of one document that is decoded: half a second of work, and some 150 MB until it is done."""
OUTPUT_TOKENS_MAX = 1_000_000
"""Tokens of one answer that an estimate reckons with: no model writes as many, so a higher limit limits nothing."""
NAME_CHARACTERS_MAX = 256
"""Longest text taken over as a name (session, end user, task): names are short, and a record must stay small."""
INLINE_CHARACTERS_MIN = 4096
"""Shorter base64 counts as text, which it hardly outweighs: a look at every half of this length finds all the rest."""
BASE64_LOOK_CHARACTERS = 64
"""So many characters without a blank or a mark are base64 and no words."""

REGION = r"(?P<region>[a-z0-9-]{1,40})"
"""The region in a path at Vertex. Another spelling is no region, and never gets into a record."""

_DATA = b'"data"'
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\-]+")

NOTHING: Mapping[str, Any] = {}


def decode(data: bytes | str) -> Any:
    """The JSON document in `data`, or None where there is none, or more than anybody has to say."""
    if isinstance(data, bytes) and has_too_many_parts(data):
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def has_too_many_parts(data: bytes) -> bool:
    """Whether to decode a JSON document would take seconds and hundreds of megabytes, as ten million empty lists do.
    Brackets in texts count as well, of which the longest conversations about code have less."""
    return len(data) > 2 * PARTS_MAX and data.count(b"[") + data.count(b"{") > PARTS_MAX


def plain(value: Any) -> Any:
    """`value` with a piece of undecoded JSON decoded, where it is one."""
    return decode(bytes(value)) if isinstance(value, msgspec.Raw) else value


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a JSON object, else an empty one."""
    if isinstance(value, dict):
        return value
    value = plain(value)
    return value if isinstance(value, dict) else NOTHING


def listed(value: Any) -> list[Any]:
    """`value` where it is a JSON array, else an empty one."""
    if isinstance(value, list):
        return value
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
    if type(value) is int:
        return value if 0 <= value <= COUNT_MAX else None
    value = plain(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(COUNT_MAX)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        return None
    return value


def choices(value: Any) -> int:
    """How many answers a request asks for, for estimates: from 1 to CHOICES_MAX. The request itself goes on as it is,
    and the provider judges it."""
    return _up_to(value, CHOICES_MAX) or 1


def output_limit(value: Any) -> int | None:
    """A request's limit of its output, for estimates: at most OUTPUT_TOKENS_MAX, None where it is no limit."""
    return _up_to(value, OUTPUT_TOKENS_MAX)


def _up_to(value: Any, most: int) -> int | None:
    value = plain(value)
    if isinstance(value, (int, float)) and value > most:
        return most
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) > len(str(most)):
        return most
    found = whole(value)
    return None if found is None else min(found, most)


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
            if isinstance(data, str) and len(data) >= INLINE_CHARACTERS_MIN:
                beginning = data[:BASE64_LOOK_CHARACTERS].encode("utf-8", "replace")
                total += len(data) if _BASE64.fullmatch(beginning) else 0
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return total


def _inline_bytes_undecoded(raw: bytes) -> int:
    """The same on undecoded JSON. Base64 holds no quote, so that the next quote ends it.

    Most requests hold none and must not be searched through for that, so a few looks come first.
    """
    if not any(_looks_like_base64(raw, at) for at in range(0, len(raw), INLINE_CHARACTERS_MIN // 2)):
        return 0
    total = 0
    position = raw.find(_DATA)
    while position >= 0:
        position += len(_DATA)
        start = raw.find(b'"', position) + 1
        if start <= 0:
            break
        if raw[position : start - 1].strip() == b":":
            end = raw.find(b'"', start)
            length = (end if end >= 0 else len(raw)) - start
            if length >= INLINE_CHARACTERS_MIN and _looks_like_base64(raw, start):
                total += length
                position = start + length
        position = raw.find(_DATA, position)
    return total


def _looks_like_base64(raw: bytes, at: int) -> bool:
    return _BASE64.fullmatch(raw, at, at + BASE64_LOOK_CHARACTERS) is not None
