"""Days and months: the hourly sums of a day that is over, summed up once more, so that a report over a year reads
months.

A day is *open* while calls of it may still come, and every writer of hourly sums opens the days that it touches again.
The rows of an open day, if it has any, are out of date: reports read its hours. A day is closed by summing it anew from
its hours, in one transaction, so whatever comes late or is priced again is in the next reading.

`monthly` is at any moment exactly the sum of `daily`, open days included: what closing a day changes in the one it
changes in the other, in the same transaction. So months are never open; whoever reads one takes the rows of its open
days away from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import sub
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, case, delete, func, insert, literal, select

from .rollups import DAY_DIMENSIONS, DAY_MS, DAY_SUMS, MEASURES, RESULTS_APART, day_of, digest, month_of
from .tables import SUMS_USED, daily, hourly, meta, monthly, open_days

if TYPE_CHECKING:
    from .engine import Database

LATE_MS = 3 * 3_600_000
"""How long after its end a day is left open: most late records come within minutes."""
CLOSED_AT_ONCE_MAX = 16
"""Days that one look closes, each in a transaction of its own, so that writers of calls never wait for long."""

Rows = dict[tuple[str, ...], tuple[int, ...]]
"""The DAY_SUMS of a day by its DAY_DIMENSIONS."""
NOTHING = (0,) * len(DAY_SUMS)


def days_of(hours_ms: Iterable[int]) -> list[dict[str, int]]:
    """The rows of `open_days` that a writer of these hours must write, inside its transaction."""
    return [{"day_ms": day_ms} for day_ms in sorted({day_of(hour_ms) for hour_ms in hours_ms})]


def open_all(connection: Connection) -> None:
    """Opens every day that has hours, and begins days and months anew: for a ledger that had none before."""
    day_ms = (hourly.c.hour_ms - hourly.c.hour_ms % DAY_MS).label("day_ms")
    for table in (open_days, daily, monthly):
        connection.execute(delete(table))
    connection.execute(insert(open_days).from_select(["day_ms"], select(day_ms).distinct()))


def open_days_of(connection: Connection) -> list[int]:
    """The days whose hours are to be read, oldest first."""
    return list(connection.execute(select(open_days.c.day_ms).order_by(open_days.c.day_ms)).scalars())


def close_days(database: Database, now_ms: int) -> int:
    """Sums up days that are over, oldest first, at most CLOSED_AT_ONCE_MAX; how many. Raises LedgerUnavailable."""
    over = open_days.c.day_ms <= now_ms - LATE_MS - DAY_MS
    statement = select(open_days.c.day_ms).where(over).order_by(open_days.c.day_ms).limit(CLOSED_AT_ONCE_MAX)
    with database.reading() as connection:
        days = list(connection.execute(statement).scalars())
    for day_ms in days:
        with database.writing() as connection:
            before = rows_of(connection, day_ms)
            connection.execute(delete(daily).where(daily.c.day_ms == day_ms))
            names = ["day_ms", "number", *DAY_DIMENSIONS, *DAY_SUMS]
            connection.execute(insert(daily).from_select(names, sums_of_day(day_ms)))
            after = rows_of(connection, day_ms)
            move_month(database, connection, month_of(day_ms), before, after)
            note_used(connection, after)
            connection.execute(delete(open_days).where(open_days.c.day_ms == day_ms))
    return len(days)


def rows_of(connection: Connection, day_ms: int) -> Rows:
    names = len(DAY_DIMENSIONS)
    columns = [daily.c[name] for name in (*DAY_DIMENSIONS, *DAY_SUMS)]
    rows = connection.execute(select(*columns).where(daily.c.day_ms == day_ms)).all()
    return {tuple(row[:names]): tuple(row[names:]) for row in rows}


def move_month(database: Database, connection: Connection, month_ms: int, before: Rows, after: Rows) -> None:
    """Takes what a day was out of its month, and puts in what it is now."""
    rows: list[dict[str, Any]] = []
    for values in before.keys() | after.keys():
        more = tuple(map(sub, after.get(values, NOTHING), before.get(values, NOTHING)))
        if any(more):
            named = zip((*DAY_DIMENSIONS, *DAY_SUMS), (*values, *more), strict=True)
            rows.append({"month_ms": month_ms, "key": digest(values), **dict(named)})
    upsert = database.insert(monthly)
    sums = {name: monthly.c[name] + upsert.excluded[name] for name in DAY_SUMS}
    upsert = upsert.on_conflict_do_update(index_elements=["month_ms", "key"], set_=sums)
    if rows:
        connection.execute(upsert, rows)
    if before:
        connection.execute(delete(monthly).where(monthly.c.month_ms == month_ms, monthly.c.calls == 0))


def sums_used(connection: Connection) -> set[str]:
    """The sums that are worth reading from days and months: of a house that makes no images, say, a third is 0."""
    known = connection.execute(select(meta.c.value).where(meta.c.name == SUMS_USED)).scalar()
    return set((known or "").split())


def note_used(connection: Connection, rows: Rows) -> None:
    """Before a sum is read it must have been noted; none is ever taken back."""
    known = sums_used(connection)
    used = known | {
        name for name, amounts in zip(DAY_SUMS, zip(*rows.values(), strict=True), strict=False) if any(amounts)
    }
    if used != known:
        connection.execute(delete(meta).where(meta.c.name == SUMS_USED))
        connection.execute(insert(meta).values(name=SUMS_USED, value=" ".join(sorted(used))))


def sums_of_day(day_ms: int) -> Select[tuple[int]]:
    """The rows of `daily` for one day. Results stand side by side there, which makes fewer rows."""
    columns = [hourly.c[name] for name in DAY_DIMENSIONS]
    apart = [func.sum(case((hourly.c.result == name, hourly.c.calls), else_=0)) for name in RESULTS_APART]
    whole = [func.sum(hourly.c[name]) for name in MEASURES]
    number = func.row_number().over(order_by=columns)
    of_the_day = (hourly.c.hour_ms >= day_ms) & (hourly.c.hour_ms < day_ms + DAY_MS)
    return select(literal(day_ms), number, *columns, *apart, *whole).where(of_the_day).group_by(*columns)
