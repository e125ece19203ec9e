"""Entry: a record on its way from the stream into SQL, with the place in the stream where it was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from ..core.record import Record


class Position(msgspec.Struct, frozen=True):
    """How far a shard's stream has been read: everything up to and including `id` of `epoch`."""

    epoch: str
    id: str


class Placed(Protocol):
    """Anything that knows where in the streams it was read."""

    @property
    def shard(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    @property
    def id(self) -> str: ...


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One record. `shard`, `epoch` and `id` say where the stream had it; an empty `id` means that it comes from no
    stream (from a spool file that outlived the store's memory) and moves no position. `uncharged`: what it takes of
    counters that the store may not have charged, as the store wrote it."""

    shard: int
    epoch: str
    id: str
    record: Record
    uncharged: bytes = b""


def order(stream_id: str) -> tuple[int, int]:
    """`1700000000000-3` as a value that sorts in the order of the stream. Raises ValueError for no stream id."""
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence or 0)


def furthest(entries: Iterable[Placed], known: dict[int, Position]) -> dict[int, Position]:
    """Where each shard that appears in `entries` stands after them. A position never goes back within an epoch."""
    moved: dict[int, Position] = {}
    for entry in entries:
        if not entry.id:
            continue
        before = moved.get(entry.shard) or known.get(entry.shard)
        if before is None or before.epoch != entry.epoch or order(before.id) < order(entry.id):
            moved[entry.shard] = Position(entry.epoch, entry.id)
    return moved
