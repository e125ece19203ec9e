"""The arithmetic of budgets. That the scripts of the store agree with it is tested in tests/store."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.admission import (
    Admission,
    Charge,
    NoRoom,
    Reserved,
    State,
    Take,
    WindowMoved,
    admission_span,
    bucket_start,
    oldest_bucket,
)

NOW_MS = 10_500
LIFE_MS = 30_000


def a_take(counter: str = "a", **fields: object) -> Take:
    usual = {
        "budget": "b",
        "unit": "nusd",
        "limit": 10,
        "amount": 4,
        "window_start_ms": 10_000,
        "window_end_ms": 11_000,
    }
    return Take(counter=counter, **(usual | fields))  # type: ignore[arg-type]


def a_rolling_take(end_ms: int = 11_000, **fields: object) -> Take:
    return a_take("r", window_start_ms=end_ms - 4_000, window_end_ms=end_ms, bucket_ms=1_000, **fields)


def an_admission() -> Admission:
    return Admission(life_ms=LIFE_MS)


def test_a_call_is_admitted_while_spent_held_and_amount_fit_and_not_a_nano_dollar_more() -> None:
    admission = an_admission()
    assert admission.reserve("c1", [[a_take(amount=6)]], NOW_MS).admitted
    assert admission.settle("c1", 1, Charge(nusd=3)) == 1
    assert admission.reserve("c2", [[a_take(amount=3)]], NOW_MS).states == [State(3, 0)]
    assert admission.reserve("c3", [[a_take(amount=5)]], NOW_MS) == Reserved(False, 0, [State(3, 3)], [0], NOW_MS)
    assert admission.reserve("c4", [[a_take(amount=4)]], NOW_MS).admitted


def test_all_takes_are_taken_or_none() -> None:
    admission = an_admission()
    outcome = admission.reserve("c1", [[a_take("a"), a_take("b", limit=3), a_take("c", limit=0)]], NOW_MS)
    assert (outcome.admitted, outcome.blocked) == (False, [1, 2])
    assert not any(admission.held.values())
    assert not admission.holds


def test_a_shadow_take_is_counted_and_never_refuses() -> None:
    admission = an_admission()
    assert admission.reserve("c1", [[a_take(limit=0, enforce=False)]], NOW_MS).blocked == []
    assert admission.state(a_take(), NOW_MS) == State(0, 4)


def test_the_second_candidate_is_tried_when_the_first_does_not_fit() -> None:
    admission = an_admission()
    outcome = admission.reserve("c1", [[a_take(amount=11)], [a_take(amount=2)]], NOW_MS)
    assert (outcome.admitted, outcome.choice) == (True, 1)
    assert admission.reserve("c1", [[a_take(amount=11)], [a_take(amount=2)]], NOW_MS).choice == 1
    assert admission.state(a_take(), NOW_MS) == State(0, 2)


@pytest.mark.parametrize(
    ("take", "now_ms"),
    [
        (a_take(), 9_999),
        (a_take(), 11_000),
        (a_rolling_take(), 9_999),
        (a_rolling_take(), 11_000),
    ],
)
def test_outside_the_window_nothing_is_taken(take: Take, now_ms: int) -> None:
    admission = an_admission()
    with pytest.raises(WindowMoved) as moved:
        admission.reserve("c1", [[a_take("ever", window_start_ms=0, window_end_ms=0), take]], now_ms)
    assert moved.value.now_ms == now_ms
    assert not any(admission.held.values())


def test_a_rolling_window_errs_by_less_than_one_sub_bucket_on_the_safe_side() -> None:
    # Three sub-buckets make up the rule's window of 3 s; the fourth is the one that is partly over.
    take = a_rolling_take()
    assert (admission_span(take), bucket_start(take)) == ((10_000, 11_000), 10_000)
    for now_ms in (10_000, 10_999):
        assert oldest_bucket(take, now_ms) == 7_000
        assert oldest_bucket(take, now_ms) <= now_ms - 3_000
    admission = an_admission()
    for number, end_ms in enumerate(range(6_000, 12_000, 1_000)):
        admission.settle(f"c{number}", 1, Charge(nusd=10**number), [a_rolling_take(end_ms)])
    assert admission.state(take, NOW_MS).spent == 111_100
    assert admission.state(take, 12_000).spent == 111_000 - 1_000 + 0


def test_each_unit_is_charged_what_the_call_came_to_in_it() -> None:
    admission = an_admission()
    takes = [a_take(unit, unit=unit, amount=1) for unit in ("nusd", "tokens", "calls", "concurrent")]
    admission.reserve("c1", [takes], NOW_MS)
    admission.settle("c1", 1, Charge(nusd=7, tokens=5, calls=1))
    assert [admission.state(take, NOW_MS) for take in takes] == [State(7, 0), State(5, 0), State(1, 0), State(0, 0)]


def test_a_settle_after_the_window_is_charged_to_the_window_of_the_hold() -> None:
    admission = an_admission()
    admission.reserve("c1", [[a_take()]], NOW_MS)
    admission.settle("c1", 1, Charge(nusd=30))
    assert admission.state(a_take(), NOW_MS) == State(30, 0)
    assert admission.state(a_take(window_start_ms=11_000, window_end_ms=12_000), 11_500) == State(0, 0)


def test_a_lost_call_costs_its_estimate_until_it_is_settled() -> None:
    admission = an_admission()
    takes = [a_take(), a_take("calls", unit="calls", amount=1)]
    admission.reserve("c1", [takes], NOW_MS, estimate=Charge(nusd=4, calls=1))
    assert admission.expire(NOW_MS + LIFE_MS - 1) == []
    assert admission.renew(["c1", "c2"], NOW_MS + 1) == ["c2"]
    assert admission.expire(NOW_MS + LIFE_MS) == []
    assert admission.expire(NOW_MS + LIFE_MS + 1) == ["c1"]
    assert [admission.state(take, NOW_MS) for take in takes] == [State(4, 0), State(1, 0)]
    assert [admission.settle("c1", 1, Charge(nusd=1, calls=1), takes) for _ in range(2)] == [2, 0]
    assert [admission.state(take, NOW_MS) for take in takes] == [State(1, 0), State(1, 0)]


def test_a_later_revision_charges_the_difference() -> None:
    admission = an_admission()
    takes = [a_take(), a_take("calls", unit="calls", amount=1)]
    admission.reserve("c1", [takes], NOW_MS)
    written = [admission.settle("c1", revision, Charge(nusd=3 * revision, calls=1), takes) for revision in (1, 3, 2)]
    assert written == [1, 3, 0]
    assert [admission.state(take, NOW_MS) for take in takes] == [State(9, 0), State(1, 0)]


def test_a_call_that_is_settled_takes_nothing_again() -> None:
    admission = an_admission()
    admission.settle("c1", 1, Charge())
    assert admission.reserve("c1", [[a_take()]], NOW_MS) == Reserved(True, 0, [], [], NOW_MS)
    admission.register("c1", [a_take()], NOW_MS)
    assert not any(admission.held.values())


def test_an_extension_is_given_in_all_counters_or_in_none() -> None:
    admission = an_admission()
    takes = [a_take(), a_take("b", limit=5), a_take("tokens", unit="tokens", limit=4)]
    admission.reserve("c1", [takes], NOW_MS)
    all_of_them = {"a", "b", "tokens"}
    assert admission.extend("c1", NOW_MS, nusd=2, within=all_of_them) == NoRoom("b", State(0, 4))
    assert admission.extend("c1", NOW_MS, nusd=1, within=all_of_them) is None
    assert admission.extend("c1", NOW_MS, tokens=1, within=all_of_them) == NoRoom("tokens", State(0, 4))
    assert admission.extend("c1", NOW_MS, tokens=1, within={"a", "b"}) is None  # what the others refuse is owed
    assert admission.extend("c2", NOW_MS, nusd=1, within=all_of_them) is None
    assert [admission.state(take, NOW_MS).held for take in takes] == [5, 5, 5]
    admission.release("c1")
    assert not any(admission.held.values())


calls = st.tuples(st.integers(0, 12), st.integers(0, 12), st.booleans())
"""Held, come to, and whether it ends before the next one begins."""


@given(happenings=st.lists(calls, max_size=40))
def test_calls_that_cost_no_more_than_they_hold_never_pass_the_limit(happenings: list[tuple[int, int, bool]]) -> None:
    admission = an_admission()
    take = a_take(limit=30)
    running: dict[str, int] = {}
    for number, (amount, cost, ends) in enumerate(happenings):
        before = admission.state(take, NOW_MS)
        asked = msgspec.structs.replace(take, amount=amount)
        outcome = admission.reserve(f"c{number}", [[asked]], NOW_MS)
        assert outcome.admitted == (before.spent + before.held + amount <= 30)
        if outcome.admitted:
            running[f"c{number}"] = min(cost, amount)
        if ends:
            for call_id, comes_to in running.items():
                admission.settle(call_id, 1, Charge(nusd=comes_to))
            running.clear()
        assert sum(msgspec.structs.astuple(admission.state(take, NOW_MS))) <= 30
