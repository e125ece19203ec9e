"""Proven tasks: what an outcome does to the rules of `unproven`. Pure.

Such a rule is a budget per task. A task that has an outcome in the window of a rule is not held by it there, as if its
budget had been raised for that long. So admission asks nothing beside the budgets that it asks anyway, a store that was
emptied has nothing to learn again, and an outcome that is undone ends the raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from .budgets import Budget, Raise, Raises, Scope
from .money import NUSD_MAX
from .outcomes import State
from .windows import Every

FOR_EVER_MS = NUSD_MAX
"""Later than any moment that is counted."""


class ProvenTask(msgspec.Struct, frozen=True):
    """What there is to know of an outcome. One that is never accepted (`accepted_after_ms` is None: somebody declared
    it, and no rule takes such words) proves nothing."""

    key: str
    org: str
    task: str
    state: State
    landed_ms: int
    changed_ms: int
    accepted_after_ms: int | None

    @property
    def stands(self) -> bool:
        return self.state != "undone" and self.accepted_after_ms is not None and bool(self.task)


def proven_until_ms(every: Every, landed_ms: int) -> int:
    """Until when an outcome that landed then lies in the open window."""
    _, end_ms, bucket_ms = every.window(landed_ms)
    if not end_ms:
        return FOR_EVER_MS
    return end_ms + every.length_ms if bucket_ms else end_ms


def reach_ms(rules: Iterable[Budget], now_ms: int) -> int:
    """The earliest landing that can still matter to some of these rules."""
    starts = []
    for rule in rules:
        start_ms, _, bucket_ms = rule.every.window(now_ms)
        starts.append(start_ms - bucket_ms)
    return max(0, min(starts, default=now_ms))


def with_proven(raises: Raises, rules: Sequence[Budget], tasks: Iterable[ProvenTask]) -> Raises:
    """Raises, and beside them those that outcomes are."""
    latest: dict[tuple[str, str], int] = {}
    for task in tasks:
        if task.stands:
            place = task.org, task.task
            latest[place] = max(task.landed_ms, latest.get(place, 0))
    if not latest or not rules:
        return raises
    found: dict[tuple[str, tuple[str, ...]], Sequence[Raise]] = dict(raises)
    for rule in rules:
        for (org, name), landed_ms in latest.items():
            until_ms = proven_until_ms(rule.every, landed_ms)
            more = Raise(budget=rule.name, values=(name,), by=NUSD_MAX, until_ms=until_ms, org=org)
            found[rule.name, (name,)] = [*found.get((rule.name, (name,)), ()), more]
    return found


class ProvenTasks:
    """The outcomes that are known, by key; each later word of one replaces the earlier."""

    def __init__(self) -> None:
        self._known: dict[str, ProvenTask] = {}
        self.changed_ms = 0
        """The latest change that is known."""

    def learn(self, told: Iterable[ProvenTask], landed_ms: int) -> bool:
        """Whether that was anything new. What landed before `landed_ms` lies in no open window, and is dropped."""
        new = [task for task in told if self._known.get(task.key) != task]
        for task in new:
            self._known[task.key] = task
            self.changed_ms = max(self.changed_ms, task.changed_ms)
        if new:
            self._known = {key: task for key, task in self._known.items() if task.landed_ms >= landed_ms}
        return bool(new)

    def raises(self, given: Raises, rules: Sequence[Budget]) -> Raises:
        """`given`, and beside them those that the known outcomes are."""
        return with_proven(given, rules, self._known.values())


def is_proven(scope: Scope, raises: Raises, now_ms: int) -> bool:
    """Whether an outcome keeps a rule of `unproven` from holding this task now."""
    given = raises.get((scope.budget.name, scope.values), ())
    return any(more.by == NUSD_MAX and more.org == scope.org and now_ms < more.until_ms for more in given)
