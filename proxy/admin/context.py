"""What the admin port needs of the process it lives in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.policy import Policy
from ..core.record import Record
from ..core.recorded import Seen
from ..ledger.database import Ledger
from ..ledger.reprice import Charge


def now_ms() -> int:
    return int(time.time() * 1000)


class BudgetFigures(Protocol):
    """What counters stand at now, each as `GET /api/budgets` shows it."""

    async def counters(self) -> list[dict[str, Any]]:
        """All of them, by the names of budgets and scopes."""

    async def met_by(self, seen: Seen) -> list[dict[str, Any]]:
        """Those that a call meets, in the order of the policy."""


class OutcomeMetrics(Protocol):
    """Counts what comes by webhooks."""

    def delivered(self, rule: str, answer: str) -> None:
        """`taken`, `repeated`, `ignored`, `refused` or `failed`."""

    def changed(self, rule: str, state: str, count: int) -> None:
        """So many outcomes of a rule came to a state."""


@dataclass(frozen=True, kw_only=True)
class AdminContext:
    """Filled by the bookkeeper.

    admin_token  what `Authorization: Bearer` must carry
    make_key     makes a key that is in no database yet -> (its id, its text)
    metrics      -> (the Prometheus text, its content type); must not block
    readiness    -> what is not ready, `store`, `ledger` or `policy`, with a sentence for each; empty: all is ready.
                 Anyone may read them: they must hold no password
    policy       -> the policy in force as JSON: version, files, faults
    rules        -> the policy in force, with all its rules
    budgets      what budgets stand at
    alert_secret what receivers of alerts check signatures with
    outcome_metrics counts deliveries and outcomes
    price        prices a record again, for `reprice`; None where nothing better is known. Called in a thread
    charge       charges counters with the difference. Called in a thread; raises StoreError
    """

    ledger: Ledger
    admin_token: str
    make_key: Callable[[], tuple[str, str]]
    metrics: Callable[[], tuple[bytes, str]]
    readiness: Callable[[], Awaitable[Mapping[str, str]]]
    policy: Callable[[], Mapping[str, Any]]
    price: Callable[[Record], Record | None]
    charge: Charge
    rules: Callable[[], Policy]
    budgets: BudgetFigures
    alert_secret: str
    outcome_metrics: OutcomeMetrics
    clock_ms: Callable[[], int] = now_ms

    def __repr__(self) -> str:
        """Never shows the token."""
        return f"AdminContext({self.ledger.name})"
