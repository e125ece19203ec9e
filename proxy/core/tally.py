"""Tally: what counters have spent, counted from recorded calls. Pure; the rows come from outside, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from .budgets import Budget, BudgetIndex, Scope
from .caller import Caller
from .matching import Upstream
from .money import NUSD_MAX
from .recorded import Counted, Seen, seen_in
from .windows import Window

ROLLED_FIELDS = frozenset({"org", "team", "user", "task", "agent", "provider", "upstream", "api"})
"""What hourly sums of the ledger are kept apart by, and rules look at."""
LONG = ("day", "week", "month", "ever")


class Counter(msgspec.Struct, eq=False):
    """One counter in its open window. `spent` is by the start of the window, or of each sub-bucket of a rolling one."""

    org: str
    scope: Scope
    window: Window
    spent: dict[int, int] = {}
    user: str | None = None
    """Whose calls without a task it counts, where a budget is per task."""

    @property
    def total(self) -> int:
        """All that counts now."""
        return sum(self.spent.values())


class Tally:
    """The counters of some budgets, in the windows that are open at `now_ms`.

    from_ms, before_ms     only calls of this time count
    not_version            calls that this policy admitted do not count: their counters have them already
    of_keys                whether the `max_cost` budgets of task keys are counted, too
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        now_ms: int,
        upstreams: Mapping[str, Upstream],
        *,
        from_ms: int = 0,
        before_ms: int = NUSD_MAX,
        not_version: str | None = None,
        of_keys: bool = False,
    ) -> None:
        self._index = BudgetIndex(budgets)
        self._upstreams = upstreams
        self._now_ms = now_ms
        self._from_ms = from_ms
        self._before_ms = before_ms
        self._not_version = not_version
        self._of_keys = of_keys
        self.counters: dict[str, Counter] = {}

    def add(self, told: Counted) -> None:
        """Counts one recorded call."""
        if not self._from_ms <= told.at_ms < self._before_ms or told.policy_version == self._not_version:
            return
        caller, call, upstream = seen_in(told, self._upstreams)
        if not self._of_keys:
            caller = msgspec.structs.replace(caller, max_cost_nusd={})
        for scope in self._index.scopes(caller, call, upstream):
            self._count(told, scope, told.at_ms, told.amount(scope.budget.unit))

    def add_hours(self, told: Counted, nusd: int, tokens: int) -> None:
        """Counts the sums of whole hours, which all lie in the open window of every budget of this tally."""
        for scope in self._index.scopes(*seen_in(told, self._upstreams)):
            self._count(told, scope, self._now_ms, nusd if scope.budget.unit == "nusd" else tokens)

    def meet(self, seen: Seen) -> None:
        """Makes the counters of a running call known, with nothing spent."""
        for scope in self._index.scopes(*seen):
            self._counter(seen[0], scope)

    def _counter(self, whose: Counted | Caller, scope: Scope) -> Counter:
        counter = self.counters.get(scope.counter)
        if counter is None:
            counter = self.counters[scope.counter] = counter_of(whose, scope, self._now_ms)
        return counter

    def _count(self, told: Counted, scope: Scope, at_ms: int, amount: int) -> None:
        if scope.budget.unit == "concurrent":
            return  # what has ended runs no more
        counter = self._counter(told, scope)
        start_ms, end_ms, bucket_ms = counter.window
        if end_ms and not start_ms <= at_ms < end_ms:
            return
        place_ms = at_ms - at_ms % bucket_ms if bucket_ms else start_ms
        counter.spent[place_ms] = counter.spent.get(place_ms, 0) + amount


def counter_of(whose: Counted | Caller, scope: Scope, now_ms: int) -> Counter:
    """The counter of a scope in its open window, with nothing spent."""
    window = scope.budget.every.window(now_ms) if scope.budget.unit != "concurrent" else (0, 0, 0)
    user = whose.user if "task" in scope.budget.per and not whose.task else None
    return Counter(whose.org, scope, window, {}, user)


def is_rolled(budget: Budget) -> bool:
    """Whether hourly sums of the ledger can tell what its counters spent, all but a broken hour at the beginning."""
    fields = {*budget.match.fields, *budget.per}
    return budget.unit in ("nusd", "tokens") and budget.every.unit in LONG and fields <= ROLLED_FIELDS


def by_start(budgets: Iterable[Budget], now_ms: int) -> dict[int, list[Budget]]:
    """Budgets by when their open window began."""
    found: dict[int, list[Budget]] = {}
    for budget in budgets:
        found.setdefault(budget.every.window(now_ms)[0], []).append(budget)
    return found
