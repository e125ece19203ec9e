"""Reading: entries of the streams as records for the ledger. What cannot be read is set aside, never lost and never in
the way of the rest."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..core import record as records
from ..ledger.entry import Entry
from ..store.ledger_stream import Entry as StreamEntry

ASIDE_FILE = "set-aside.records"

log = logging.getLogger("callmeter.bookkeeper")


def entries_of(found: Sequence[StreamEntry], data: Path) -> list[Entry]:
    """Those of `found` that are records. The others are on disk in the data directory when this returns, so that they
    may be dropped from the stream. Blocking. Raises OSError where they cannot be kept."""
    entries, unreadable = divide(found)
    if unreadable:
        path = data / ASIDE_FILE
        set_aside(unreadable, path)
        log.error(
            "%d entries of the stream are no records that this version can read, the first is %s of shard %d; they are "
            "kept in %s, for the version that wrote them or for a person to look at",
            len(unreadable),
            unreadable[0].id,
            unreadable[0].shard,
            path,
        )
    return entries


def divide(found: Sequence[StreamEntry]) -> tuple[list[Entry], list[StreamEntry]]:
    """Those that are records, as the ledger takes them, and those that are not."""
    entries: list[Entry] = []
    unreadable: list[StreamEntry] = []
    for entry in found:
        try:
            record = records.decode(entry.data)
        except msgspec.MsgspecError:
            unreadable.append(entry)
            continue
        record.revision = entry.revision
        entries.append(
            Entry(shard=entry.shard, epoch=entry.epoch, id=entry.id, record=record, uncharged=entry.uncharged)
        )
    return entries, unreadable


def set_aside(unreadable: Sequence[StreamEntry], path: Path) -> None:
    """Appends a line of JSON for each; its `data` is the text as it was, with bytes that are no UTF-8 as `\\xNN`."""
    lines = b"".join(msgspec.json.encode(fields_of(entry)) + b"\n" for entry in unreadable)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def fields_of(entry: StreamEntry) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(entry)
    return fields | {name: fields[name].decode("utf-8", "backslashreplace") for name in ("data", "uncharged")}
