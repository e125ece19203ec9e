"""Exports: the sums of every hour in the order of time, read as a stream, so that a year of calls needs no more memory
than its busiest hour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, select

from ..core.focus import Period
from ..core.record import decode
from .changes import Parts, parts_of_tasks
from .engine import Database
from .reports import Interval, intervals, month_bounds, zone
from .rollups import DIMENSIONS, HOUR_MS, MEASURES, add_to, dimensions, hour_of, measures
from .sums import Sums
from .tables import calls, hourly

ROWS_AT_ONCE = 2_000


class HourSums(NamedTuple):
    """What calls of one hour came to, by their DIMENSIONS; the sums are MEASURES, `outcomes` those of each task.

    An hour that the edge of the time asked for or the end of a month cuts through is shorter, or comes twice.
    """

    charged: Period
    month: Period
    outcomes: Parts
    by: dict[tuple[str, ...], list[int]]


def hours(database: Database, since_ms: int, until_ms: int, timezone: str = "UTC") -> Iterator[HourSums]:
    """All hours with calls from `since_ms` to before `until_ms`, oldest first, as one moment of the ledger has them.

    `month` is the one of `timezone` that the hour lies in. Raises ReportInvalid, LedgerUnavailable.
    """
    months_of = zone(timezone)
    with database.reading() as connection:
        sums, outcomes = Sums(connection), parts_of_tasks(connection)
        if sums.first_ms is None:
            return
        start_ms, end_ms = max(since_ms, sums.first_ms), min(until_ms, sums.end_ms)
        for interval in intervals(start_ms, end_ms, ("month",), months_of):
            month = Period(*month_bounds(interval.start_ms, months_of))
            whole = Interval(sums.edge(interval.start_ms), sums.edge(interval.end_ms), interval.month)
            for charged, by in hours_of(connection, whole):
                yield HourSums(charged, month, outcomes, by)


def hours_of(connection: Connection, interval: Interval) -> Iterator[tuple[Period, dict[tuple[str, ...], list[int]]]]:
    """Whole hours from roll-ups; what is left at the ends of the interval from the calls themselves."""
    first_ms = hour_of(interval.start_ms + HOUR_MS - 1)
    last_ms = hour_of(interval.end_ms)
    if first_ms > last_ms:
        yield from part_of_an_hour(connection, interval.start_ms, interval.end_ms)
        return
    yield from part_of_an_hour(connection, interval.start_ms, first_ms)
    yield from whole_hours(connection, first_ms, last_ms)
    yield from part_of_an_hour(connection, last_ms, interval.end_ms)


def whole_hours(
    connection: Connection, start_ms: int, end_ms: int
) -> Iterator[tuple[Period, dict[tuple[str, ...], list[int]]]]:
    if start_ms >= end_ms:
        return
    names = len(DIMENSIONS)
    columns = [hourly.c[name] for name in (*DIMENSIONS, *MEASURES)]
    statement = select(hourly.c.hour_ms, *columns).where(hourly.c.hour_ms >= start_ms, hourly.c.hour_ms < end_ms)
    statement = statement.order_by(hourly.c.hour_ms, hourly.c.key).execution_options(yield_per=ROWS_AT_ONCE)
    hour_ms: int | None = None
    by: dict[tuple[str, ...], list[int]] = {}
    for row in connection.execute(statement):
        if row[0] != hour_ms:
            if hour_ms is not None:
                yield Period(hour_ms, hour_ms + HOUR_MS), by
            hour_ms, by = row[0], {}
        by[tuple(row[1 : 1 + names])] = list(row[1 + names :])
    if hour_ms is not None:
        yield Period(hour_ms, hour_ms + HOUR_MS), by


def part_of_an_hour(
    connection: Connection, start_ms: int, end_ms: int
) -> Iterator[tuple[Period, dict[tuple[str, ...], list[int]]]]:
    if start_ms >= end_ms:
        return
    by: dict[tuple[str, ...], list[int]] = {}
    statement = select(calls.c.record).where(calls.c.at_ms >= start_ms, calls.c.at_ms < end_ms)
    for (data,) in connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        record = decode(data)
        add_to(by.setdefault(dimensions(record), [0] * len(MEASURES)), measures(record))
    if by:
        yield Period(start_ms, end_ms), by
