"""Owed: what a worker owes the store and could not give it yet. It waits in the spool as JSON, one line each.

Each can be done twice without harm, since after a crash nobody knows which ones arrived.
"""

from __future__ import annotations

import msgspec


class OwedRecord(msgspec.Struct, frozen=True, tag_field="owed", tag="record"):
    """A settle. `record` is the record's JSON, of which the store needs `call_id`, `org` and `revision`."""

    record: msgspec.Raw


class OwedRelease(msgspec.Struct, frozen=True, tag_field="owed", tag="release"):
    """The end of a hold that leaves no record."""

    org: str
    call_id: str


class OwedLater(msgspec.Struct, frozen=True, tag_field="owed", tag="later"):
    """Who made the call whose usage a later retrieval of `later_id` shows."""

    org: str
    upstream: str
    later_id: str
    record: msgspec.Raw


Owed = OwedRecord | OwedRelease | OwedLater


class RecordHead(msgspec.Struct, frozen=True):
    """The fields of a record that say where it belongs in the store."""

    call_id: str
    org: str
    revision: int


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Owed] = msgspec.json.Decoder(Owed)
_head_decoder = msgspec.json.Decoder(RecordHead)


def encode(owed: Owed) -> bytes:
    """JSON without line breaks."""
    return _encoder.encode(owed)


def decode(line: bytes) -> Owed:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _decoder.decode(line)


def head(record: msgspec.Raw) -> RecordHead:
    return _head_decoder.decode(record)
