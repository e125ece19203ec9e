"""The streams of records, as the bookkeeper reads them into the ledger: at least once, in order within a shard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from .client import Client
from .epoch import read_epochs
from .errors import StoreUnavailable
from .keyspace import KEYS, SHARDS

START = "0-0"

BLOCK_MS_MAX = 1000
"""A read that waits longer would notice the end of its process, or a dead store, too late."""

Positions = Mapping[int, tuple[str, str]]
"""shard -> epoch and stream id of the last entry that the ledger has."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One record in the stream. `revision` counts, not the one inside the record's JSON `data`: a settle that comes
    after its call was given up as lost moves up by one. The ledger may have had the entry before. `uncharged`: the
    text of its takes where it came so late that the store could not tell whether their counters were charged; they
    were not if the ledger did not have it (counters.charge_late)."""

    shard: int
    epoch: str
    id: str
    data: bytes
    revision: int
    uncharged: bytes = b""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far the ledger is behind: entries not trimmed yet, and the age of the oldest that was not read."""

    records: int
    oldest_ms: int


class StreamReader:
    """Reads over a connection of its own, since it blocks. Raises StoreError from every method while it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._blocking = client.for_blocking(BLOCK_MS_MAX / 1000)
        self._epochs: dict[int, str] | None = None
        self._talking = SHARDS
        """How many shards had records at the last read: they share the count that is asked for."""

    async def open(self) -> None:
        try:
            await self._blocking.open()
        except StoreUnavailable:
            pass  # it goes on trying; read says so until then

    async def close(self) -> None:
        await self._blocking.close()

    async def read(self, positions: Positions, *, count: int = 500, block_ms: int = BLOCK_MS_MAX) -> list[Entry]:
        """Up to about `count` entries behind `positions`, waiting up to `block_ms` for the first. Entries of an epoch
        that `positions` does not name are read from the beginning of its stream."""
        if self._epochs is None or len(self._epochs) < SHARDS:
            self._epochs = await read_epochs(self._client)
        epochs = self._epochs
        if not epochs:
            await asyncio.sleep(min(block_ms, BLOCK_MS_MAX) / 1000)
            return []
        shards = {KEYS[shard].records.encode(): shard for shard in epochs}
        share = max(1, count // max(1, self._talking))
        # Streams that do not exist yet are waited for as well, so a new shard is noticed at once.
        command = ["XREAD", "COUNT", str(share), "BLOCK", str(min(max(block_ms, 1), BLOCK_MS_MAX)), "STREAMS"]
        command += [KEYS[shard].records for shard in epochs]
        command += [since(positions, shard, epoch) for shard, epoch in epochs.items()]
        reply = await self._blocking.call(*command) or []
        self._talking = len(reply) or self._talking
        if not reply:
            # Nothing for a while: a good moment to see whether the store was emptied meanwhile.
            self._epochs = await read_epochs(self._client)
            return []
        entries: list[Entry] = []
        for key, rows in reply:
            shard = shards[key]
            found = [entry_of(shard, epochs[shard], stream_id, fields) for stream_id, fields in rows]
            if any(written_in != epochs[shard] for written_in, _ in found):
                # Written in an epoch that we do not know, or before an older copy was noticed. If the epoch is a new
                # one, our place in the stream means nothing any more and the next read begins from the start.
                self._epochs = await read_epochs(self._client)
                if self._epochs.get(shard) != epochs[shard]:
                    continue
            entries.extend(entry for _, entry in found)
        return entries

    async def trim(self, ids: Mapping[int, str]) -> None:
        """Drops the entries of each shard up to and including its id, all of which the ledger must have."""
        await self._client.pipeline(
            ("XTRIM", KEYS[shard].records, "MINID", following(last)) for shard, last in ids.items()
        )

    async def lag(self, positions: Positions) -> Lag:
        epochs = await read_epochs(self._client)
        commands: list[tuple[str, ...]] = [("TIME",)]
        for shard, epoch in epochs.items():
            key = KEYS[shard].records
            commands.append(("XLEN", key))
            commands.append(("XRANGE", key, f"({since(positions, shard, epoch)}", "+", "COUNT", "1"))
        (seconds, micros), *replies = await self._client.pipeline(commands)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        oldest_ms = [int(rows[0][0].partition(b"-")[0]) for rows in replies[1::2] if rows]
        return Lag(records=sum(replies[0::2]), oldest_ms=max(0, now_ms - min(oldest_ms)) if oldest_ms else 0)


def since(positions: Positions, shard: int, epoch: str) -> str:
    """The id behind which to read: that of the ledger, unless it was of another epoch."""
    known, stream_id = positions.get(shard, ("", START))
    return stream_id if known == epoch else START


def following(stream_id: str) -> str:
    """The least id behind `stream_id`."""
    ms, _, sequence = stream_id.partition("-")
    return f"{ms}-{int(sequence) + 1}"


def entry_of(shard: int, epoch: str, stream_id: bytes, fields: Iterable[bytes]) -> tuple[str, Entry]:
    """The epoch in which an entry was written, and the entry as read in `epoch`."""
    given = list(fields)
    named = dict(zip(given[0::2], given[1::2], strict=False))
    try:
        entry = Entry(
            shard=shard,
            epoch=epoch,
            id=stream_id.decode(),
            data=named[b"r"],
            revision=int(named[b"v"]),
            uncharged=named.get(b"t", b""),
        )
        return named[b"e"].decode(), entry
    except (KeyError, ValueError):
        # Not written by us. What it holds is no record either, and whoever reads it sets it aside.
        return epoch, Entry(shard=shard, epoch=epoch, id=stream_id.decode(), data=b" ".join(given), revision=0)
