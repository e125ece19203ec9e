"""Attribution: every nano-USD goes somewhere, and nowhere twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.attribution import FATES, NO_OUTCOME, Mix, Spread, fates, share, shares, spread

AMOUNTS = st.integers(0, 2**53 - 1)
WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any)


@given(amount=AMOUNTS, weights=WEIGHTS)
def test_shares_add_up_exactly_and_are_less_than_one_unit_off(amount: int, weights: list[int]) -> None:
    found = shares(amount, weights)
    assert sum(found) == amount
    for part, weight in zip(found, weights, strict=True):
        assert abs(part * sum(weights) - amount * weight) < 2 * sum(weights)
        assert weight or not part


def test_what_is_left_over_falls_to_the_same_place_each_time() -> None:
    assert shares(10, [1, 1, 1]) == [3, 3, 4]
    assert shares(2, [1, 1, 1]) == [0, 1, 1]


@given(
    amount=AMOUNTS,
    mix=st.builds(Mix, *[st.integers(0, 5)] * 3),
    has_task=st.booleans(),
    is_old=st.booleans(),
)
def test_all_that_became_of_an_amount_is_the_amount(amount: int, mix: Mix, has_task: bool, is_old: bool) -> None:
    found = fates(amount, mix, has_task=has_task, is_old=is_old)
    assert len(found) == len(FATES)
    assert sum(found) == amount


def test_money_without_an_outcome_is_unproven_then_spent_for_nothing_yet() -> None:
    def where(has_task: bool, is_old: bool) -> str:
        return FATES[fates(7, NO_OUTCOME, has_task=has_task, is_old=is_old).index(7)]

    assert where(has_task=True, is_old=False) == "unproven"
    assert where(has_task=True, is_old=True) == "for_nothing"
    assert where(has_task=False, is_old=True) == "untasked"


def test_a_spread_shows_more_than_the_mean() -> None:
    assert spread([]) is None
    assert spread([7]) == Spread(7, 7, 7, 7)
    assert spread([1, 2, 3, 4, 90]) == Spread(median=3, p25=2, p75=4, mean=20)
    assert spread([4, 1]) == Spread(median=2, p25=1, p75=4, mean=2)


def test_a_share_of_nothing_is_none() -> None:
    assert share(0, 0) is None
    assert share(1, 3) == 0.3333
