"""Alerts that are to be told, and were: an outbox. What was seen and how far the ledger was looked at go in together,
so that no event is lost and none is told twice, whenever a process dies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select, update

from .engine import Database
from .queries import last_seq
from .tables import alerts, cursors

CURSOR = "alerts"
DUE_MAX = 100
"""Messages taken up at once; each is one HTTP request."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. `key` is the same for the same rule, event, scope and window; `body` is JSON."""

    key: str
    alert: str
    body: str
    at_ms: int
    attempts: int = 0


COLUMNS = [alerts.c[name] for name in Message.__struct_fields__]


class AlertBook:
    """The outbox in the ledger's database. Every method raises LedgerUnavailable where it cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cursor(self) -> int:
        """The last row of the ledger whose events are in the outbox. A ledger that was never looked at begins with
        its newest row: what happened before anybody wanted to know is no news."""
        with self._database.writing() as connection:
            found = connection.execute(select(cursors.c.seq).where(cursors.c.name == CURSOR)).scalar()
            if found is None:
                found = last_seq(connection)
                connection.execute(cursors.insert(), {"name": CURSOR, "seq": found})
        return int(found)

    def put(self, messages: Sequence[Message], seq: int | None) -> int:
        """Adds what is new among the messages, and moves the cursor (None: leaves it). How many were new."""
        new = 0
        insert = self._database.insert(alerts)
        with self._database.writing() as connection:
            for message in messages:
                row = msgspec.structs.asdict(message) | {"due_ms": message.at_ms}
                new += connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]), row).rowcount
            if seq is not None:
                connection.execute(update(cursors).where(cursors.c.name == CURSOR).values(seq=seq))
        return new

    def due(self, now_ms: int) -> list[Message]:
        """What is to be sent now, the oldest first."""
        statement = select(*COLUMNS).where(alerts.c.due_ms <= now_ms).order_by(alerts.c.at_ms).limit(DUE_MAX)
        with self._database.reading() as connection:
            return [Message(**row._mapping) for row in connection.execute(statement)]

    def tried(self, key: str, next_ms: int | None) -> None:
        """One attempt was made: None, it is done with; else when the next one is due."""
        with self._database.writing() as connection:
            statement = update(alerts).where(alerts.c.key == key)
            connection.execute(statement.values(attempts=alerts.c.attempts + 1, due_ms=next_ms))
