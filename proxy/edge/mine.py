"""Mine: what the holder of a key may see of their own: tasks and what they came to, sessions that named none, and what
budgets have left. Nobody else's figures, and no sum from which those could be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from ..core.budgets import Raises, Scope
from ..core.caller import Caller
from ..core.counter_fields import counter_fields, scopes_of_caller, take_of
from ..core.policy import Policy
from ..core.record import rfc3339
from ..core.tally import Counter, counter_of
from ..store.client import Client
from ..store.counters import read_counters
from ..store.errors import StoreError

TASKS_WITH_BUDGETS = 20
"""Tasks whose own budgets are shown, those worked on last: each costs a look at its counters."""
STANDING = ("pending", "accepted")
AGENT = "agent"
"""The source of a task that is nothing but the agent's name of its session: it can be claimed for a real one."""


class OwnLedger(Protocol):
    """What is read of the ledger; each blocks."""

    def tasks_of(self, user: str, org: str) -> Sequence[Any]: ...

    def sessions_of(self, user: str, org: str) -> Sequence[Any]: ...

    def outcomes_of(self, org: str, tasks: Sequence[str]) -> Sequence[Any]: ...

    def shared(self, user: str, org: str, tasks: Sequence[str]) -> set[str]: ...


class Mine:
    """Raises LedgerUnavailable. Without the store, budgets are None."""

    def __init__(
        self,
        *,
        ledger: OwnLedger,
        client: Client,
        policy: Callable[[], Policy],
        raises: Callable[[], Raises],
        clock_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._policy = policy
        self._raises = raises
        self._clock_ms = clock_ms

    async def of(self, caller: Caller) -> dict[str, Any]:
        """`{"tasks", "sessions", "budgets"}` of a caller."""
        found = await asyncio.to_thread(self._read, caller)
        names = list(dict.fromkeys(task["task"] for task in found["tasks"]))
        return found | {"budgets": await self._budgets(caller, names[:TASKS_WITH_BUDGETS])}

    def _read(self, caller: Caller) -> dict[str, Any]:
        totals = self._ledger.tasks_of(caller.user, caller.org)
        names = list(dict.fromkeys(each.task for each in totals))
        came_to: dict[str, list[Any]] = {}
        for outcome in self._ledger.outcomes_of(caller.org, names):
            came_to.setdefault(outcome.task, []).append(outcome)
        shared = self._ledger.shared(caller.user, caller.org, names)
        return {
            "tasks": [_task_fields(each, came_to.get(each.task, []), others=each.task in shared) for each in totals],
            "sessions": [_dated(each) for each in self._ledger.sessions_of(caller.user, caller.org)],
        }

    async def _budgets(self, caller: Caller, tasks: Sequence[str]) -> list[dict[str, Any]] | None:
        """The counters of the caller, then those of each task."""
        policy, now_ms = self._policy(), self._clock_ms()
        per_task = [budget for budget in policy.counted if "task" in budget.per]
        others = [budget for budget in policy.counted if "task" not in budget.per]
        found = self._counters(scopes_of_caller(others, caller), caller, now_ms)
        for task in dict.fromkeys((*tasks, *([caller.task] if caller.task else []))):
            whose = msgspec.structs.replace(caller, task=task)
            found += self._counters(scopes_of_caller(per_task, whose), whose, now_ms)
        try:
            states = await read_counters(self._client, caller.org, [take_of(counter) for counter in found])
        except StoreError:
            return None
        raises = self._raises()
        return [counter_fields(counter, state, raises, now_ms) for counter, state in zip(found, states, strict=True)]

    def _counters(self, scopes: Sequence[Scope], whose: Caller, now_ms: int) -> list[Counter]:
        return [counter_of(whose, scope, now_ms) for scope in scopes]


def _task_fields(totals: Any, outcomes: Sequence[Any], *, others: bool) -> dict[str, Any]:
    """A task's sums as a caller sees them, what it came to, and the line that links it where it came to nothing yet."""
    name = totals.task
    linked = any(outcome.state in STANDING for outcome in outcomes)
    return _dated(totals) | {
        "others": others,
        "claimable": totals.task_source == AGENT,
        "outcomes": [_outcome_fields(outcome) for outcome in outcomes],
        "link": None if linked or totals.task_source == AGENT else f"Task: {name}",
    }


def _outcome_fields(outcome: Any) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(outcome)
    del shown["task"]
    for name in ("landed", "due"):
        at_ms = shown.pop(f"{name}_ms")
        shown[f"{name}_at"] = None if at_ms is None else rfc3339(at_ms)
    return shown


def _dated(totals: Any) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(totals)
    for name in ("first_at", "last_at"):
        shown[name] = rfc3339(shown.pop(f"{name}_ms"))
    return shown
