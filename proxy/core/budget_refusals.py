"""What budgets say of a call: the refusal of one that did not fit, and the warnings of one that did.

Whether to come back, and when, follows from what stands in the way: a short window, running calls, or spent money.
"""

from __future__ import annotations

from collections.abc import Sequence

from .admission import Reserved, State, Take, blocked, fits
from .budgets import MAX_COST_RULE, Budget, Scope
from .globs import ABSENT
from .refusal import RETRY_AFTER_S_MAX, Refusal, first_by_precedence, header_text, one_line
from .windows import MINUTE_MS, told_instant

RETRY_AFTER_S_MIN = 1.0
"""Sooner than this a repeat finds what stood in its way still there."""

PERMILLE = 1000

VALUE_CHARACTERS_MAX = 80
"""How much of a value of `per`, which a caller may have chosen, is repeated in a sentence."""


def refusal_for(scopes: Sequence[Scope], takes: Sequence[Take], reserved: Reserved, *, run_s: float) -> Refusal:
    """The no to a call that was not admitted. The lists belong together, place by place.

    run_s   how long calls like those that run usually take: when what they hold is free again
    """
    in_the_way = reserved.blocked or blocked(takes, reserved.states)
    refusals = [
        _refusal(scopes[place], takes[place], reserved.states[place], reserved.now_ms, run_s) for place in in_the_way
    ]
    return first_by_precedence(refusals) if refusals else Refusal(code="budget_held", retry_after_s=run_s)


def _refusal(scope: Scope, take: Take, state: State, now_ms: int, run_s: float) -> Refusal:
    budget = scope.budget
    held_only = state.spent + take.amount <= take.limit
    resets_at_ms = take.window_end_ms if take.window_end_ms and not take.bucket_ms else None
    if budget.unit == "concurrent":
        code, retry_after_s = "busy", run_s / 2  # one of those that run is half-way through, as a rule
    elif budget.unit in ("calls", "tokens") and (soon_s := _resets_within_s(budget, take, state, now_ms)) is not None:
        code, retry_after_s = "rate_limited", soon_s
    elif budget.unproven and not held_only:
        return _unproven(scope, take, state, resets_at_ms)
    elif held_only:
        code, retry_after_s = "budget_held", run_s
        if resets_at_ms is not None:
            retry_after_s = min(retry_after_s, (resets_at_ms - now_ms) / 1000)
    else:
        code, retry_after_s = "budget_spent", None
    if retry_after_s is not None:
        retry_after_s = min(max(retry_after_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)
    return Refusal(
        code=code,
        sentence=_sentence(scope, take, state, code, retry_after_s),
        rule=budget.name,
        retry_after_s=retry_after_s,
        resets_at_ms=resets_at_ms,
    )


def _unproven(scope: Scope, take: Take, state: State, resets_at_ms: int | None) -> Refusal:
    """The no of a rule of `unproven`: what was spent, and how to link what it came to."""
    budget = scope.budget
    told = [unproven_sentence(scope, take, state), how_to_prove(scope), budget.help]
    sentence = "; ".join(part for part in told if part)
    return Refusal(code="unproven", sentence=sentence, rule=budget.name, resets_at_ms=resets_at_ms)


def unproven_sentence(scope: Scope, take: Take, state: State) -> str:
    """What a task has spent without an outcome."""
    budget = scope.budget
    whom = _whom(scope) if _has_task(scope) else "work without a task"
    return (
        f"{whom} has come to no outcome yet: rule `{budget.name}` lets it cost {budget.told(take.limit)} "
        f"{budget.every.told} without one; {_figures(budget, take, state)}"
    )


def how_to_prove(scope: Scope) -> str:
    """How the holder of a key links an outcome."""
    if not _has_task(scope):
        return "name the task that you work on (`callmeter task NAME`), so that what comes of it can be linked"
    name = one_line(scope.values[0], VALUE_CHARACTERS_MAX)
    return (
        f"put the line `Task: {name}` into the commit or pull request that it comes to; it counts when that is merged "
        "or deployed"
    )


def _has_task(scope: Scope) -> bool:
    return scope.values != (ABSENT,)


def outgrown_refusal(scope: Scope, take: Take, state: State) -> Refusal:
    """Why a stream ends: a budget with `when_outgrown: cut` has less left than the stream has made."""
    budget = scope.budget
    told = [
        f"{named(scope, take)} has no room for the rest of this answer, which ends here (`when_outgrown: cut`)",
        f"{budget.told(state.spent)} used, {budget.told(state.held)} held by running calls",
        _reset(budget, take),
        budget.help or "ask your admin",
    ]
    resets_at_ms = take.window_end_ms if take.window_end_ms and not take.bucket_ms else None
    return Refusal(code="budget_spent", sentence="; ".join(told), rule=budget.name, resets_at_ms=resets_at_ms)


def _resets_within_s(budget: Budget, take: Take, state: State, now_ms: int) -> float | None:
    """In how many seconds a short window makes room; None where that takes more than a minute."""
    if take.amount > take.limit:
        return None  # no window is large enough
    if take.bucket_ms:
        if budget.every.length_ms > MINUTE_MS:
            return None
        # As if what was used had come evenly: so much of the window must pass until there is room.
        needed = state.spent + state.held + take.amount - take.limit
        used = max(1, state.spent + state.held)
        return budget.every.length_ms * min(needed, used) / used / 1000
    if not take.window_end_ms or take.window_end_ms - now_ms > MINUTE_MS:
        return None
    return (take.window_end_ms - now_ms) / 1000


def _sentence(scope: Scope, take: Take, state: State, code: str, retry_after_s: float | None) -> str:
    """Which rule, its limit, what is spent and held, when it resets and what to do."""
    budget = scope.budget
    told = [f"{named(scope, take)} {_state_word(take, state, code)}: {_figures(budget, take, state)}"]
    if budget.unit != "concurrent" and take.amount <= take.limit:
        told.append(_reset(budget, take))
    told.append(_advice(budget, take, code, retry_after_s))
    if budget.help:
        told.append(budget.help)
    return "; ".join(part for part in told if part)


def named(scope: Scope, take: Take) -> str:
    """The budget with its limit and for whom it is: ``budget `person-day` of $25.00 a day for user `ada` ``."""
    budget = scope.budget
    limit = budget.told(take.limit)
    if budget.name == MAX_COST_RULE:
        return f"the `max_cost` of {limit} of this task key"
    when = "" if budget.unit == "concurrent" else f" {budget.every.told}"
    what = "budget" if budget.unit == "nusd" else "limit"
    whom = one_line(_whom(scope), 4 * VALUE_CHARACTERS_MAX)
    return f"{what} `{budget.name}` of {limit}{when}{f' for {whom}' if whom else ''}"


def _whom(scope: Scope) -> str:
    pairs = zip(scope.budget.per, scope.values, strict=True)
    return ", ".join(
        f"{field} `{one_line(value, VALUE_CHARACTERS_MAX).replace('`', chr(39))}`" for field, value in pairs
    )


def _state_word(take: Take, state: State, code: str) -> str:
    if take.amount > take.limit:
        return "is too small for this call"
    if code == "budget_held":
        return "is held by running calls"
    if code == "busy":
        return "is in use"
    return "is reached" if code == "rate_limited" else "is spent"


def _figures(budget: Budget, take: Take, state: State) -> str:
    if budget.unit == "concurrent":
        return f"{state.held} running"
    figures = [f"{budget.told(state.spent)} used"]
    if state.held:
        figures.append(f"{budget.told(state.held)} held by running calls")
    figures.append(f"{budget.told(take.amount)} needed")
    return ", ".join(figures)


def _reset(budget: Budget, take: Take) -> str:
    if take.bucket_ms:
        return f"room comes back as what was used grows older than {budget.every.unit}"
    return f"resets {told_instant(take.window_end_ms)}" if take.window_end_ms else "does not reset"


def _advice(budget: Budget, take: Take, code: str, retry_after_s: float | None) -> str:
    if retry_after_s is not None:
        return f"try again in {round(retry_after_s)} s"
    if take.amount > take.limit and budget.unit != "calls":
        return "lower `max_tokens` or send less"
    if budget.help:
        return ""
    if budget.name == MAX_COST_RULE:
        return "go on with another task key"
    return "ask your admin"


# -- calls that pass --------------------------------------------------------------------------------------------------


def warnings_for(scopes: Sequence[Scope], takes: Sequence[Take], states: Sequence[State]) -> list[str]:
    """`<rule>; <sentence>` for the header: of budgets whose `then` is `warn` and that a call does not fit, and of those
    that are used beyond a mark of `warn_at`. Shadow budgets say nothing to callers."""
    told = []
    for scope, take, state in zip(scopes, takes, states, strict=True):
        budget = scope.budget
        if budget.mode == "shadow":
            continue
        if budget.then == "warn" and not fits(take, state):
            if budget.unproven:
                told.append(
                    header_text(
                        f"{budget.name}; {unproven_sentence(scope, take, state)}; {how_to_prove(scope)}"
                        f"{f'; {budget.help}' if budget.help else ''}"
                    )
                )
                continue
            word = "is spent" if budget.unit != "concurrent" else "is in use"
            sentence = f"{named(scope, take)} {word}: {_figures(budget, take, state)}"
        elif (mark := mark_reached(budget, take, state)) is not None:
            sentence = f"{named(scope, take)} is used to {_percent(mark)} and more: {_figures(budget, take, state)}"
        else:
            continue
        if budget.unit != "concurrent":
            sentence += f"; {_reset(budget, take)}"
        told.append(header_text(f"{budget.name}; {sentence}{f'; {budget.help}' if budget.help else ''}"))
    return told


def mark_reached(budget: Budget, take: Take, state: State) -> int | None:
    """The highest mark of `warn_at` (in thousandths) that was passed before this call; None below the first."""
    used = state.held if budget.unit == "concurrent" else state.spent
    reached = [mark for mark in budget.warn_at if used * PERMILLE >= mark * take.limit]
    return max(reached, default=None)


def _percent(permille: int) -> str:
    return f"{permille / 10:g}%"


def shadow_rules(scopes: Sequence[Scope], takes: Sequence[Take], states: Sequence[State]) -> list[str]:
    """Shadow budgets that would have refused this call, by name, each once."""
    unfit = [
        scope.budget.name
        for scope, take, state in zip(scopes, takes, states, strict=True)
        if scope.budget.mode == "shadow" and scope.budget.then != "warn" and not fits(take, state)
    ]
    return list(dict.fromkeys(unfit))
