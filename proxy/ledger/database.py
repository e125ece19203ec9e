"""Ledger: everything that the SQL room can do, behind one object. Blocking: call it through threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from ..core.outcomes import Team
from ..core.patience import NO_PATIENCE, Patience
from ..core.record import Record, decode
from ..core.report import Report
from .alerts import AlertBook
from .budgets import BudgetBook
from .claims import ClaimBook
from .daily import close_days
from .engine import Database
from .entry import Entry, Position
from .exports import HourSums, hours
from .forget import ForgetStep, drop_calls, forget
from .keys import KeyStore
from .outcomes import OutcomeBook
from .queries import Queries
from .raises import RaiseBook
from .reconcile import Ours, reconcile
from .reports import report
from .reprice import Charge, Price, Repriced, reprice
from .spending import Spending
from .twins import TwinGroup, twins
from .writer import Fence, Ingested, Writer, find


class Ledger(Queries):
    """An opened ledger. Reads come from `Queries`. `keys` keeps what keys stand for, `raises` and `budgets` what is
    known of budgets, `alerts` what is to be told, `outcomes` what tasks came to, `claims` which sessions were given
    a task; `spending` reads what counters are counted from; `id` tells ledgers apart.

    Every method raises LedgerUnavailable where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._writer = Writer(database)
        self.keys = KeyStore(database)
        self.raises = RaiseBook(database)
        self.budgets = BudgetBook(database)
        self.alerts = AlertBook(database)
        self.outcomes = OutcomeBook(database)
        self.claims = ClaimBook(database, self._writer)
        self.spending = Spending(database)
        self.id = database.ledger_id
        self.name = database.name
        """The URL without its password, for messages."""

    def positions(self) -> dict[int, Position]:
        """Where each shard's stream stands in SQL; what `ingest` expects to find again."""
        return self._writer.positions()

    def ingest(self, batch: Sequence[Entry], *, fence: Fence | None = None) -> Ingested:
        """Rows, roll-ups and positions in one transaction; see Writer.ingest. Raises PositionMoved too."""
        return self._writer.ingest(batch, fence=fence)

    def report(
        self,
        by: Sequence[str],
        *,
        since_ms: int,
        until_ms: int,
        timezone: str = "UTC",
        teams: Sequence[Team] = (),
        patience: Patience = NO_PATIENCE,
    ) -> Report:
        """Sums by name, and outcomes; see reports.report. Raises ReportInvalid too."""
        return report(self._database, by, since_ms, until_ms, timezone, teams=teams, patience=patience)

    def reconcile(self, provider: str, since_ms: int, until_ms: int) -> list[Ours]:
        """What there is of a provider, by model, and the calls that rest on a guess; see reconcile.reconcile."""
        return reconcile(self._database, provider, since_ms, until_ms)

    def forget(self, user: str, now_ms: int) -> ForgetStep:
        """One step of taking a person out; call it until there is no `more`. Raises ForgetInvalid too."""
        return forget(self._database, self._writer, user, now_ms)

    def drop_calls(self, before_ms: int, now_ms: int) -> ForgetStep:
        """One step of dropping old calls, whose sums stay; call it until there is no `more`. Raises ForgetInvalid."""
        return drop_calls(self._database, before_ms, now_ms)

    def close_days(self, now_ms: int) -> int:
        """Sums up days that are over, some at a time; how many. See daily.close_days."""
        return close_days(self._database, now_ms)

    def hours(self, since_ms: int, until_ms: int, timezone: str = "UTC") -> Iterator[HourSums]:
        """The sums of every hour, oldest first; see exports.hours. Raises ReportInvalid too."""
        return hours(self._database, since_ms, until_ms, timezone)

    def twins(self, *, since_ms: int, until_ms: int) -> list[TwinGroup]:
        """Tasks that are the same work; see twins.twins. Raises TwinsInvalid too."""
        return twins(self._database, since_ms, until_ms)

    def known(self, call_ids: Iterable[str]) -> dict[str, Record]:
        """The records of those calls that the ledger knows, with the revisions that the store gave."""
        with self._database.reading() as connection:
            rows = find(connection, call_ids).values()
        return {row.call_id: replace(decode(row.record), revision=row.store_revision) for row in rows}

    def reprice(self, since_ms: int, price: Price, charge: Charge, cursor: str | None = None) -> Repriced:
        """One step of pricing calls with a guessed or unknown price again; call it until `next` is None."""
        return reprice(self._database, self._writer, since_ms, price, charge, cursor)

    def check(self) -> None:
        """Raises LedgerUnavailable unless the database answers."""
        self.last_seq()

    def close(self) -> None:
        self._database.close()


def open_ledger(url: str) -> Ledger:
    """Opens the ledger at a SQLAlchemy URL (SQLite or PostgreSQL) and makes its tables where there are none.

    Raises LedgerUnavailable where it cannot be reached, LedgerRefused where it must not be used.
    """
    return Ledger(Database(url))
