"""A ledger's outcomes, told by payloads, with rules to tell them by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from proxy.core.happenings import told_by
from proxy.core.outcomes import Outcome, OutcomeRule
from proxy.ledger.database import Ledger
from proxy.ledger.outcomes import Delivery
from proxy.wire.webhooks import read
from tests.support.deliveries import AT_MS, DAY, MINUTE, github, standard

MERGED = OutcomeRule(
    name="merged",
    origin="github",
    secret="x",
    event="pull_request.merged",
    task="[A-Z]+-[0-9]+",
    accepted_after_ms=14 * DAY,
)
CLOSED = OutcomeRule(
    name="closed",
    origin="standard",
    secret="x",
    event="issue.closed",
    undone_by=("issue.reopened", "deploy.rolled_back"),
    accepted_after_ms=DAY,
)
_numbers = count()


class Book:
    """The ledger's outcomes, told by payloads. `tell` gives each delivery an id of its own where none is given."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.now_ms = AT_MS + MINUTE

    def tell(self, payload: Mapping[str, Any], rule: OutcomeRule = MERGED, identity: str = "") -> list[str]:
        body, headers = github(payload)
        return self._take(rule, body, headers, identity)

    def tell_standard(self, kind: str, data: Mapping[str, Any], rule: OutcomeRule = CLOSED, **more: Any) -> list[str]:
        body, headers = standard(kind, data, delivery=f"msg_{next(_numbers)}", **more)
        return self._take(rule, body, headers, "")

    def _take(self, rule: OutcomeRule, body: bytes, headers: Mapping[str, str], identity: str) -> list[str]:
        told = told_by(rule, read(rule, headers, body, self.now_ms), self.now_ms)
        delivery = Delivery(rule=rule, identity=identity or str(next(_numbers)), told=told)
        (taken,), _ = self.ledger.outcomes.take([delivery], self.now_ms)
        return list(taken.outcomes)

    def wait(self, days: float) -> None:
        """Time goes on, and the bookkeeper's clock with it."""
        self.now_ms = int(AT_MS + days * DAY)
        self.ledger.outcomes.accept_due(self.now_ms, lambda: None)

    def all(self) -> list[Outcome]:
        return sorted(self.ledger.outcomes.list(), key=lambda outcome: (outcome.landed_ms, outcome.change))

    def one(self) -> Outcome:
        (outcome,) = self.all()
        return outcome

    def states(self) -> list[str]:
        return [outcome.state for outcome in self.all()]
