"""Queries: calls one by one, in the order in which they became readable, and the totals of tasks."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, or_, select

from ..core.record import Record, decode
from .engine import Database
from .rollups import TASKS_MAX, TaskTotals, text
from .tables import calls, cursors, tasks

LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000
"""Calls on one page: about 1.5 MB of JSON."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls are asked for. Times in ms, `since` included, `until` not. None: no restriction."""

    since_ms: int | None = None
    until_ms: int | None = None
    user: str | None = None
    team: str | None = None
    task: str | None = None
    model: str | None = None
    """As asked for or as answered."""
    result: str | None = None
    rule: str | None = None
    refusal: str | None = None


class Page(msgspec.Struct, frozen=True):
    """Calls, oldest first. `next` is where more follow, None at the end; `here` is always a place to go on from."""

    records: list[Record]
    next: str | None
    here: str


class Queries:
    """Reads of the ledger. Every method raises LedgerUnavailable where the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def calls(self, filters: Filters, limit: int = LIMIT_DEFAULT, cursor: str | None = None) -> Page:
        """One page. `cursor` is a `next` or `here` of an earlier page. Raises ValueError for any other text."""
        after = read_cursor(cursor)
        limit = max(1, min(limit, LIMIT_MAX))
        with self._database.reading() as connection:
            newest = last_seq(connection)
            if after is None:
                after = first_seq(connection, filters) - 1
            statement = (
                select(calls.c.seq, calls.c.record)
                .where(calls.c.seq > after, calls.c.seq <= newest, *conditions(filters))
                .order_by(calls.c.seq)
                .limit(limit + 1)
            )
            rows = connection.execute(statement).all()
        records = [decode(row.record) for row in rows[:limit]]
        if len(rows) > limit:
            place = str(rows[limit - 1].seq)
            return Page(records, place, place)
        return Page(records, None, str(max(newest, after)))

    def call(self, call_id: str) -> Record | None:
        return self._one(calls.c.call_id == call_id)

    def by_upstream_call_id(self, org: str, upstream: str, upstream_call_id: str) -> Record | None:
        """The newest call that the provider gave this id, as for a retrieval that shows its usage."""
        return self._one(
            calls.c.upstream_call_id == text(upstream_call_id),
            calls.c.upstream_call_id != "",  # repeated for SQLite, whose index leaves out calls without such an id
            calls.c.upstream == text(upstream),
            calls.c.org == text(org),
        )

    def after(self, seq: int, limit: int) -> list[tuple[int, Record]]:
        """What became readable after `seq`, for an exporter: calls with their number, replaced ones again."""
        statement = select(calls.c.seq, calls.c.record).where(calls.c.seq > seq).order_by(calls.c.seq).limit(limit)
        with self._database.reading() as connection:
            return [(seq, decode(data)) for seq, data in connection.execute(statement)]

    def last_seq(self) -> int:
        """The number of the newest row, 0 in an empty ledger."""
        with self._database.reading() as connection:
            return last_seq(connection)

    def task(self, name: str) -> list[TaskTotals]:
        """A row for everyone who worked on the task, by org, user and source; empty when nobody did."""
        order = (tasks.c.org, tasks.c.user, tasks.c.task_source)
        with self._database.reading() as connection:
            rows = connection.execute(select(*TASK_COLUMNS).where(tasks.c.task == text(name)).order_by(*order))
            return [TaskTotals(**row._mapping) for row in rows]

    def tasks_of(self, user: str, *, org: str | None = None) -> list[TaskTotals]:
        """A user's own tasks, the one worked on last first, at most TASKS_MAX."""
        statement = select(*TASK_COLUMNS).where(tasks.c.user == text(user))
        if org is not None:
            statement = statement.where(tasks.c.org == text(org))
        statement = statement.order_by(tasks.c.last_at_ms.desc(), tasks.c.task).limit(TASKS_MAX)
        with self._database.reading() as connection:
            return [TaskTotals(**row._mapping) for row in connection.execute(statement)]

    def cursor(self, name: str) -> int:
        """The last `seq` that the named follower of the ledger is done with; 0 where it never said."""
        with self._database.reading() as connection:
            return connection.execute(select(cursors.c.seq).where(cursors.c.name == name)).scalar() or 0

    def set_cursor(self, name: str, seq: int) -> None:
        """Remembers how far a follower came. It may go back, as for exporting again."""
        insert = self._database.insert(cursors)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"seq": insert.excluded.seq})
        with self._database.writing() as connection:
            connection.execute(upsert, {"name": name, "seq": seq})

    def _one(self, *where: ColumnElement[bool]) -> Record | None:
        statement = select(calls.c.record).where(*where).order_by(calls.c.seq.desc()).limit(1)
        with self._database.reading() as connection:
            found = connection.execute(statement).scalar()
        return None if found is None else decode(found)


TASK_COLUMNS = [tasks.c[name] for name in TaskTotals.__struct_fields__]


def read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise ValueError(f"`{cursor}` is no cursor; give back a `next` as an earlier page gave it")
    return int(cursor)


def last_seq(connection: Connection) -> int:
    return connection.execute(select(func.max(calls.c.seq))).scalar() or 0


def first_seq(connection: Connection, filters: Filters) -> int:
    """The lowest row number in the time asked for. Read from the index of times alone, so that an hour of a long
    ledger is found without reading the years before it: `+ 0` keeps planners from walking up the rows instead."""
    if filters.since_ms is None:
        return 0
    found = connection.execute(select(func.min(calls.c.seq + 0)).where(calls.c.at_ms >= filters.since_ms)).scalar()
    return last_seq(connection) + 1 if found is None else found


def conditions(filters: Filters) -> list[ColumnElement[bool]]:
    """`filters` as SQL. Names are compared as they are kept, so that a clipped one is still found."""
    where: list[ColumnElement[bool]] = []
    if filters.since_ms is not None:
        where.append(calls.c.at_ms >= filters.since_ms)
    if filters.until_ms is not None:
        where.append(calls.c.at_ms < filters.until_ms)
    wanted: dict[str, Any] = {
        "user": filters.user,
        "team": filters.team,
        "task": filters.task,
        "result": filters.result,
        "rule": filters.rule,
        "refusal": filters.refusal,
    }
    where += [calls.c[name] == text(value) for name, value in wanted.items() if value is not None]
    if filters.model is not None:
        model = text(filters.model)
        where.append(or_(calls.c.model == model, calls.c.model_asked == model))
    return where
