"""Writer: records into rows and roll-ups, together with the stream position, in one transaction or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, case, delete, func, select, update

from ..core.record import Record, decode, encode
from .daily import days_of
from .engine import Database, Insert
from .entry import Entry, Position, furthest
from .errors import PositionMoved
from .rollups import DIMENSIONS, MEASURES, TASK_MEASURES, Changes, TaskKey, amount, digest, task_key, text
from .tables import calls, hourly, open_days, positions, tasks

NAMES_MAX = 500
"""Values in one `IN (...)`: well under the least limit of variables that SQLite was ever built with (999)."""

CLAIMED = "claimed"
"""The `task_source` of a call whose task was told after it ran."""

Fence = Callable[[], None]


class Ingested(msgspec.Struct, frozen=True):
    """What became of a batch: rows that are new, rows that a higher revision replaced, entries already known.

    `applied` has each record that was written, with the one it replaced: what metrics count.
    """

    inserted: int
    replaced: int
    ignored: int
    applied: list[tuple[Record, Record | None]] = []


class Replacement(msgspec.Struct, frozen=True):
    """A row that gives way to a newer record of the same call. `store_revision` as in tables.calls."""

    seq: int
    before: Record
    after: Record
    store_revision: int


class Writer:
    """The one that writes calls. Safe to call from several threads; batches go in one after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._expected: dict[int, Position] | None = None

    def positions(self) -> dict[int, Position]:
        """Where each shard's stream stands in SQL.

        The first reading, also the first after PositionMoved, is what `ingest` expects to find again. Later ones
        change no expectation: whoever only looks must not hide from `ingest` that another bookkeeper writes.
        """
        with self._lock:
            found = self._read_positions()
            if self._expected is None:
                self._expected = found
            return dict(found)

    def ingest(self, batch: Sequence[Entry], *, fence: Fence | None = None) -> Ingested:
        """Writes what is new in `batch`. `fence` is called last inside the transaction; what it raises undoes all.

        Entries may come again in any order: a call is known by its id, and only a higher revision replaces its row.
        Raises PositionMoved or LedgerUnavailable; in both cases nothing was written.
        """
        with self._lock:
            expected = self._expected if self._expected is not None else self._read_positions()
            moved = furthest(batch, expected)
            try:
                with self._database.writing() as connection:
                    self._move(connection, expected, moved)
                    ingested = self._write(connection, batch)
                    if fence is not None:
                        fence()
            except PositionMoved:
                self._expected = None
                raise
            self._expected = expected | moved
            return ingested

    def replace(self, connection: Connection, replacements: Sequence[Replacement]) -> None:
        """Puts newer records in the place of rows, inside the caller's writing transaction."""
        self._apply(connection, [], replacements)

    def move(self, connection: Connection, pairs: Sequence[tuple[Record, Record]]) -> None:
        """Moves what records add to sums to where others add it, inside the caller's writing transaction. The rows of
        the calls are the caller's."""
        changes = Changes()
        for before, after in pairs:
            changes.remove(before)
            changes.add(after)
        self._roll_up(connection, changes)
        self._drop_empty(connection, changes)

    def add_hour(self, connection: Connection, hour_ms: int, values: tuple[str, ...], sums: Sequence[int]) -> None:
        """Adds to the sums of an hour, inside the caller's writing transaction."""
        self._database.write_rows(connection, self._upsert_hourly, [hourly_row(hour_ms, values, sums)])
        connection.execute(self._open_day, days_of([hour_ms]))

    def add_task(self, connection: Connection, row: dict[str, Any]) -> None:
        """As `add_hour`, to the sums of a task."""
        self._database.write_rows(connection, self._upsert_task, [row])

    def _read_positions(self) -> dict[int, Position]:
        with self._database.reading() as connection:
            rows = connection.execute(select(positions.c.shard, positions.c.epoch, positions.c.id))
            return {shard: Position(epoch, stream_id) for shard, epoch, stream_id in rows}

    def _move(self, connection: Connection, expected: dict[int, Position], moved: dict[int, Position]) -> None:
        """Compare-and-set: the transaction is the only one that writes, so comparing first is enough."""
        if not moved:
            return
        columns = (positions.c.shard, positions.c.epoch, positions.c.id)
        for shard, epoch, stream_id in connection.execute(select(*columns).where(positions.c.shard.in_(moved))):
            if expected.get(shard) != Position(epoch, stream_id):
                raise PositionMoved(
                    f"shard {shard} stands at {epoch} {stream_id}: another bookkeeper writes this ledger"
                )
        rows = [{"shard": shard, "epoch": place.epoch, "id": place.id} for shard, place in moved.items()]
        connection.execute(self._upsert_position, rows)

    def _write(self, connection: Connection, batch: Sequence[Entry]) -> Ingested:
        newest: dict[str, Record] = {}
        for entry in batch:
            known = newest.get(entry.record.call_id)
            if known is None or supersedes(entry.record, known.revision, known.result):
                newest[entry.record.call_id] = entry.record
        added: list[Record] = []
        replaced: list[Replacement] = []
        rows = find(connection, newest)
        for call_id, record in newest.items():
            row = rows.get(call_id)
            if row is None:
                added.append(record)
            elif supersedes(record, row.store_revision, row.result):
                # A repriced row may already show this revision; what is shown only ever grows.
                before = decode(row.record)
                shown = msgspec.structs.replace(
                    record, revision=max(record.revision, row.revision + 1), **task_claimed(before)
                )
                replaced.append(Replacement(row.seq, before, shown, record.revision))
        self._apply(connection, added, replaced)
        applied: list[tuple[Record, Record | None]] = [(record, None) for record in added]
        applied += [(replacement.after, replacement.before) for replacement in replaced]
        return Ingested(len(added), len(replaced), len(batch) - len(applied), applied)

    def _apply(self, connection: Connection, added: Sequence[Record], replaced: Sequence[Replacement]) -> None:
        changes = Changes()
        for record in added:
            changes.add(record)
        for replacement in replaced:
            changes.remove(replacement.before)
            changes.add(replacement.after)
        for part in parts(replaced):
            connection.execute(delete(calls).where(calls.c.seq.in_([replacement.seq for replacement in part])))
        rows = [call_row(record, record.revision) for record in added]
        rows += [call_row(replacement.after, replacement.store_revision) for replacement in replaced]
        self._database.write_rows(connection, self._insert_calls, rows)
        self._roll_up(connection, changes)
        if replaced:
            self._tidy(connection, changes, replaced)

    def _roll_up(self, connection: Connection, changes: Changes) -> None:
        hours = [hourly_row(*place, sums) for place, sums in changes.hourly.items()]
        self._database.write_rows(connection, self._upsert_hourly, hours)
        if changes.hourly:
            connection.execute(self._open_day, days_of(hour_ms for hour_ms, _ in changes.hourly))
        rows = [
            {
                **task_columns(key),
                "first_at_ms": change.first_at_ms,
                "last_at_ms": change.last_at_ms,
                "longest_loop": change.longest_loop,
                **dict(zip(TASK_MEASURES, change.sums, strict=True)),
            }
            for key, change in changes.tasks.items()
        ]
        self._database.write_rows(connection, self._upsert_task, rows)

    def _tidy(self, connection: Connection, changes: Changes, replaced: Sequence[Replacement]) -> None:
        """After replacements: drops sums over nothing, and sets right what is no sum of tasks that a call left."""
        self._drop_empty(connection, changes)
        for replacement in replaced:
            left = task_key(replacement.before)
            before, after = replacement.before, replacement.after
            stayed = left == task_key(after) and (before.at_ms, before.loop) == (after.at_ms, after.loop)
            if left is None or stayed:
                continue
            org, task, user, source = left
            same = and_(calls.c.org == org, calls.c.task == task, calls.c.user == user, calls.c.task_source == source)
            first = select(func.min(calls.c.at_ms)).where(same).scalar_subquery()
            last = select(func.max(calls.c.at_ms)).where(same).scalar_subquery()
            loop = select(func.max(calls.c.loop)).where(same).scalar_subquery()
            # Of a task whose calls were dropped nothing better is known.
            found = {
                "first_at_ms": func.coalesce(first, tasks.c.first_at_ms),
                "last_at_ms": func.coalesce(last, tasks.c.last_at_ms),
                "longest_loop": func.coalesce(loop, tasks.c.longest_loop),
            }
            connection.execute(update(tasks).where(tasks.c.key == digest(left)).values(found))

    def _drop_empty(self, connection: Connection, changes: Changes) -> None:
        for part in parts(changes.hourly):
            keys = [digest(values) for _, values in part]
            hours = {hour for hour, _ in part}
            connection.execute(
                delete(hourly).where(hourly.c.hour_ms.in_(hours), hourly.c.key.in_(keys), hourly.c.calls == 0)
            )
        for part in parts(changes.tasks):
            connection.execute(delete(tasks).where(tasks.c.key.in_([digest(key) for key in part]), tasks.c.calls == 0))

    @cached_property
    def _insert_calls(self) -> Insert:
        return self._database.insert(calls)

    @cached_property
    def _open_day(self) -> Insert:
        return self._database.insert(open_days).on_conflict_do_nothing(index_elements=["day_ms"])

    @cached_property
    def _upsert_position(self) -> Insert:
        insert = self._database.insert(positions)
        new = insert.excluded
        return insert.on_conflict_do_update(index_elements=["shard"], set_={"epoch": new.epoch, "id": new.id})

    @cached_property
    def _upsert_hourly(self) -> Insert:
        insert = self._database.insert(hourly)
        sums = {name: hourly.c[name] + insert.excluded[name] for name in MEASURES}
        return insert.on_conflict_do_update(index_elements=["hour_ms", "key"], set_=sums)

    @cached_property
    def _upsert_task(self) -> Insert:
        insert = self._database.insert(tasks)
        new = insert.excluded
        changed: dict[str, Any] = {name: tasks.c[name] + new[name] for name in TASK_MEASURES}
        changed["first_at_ms"] = case(
            (new.first_at_ms < tasks.c.first_at_ms, new.first_at_ms), else_=tasks.c.first_at_ms
        )
        for name in ("last_at_ms", "longest_loop"):
            changed[name] = case((new[name] > tasks.c[name], new[name]), else_=tasks.c[name])
        return insert.on_conflict_do_update(index_elements=["key"], set_=changed)


def supersedes(record: Record, revision: int, result: str) -> bool:
    """Whether a record replaces what is known of its call. `lost` is provisional whatever its revision: a store that
    was emptied has forgotten that it gave the call up, and numbers the late settle like a first one."""
    if record.revision == revision:
        return result == "lost" and record.result != "lost"
    return record.revision > revision


def task_claimed(before: Record) -> dict[str, Any]:
    """The task that a call was claimed for, which a later revision from the store knows nothing of."""
    return {"task": before.task, "task_source": before.task_source} if before.task_source == CLAIMED else {}


def find(connection: Connection, call_ids: Iterable[str]) -> dict[str, Any]:
    """The rows of those calls that the ledger knows, by call id."""
    found: dict[str, Any] = {}
    columns = (calls.c.call_id, calls.c.seq, calls.c.revision, calls.c.store_revision, calls.c.result, calls.c.record)
    for part in parts(call_ids):
        for row in connection.execute(select(*columns).where(calls.c.call_id.in_(part))):
            found[row.call_id] = row
    return found


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """`values` in lists short enough for one `IN (...)`."""
    remaining = iter(values)
    while part := list(islice(remaining, NAMES_MAX)):
        yield part


def call_row(record: Record, store_revision: int) -> dict[str, Any]:
    return {
        "call_id": record.call_id,
        "revision": record.revision,
        "store_revision": store_revision,
        "at_ms": record.at_ms,
        "org": text(record.org),
        "team": text(record.team),
        "user": text(record.user),
        "task": text(record.task),
        "task_source": text(record.task_source),
        "model_asked": text(record.model_asked),
        "model": text(record.model),
        "upstream": text(record.upstream),
        "upstream_call_id": text(record.upstream_call_id),
        "result": record.result,
        "refusal": text(record.refusal),
        "rule": text(record.rule),
        "cost_nusd": None if record.cost_nusd is None else amount(record.cost_nusd),
        "cost_source": record.cost_source,
        "twin_of": text(record.twin_of),
        "loop": amount(record.loop),
        "session": text(record.session),
        "record": encode(record).decode(),
    }


def hourly_row(hour_ms: int, values: tuple[str, ...], sums: Sequence[int]) -> dict[str, Any]:
    row: dict[str, Any] = {"hour_ms": hour_ms, "key": digest(values)}
    row.update(zip(DIMENSIONS, values, strict=True))
    row.update(zip(MEASURES, sums, strict=True))
    return row


def task_columns(key: TaskKey) -> dict[str, Any]:
    org, task, user, source = key
    return {"key": digest(key), "org": org, "task": task, "user": user, "task_source": source}
