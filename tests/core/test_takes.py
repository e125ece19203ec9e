"""Takes for calls: what a call takes of its budgets, and what calls alike share of that."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.admission import State
from proxy.core.budgets import Budget, Raise, Scopes, Use
from proxy.core.limits_headers import limit_headers
from proxy.core.policy import Policy
from proxy.core.takes import Taken, other_model, takes_for
from tests.support.budgets import NOON_MS, OPENAI, USD, budget, call, caller, estimate, scope_of

FORESEEN = estimate(300, 1_000, worst_nusd=900, worst_tokens=5_000)
DAY_MS = 24 * 3_600_000


def test_a_take_names_counter_limit_amount_and_window() -> None:
    scope = scope_of(budget(limits={"ada": 7}))
    (take,) = takes_for([scope], FORESEEN, NOON_MS)
    assert (take.counter, take.budget, take.unit, take.limit, take.amount) == (
        scope.counter, "person-day", "nusd", 7, 300,
    )  # fmt: skip
    assert take.window_end_ms - take.window_start_ms == 24 * 3_600_000
    assert take.bucket_ms == 0
    assert take.enforce


def test_only_an_enforced_rule_can_keep_a_call_out() -> None:
    kinds = [budget(), budget(mode="shadow"), budget(then="warn"), budget(then=Use({}))]
    takes = takes_for([scope_of(one) for one in kinds], FORESEEN, NOON_MS)
    assert [take.enforce for take in takes] == [True, False, False, True]


def test_rolling_windows_carry_their_buckets_and_ever_carries_none() -> None:
    rolling, ever = takes_for([scope_of(budget("rolling 24h")), scope_of(budget("ever"))], FORESEEN, NOON_MS)
    assert rolling.bucket_ms == 24 * 60_000
    assert (ever.window_start_ms, ever.window_end_ms, ever.bucket_ms) == (0, 0, 0)


def test_a_bound_is_asked_for_by_worst_case_alone() -> None:
    assert not Scopes([scope_of(budget()), scope_of(budget(reserve=5))]).asks_for_bound
    assert Scopes([scope_of(budget()), scope_of(budget(reserve="worst_case"))]).asks_for_bound


def test_the_other_model_is_that_of_the_first_enforced_rule_with_one_for_the_dialect() -> None:
    scopes = [
        scope_of(budget(mode="shadow", then=Use({"openai": "shadow"}))),
        scope_of(budget(then=Use({"anthropic": "claude-haiku-4-5"}))),
        scope_of(budget(then=Use({"openai": "gpt-5-mini", "anthropic": "other"}))),
    ]
    assert other_model(scopes, "openai") == "gpt-5-mini"
    assert other_model(scopes, "anthropic") == "claude-haiku-4-5"
    assert other_model(scopes, "gemini") is None


# -- what calls alike share -------------------------------------------------------------------------------------------

everys = st.sampled_from(["minute", "hour", "day", "month", "rolling 10m", "rolling 24h", "ever"])
units = st.sampled_from(["nusd", "tokens", "calls", "concurrent"])
budgets = st.lists(
    st.builds(
        lambda number, every, unit, limit, then: budget(
            every, name=f"b{number}", unit=unit, limit=limit, then=then, limits={"ada": limit + 1}
        ),
        st.integers(0, 9),
        everys,
        units,
        st.integers(1, 10**12),
        st.sampled_from(["refuse", "warn"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.name,
)


@given(budgets, st.lists(st.integers(-2 * DAY_MS, 2 * DAY_MS), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_frame_serves_until_a_window_turns_and_gives_what_was_worked_out_anew(
    some: list[Budget], moments: list[int], cost_nusd: int
) -> None:
    scopes = Scopes([scope_of(one) for one in some])
    for moment in moments:
        now_ms, foreseen = NOON_MS + moment, estimate(cost_nusd, 7)
        assert list(takes_for(scopes, foreseen, now_ms)) == list(takes_for(list(scopes), foreseen, now_ms))


def test_calls_of_one_moment_share_a_frame_and_each_has_its_own_amounts() -> None:
    scopes = Scopes([scope_of(budget())])
    first, second = (takes_for(scopes, estimate(cost), NOON_MS + cost) for cost in (1, 2))
    assert isinstance(first, Taken)
    assert isinstance(second, Taken)
    assert first.frame is second.frame
    assert (first[0].amount, second[0].amount) == (1, 2)


def test_a_raise_counts_from_when_it_is_known_until_it_ends() -> None:
    scopes = Scopes([scope_of(budget(limit=USD))])
    raises = {("person-day", ("ada",)): [Raise(budget="person-day", values=("ada",), by=USD, until_ms=NOON_MS + 9)]}
    limits = [
        takes_for(scopes, FORESEEN, NOON_MS + at, known)[0].limit for at, known in ((0, {}), (1, raises), (9, raises))
    ]
    assert limits == [USD, 2 * USD, USD]


def test_a_task_keys_own_budgets_are_remembered_with_the_others() -> None:
    policy = Policy(budgets=(budget(),))
    who = caller(max_cost_nusd={"chain": USD})
    assert policy.scopes_for(who, call(), OPENAI) is policy.scopes_for(msgspec.structs.replace(who), call(), OPENAI)
    assert policy.scopes_for(who, call(), OPENAI) is not policy.scopes_for(caller(), call(), OPENAI)


@given(
    budgets, st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), min_size=5, max_size=5), st.booleans()
)
def test_the_headers_of_a_frame_say_what_those_of_its_takes_say(
    some: list[Budget], figures: list[tuple[int, int]], admitted: bool
) -> None:
    takes = takes_for(Scopes([scope_of(one) for one in some]), FORESEEN, NOON_MS)
    states = [State(*each) for each in figures[: len(takes)]]
    one_by_one = limit_headers(list(takes), states, now_ms=NOON_MS + 5, admitted=admitted)
    assert limit_headers(takes, states, now_ms=NOON_MS + 5, admitted=admitted) == one_by_one
