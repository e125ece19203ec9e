"""Counters as people see them: at `/api/budgets`, and at `/callmeter/me` for the holder of a key. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .admission import State, Take
from .budgets import Budget, Raises, Scope
from .call import Call
from .caller import Caller
from .matching import Upstream
from .proven import is_proven
from .record import rfc3339
from .tally import Counter

OF_CALLS = frozenset({"upstream", "provider", "api", "model"})
"""Fields that a call has, and not its caller."""


def counter_fields(counter: Counter, state: State, raises: Raises, now_ms: int) -> dict[str, Any]:
    """A counter as `GET /api/budgets` shows it. `resets_at` is null where nothing is reset at once: rolling, ever."""
    budget = counter.scope.budget
    scope = dict(zip(budget.per, counter.scope.values, strict=True))
    if counter.user is not None:
        scope["user"] = counter.user
    if counter.org != "default" and "org" not in scope:
        scope["org"] = counter.org
    # What an outcome gives is no amount, and is told apart.
    proven = budget.unproven and is_proven(counter.scope, raises, now_ms)
    limit = budget.limit if proven else budget.limit_for(counter.scope.values, raises, now_ms, org=counter.org)
    amounts = {
        "limit": limit,
        "spent": state.spent,
        "held": state.held,
        "left": max(0, limit - state.spent - state.held),
    }
    if budget.unit == "nusd":
        amounts = {f"{name}_nusd": amount for name, amount in amounts.items()}
        amounts["overshoot_nusd"] = max(0, state.spent - limit)
    _, end_ms, bucket_ms = counter.window
    return {
        "name": budget.name,
        "scope": scope,
        "window": budget.every.text,
        "unit": budget.unit,
        **amounts,
        "resets_at": rfc3339(end_ms) if end_ms and not bucket_ms else None,
        "mode": budget.mode,
    } | ({"proven": proven} if budget.unproven else {})


def take_of(counter: Counter) -> Take:
    """For reading its state; amount and limit do not matter there."""
    start_ms, end_ms, bucket_ms = counter.window
    return Take(
        counter=counter.scope.counter,
        budget=counter.scope.budget.name,
        unit=counter.scope.budget.unit,
        limit=0,
        amount=0,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        bucket_ms=bucket_ms,
    )


def scopes_of_caller(budgets: Iterable[Budget], caller: Caller) -> list[Scope]:
    """The counters that a caller falls into, whatever the call: of all budgets whose match may fit one of theirs, but
    for those that count calls apart by what only a call has."""
    nobody, nowhere = Call(), Upstream(name="", url="")
    found = []
    for budget in budgets:
        if OF_CALLS & set(budget.per):
            continue
        of_caller = [each for each in budget.match.conditions if each.field not in OF_CALLS]
        fits = all(each.globs.matches(each.read(caller, nobody, nowhere)) for each in of_caller)
        inverted = budget.match.inverted
        kept_out = inverted and all(
            each.field not in OF_CALLS and each.globs.matches(each.read(caller, nobody, nowhere)) for each in inverted
        )
        if fits and not kept_out:
            found.append(Scope(budget, *budget.counter(caller, nobody, nowhere), caller.org))
    return found
