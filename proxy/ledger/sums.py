"""Sums: what calls of a time came to, read from the coarsest roll-ups that fit it, and exact all the same.

What is read from which of them, and what of it is taken away again, is in cover.py. Where an edge of the time cuts
through an hour, the calls of its shorter part are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat
from operator import add, sub
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    MetaData,
    Subquery,
    Table,
    Text,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.schema import CreateTable, DropTable

from ..core.attribution import NO_OUTCOME, STATES, Mix
from ..core.record import decode
from .cover import Piece, Range, cover
from .daily import open_days_of, sums_used
from .rollups import (
    DAY_MS,
    DAY_SUMS,
    DIMENSIONS,
    MEASURES,
    RESULTS_APART,
    day_of,
    dimensions,
    hour_of,
    measures,
    month_of,
    next_month,
)
from .tables import CALLS_FROM, calls, daily, hourly, meta, monthly, outcomes

ROWS_AT_ONCE = 1_000

Values = tuple[str, ...]

CAN_COUNT = and_(
    outcomes.c.task != "",
    outcomes.c.weight > 0,
    # What a person declared takes no cost unless a rule says when it is accepted.
    or_(outcomes.c.source == "signed", outcomes.c.accepted_after_ms.is_not(None)),
)
"""Outcomes that cost is attributed to."""

ROLLUPS: dict[str, tuple[Table, ColumnElement[int]]] = {
    "monthly": (monthly, monthly.c.month_ms),
    "daily": (daily, daily.c.day_ms),
    "hourly": (hourly, hourly.c.hour_ms),
}
"""Each with when the time begins that a row stands for."""

task_mixes = Table(
    "task_mixes",
    MetaData(),
    # Within one transaction: the weights of each task's outcomes by state.
    Column("task", Text, primary_key=True),
    Column("org", Text, primary_key=True),
    *(Column(state, BigInteger, nullable=False) for state in STATES),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)


ZERO: ColumnElement[int] = literal_column("0")


class Cell(NamedTuple):
    """Sums of calls that are alike in `values`, in having a task or not, and in what their tasks came to."""

    values: Values
    has_task: bool
    mix: Mix
    sums: Sequence[int]


class Query(NamedTuple):
    """What is asked of each piece: sums of `names` (of DAY_SUMS) by `columns` (of DAY_DIMENSIONS).

    mixed    also by whether the calls have a task, and by its Mix, whose values follow those of the columns
    chosen   of the tasks in this alone (org, task)
    """

    columns: Sequence[str]
    names: Sequence[str] = DAY_SUMS
    mixed: bool = False
    chosen: Subquery | None = None


class Sums:
    """Reads within one transaction, which sees one moment of the ledger."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open = open_days_of(connection)
        self._used = sums_used(connection)
        # Asked for one by one, each is found at an end of the index; SQLite reads the whole table for both at once.
        first, last = (connection.execute(select(each(hourly.c.hour_ms))).scalar() for each in (func.min, func.max))
        self.first_ms: int | None = None if first is None else day_of(first)
        """The first day with calls, None in an empty ledger."""
        self.end_ms: int = 0 if last is None else day_of(last) + DAY_MS
        """The end of the last one."""
        kept = connection.execute(select(meta.c.value).where(meta.c.name == CALLS_FROM)).scalar()
        self._calls_from_ms = int(kept or 0)

    def over(
        self, start_ms: int, end_ms: int, columns: Sequence[str], names: Sequence[str] = DAY_SUMS
    ) -> dict[Values, Sequence[int]]:
        """Sums of `names` (of DAY_SUMS) by `columns` (of DAY_DIMENSIONS); where all of them are 0, there are none."""
        return self._over(*self._widened(start_ms, end_ms), Query(columns, names))

    def by_mix(self, start_ms: int, end_ms: int, columns: Sequence[str]) -> Iterator[Cell]:
        """All DAY_SUMS by `columns`, and apart by what the tasks of the calls came to."""
        found = self._over(*self._widened(start_ms, end_ms), Query(columns, mixed=True))
        width = len(columns)
        for values, sums in found.items():
            yield Cell(values[:width], bool(values[width]), Mix(*values[width + 1 :]), sums)

    def cost_of_tasks(self, chosen: Subquery, columns: Sequence[str]) -> dict[Values, Sequence[int]]:
        """What the tasks in `chosen` (org, task) cost in all time, and their calls, by org, task and `columns`."""
        query = Query(("org", "task", *columns), ("cost_nusd", "calls"), chosen=chosen)
        return self._over(*self._widened(0, self.end_ms), query)

    def done(self) -> None:
        """To be called when nothing more is read, unless the transaction fails."""
        if "_mixes" in vars(self):
            self._connection.execute(DropTable(task_mixes))

    def edge(self, at_ms: int) -> int:
        """Where calls may have been dropped, nothing is known within an hour: the whole of it is where it begins."""
        return hour_of(at_ms) if at_ms < self._calls_from_ms else at_ms

    def _widened(self, start_ms: int, end_ms: int) -> Range:
        """To edges within which all is known, and to whole months where no call lies beyond: they are read quickest."""
        start_ms, end_ms = self.edge(start_ms), self.edge(end_ms)
        if self.first_ms is None or start_ms >= end_ms:
            return start_ms, start_ms
        if start_ms <= self.first_ms:
            start_ms = month_of(self.first_ms)
        if end_ms >= self.end_ms:
            end_ms = next_month(self.end_ms - 1)
        return start_ms, end_ms

    def _over(self, start_ms: int, end_ms: int, query: Query) -> dict[tuple[Any, ...], Sequence[int]]:
        found: dict[tuple[Any, ...], Sequence[int]] = {}
        for piece in cover(start_ms, end_ms, self._open):
            by = add if piece.sign > 0 else sub
            for values, sums in self._of_calls(piece, query) if piece.level == "calls" else self._grouped(piece, query):
                known = found.get(values)
                if known is None and by is add:
                    found[values] = sums
                else:  # what is taken away may come before what it is taken from
                    found[values] = tuple(map(by, known or repeat(0), sums))
        return {values: sums for values, sums in found.items() if any(sums)}

    def _grouped(self, piece: Piece, query: Query) -> Iterator[tuple[tuple[Any, ...], Sequence[int]]]:
        """What a roll-up has of a piece, whatever its sign."""
        table, time = ROLLUPS[piece.level]
        by: list[ColumnElement[Any]] = [table.c[name] for name in query.columns]
        where = [time >= piece.start_ms, time < piece.end_ms]
        source: FromClause = table
        if query.mixed:
            mix = self._mixes
            source = source.outerjoin(mix, and_(mix.c.task == table.c.task, mix.c.org == table.c.org))
            # Literals: PostgreSQL takes two parameters of one value for two expressions.
            by.append(case((table.c.task == literal_column("''"), ZERO), else_=literal_column("1")))
            by += [func.coalesce(mix.c[state], ZERO) for state in STATES]
        if query.chosen is not None:
            chosen = query.chosen
            source = source.join(chosen, and_(table.c.task == chosen.c.task, table.c.org == chosen.c.org))
            where.append(table.c.task != "")
        statement = select(*by, func.count(), *(self._sum_of(table, name) for name in query.names)).select_from(source)
        width = len(by)
        for row in self._connection.execute(statement.where(*where).group_by(*by)).all():  # one by one takes longer
            if row[width]:  # else a sum over no rows, where nothing is grouped by
                yield row[:width], row[width + 1 :]

    def _sum_of(self, table: Table, name: str) -> ColumnElement[Any]:
        """`daily` and `monthly` have results side by side; in `hourly` they are a column."""
        if table is not hourly and name not in self._used:
            return ZERO
        apart = table is hourly and name in RESULTS_APART
        amounts = case((hourly.c.result == name, hourly.c.calls), else_=0) if apart else table.c[name]
        # PostgreSQL adds up bigints to a numeric, which its driver reads many times as slowly.
        return cast(func.sum(amounts), BigInteger)

    def _of_calls(self, piece: Piece, query: Query) -> Iterator[tuple[tuple[Any, ...], Sequence[int]]]:
        """As `_grouped`, call by call."""
        statement = select(calls.c.record).where(calls.c.at_ms >= piece.start_ms, calls.c.at_ms < piece.end_ms)
        for (data,) in self._connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
            record = decode(data)
            found = dict(zip(DIMENSIONS, dimensions(record), strict=True))
            counts = dict(zip(MEASURES, measures(record), strict=True))
            counts |= {name: record.count if record.result == name else 0 for name in RESULTS_APART}
            values: tuple[Any, ...] = tuple(found[name] for name in query.columns)
            if query.mixed:
                mix = self._mix_of_task.get((found["org"], found["task"]), NO_OUTCOME)
                values = (*values, int(found["task"] != ""), *mix)
            yield values, [counts[name] for name in query.names]

    @cached_property
    def _mixes(self) -> Table:
        """Written down for the time of the transaction: every piece that is read joins it."""
        by = (outcomes.c.org, outcomes.c.task)
        weights = [func.sum(case((outcomes.c.state == state, outcomes.c.weight), else_=0)) for state in STATES]
        found = select(*by, *weights).where(CAN_COUNT).group_by(*by)
        self._connection.execute(CreateTable(task_mixes))
        self._connection.execute(task_mixes.insert().from_select(["org", "task", *STATES], found))
        if self._connection.dialect.name == "postgresql":  # which would plan for a few rows
            self._connection.exec_driver_sql(f"ANALYZE {task_mixes.name}")
        return task_mixes

    @cached_property
    def _mix_of_task(self) -> dict[tuple[str, str], Mix]:
        columns = [self._mixes.c[name] for name in ("org", "task", *STATES)]
        return {(org, task): Mix(*weights) for org, task, *weights in self._connection.execute(select(*columns))}
