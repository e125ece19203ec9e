"""Segments: records on disk while SQL is away, so that the streams in Redis can be trimmed and never fill up.

A segment is a file of frames, each `length, checksum, payload`. What `append` returned from is on disk for good. A
frame that a crash cut short was never acknowledged: its records are still in the stream. Replay goes in the order of
appending and deletes a segment when all of it is committed; a crash in between replays entries that the ledger knows
already, which it ignores.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

import msgspec

from ..core.record import decode, encode
from .entry import Entry, Position, furthest
from .errors import SegmentsUnavailable

SEGMENT_BYTES_MAX = 16 * 1024 * 1024
"""A segment is read whole at replay and deleted whole behind it; this keeps both small."""
BYTES_WARN = 1024 * 1024 * 1024
"""A gigabyte is some 600,000 calls: time that somebody looks at the database."""
BATCH_ENTRIES = 500
"""Entries that replay hands over at once, the size that ingest is fastest with."""

_HEADER = struct.Struct("<II")
_SUFFIX = ".segment"


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One entry on disk. `record` is the record's JSON, `uncharged` as in the entry."""

    shard: int
    epoch: str
    id: str
    record: bytes
    uncharged: bytes = b""


_encode_frame = msgspec.msgpack.Encoder().encode
_decode_frame = msgspec.msgpack.Decoder(Frame).decode


class Segments:
    """The segments of one directory. One process at a time; not safe for several threads.

    `warn` is called with a sentence when they outgrow BYTES_WARN, and for a segment that ends in the middle of a frame.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self._directory = directory
        self._warn = warn
        self._file: FileIO | None = None
        self._warned = False
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._paths = sorted(directory.glob(f"*{_SUFFIX}"))
            self.bytes_on_disk = sum(path.stat().st_size for path in self._paths)
        except OSError as error:
            raise unavailable(directory, error) from error
        self.pending = 0
        """Entries that wait on disk."""
        self.positions: dict[int, Position] = {}
        """Where each shard's stream stands after the entries that wait: where reading it goes on."""
        for path in self._paths:
            frames = list(self._read(path))
            self.pending += len(frames)
            self.positions |= furthest(frames, self.positions)

    def append(self, entries: Sequence[Entry]) -> None:
        """Returns when all of the entries are on disk. Raises SegmentsUnavailable; then none of them counts."""
        data = b"".join(map(frame, entries))
        before: int | None = None
        try:
            file = self._open()
            before = file.tell()
            write_all(file, data)
            os.fsync(file.fileno())
        except OSError as error:
            self._forget(before)
            raise unavailable(self._directory, error) from error
        self.pending += len(entries)
        self.bytes_on_disk += len(data)
        self.positions |= furthest(entries, self.positions)
        self._warn_of_size()

    def replay(self, commit: Callable[[Sequence[Entry]], object]) -> int:
        """Hands over what waits, oldest first, and deletes what was committed. Gives the number of entries.

        What `commit` raises ends the replay; the segment it happened in stays whole and is replayed again.
        """
        self.close()
        replayed = 0
        while self._paths:
            path = self._paths[0]
            entries = [entry_of(stored) for stored in self._read(path)]
            for start in range(0, len(entries), BATCH_ENTRIES):
                commit(entries[start : start + BATCH_ENTRIES])
            self._delete(path)
            self.pending -= len(entries)
            replayed += len(entries)
        self.positions = {}
        self._warned = False
        return replayed

    def close(self) -> None:
        """Ends the segment that is being written; the next append begins another."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> FileIO:
        """The segment to write to. Never one of an earlier process: it may end in the middle of a frame."""
        if self._file is not None and self._file.tell() < SEGMENT_BYTES_MAX:
            return self._file
        self.close()
        number = int(self._paths[-1].stem) + 1 if self._paths else 1
        path = self._directory / f"{number:012d}{_SUFFIX}"
        # Unbuffered: after a failed write nothing is left in memory that a later one could add to.
        file = FileIO(path, "xb")
        self._file = file
        self._paths.append(path)
        self._sync_directory()
        return file

    def _forget(self, before: int | None) -> None:
        """Takes a half-written append off the disk again where that can be done; else replay drops its tail."""
        if self._file is not None and before is not None:
            try:
                self._file.truncate(before)
            except OSError:
                pass
        self.close()

    def _delete(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            path.unlink()
            self._sync_directory()
        except OSError as error:
            raise unavailable(self._directory, error) from error
        self._paths.remove(path)
        self.bytes_on_disk -= size

    def _sync_directory(self) -> None:
        """A file that is made or deleted is so for good only when its directory is on disk."""
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> Iterator[Frame]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise unavailable(self._directory, error) from error
        place = 0
        while place < len(data):
            payload = payload_at(data, place)
            if payload is None:
                self._warn(
                    f"the segment {path} ends in a broken frame at byte {place}: a crash cut it short; "
                    "what was acknowledged lies before it"
                )
                return
            yield _decode_frame(payload)
            place += _HEADER.size + len(payload)

    def _warn_of_size(self) -> None:
        if self.bytes_on_disk > BYTES_WARN and not self._warned:
            self._warned = True
            self._warn(
                f"{self.pending:,} records wait in {self._directory} for the ledger's database "
                f"({self.bytes_on_disk >> 20:,} MiB); bring it back, or give the disk more room"
            )


def frame(entry: Entry) -> bytes:
    payload = _encode_frame(Frame(entry.shard, entry.epoch, entry.id, encode(entry.record), entry.uncharged))
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def entry_of(stored: Frame) -> Entry:
    return Entry(
        shard=stored.shard,
        epoch=stored.epoch,
        id=stored.id,
        record=decode(stored.record),
        uncharged=stored.uncharged,
    )


def write_all(file: FileIO, data: bytes) -> None:
    """An unbuffered file may take only a part at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def payload_at(data: bytes, place: int) -> bytes | None:
    """The payload of the frame at `place`; None where the frame is not whole."""
    start = place + _HEADER.size
    if start > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, place)
    payload = data[start : start + length]
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def unavailable(directory: Path, error: OSError) -> SegmentsUnavailable:
    return SegmentsUnavailable(
        f"records cannot be kept in {directory} while the ledger's database is away: "
        f"{error.strerror}; make room or make it writable"
    )
