"""Trim: a call that is too large for what is left of its budgets, made small enough by a shorter answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .admission import Reserved, Take
from .budgets import Scope
from .call import Call
from .expected import Estimate


def trimmed_output(
    call: Call,
    estimate: Estimate,
    scopes: Sequence[Scope],
    takes: Sequence[Take],
    reserved: Reserved,
    *,
    estimate_with: Callable[[int], Estimate],
) -> int | None:
    """The largest `max_output_tokens` with which the call fits what is left; None where that does not help.

    Only where every budget in the way says `trim: true`, and never below what the endpoint takes or the call thinks
    (`output_tokens_min`). What is held by others stays theirs. A fixed `reserve` does not depend on the output.

    estimate_with   the estimate of the call with its output limited to so many tokens
    """
    blocked = reserved.blocked
    if not blocked or not all(_can_shrink(scopes[place]) for place in blocked):
        return None
    least, most = call.output_tokens_min, estimate.output_tokens - 1
    if most < least or not _all_fit(estimate_with(least), scopes, takes, reserved):
        return None
    # Costs grow with the output, though not always in a line: the largest that fits is found by halving.
    while least < most:
        middle = (least + most + 1) // 2
        if _all_fit(estimate_with(middle), scopes, takes, reserved):
            least = middle
        else:
            most = middle - 1
    return least


def _can_shrink(scope: Scope) -> bool:
    budget = scope.budget
    return budget.trim and budget.unit in ("nusd", "tokens") and not isinstance(budget.reserve, int)


def _all_fit(estimate: Estimate, scopes: Sequence[Scope], takes: Sequence[Take], reserved: Reserved) -> bool:
    return all(
        state.spent + state.held + scope.budget.amount(estimate) <= take.limit
        for scope, take, state in zip(scopes, takes, reserved.states, strict=True)
        if take.enforce
    )
