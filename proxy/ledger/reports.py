"""Reports: what calls came to, summed by task, team, model and the like. Rows stand in the order of their names.

There is no other order, on purpose: a list of people by use is what this product exists to replace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, case, func, select

from ..core.record import decode
from ..core.usage import TOKEN_FIELDS
from .engine import Database
from .rollups import DIMENSIONS, HOUR_MS, MEASURES, USAGE_SUMS, add_to, dimensions, hour_of, measures
from .tables import calls, hourly

BY = ("task", "team", "user", "model", "agent", "month", "provider", "api", "org", "upstream")
"""What a report can be broken down by."""

RESULTS_APART = ("refused", "failed", "client_gone", "lost")
"""Results that a row counts apart; what is left of `calls` went well."""

ROWS_MAX = 100_000
"""Rows of one report: some 50 MB of JSON. More is an export, not a report."""

SUMS = (*RESULTS_APART, *MEASURES)

Values = tuple[str, ...]


class ReportInvalid(ValueError):
    """A report that cannot be made as asked for. The sentence says what to change."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of calls. `values` belong to the report's `by`, in its order; None is an absent task, agent or the like.

    `cost_nusd` leaves out the `unpriced_calls` and contains the guess for the `assumed_calls`, and `repeat_nusd`: what
    the `repeat_calls` cost, which repeat work. `usage` has the
    record's fields, with `requests` as one number and `audio_ms` for its seconds.
    """

    values: tuple[str | None, ...]
    calls: int
    refused: int
    failed: int
    client_gone: int
    lost: int
    cost_nusd: int
    list_nusd: int
    unpriced_calls: int
    assumed_calls: int
    repeat_calls: int
    repeat_nusd: int
    tokens: int
    usage: dict[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by name, and their total, which is exactly their sum."""

    by: tuple[str, ...]
    since_ms: int
    until_ms: int
    rows: list[Row]
    total: Row


class Interval(msgspec.Struct, frozen=True):
    """Times from `start_ms` to before `end_ms`, that all lie in `month`."""

    start_ms: int
    end_ms: int
    month: str


def report(database: Database, by: Sequence[str], since_ms: int, until_ms: int, timezone: str = "UTC") -> Report:
    """Sums of the calls admitted from `since_ms` to before `until_ms`. Months are those of `timezone`.

    Whole hours come from roll-ups. Where an edge, or a month of a zone like Asia/Kolkata, cuts through an hour, the
    calls of that hour are read one by one, so that every report is exact. Raises ReportInvalid, LedgerUnavailable.
    """
    by = check_by(by)
    sums: dict[Values, list[int]] = {}
    with database.reading() as connection:
        bounds = connection.execute(select(func.min(hourly.c.hour_ms), func.max(hourly.c.hour_ms))).one()
        if bounds[0] is not None:
            start_ms, end_ms = max(since_ms, bounds[0]), min(until_ms, bounds[1] + HOUR_MS)
            for interval in intervals(start_ms, end_ms, by, zone(timezone)):
                for values, added in sums_of(connection, interval, by):
                    add_to(sums.setdefault(values, [0] * len(SUMS)), added)
                    if len(sums) > ROWS_MAX:
                        raise ReportInvalid(
                            f"the report has more than {ROWS_MAX:,} rows; ask for a shorter time or fewer names in `by`"
                        )
    names = sorted(sums, key=lambda values: [(not value, value) for value in values])
    total = [0] * len(SUMS)
    for values in names:
        add_to(total, tuple(sums[values]))
    return Report(
        by=by,
        since_ms=since_ms,
        until_ms=until_ms,
        rows=[row(values, sums[values]) for values in names],
        total=row((), total),
    )


def check_by(by: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise ReportInvalid(f"`{unknown[0]}` is nothing to report by; write one or more of {', '.join(BY)}")
    if len(set(by)) != len(by) or not by:
        raise ReportInvalid(f"`by` needs one or more of {', '.join(BY)}, each once")
    return tuple(by)


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ReportInvalid(f"`{name}` is no time zone; write one like `UTC` or `Europe/Berlin`") from None


def intervals(start_ms: int, end_ms: int, by: tuple[str, ...], months_of: ZoneInfo) -> Iterator[Interval]:
    """The time asked for, in one piece, or month by month when the report is by month."""
    while start_ms < end_ms:
        stop_ms, month = end_ms, ""
        if "month" in by:
            month, next_ms = month_at(start_ms, months_of)
            stop_ms = min(end_ms, next_ms)
        yield Interval(start_ms, stop_ms, month)
        start_ms = stop_ms


def month_at(at_ms: int, months_of: ZoneInfo) -> tuple[str, int]:
    """The month that a moment lies in, like `2026-11`, and when the next begins."""
    return f"{datetime.fromtimestamp(at_ms / 1000, months_of):%Y-%m}", month_bounds(at_ms, months_of)[1]


def month_bounds(at_ms: int, months_of: ZoneInfo) -> tuple[int, int]:
    """When the month that a moment lies in begins, and when the next does."""
    moment = datetime.fromtimestamp(at_ms / 1000, months_of)
    first = datetime(moment.year, moment.month, 1, tzinfo=months_of)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    epoch = datetime.fromtimestamp(0, UTC)  # in another zone: Python subtracts times of one zone by their clocks
    return (first - epoch) // timedelta(milliseconds=1), (following - epoch) // timedelta(milliseconds=1)


def sums_of(
    connection: Connection, interval: Interval, by: tuple[str, ...]
) -> Iterator[tuple[Values, tuple[int, ...]]]:
    """Sums of one interval: its whole hours from roll-ups, what is left at its ends from the calls themselves."""
    first_ms = hour_of(interval.start_ms + HOUR_MS - 1)
    last_ms = hour_of(interval.end_ms)
    if first_ms > last_ms:  # begins and ends within the same hour
        yield from sums_of_calls(connection, interval.start_ms, interval.end_ms, interval.month, by)
        return
    yield from sums_of_calls(connection, interval.start_ms, first_ms, interval.month, by)
    yield from sums_of_hours(connection, first_ms, last_ms, interval.month, by)
    yield from sums_of_calls(connection, last_ms, interval.end_ms, interval.month, by)


def sums_of_hours(
    connection: Connection, start_ms: int, end_ms: int, month: str, by: tuple[str, ...]
) -> Iterator[tuple[Values, tuple[int, ...]]]:
    if start_ms >= end_ms:
        return
    columns = [hourly.c[name] for name in by if name != "month"]
    apart = [func.sum(case((hourly.c.result == name, hourly.c.calls), else_=0)) for name in RESULTS_APART]
    whole = [func.sum(hourly.c[name]) for name in MEASURES]
    statement = select(func.count(), *columns, *apart, *whole)
    statement = statement.where(hourly.c.hour_ms >= start_ms, hourly.c.hour_ms < end_ms).group_by(*columns)
    for found in connection.execute(statement):
        if not found[0]:  # a sum over no rows, when nothing is grouped by
            continue
        names = iter(found[1 : 1 + len(columns)])
        values = tuple(month if name == "month" else next(names) for name in by)
        # PostgreSQL adds up bigints to a numeric, which arrives as a Decimal.
        yield values, tuple(int(value) for value in found[1 + len(columns) :])


def sums_of_calls(
    connection: Connection, start_ms: int, end_ms: int, month: str, by: tuple[str, ...]
) -> Iterator[tuple[Values, tuple[int, ...]]]:
    if start_ms >= end_ms:
        return
    statement = select(calls.c.record).where(calls.c.at_ms >= start_ms, calls.c.at_ms < end_ms)
    for (data,) in connection.execute(statement.execution_options(yield_per=1000)):
        record = decode(data)
        found = dict(zip(DIMENSIONS, dimensions(record), strict=True))
        values = tuple(month if name == "month" else found[name] for name in by)
        apart = tuple(record.count if record.result == name else 0 for name in RESULTS_APART)
        yield values, apart + measures(record)


def row(values: Values, sums: Sequence[int]) -> Row:
    named = dict(zip(SUMS, sums, strict=True))
    usage = {name: named.pop(name) for name in USAGE_SUMS}
    tokens = sum(usage[name] for name in TOKEN_FIELDS)
    return Row(values=tuple(value or None for value in values), tokens=tokens, usage=usage, **named)


def row_fields(by: Sequence[str], shown: Row) -> dict[str, Any]:
    """A row as the API and the CLI show it: the values under their names, then the sums."""
    fields: dict[str, Any] = msgspec.to_builtins(shown)
    values = fields.pop("values")
    return dict(zip(by, values, strict=False)) | fields
