"""Sums: what calls of a time came to, read from the coarsest roll-ups that fit it, and exact all the same.

Whole days that are closed come from `daily`, whole hours from `hourly`; where an edge of the time cuts through an hour,
the calls of that hour are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Subquery,
    Table,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from ..core.attribution import NO_OUTCOME, STATES, Mix
from ..core.record import decode
from .daily import open_days_of
from .rollups import (
    DAY_MS,
    DAY_SUMS,
    DIMENSIONS,
    HOUR_MS,
    MEASURES,
    RESULTS_APART,
    day_of,
    dimensions,
    hour_of,
    measures,
)
from .tables import CALLS_FROM, calls, daily, hourly, meta, outcomes

ROWS_AT_ONCE = 1_000

Values = tuple[str, ...]
Range = tuple[int, int]

CAN_COUNT = and_(
    outcomes.c.task != "",
    outcomes.c.weight > 0,
    # What a person declared takes no cost unless a rule says when it is accepted.
    or_(outcomes.c.source == "signed", outcomes.c.accepted_after_ms.is_not(None)),
)
"""Outcomes that cost is attributed to."""


class Cell(NamedTuple):
    """Sums of calls that are alike in `values`, in having a task or not, and in what their tasks came to."""

    values: Values
    has_task: bool
    mix: Mix
    sums: Sequence[int]


class Sums:
    """Reads within one transaction, which sees one moment of the ledger."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open = open_days_of(connection)
        # Asked for one by one, each is found at an end of the index; SQLite reads the whole table for both at once.
        first, last = (connection.execute(select(each(hourly.c.hour_ms))).scalar() for each in (func.min, func.max))
        self.first_ms: int | None = None if first is None else day_of(first)
        """The first day with calls, None in an empty ledger."""
        self.end_ms: int = 0 if last is None else day_of(last) + DAY_MS
        """The end of the last one."""
        kept = connection.execute(select(meta.c.value).where(meta.c.name == CALLS_FROM)).scalar()
        self._calls_from_ms = int(kept or 0)

    def over(
        self,
        start_ms: int,
        end_ms: int,
        columns: Sequence[str],
        names: Sequence[str] = DAY_SUMS,
        *,
        with_outcomes: bool = True,
    ) -> Iterator[Cell]:
        """Sums of `names` (of DAY_SUMS) by `columns` (of DAY_DIMENSIONS). What is alike may come in several cells.

        Without outcomes no cell has any, which is quicker.
        """
        days, hours, parts = pieces(self.edge(start_ms), self.edge(end_ms), self._open)
        for range_ in parts:
            yield from self._of_calls(range_, columns, names)
        for range_ in hours:
            yield from self._grouped(hourly, hourly.c.hour_ms, range_, columns, names, with_outcomes)
        if days is not None:
            yield from self._grouped(daily, daily.c.day_ms, days, columns, names, with_outcomes)

    def edge(self, at_ms: int) -> int:
        """Where calls may have been dropped, nothing is known within an hour: the whole of it is where it begins."""
        return hour_of(at_ms) if at_ms < self._calls_from_ms else at_ms

    def cost_of_tasks(self, chosen: Subquery, columns: Sequence[str]) -> Iterator[tuple[Values, str, str, int]]:
        """What the tasks in `chosen` (org, task) cost in all time, by `columns`: values, org, task, nano-USD."""
        hours = ranges_of((day_ms, day_ms + DAY_MS) for day_ms in self._open)
        yield from self._cost(daily, daily.c.day_ms.not_in(self._open), chosen, columns)
        if hours:
            yield from self._cost(hourly, within(hourly.c.hour_ms, hours), chosen, columns)

    def _cost(
        self, table: Table, where: ColumnElement[bool], chosen: Subquery, columns: Sequence[str]
    ) -> Iterator[tuple[Values, str, str, int]]:
        names = [table.c[name] for name in columns]
        same = and_(table.c.task == chosen.c.task, table.c.org == chosen.c.org)
        statement = select(func.sum(table.c.cost_nusd), table.c.org, table.c.task, *names)
        statement = statement.select_from(table.join(chosen, same)).where(where, table.c.task != "")
        for row in self._connection.execute(statement.group_by(table.c.org, table.c.task, *names)).all():
            yield tuple(row[3:]), row[1], row[2], int(row[0])

    def _grouped(
        self,
        table: Table,
        time: ColumnElement[int],
        range_: Range,
        columns: Sequence[str],
        names: Sequence[str],
        with_outcomes: bool,
    ) -> Iterator[Cell]:
        by = [table.c[name] for name in columns]
        where = [time >= range_[0], time < range_[1]]
        if table is daily and self._open:
            where.append(time.not_in(self._open))
        weights: list[ColumnElement[Any]] = [literal_column("0") for _ in STATES]
        has_task: ColumnElement[Any] = literal_column("1")
        source: FromClause = table
        labels: list[str] = []
        if with_outcomes:
            mix = self._mix
            # Labelled, and grouped by their labels: PostgreSQL takes two parameters of one value for two expressions.
            weights = [func.coalesce(mix.c[state], 0).label(f"mix_{state}") for state in STATES]
            has_task = case((table.c.task == "", 0), else_=1).label("has_task")
            labels = ["has_task", *(f"mix_{state}" for state in STATES)]
            source = table.outerjoin(mix, and_(mix.c.task == table.c.task, mix.c.org == table.c.org))
        statement = select(func.count(), has_task, *weights, *by, *(sum_of(table, name) for name in names))
        statement = statement.select_from(source).where(*where).group_by(*labels, *by)
        first = 5 + len(by)
        for row in self._connection.execute(statement).all():  # one by one takes twice as long
            if row[0]:  # else a sum over no rows, where nothing is grouped by
                # PostgreSQL adds up bigints to a numeric, which arrives as a Decimal.
                yield Cell(tuple(row[5:first]), bool(row[1]), Mix(*map(int, row[2:5])), list(map(int, row[first:])))

    def _of_calls(self, range_: Range, columns: Sequence[str], names: Sequence[str]) -> Iterator[Cell]:
        statement = select(calls.c.record).where(calls.c.at_ms >= range_[0], calls.c.at_ms < range_[1])
        for (data,) in self._connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
            record = decode(data)
            found = dict(zip(DIMENSIONS, dimensions(record), strict=True))
            counts = dict(zip(MEASURES, measures(record), strict=True))
            counts |= {name: record.count if record.result == name else 0 for name in RESULTS_APART}
            mix = self._mixes.get((found["org"], found["task"]), NO_OUTCOME)
            values = tuple(found[name] for name in columns)
            yield Cell(values, bool(found["task"]), mix, [counts[name] for name in names])

    @cached_property
    def _mix(self) -> Subquery:
        """The weights of each task's outcomes, by state."""
        weights = [
            cast(func.sum(case((outcomes.c.state == state, outcomes.c.weight), else_=0)), BigInteger).label(state)
            for state in STATES
        ]
        by = (outcomes.c.org, outcomes.c.task)
        return select(*by, *weights).where(CAN_COUNT).group_by(*by).subquery()

    @cached_property
    def _mixes(self) -> dict[tuple[str, str], Mix]:
        rows = self._connection.execute(select(self._mix))
        return {(org, task): Mix(*map(int, weights)) for org, task, *weights in rows}


def pieces(start_ms: int, end_ms: int, open_days: Sequence[int]) -> tuple[Range | None, list[Range], list[Range]]:
    """Cuts a time into whole days, whole hours (those of open days among them), and parts of hours."""
    if start_ms >= end_ms:
        return None, [], []
    first_hour, last_hour = hour_of(start_ms + HOUR_MS - 1), hour_of(end_ms)
    if first_hour > last_hour:  # begins and ends within the same hour
        return None, [], [(start_ms, end_ms)]
    parts = [(start_ms, first_hour), (last_hour, end_ms)]
    first_day, last_day = day_of(first_hour + DAY_MS - 1), day_of(last_hour)
    if first_day >= last_day:
        return None, ranges_of([(first_hour, last_hour)]), ranges_of(parts)
    inside = [(day_ms, day_ms + DAY_MS) for day_ms in open_days if first_day <= day_ms < last_day]
    return (first_day, last_day), ranges_of([(first_hour, first_day), *inside, (last_day, last_hour)]), ranges_of(parts)


def ranges_of(pieces: Iterable[Range]) -> list[Range]:
    """Without empty ones; those that touch are one. They come in the order of time."""
    found: list[Range] = []
    for start_ms, end_ms in pieces:
        if start_ms >= end_ms:
            continue
        if found and found[-1][1] == start_ms:
            found[-1] = (found[-1][0], end_ms)
        else:
            found.append((start_ms, end_ms))
    return found


def within(time: ColumnElement[int], ranges: Iterable[Range]) -> ColumnElement[bool]:
    return or_(*(and_(time >= start_ms, time < end_ms) for start_ms, end_ms in ranges))


def sum_of(table: Table, name: str) -> ColumnElement[Any]:
    """`daily` has results side by side; in `hourly` they are a column."""
    if table is hourly and name in RESULTS_APART:
        return func.sum(case((hourly.c.result == name, hourly.c.calls), else_=0))
    return func.sum(table.c[name])
