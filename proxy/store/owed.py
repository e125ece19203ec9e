"""Owed: what a worker owes the store and could not give it yet. It waits in the spool as JSON, one line each.

Each can be done twice without harm, since after a crash nobody knows which ones arrived.
"""

from __future__ import annotations

import msgspec

from ..core.usage import NO_USAGE, Usage

NO_TAKES = msgspec.Raw(b"null")


class OwedRecord(msgspec.Struct, frozen=True, tag_field="owed", tag="record"):
    """A settle. `record` is the record's JSON, `takes` the text of what the call took (takes.py), so that its counters
    are charged also where the store has lost its hold; `at_ms` is when it was owed first."""

    record: msgspec.Raw
    takes: msgspec.Raw = NO_TAKES
    at_ms: int = 0


class OwedRelease(msgspec.Struct, frozen=True, tag_field="owed", tag="release"):
    """The end of a hold that leaves no record."""

    org: str
    call_id: str
    takes: msgspec.Raw = NO_TAKES


class OwedLater(msgspec.Struct, frozen=True, tag_field="owed", tag="later"):
    """Who made the call whose usage a later retrieval of `later_id` shows. `holds`: its cost is held until then."""

    org: str
    upstream: str
    later_id: str
    record: msgspec.Raw
    holds: bool = False


Owed = OwedRecord | OwedRelease | OwedLater


class RecordHead(msgspec.Struct, frozen=True):
    """The fields of a record that say where it belongs in the store, what its counters are charged and what becomes of
    its marks."""

    call_id: str
    org: str = "default"
    revision: int = 1
    result: str = "ok"
    cost_nusd: int | None = 0
    usage: Usage = NO_USAGE


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Owed] = msgspec.json.Decoder(Owed)
_head_decoder = msgspec.json.Decoder(RecordHead)


def encode(owed: Owed) -> bytes:
    """JSON without line breaks."""
    return _encoder.encode(owed)


def decode(line: bytes) -> Owed:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _decoder.decode(line)


def raw_takes(text: bytes) -> msgspec.Raw:
    """The text of takes (empty: none) as a part of a line."""
    return msgspec.Raw(text) if text else NO_TAKES


def takes_text(takes: msgspec.Raw) -> bytes:
    """The way back."""
    text = bytes(takes)
    return b"" if text == bytes(NO_TAKES) else text


def head(record: msgspec.Raw) -> RecordHead:
    return _head_decoder.decode(record)
