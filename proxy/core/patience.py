"""Patience: from when on money of a task without an outcome is no longer merely unproven but spent for nothing yet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .budgets import Budget
from .call import Call
from .caller import Caller
from .matching import Condition, Upstream

SEEN = ("org", "team")
"""What sums are told apart by here; what else an `unproven` rule matches on, roll-ups of a team cannot know."""


class Patience(msgspec.Struct, frozen=True):
    """The `unproven` rules of a policy as reports see them: the windows that were running at one instant."""

    rules: tuple[tuple[tuple[Condition, ...], int], ...] = ()
    """The conditions of each rule on SEEN, and when its window began."""

    def begins_ms(self, org: str, team: str) -> int:
        """What was spent before this is spent for nothing yet; 0: nothing is. The most patient rule decides."""
        caller = Caller(org=org, team=team, user="", key_id="")
        call, upstream = Call(api="", model=None), Upstream(name="", provider="", url="")
        begun = [
            begins_ms
            for conditions, begins_ms in self.rules
            if all(each.globs.matches(each.read(caller, call, upstream)) for each in conditions)
        ]
        return min(begun, default=0)

    @property
    def edges_ms(self) -> list[int]:
        """The instants at which any window begins."""
        return sorted({begins_ms for _, begins_ms in self.rules if begins_ms})


NO_PATIENCE = Patience()
"""No rule: money of a task without an outcome stays unproven, however long ago it was spent."""


def patience_of(rules: Sequence[Budget], now_ms: int, hour_ms: int = 3_600_000) -> Patience:
    """Windows begin with whole hours here, which roll-ups have."""
    found = []
    for rule in rules:
        begins_ms = rule.every.window(now_ms)[0]
        conditions = tuple(each for each in rule.match.conditions if each.field in SEEN)
        found.append((conditions, begins_ms - begins_ms % hour_ms))
    return Patience(tuple(found))
