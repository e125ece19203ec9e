"""Raises: who got more of which budget, until when and why. Rows are only ever added, so the list is the record."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from ..core.raises import GivenRaise
from .engine import Database
from .reader import RAISE_COLUMNS, raise_of
from .tables import raises

COLUMNS = [raises.c[name] for name in RAISE_COLUMNS]


class RaiseBook:
    """Raises in the ledger's database. Every method raises LedgerUnavailable where it cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: GivenRaise) -> GivenRaise:
        """Writes a raise and gives it back with its id."""
        row = {name: getattr(new, name) for name in RAISE_COLUMNS if name != "id"}
        row["scope"] = msgspec.json.encode(new.scope).decode()
        with self._database.writing() as connection:
            (number,) = connection.execute(raises.insert(), row).inserted_primary_key or (0,)
        return msgspec.structs.replace(new, id=number)

    def list(self) -> Sequence[GivenRaise]:
        """All of them, in the order in which they were made."""
        with self._database.reading() as connection:
            return [raise_of(row) for row in connection.execute(select(*COLUMNS).order_by(raises.c.id))]

    def open(self, now_ms: int) -> Sequence[GivenRaise]:
        """Those that still count."""
        statement = select(*COLUMNS).where(raises.c.until_ms > now_ms).order_by(raises.c.id)
        with self._database.reading() as connection:
            return [raise_of(row) for row in connection.execute(statement)]
