"""Trim: the longest answer that still fits, or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.admission import Reserved, State
from proxy.core.budgets import Budget
from proxy.core.call import Call
from proxy.core.expected import Estimate
from proxy.core.takes import takes_for
from proxy.core.trim import trimmed_output
from proxy.core.usage import Usage
from tests.support.budgets import NOON_MS, budget, call, scope_of


def priced(output: int) -> Estimate:
    """100 for the input, 2 for each token of output; the bound is that of the limit, and nothing is learned."""
    cost = 100 + 2 * output
    return Estimate(
        usage=Usage(input=100, output=output),
        expected_nusd=cost,
        expected_tokens=100 + output,
        worst_nusd=cost,
        worst_tokens=100 + output,
        output_tokens=output,
    )


def trimmed(*budgets: Budget, states: list[State], what: Call | None = None, limit: int = 1_000) -> int | None:
    scopes = [scope_of(one) for one in budgets]
    takes = takes_for(scopes, priced(limit), NOON_MS)
    blocked = [
        place
        for place, (take, state) in enumerate(zip(takes, states, strict=True))
        if take.enforce and state.spent + state.held + take.amount > take.limit
    ]
    reserved = Reserved(False, 0, states, blocked, NOON_MS)
    return trimmed_output(
        what or call(max_output_tokens=limit), priced(limit), scopes, takes, reserved, estimate_with=priced
    )


def test_the_answer_is_made_as_long_as_fits() -> None:
    assert trimmed(budget(limit=1_000, trim=True), states=[State(400, 99)]) == 200


def test_every_budget_in_the_way_must_say_trim() -> None:
    one, other = budget(limit=1_000, trim=True), budget(name="other", limit=1_000)
    assert trimmed(one, other, states=[State(0, 0), State(0, 0)]) is None
    roomy = budget(name="other", limit=10_000)
    assert trimmed(one, roomy, states=[State(0, 0), State(0, 0)]) == 450


def test_budgets_of_other_units_count_too() -> None:
    tokens = budget(name="tokens", unit="tokens", limit=300, trim=True)
    assert trimmed(budget(limit=1_000, trim=True), tokens, states=[State(0, 0), State(0, 50)]) == 150


def test_never_below_what_the_endpoint_takes_or_the_call_thinks() -> None:
    thinking = call(max_output_tokens=1_000, output_tokens_min=451)
    assert trimmed(budget(limit=1_000, trim=True), states=[State(0, 0)], what=thinking) is None
    thinking.output_tokens_min = 450
    assert trimmed(budget(limit=1_000, trim=True), states=[State(0, 0)], what=thinking) == 450


@pytest.mark.parametrize(
    "fields",
    [{"reserve": 5_000}, {"trim": False}, {"unit": "calls", "limit": 1}, {"unit": "concurrent", "limit": 1}],
)
def test_where_a_shorter_answer_holds_no_less_nothing_is_trimmed(fields: dict[str, Any]) -> None:
    assert trimmed(budget(**({"limit": 1_000, "trim": True} | fields)), states=[State(1, 1)]) is None


def test_a_budget_without_room_for_the_input_cannot_be_helped() -> None:
    assert trimmed(budget(limit=1_000, trim=True), states=[State(950, 0)]) is None


@given(
    st.integers(min_value=1, max_value=5_000),
    st.integers(min_value=0, max_value=5_000),
    st.integers(min_value=1, max_value=3_000),
    st.integers(min_value=1, max_value=500),
)
def test_what_is_found_fits_and_one_token_more_does_not(limit: int, spent: int, asked: int, least: int) -> None:
    what = call(max_output_tokens=asked, output_tokens_min=least)
    one = budget(limit=limit, trim=True)
    if spent + priced(asked).expected_nusd <= limit:
        return
    found = trimmed(one, states=[State(spent, 0)], what=what, limit=asked)
    if found is None:
        assert asked <= least or spent + priced(least).expected_nusd > limit
        return
    assert least <= found < asked
    assert spent + priced(found).expected_nusd <= limit
    assert found + 1 == asked or spent + priced(found + 1).expected_nusd > limit
