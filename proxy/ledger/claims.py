"""Claims: a session that ran without a task is given one afterwards: once, by its own user, and marked as that.

The calls are written anew with their task, as any later revision is, so that roll-ups move and sums stay.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, and_, select

from ..core.record import Record, decode
from .engine import Database
from .rollups import digest, text
from .tables import CLAIMABLE, calls, claims, outcomes
from .writer import CLAIMED, Replacement, Writer

CLAIM_CALLS_MAX = 20_000
"""Calls of one claim: a day and night of an agent. They are moved in one transaction."""
AGENT = "agent"
"""The `task_source` of a task that is nothing but the agent's own name of its session."""


class ClaimRefused(Exception):
    """A sentence for the one who claims. `status`: 404 where there is nothing to claim, 409 where it cannot be."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that stands. `calls` and `cost_nusd` are what it moved."""

    session: str
    task: str
    calls: int
    cost_nusd: int
    at_ms: int


class ClaimBook:
    """Claims in the ledger's database. Every method raises LedgerUnavailable where it cannot be reached."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def claim(self, org: str, user: str, session: str, task: str, now_ms: int) -> Claimed:
        """Gives the calls of a session their task. The same claim again is answered as before. Raises ClaimRefused."""
        key = digest((org, user, session))
        with self._database.writing() as connection:
            known = connection.execute(select(claims).where(claims.c.key == key)).first()
            if known is not None:
                if known.task != text(task):
                    raise ClaimRefused(409, f"session `{session}` was claimed for task `{known.task}` already")
                return Claimed(
                    session=session, task=task, calls=known.calls, cost_nusd=known.cost_nusd, at_ms=known.at_ms
                )
            rows = self._rows(connection, org, user, session)
            self._may(connection, org, session, task, len(rows))
            moved = [moved_to(row, task) for row in rows]
            self._writer.replace(connection, moved)
            made = Claimed(
                session=session,
                task=task,
                calls=sum(each.after.count for each in moved),
                cost_nusd=sum(each.after.cost_nusd or 0 for each in moved),
                at_ms=now_ms,
            )
            row = msgspec.structs.asdict(made) | {"session": text(session), "task": text(task)}
            connection.execute(claims.insert(), {"key": key, "org": text(org), "user": text(user), **row})
        return made

    def _rows(self, connection: Connection, org: str, user: str, session: str) -> list[Any]:
        """Its calls that name no task, or only the session itself."""
        columns = (calls.c.seq, calls.c.record, calls.c.store_revision)
        own = and_(calls.c.user == text(user), calls.c.org == text(org))
        silent = and_(own, CLAIMABLE, calls.c.session == text(session))
        named = and_(own, calls.c.task == text(session), calls.c.task_source == AGENT)
        found: list[Any] = []
        for which in (silent, named):
            found += connection.execute(select(*columns).where(which).limit(CLAIM_CALLS_MAX + 1)).all()
        return found

    def _may(self, connection: Connection, org: str, session: str, task: str, count: int) -> None:
        if not count:
            raise ClaimRefused(404, f"no call of yours in session `{session}` ran without a task")
        if count > CLAIM_CALLS_MAX:
            raise ClaimRefused(409, f"session `{session}` has more than {CLAIM_CALLS_MAX:,} calls: too many to claim")
        accepted = select(outcomes.c.key).where(
            outcomes.c.org == text(org), outcomes.c.task == text(task), outcomes.c.state == "accepted"
        )
        if connection.execute(accepted.limit(1)).first() is not None:
            raise ClaimRefused(409, f"task `{task}` has an accepted outcome: what it cost is settled")


def moved_to(row: Any, task: str) -> Replacement:
    """A call, before and after it has its task."""
    before = decode(row.record)
    after: Record = msgspec.structs.replace(before, task=task, task_source=CLAIMED, revision=before.revision + 1)
    return Replacement(row.seq, before, after, row.store_revision)
