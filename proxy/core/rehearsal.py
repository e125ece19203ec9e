"""Rehearsal: what a changed policy would have done to calls that were made. Pure; records come in the order of time.

A simple simulation: a call costs what it really cost, and is refused where that does not fit any more. It knows nothing
of estimates or of calls that were refused at the time, whose cost nobody knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from .budgets import Scope, Use
from .policy import Policy
from .proven import ProvenTask, proven_until_ms
from .record import Record
from .recorded import Seen, seen_in

Kind = Literal["access", "budget", "recorded"]
EffectMode = Literal["enforce", "use", "shadow", "recorded"]


class Effect(msgspec.Struct, kw_only=True):
    """What one rule would have refused.

    mode      `enforce`; `use`: the call would have gone on with another model; `shadow`: it would only have said so;
              `recorded`: it did say so, in the policy then in force
    tasks     the tasks that would have stopped, by name; "" stands for calls without one
    """

    rule: str
    kind: Kind
    mode: EffectMode
    calls: int = 0
    cost_nusd: int = 0
    tasks: set[str] = set()


class Total(msgspec.Struct):
    """What was replayed, and what would have been refused of it, each call counted once."""

    calls: int = 0
    cost_nusd: int = 0
    refused_calls: int = 0
    refused_nusd: int = 0


class Rehearsal:
    """Replays records against `policy`. Those before `since_ms` only fill its counters. `proven` are the outcomes that
    lift its rules of `unproven`."""

    def __init__(self, policy: Policy, since_ms: int, proven: Iterable[ProvenTask] = ()) -> None:
        self._policy = policy
        self._landed: dict[tuple[str, str], list[int]] = {}
        for task in proven:
            if task.stands:
                self._landed.setdefault((task.org, task.task), []).append(task.landed_ms)
        self._since_ms = since_ms
        self._spent: dict[tuple[str, int], int] = {}
        self._running: dict[str, list[float]] = {}
        self._effects: dict[tuple[str, str], Effect] = {}
        self.total = Total()

    @property
    def begins_ms(self) -> int:
        """From when on records are wanted, so that windows which were open at `since_ms` have what was spent."""
        starts = [budget.every.window(self._since_ms)[0] for budget in self._policy.counted]
        return min([self._since_ms, *starts])

    def add(self, record: Record) -> None:
        """Replays one call."""
        if record.result == "refused":
            return
        counted = record.at_ms >= self._since_ms
        seen = seen_in(record, self._policy.upstreams)
        if counted:
            self.total.calls += record.count
            self.total.cost_nusd += record.cost_nusd or 0
            for rule in record.shadow:
                self._note(rule, "recorded", "recorded", record)
        if not self._passes(record, seen, counted) and counted:
            self.total.refused_calls += record.count
            self.total.refused_nusd += record.cost_nusd or 0
            return
        for scope in self._scopes(record, seen):
            self._spend(scope, record)

    def _scopes(self, record: Record, seen: Seen) -> tuple[Scope, ...]:
        """The counters that the call meets; one that took no hold and cost nothing meets none."""
        return self._policy.scopes_for(*seen) if record.estimate or record.cost_nusd else ()

    def _passes(self, record: Record, seen: Seen, counted: bool) -> bool:
        """Whether the policy lets the call pass. A refusal is put down to the first rule that spoke."""
        decision = self._policy.decide(*seen)
        over = [scope.budget for scope in self._scopes(record, seen) if not self._fits(scope, record)]
        stopping = [budget for budget in over if budget.enforced and not isinstance(budget.then, Use)]
        if not counted:
            return True
        for rule in decision.shadow:
            self._note(rule, "access", "shadow", record)
        for budget in over:
            if budget.mode == "shadow" or budget.then == "warn":
                self._note(budget.name, "budget", "shadow", record)
            elif isinstance(budget.then, Use) and not stopping:
                self._note(budget.name, "budget", "use", record)
        if decision.refusal is not None:
            self._note(decision.rule or decision.refusal.code, "access", "enforce", record)
            return False
        if stopping:
            self._note(stopping[0].name, "budget", "enforce", record)
        return not stopping

    def effects(self) -> list[Effect]:
        """What each rule would have refused: those of the policy in their order, then what was recorded."""
        order = [rule.name for rule in self._policy.access] + [budget.name for budget in self._policy.counted]
        places = {name: place for place, name in enumerate(order)}
        return sorted(
            self._effects.values(),
            key=lambda effect: (effect.mode == "recorded", places.get(effect.rule, len(places)), effect.rule),
        )

    def _note(
        self,
        rule: str,
        kind: Kind,
        mode: EffectMode,
        record: Record,
    ) -> None:
        effect = self._effects.get((mode, rule))
        if effect is None:
            effect = self._effects[mode, rule] = Effect(rule=rule, kind=kind, mode=mode, tasks=set())
        effect.calls += record.count
        effect.cost_nusd += record.cost_nusd or 0
        effect.tasks.add(record.task or "")

    def _fits(self, scope: Scope, record: Record) -> bool:
        budget = scope.budget
        if budget.unproven and self._is_proven(scope, record):
            return True
        limit = budget.limit_for(scope.values)
        if budget.unit == "concurrent":
            running = self._running.setdefault(scope.counter, [])
            while running and running[0] <= record.at_ms:
                heapq.heappop(running)
            return len(running) + 1 <= limit
        return self._spent_of(scope, record) + amount_of(scope, record) <= limit

    def _is_proven(self, scope: Scope, record: Record) -> bool:
        """Whether an outcome of the task was there when the call was made, and in the window."""
        landed = self._landed.get((scope.org, scope.values[0]), ())
        return any(at_ms <= record.at_ms < proven_until_ms(scope.budget.every, at_ms) for at_ms in landed)

    def _spent_of(self, scope: Scope, record: Record) -> int:
        start_ms, end_ms, bucket_ms = scope.budget.every.window(record.at_ms)
        if not bucket_ms:
            return self._spent.get((scope.counter, start_ms), 0)
        return sum(self._spent.get((scope.counter, at_ms), 0) for at_ms in range(start_ms, end_ms, bucket_ms))

    def _spend(self, scope: Scope, record: Record) -> None:
        if scope.budget.unit == "concurrent":
            heapq.heappush(self._running.setdefault(scope.counter, []), record.at_ms + record.ms_total)
            return
        start_ms, _, bucket_ms = scope.budget.every.window(record.at_ms)
        place = scope.counter, record.at_ms - record.at_ms % bucket_ms if bucket_ms else start_ms
        self._spent[place] = self._spent.get(place, 0) + amount_of(scope, record)


def amount_of(scope: Scope, record: Record) -> int:
    """What a recorded call took of a counter."""
    amounts: Mapping[str, int] = {"nusd": record.cost_nusd or 0, "tokens": record.usage.tokens, "calls": 1}
    return amounts[scope.budget.unit]
