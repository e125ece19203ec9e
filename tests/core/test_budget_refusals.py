"""Refusals of budgets: the code follows from what stands in the way, the sentence says everything a person needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.admission import Reserved, State
from proxy.core.budget_refusals import mark_reached, refusal_for, shadow_rules, warnings_for
from proxy.core.budgets import Budget, max_cost_scopes
from proxy.core.refusal import CODES, SENTENCE_CHARACTERS_MAX, Refusal
from proxy.core.takes import takes_for
from tests.support.budgets import NOON_MS, USD, budget, caller, estimate, scope_of, taken

CENT = USD // 100


def refused(one: Budget, needed: int = 0, *, run_s: float = 20, **state: Any) -> Refusal:
    scopes, takes, reserved = taken(one, estimate(needed, needed), **state)
    assert not reserved.admitted
    return refusal_for(scopes, takes, reserved, run_s=run_s)


# -- the sentence -----------------------------------------------------------------------------------------------------


def test_a_spent_budget_is_told_as_the_contract_says() -> None:
    refusal = refused(budget(help="ask #ai-budget"), 41 * CENT, spent=2_497 * CENT)
    assert refusal.sentence == (
        "budget `person-day` of $25.00 a day for user `ada` is spent: $24.97 used, $0.41 needed; "
        "resets 2026-11-28T00:00Z; ask #ai-budget"
    )
    assert (refusal.code, refusal.rule) == ("budget_spent", "person-day")
    assert refusal.retry_after_s is None
    assert refusal.resets_at_ms == NOON_MS + 12 * 3_600_000


def test_what_running_calls_hold_is_told_apart() -> None:
    refusal = refused(budget(), 41 * CENT, spent=2_000 * CENT, held=490 * CENT)
    assert refusal.sentence == (
        "budget `person-day` of $25.00 a day for user `ada` is held by running calls: $20.00 used, $4.90 held by "
        "running calls, $0.41 needed; resets 2026-11-28T00:00Z; try again in 20 s"
    )
    assert refusal.code == "budget_held"


@pytest.mark.parametrize(
    ("one", "state", "sentence"),
    [
        (
            budget(name="rpm", unit="calls", limit=500, every="minute", per=("org",)),
            {"spent": 500},
            "limit `rpm` of 500 calls a minute for org `acme` is reached: 500 calls used, 1 call needed; "
            "resets 2026-11-27T12:01Z; try again in 60 s",
        ),
        (
            budget(name="at-once", unit="concurrent", limit=4, every="ever"),
            {"spent": 0, "held": 4},
            "limit `at-once` of 4 concurrent calls for user `ada` is in use: 4 running; try again in 10 s",
        ),
        (
            budget(name="roll", every="rolling 24h", per=("task",), help="stop"),
            {"spent": 25 * USD},
            "budget `roll` of $25.00 in any 24h for task `none` is spent: $25.00 used, $1.00 needed; room comes back "
            "as what was used grows older than 24h; stop",
        ),
        (
            budget(name="all", every="ever", per=("team", "user")),
            {"spent": 25 * USD},
            "budget `all` of $25.00 in all for team `payments`, user `ada` is spent: $25.00 used, $1.00 needed; "
            "does not reset; ask your admin",
        ),
        (
            budget(name="small", limit=50 * CENT),
            {"spent": 0},
            "budget `small` of $0.50 a day for user `ada` is too small for this call: $0.00 used, $1.00 needed; "
            "lower `max_tokens` or send less",
        ),
    ],
)
def test_every_kind_of_limit_has_its_sentence(one: Budget, state: dict[str, int], sentence: str) -> None:
    assert refused(one, USD, **state).sentence == sentence


def test_the_budget_of_a_task_key_says_whose_it_is() -> None:
    scopes = list(max_cost_scopes(caller(max_cost_nusd={"chain": 5 * USD})))
    takes = takes_for(scopes, estimate(41 * CENT), NOON_MS)
    refusal = refusal_for(scopes, takes, Reserved(False, 0, [State(497 * CENT, 0)], [0], NOON_MS), run_s=5)
    assert refusal.sentence == (
        "the `max_cost` of $5.00 of this task key is spent: $4.97 used, $0.41 needed; does not reset; "
        "go on with another task key"
    )
    assert refusal.rule == "max-cost"


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_caller_is_called_the_sentence_is_one_bounded_line(task: str, user: str) -> None:
    one = budget(per=("task", "user"))
    scopes, takes, reserved = taken(one, estimate(USD), spent=25 * USD, who=caller(task=task, user=user))
    told = refusal_for(scopes, takes, reserved, run_s=5).told
    assert len(told) <= SENTENCE_CHARACTERS_MAX
    assert told.isprintable()
    assert "resets" in told, "what callers call themselves never pushes out what we say"


# -- the code ---------------------------------------------------------------------------------------------------------

IN_MINUTE = NOON_MS + 30_000


@pytest.mark.parametrize(
    ("one", "state", "code"),
    [
        (budget(), {"spent": 25 * USD}, "budget_spent"),
        (budget(), {"spent": 24 * USD, "held": USD}, "budget_held"),
        (budget(), {"spent": 24 * USD + 1, "held": USD}, "budget_spent"),
        (budget(every="minute"), {"spent": 25 * USD}, "budget_spent"),
        (budget(unit="calls", limit=5, every="minute"), {"spent": 5}, "rate_limited"),
        (budget(unit="calls", limit=5, every="minute"), {"spent": 2, "held": 3}, "rate_limited"),
        (budget(unit="tokens", limit=2 * USD, every="minute"), {"spent": 2 * USD}, "rate_limited"),
        (budget(unit="tokens", limit=CENT, every="minute"), {"spent": 0}, "budget_spent"),
        (budget(unit="calls", limit=5, every="hour"), {"spent": 5}, "budget_spent"),
        (budget(unit="calls", limit=5, every="hour"), {"spent": 4, "held": 1}, "budget_held"),
        (budget(unit="calls", limit=5, every="hour"), {"spent": 5, "now_ms": NOON_MS - 60_000}, "rate_limited"),
        (budget(unit="calls", limit=5, every="hour"), {"spent": 5, "now_ms": NOON_MS - 60_001}, "budget_spent"),
        (budget(unit="calls", limit=5, every="rolling 1m"), {"spent": 5}, "rate_limited"),
        (budget(unit="calls", limit=5, every="rolling 2m"), {"spent": 5}, "budget_spent"),
        (budget(unit="concurrent", limit=2, every="ever"), {"spent": 0, "held": 2}, "busy"),
    ],
)
def test_the_code_follows_from_what_stands_in_the_way(one: Budget, state: dict[str, int], code: str) -> None:
    assert refused(one, USD, **state).code == code


def test_retry_after_is_drawn_from_what_runs_and_from_the_window_and_never_above_a_minute() -> None:
    held = {"spent": 24 * USD, "held": USD}
    assert refused(budget(), USD, run_s=20, **held).retry_after_s == 20
    assert refused(budget(), USD, run_s=900, **held).retry_after_s == 60
    assert refused(budget(), USD, run_s=0, **held).retry_after_s == 1
    assert refused(budget(every="minute"), USD, run_s=50, now_ms=IN_MINUTE, **held).retry_after_s == 30
    per_minute = budget(unit="calls", limit=5, every="minute")
    assert refused(per_minute, spent=5, now_ms=IN_MINUTE).retry_after_s == 30
    rolling = budget(unit="calls", limit=60, every="rolling 1m")
    assert refused(rolling, spent=60).retry_after_s == 1, "one of sixty leaves in about a second"
    assert refused(budget(unit="concurrent", limit=1, every="ever"), spent=0, held=1).retry_after_s == 10


def test_of_several_refusals_the_first_code_of_the_closed_list_is_told() -> None:
    kinds = [
        budget(),
        budget(name="rpm", unit="calls", limit=5, every="minute"),
        budget(name="at-once", unit="concurrent", limit=1, every="ever"),
    ]
    scopes = [scope_of(one) for one in kinds]
    takes = takes_for(scopes, estimate(USD), NOON_MS)
    states = [State(25 * USD, 0), State(5, 0), State(0, 1)]
    told = [
        refusal_for(scopes, takes, Reserved(False, 0, states, blocked, NOON_MS), run_s=5).code
        for blocked in ([0, 1, 2], [0, 2], [0])
    ]
    assert told == ["rate_limited", "busy", "budget_spent"]


@given(
    st.sampled_from(["nusd", "tokens", "calls", "concurrent"]),
    st.sampled_from(["minute", "hour", "day", "rolling 1m", "rolling 24h", "ever"]),
    st.integers(min_value=1, max_value=100),
    st.integers(min_value=0, max_value=150),
    st.integers(min_value=0, max_value=150),
    st.integers(min_value=0, max_value=150),
    st.floats(min_value=0, max_value=10_000),
)
def test_only_what_can_pass_later_is_retryable(
    unit: Any, every: str, limit: int, spent: int, held: int, needed: int, run_s: float
) -> None:
    one = budget(every if unit != "concurrent" else "ever", unit=unit, limit=limit)
    scopes, takes, reserved = taken(one, estimate(needed, needed), spent=spent, held=held)
    if reserved.admitted:
        return
    refusal = refusal_for(scopes, takes, reserved, run_s=run_s)
    assert (refusal.retry_after_s is not None) == CODES[refusal.code].retryable
    if refusal.retry_after_s is not None:
        assert 1 <= refusal.retry_after_s <= 60
    if takes[0].amount > limit and unit != "concurrent":
        assert refusal.code == "budget_spent", "no wait makes it fit"


# -- calls that pass --------------------------------------------------------------------------------------------------


def told(one: Budget, needed: int = 0, **state: Any) -> list[str]:
    scopes, takes, reserved = taken(one, estimate(needed, needed), **state)
    return warnings_for(scopes, takes, reserved.states)


def test_a_mark_that_was_passed_is_told() -> None:
    one = budget(warn_at=(500, 800), help="ask")
    assert told(one, spent=12 * USD) == []
    assert told(one, spent=2_100 * CENT) == [
        "person-day; budget `person-day` of $25.00 a day for user `ada` is used to 80% and more: $21.00 used, "
        "$0.00 needed; resets 2026-11-28T00:00Z; ask"
    ]
    assert "50% and more" in told(one, spent=1_250 * CENT)[0]


def test_a_rule_that_only_warns_speaks_where_a_call_does_not_fit() -> None:
    one = budget(then="warn")
    assert told(one, CENT, spent=1) == []
    assert told(one, 2 * USD, spent=24 * USD)[0].startswith("person-day; budget `person-day` of $25.00 a day")
    assert "is spent: $24.00 used, $2.00 needed" in told(one, 2 * USD, spent=24 * USD)[0]


def test_shadow_budgets_say_nothing_to_callers_and_are_noted() -> None:
    one = budget(mode="shadow", warn_at=(1,))
    scopes, takes, reserved = taken(one, estimate(USD), spent=25 * USD)
    assert reserved.admitted
    assert warnings_for(scopes, takes, reserved.states) == []
    assert shadow_rules(scopes, takes, reserved.states) == ["person-day"]
    assert shadow_rules(*taken(one, estimate(USD), spent=0)[:2], [State(0, 0)]) == []
    enforced, their_takes, theirs = taken(budget(), estimate(USD), spent=25 * USD)
    assert shadow_rules(enforced, their_takes, theirs.states) == []


def test_concurrent_calls_are_marked_by_what_runs() -> None:
    one = budget(unit="concurrent", limit=4, every="ever", warn_at=(500,))
    (take,) = takes_for([scope_of(one)], estimate(), NOON_MS)
    assert mark_reached(one, take, State(0, 1)) is None
    assert mark_reached(one, take, State(0, 2)) == 500
