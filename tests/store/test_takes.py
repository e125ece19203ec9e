"""Takes on their way to the store: a frame's holding is the same, byte for byte, as one made take by take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budgets import Budget, Scopes
from proxy.core.money import NUSD_MAX
from proxy.core.takes import takes_for
from proxy.store import takes
from tests.support.budgets import NOON_MS, budget, caller, estimate, scope_of

everys = st.sampled_from(["minute", "day", "rolling 10m", "ever"])
some_budgets = st.lists(
    st.builds(
        lambda number, every, then: budget(every, name=f"b{number}", then=then),
        st.integers(0, 9),
        everys,
        st.sampled_from(["refuse", "warn"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.name,
)


@given(some_budgets, st.sampled_from(["acme", "100 %d", 'a"b', "é"]), st.integers(0, NUSD_MAX))
def test_a_frame_gives_the_holding_that_its_takes_give(some: list[Budget], org: str, cost_nusd: int) -> None:
    scopes = Scopes([scope_of(one, caller(org=org)) for one in some])
    for cost in (cost_nusd, cost_nusd // 2):  # the second time from memory
        taken = takes_for(scopes, estimate(cost), NOON_MS)
        short, long = takes.holding(org, taken), takes.holding(org, list(taken))
        assert short.shape is not None
        assert (short.keys, short.text) == (long.keys, long.text)
        assert short.packed_keys == long.packed_keys
        assert takes.packed_reserve(short) == takes.packed_reserve(long)
        assert takes.packed_settle(short) == takes.packed_settle(long)
        assert takes.release_arguments(short) == takes.release_arguments(long)
        assert takes.parse(short.text).keys == short.keys


def test_an_amount_that_the_store_cannot_count_is_refused_in_a_frame_too() -> None:
    taken = takes_for(Scopes([scope_of(budget())]), estimate(NUSD_MAX + 1), NOON_MS)
    with pytest.raises(ValueError, match="at most"):
        takes.holding("acme", taken)
