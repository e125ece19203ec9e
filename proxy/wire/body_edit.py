"""Body edit: one field of a JSON object set, every other byte as the caller wrote it."""

from __future__ import annotations

import re

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COLON = re.compile(rb"\s*:\s*")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def fields_of(body: bytes) -> dict[str, msgspec.Raw] | None:
    """The fields of a JSON object, each still undecoded; None for anything else."""
    try:
        return _fields.decode(body.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def with_field(body: bytes, name: str, value: bytes) -> bytes | None:
    """The body with the field `name` of its top level set to a piece of JSON; None where the body is no object.

    A field that stands there once is overwritten in its place, a new one goes before the first. Where the name stands
    in several places the fields are written again, each value as it was, so that it is surely set and set once.
    """
    fields = fields_of(body)
    if fields is None:
        return None
    quoted = msgspec.json.encode(name)
    if name not in fields:
        start = body.index(b"{") + 1
        return body[:start] + quoted + b":" + value + (b"," if fields else b"") + body[start:]
    if body.count(quoted) == 1:
        old = bytes(fields[name])
        colon = _COLON.match(body, body.index(quoted) + len(quoted))
        if colon is not None and body.startswith(old, colon.end()):
            edited = body[: colon.end()] + value + body[colon.end() + len(old) :]
            again = fields_of(edited)
            if again is not None and bytes(again[name]) == value:
                return edited
    return msgspec.json.encode(fields | {name: msgspec.Raw(value)})
