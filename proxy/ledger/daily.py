"""Days: the hourly sums of a day that is over, summed up once more, so that a report over a year reads days.

A day is *open* while calls of it may still come, and every writer of hourly sums opens the days that it touches again.
The rows of an open day, if it has any, are out of date: reports read its hours. A day is closed by summing it anew from
its hours, in one transaction, so whatever comes late or is priced again is in the next reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Select, case, delete, func, insert, literal, select

from .rollups import DAY_DIMENSIONS, DAY_MS, DAY_SUMS, MEASURES, RESULTS_APART, day_of
from .tables import daily, hourly, open_days

if TYPE_CHECKING:
    from .engine import Database

LATE_MS = 3 * 3_600_000
"""How long after its end a day is left open: most late records come within minutes."""
CLOSED_AT_ONCE_MAX = 16
"""Days that one look closes, each in a transaction of its own, so that writers of calls never wait for long."""


def days_of(hours_ms: Iterable[int]) -> list[dict[str, int]]:
    """The rows of `open_days` that a writer of these hours must write, inside its transaction."""
    return [{"day_ms": day_ms} for day_ms in sorted({day_of(hour_ms) for hour_ms in hours_ms})]


def open_all(connection: Connection) -> None:
    """Opens every day that has hours: for a ledger that had no days before."""
    day_ms = (hourly.c.hour_ms - hourly.c.hour_ms % DAY_MS).label("day_ms")
    connection.execute(delete(open_days))
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
            connection.execute(delete(daily).where(daily.c.day_ms == day_ms))
            names = ["day_ms", "number", *DAY_DIMENSIONS, *DAY_SUMS]
            connection.execute(insert(daily).from_select(names, sums_of_day(day_ms)))
            connection.execute(delete(open_days).where(open_days.c.day_ms == day_ms))
    return len(days)


def sums_of_day(day_ms: int) -> Select[tuple[int]]:
    """The rows of `daily` for one day. Results stand side by side there, which makes fewer rows."""
    columns = [hourly.c[name] for name in DAY_DIMENSIONS]
    apart = [func.sum(case((hourly.c.result == name, hourly.c.calls), else_=0)) for name in RESULTS_APART]
    whole = [func.sum(hourly.c[name]) for name in MEASURES]
    number = func.row_number().over(order_by=columns)
    of_the_day = (hourly.c.hour_ms >= day_ms) & (hourly.c.hour_ms < day_ms + DAY_MS)
    return select(literal(day_ms), number, *columns, *apart, *whole).where(of_the_day).group_by(*columns)
