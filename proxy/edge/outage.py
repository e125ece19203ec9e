"""Outage: what each rule lets pass while the store is away, counted in this process."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

import msgspec

from ..core.budgets import Scope, StoreOutage
from ..core.policy import Policy

MEMORY_S = 60.0
"""What was let through counts against an allowance for this long after the last such call, so that a store that comes
and goes gives no fresh allowance each time."""


class Allowed(msgspec.Struct):
    """What one call was let through with: how much of it was counted by which rule, and how much the store held."""

    counted: dict[str, int] = {}
    held_nusd: int = 0


class Outage:
    """The allowances of one process. Amounts in nano-USD."""

    def __init__(self) -> None:
        self._counted: dict[str, int] = {}
        self._last_s = 0.0

    def take(self, rules: dict[str, StoreOutage], nusd: int, allowed: Allowed) -> str | None:
        """Lets a call go on with so much more, and notes that on it; else the rule that does not allow it."""
        now_s = monotonic()
        if now_s - self._last_s > MEMORY_S:
            self._counted.clear()
        for rule, allowance in rules.items():
            if allowance == "refuse":
                return rule
            if isinstance(allowance, int) and self._counted.get(rule, 0) + nusd > allowance:
                return rule
        self._last_s = now_s
        for rule in rules:
            self._counted[rule] = self._counted.get(rule, 0) + nusd
            allowed.counted[rule] = allowed.counted.get(rule, 0) + nusd
        return None

    def settled(self, allowed: Allowed, nusd: int) -> None:
        """Puts right what was counted of a call, now that it is known what it came to."""
        for rule, counted in allowed.counted.items():
            if rule in self._counted:
                self._counted[rule] += nusd - allowed.held_nusd - counted


def outage_rules(scopes: Iterable[Scope], policy: Policy) -> dict[str, StoreOutage]:
    """What each budget of a call says of a store that is away; the defaults, under "", for calls without any."""
    fallback = policy.defaults.store_outage
    rules = {
        scope.budget.name: fallback if scope.budget.store_outage is None else scope.budget.store_outage
        for scope in scopes
        if scope.budget.enforced
    }
    return rules or {"": fallback}
