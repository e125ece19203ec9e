"""Spending: the rows and sums of the ledger from which counters are counted: a million rows, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import func, select

from ..core.usage import TOKEN_FIELDS
from .engine import Database
from .tables import calls, hourly

ROWS_AT_ONCE = 2_000
WAITING = '%"later":true%'
"""Of a record's JSON: its cost is still to be shown by a retrieval."""
SPOKEN_FOR = '%"max_cost_nusd":{"%'
"""Of a record's JSON: its task key has a `max_cost`. Budgets of keys have no window, so all their calls count."""


class HourSum(NamedTuple):
    """What calls of whole hours came to. The names are those of the budgets' fields; "" where a call had none."""

    org: str
    team: str
    user: str
    task: str
    agent: str
    provider: str
    upstream: str
    api: str
    nusd: int
    tokens: int


class Spending:
    """Reads for counting. Every method raises LedgerUnavailable where the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def records(self, since_ms: int, until_ms: int | None = None, *, in_time: bool = False) -> Iterator[str]:
        """The JSON of all calls of a time, `until_ms` not included; `in_time`: in the order in which they were made."""
        statement = select(calls.c.record).where(calls.c.at_ms >= since_ms)
        if until_ms is not None:
            statement = statement.where(calls.c.at_ms < until_ms)
        if in_time:
            statement = statement.order_by(calls.c.at_ms, calls.c.seq)
        with self._database.reading() as connection:
            yield from connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)).scalars()

    def waiting(self, since_ms: int) -> list[str]:
        """The JSON of the calls since a moment whose cost is still to be shown."""
        statement = select(calls.c.record).where(calls.c.at_ms >= since_ms, calls.c.record.like(WAITING))
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def records_with_max_cost(self, before_ms: int) -> Iterator[str]:
        """The JSON of the calls before a moment that were made with a `max_cost`."""
        statement = select(calls.c.record).where(calls.c.at_ms < before_ms, calls.c.record.like(SPOKEN_FOR))
        with self._database.reading() as connection:
            yield from connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)).scalars()

    def hours(self, since_ms: int, until_ms: int | None = None) -> Iterator[HourSum]:
        """Sums of the whole hours from `since_ms` on, which must begin one."""
        names = ("org", "team", "user", "task", "agent", "provider", "upstream", "api")
        columns = [hourly.c[name] for name in names]
        tokens = sum((hourly.c[name] for name in TOKEN_FIELDS[1:]), hourly.c[TOKEN_FIELDS[0]])
        statement = select(*columns, func.sum(hourly.c.cost_nusd), func.sum(tokens))
        statement = statement.where(hourly.c.hour_ms >= since_ms).group_by(*columns)
        if until_ms is not None:
            statement = statement.where(hourly.c.hour_ms < until_ms)
        with self._database.reading() as connection:
            for row in connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
                # PostgreSQL adds up bigints to a numeric, which arrives as a Decimal.
                yield HourSum(*row[:8], int(row[8]), int(row[9]))
