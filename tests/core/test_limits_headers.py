"""RateLimit and RateLimit-Policy: structured fields of bounded length, in integers of at most 15 digits."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.admission import State
from proxy.core.budgets import Budget, Scopes
from proxy.core.limits_headers import LISTED_MAX, limit_headers
from proxy.core.money import NUSD_MAX
from proxy.core.takes import takes_for
from tests.support.budgets import NOON_MS, USD, budget, estimate, scope_of

ITEM = re.compile(r'"[A-Za-z0-9_-]+"(;[a-z]+=(-?[0-9]{1,15}|"[a-z-]+"))+')


def headers(*budgets: Budget, states: list[State], admitted: bool = True) -> dict[str, str]:
    takes = takes_for([scope_of(one) for one in budgets], estimate(USD // 2, 50), NOON_MS)
    return dict(limit_headers(takes, states, now_ms=NOON_MS, admitted=admitted))


def test_each_kind_of_limit() -> None:
    found = headers(
        budget(),
        budget("minute", name="rpm", unit="calls", limit=500),
        budget("rolling 24h", name="tokens", unit="tokens", limit=2_000_000),
        budget("ever", name="at-once", unit="concurrent", limit=4),
        budget("ever", name="all", limit=5 * USD),
        states=[State(3 * USD, USD), State(10, 5), State(1_000, 0), State(0, 2), State(0, 0)],
    )
    assert found["ratelimit-policy"] == (
        '"person-day";q=25000000;qu="micro-usd";w=86400, "rpm";q=500;w=60, "tokens";q=2000000;qu="tokens";w=86400, '
        '"at-once";q=4;qu="concurrent-requests", "all";q=5000000;qu="micro-usd"'
    )
    assert found["ratelimit"] == (
        '"person-day";r=20500000;t=43200, "rpm";r=484;t=60, "tokens";r=1998950, "at-once";r=1, "all";r=4500000'
    )


def test_a_refused_call_holds_nothing_and_what_is_left_is_never_below_zero() -> None:
    states = [State(26 * USD, USD)]
    assert headers(budget(), states=states)["ratelimit"].startswith('"person-day";r=0;')
    assert 'r=25000000' in headers(budget(), states=[State(0, 0)], admitted=False)["ratelimit"]  # fmt: skip


def test_only_limits_that_hold_are_told() -> None:
    assert headers(budget(mode="shadow"), budget(then="warn"), states=[State(0, 0)] * 2) == {}
    assert headers(states=[]) == {}


def test_of_very_many_budgets_the_fullest_are_told() -> None:
    many = [budget(name=f"b{place}") for place in range(50)]
    states = [State(place * USD // 4, 0) for place in range(50)]
    told = headers(*many, states=states)["ratelimit"].split(", ")
    assert len(told) == LISTED_MAX
    assert told[0].startswith('"b49"')


@given(
    st.sampled_from(["nusd", "tokens", "calls", "concurrent"]),
    st.sampled_from(["minute", "month", "rolling 1m", "ever"]),
    st.integers(min_value=1, max_value=NUSD_MAX),
    st.integers(min_value=0, max_value=NUSD_MAX),
    st.integers(min_value=0, max_value=NUSD_MAX),
)
def test_whatever_the_figures_the_fields_are_well_formed(
    unit: Any, every: str, limit: int, spent: int, held: int
) -> None:
    found = headers(budget(every, unit=unit, limit=limit), states=[State(spent, held)])
    for value in found.values():
        assert ITEM.fullmatch(value)


@given(st.lists(st.integers(min_value=0, max_value=7_200_000), min_size=1, max_size=6))
def test_the_seconds_to_the_next_window_are_those_of_each_call_also_from_memory(after_ms: list[int]) -> None:
    some = [
        budget("minute", name="a"),
        budget("day", name="b"),
        budget("rolling 10m", name="c"),
        budget("ever", name="d"),
    ]
    takes, states = takes_for(Scopes([scope_of(one) for one in some]), estimate(5), NOON_MS), [State(0, 0)] * 4
    for now_ms in (NOON_MS + after for after in (*after_ms, *after_ms)):
        one_by_one = limit_headers(list(takes), states, now_ms=now_ms, admitted=True)
        assert limit_headers(takes, states, now_ms=now_ms, admitted=True) == one_by_one
