"""Budgets that were ever in force, by the identity of their counters: what tells a new one, whose counters begin with
what was spent before it came, from one whose limit was changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, update

from .engine import Database
from .tables import budgets


class Seeding(msgspec.Struct, frozen=True):
    """A budget whose counters lack what was spent from `from_ms` on, before it came at `since_ms`.

    `rebuilt` are the shards whose counters have it all the same, since they were rebuilt meanwhile."""

    identity: str
    since_ms: int
    from_ms: int
    rebuilt: frozenset[int]


class BudgetBook:
    """The identities in the ledger's database. Every method raises LedgerUnavailable where it cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_force(self, identities: Collection[str], now_ms: int) -> list[Seeding]:
        """Notes what a policy holds; gives those whose counters have yet to be seeded."""
        wanted = set(identities)
        with self._database.reading() as connection:
            known = {row.identity: row for row in connection.execute(select(budgets))}
        here = {identity for identity, row in known.items() if row.left_ms is None}
        if here != wanted:
            with self._database.writing() as connection:
                self._left(connection, here - wanted, now_ms)
                self._came(connection, wanted - here, known, now_ms)
        with self._database.reading() as connection:
            rows = connection.execute(select(budgets).where(budgets.c.seeding == 1, budgets.c.left_ms.is_(None)))
            return [
                Seeding(row.identity, row.since_ms, row.from_ms, frozenset(msgspec.json.decode(row.rebuilt)))
                for row in rows
            ]

    def came_after(self, ms: int) -> list[tuple[str, int]]:
        """Identity, and since when it is in force, of those that came after a moment."""
        statement = select(budgets.c.identity, budgets.c.since_ms)
        with self._database.reading() as connection:
            rows = connection.execute(statement.where(budgets.c.since_ms > ms, budgets.c.left_ms.is_(None)))
            return [(row.identity, row.since_ms) for row in rows]

    def seeded(self, identities: Iterable[str]) -> None:
        """Their counters hold everything now."""
        with self._database.writing() as connection:
            for identity in identities:
                done = update(budgets).where(budgets.c.identity == identity)
                connection.execute(done.values(seeding=0, rebuilt="[]"))

    def rebuilding(self, shards: Iterable[int]) -> None:
        """These shards are about to get counters that hold everything: nothing must be added to them after. Said
        before they begin, so that a process that dies in between cannot count anything twice."""
        with self._database.writing() as connection:
            rows = connection.execute(select(budgets.c.identity, budgets.c.rebuilt).where(budgets.c.seeding == 1)).all()
            for row in rows:
                all_shards = sorted({*msgspec.json.decode(row.rebuilt), *shards})
                text = msgspec.json.encode(all_shards).decode()
                connection.execute(update(budgets).where(budgets.c.identity == row.identity).values(rebuilt=text))

    def _left(self, connection: Connection, gone: Collection[str], now_ms: int) -> None:
        for identity in gone:
            connection.execute(update(budgets).where(budgets.c.identity == identity).values(left_ms=now_ms))

    def _came(self, connection: Connection, new: Collection[str], known: dict[str, Any], now_ms: int) -> None:
        rows = []
        for identity in sorted(new):
            before, from_ms = known.get(identity), 0
            if before is not None:
                # It is back: its counters have what was spent until it left, if they were ever seeded.
                from_ms = before.from_ms if before.seeding else before.left_ms
                connection.execute(delete(budgets).where(budgets.c.identity == identity))
            rows.append({"identity": identity, "since_ms": now_ms, "from_ms": from_ms, "seeding": 1, "rebuilt": "[]"})
        if rows:
            connection.execute(budgets.insert(), rows)
