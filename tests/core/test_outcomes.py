"""Whether an outcome held: the state that follows from all that is known of it, in whatever order it became known."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.globs import Globs
from proxy.core.happenings import Happening
from proxy.core.outcomes import (
    Event,
    OutcomeMatch,
    OutcomeRule,
    Standing,
    Team,
    outcome_key,
    standing,
)

DAY = 86_400_000
HOLDS = 14 * DAY


def landed(day: float) -> Event:
    return Event(int(day * DAY), "landed")


def undone(day: float) -> Event:
    return Event(int(day * DAY), "undone", "reverted")


def stands(*events: Event, on_day: float, accepted_after_ms: int | None = HOLDS) -> Standing:
    found = standing(events, accepted_after_ms, int(on_day * DAY))
    assert found is not None
    return found


def test_what_landed_is_pending_until_it_held_long_enough() -> None:
    assert stands(landed(1), on_day=14.9).state == "pending"
    accepted = stands(landed(1), on_day=15)
    assert (accepted.state, accepted.accepted_ms, accepted.undone_ms) == ("accepted", 15 * DAY, None)


def test_what_is_reverted_before_that_is_undone() -> None:
    found = stands(landed(1), undone(14), on_day=100)
    assert (found.state, found.reason, found.undone_ms, found.due_ms) == ("undone", "reverted", 14 * DAY, None)


def test_acceptance_is_for_good_also_where_a_later_revert_is_heard_of() -> None:
    assert stands(landed(1), undone(15), on_day=16).state == "accepted"
    assert stands(landed(1), undone(14.99), on_day=16).state == "undone", "it was reverted in time, and heard of late"


def test_a_revert_at_the_moment_of_landing_undoes() -> None:
    assert stands(undone(1), landed(1), on_day=30).state == "undone"


def test_a_revert_of_the_revert_begins_anew() -> None:
    events = (landed(1), undone(2), landed(5))
    assert stands(*events, on_day=18).state == "pending"
    assert stands(*events, on_day=19).accepted_ms == 19 * DAY


def test_the_second_part_of_a_change_does_not_put_off_its_acceptance() -> None:
    assert stands(landed(1), landed(10), on_day=15).state == "accepted"


def test_without_a_rule_that_says_so_nothing_is_ever_accepted() -> None:
    assert stands(landed(1), on_day=1000, accepted_after_ms=None).state == "pending"


def test_what_only_undoes_has_no_standing() -> None:
    assert standing([undone(1)], HOLDS, DAY) is None
    assert standing([], HOLDS, DAY) is None


events = st.builds(
    Event, st.integers(0, 40).map(lambda day: day * DAY), st.sampled_from(["landed", "undone"]), st.just("")
)


@given(st.lists(events, max_size=5), st.integers(0, 60))
def test_the_order_in_which_things_become_known_does_not_matter(known: list[Event], day: int) -> None:
    assert len({repr(standing(order, HOLDS, day * DAY)) for order in permutations(known)}) <= 1


@given(st.lists(events, max_size=6), st.integers(0, 60), st.integers(0, 60))
def test_accepted_stays_accepted_as_time_goes_on(known: list[Event], day: int, later: int) -> None:
    first, then = (standing(known, HOLDS, when * DAY) for when in (day, day + later))
    if first is not None and first.state == "accepted":
        assert then == first


def happening(**more: Any) -> Happening:
    return Happening(kind="merged", at_ms=0, **{"repo": "acme/pay", "base": "main"} | more)


def test_a_match_looks_at_repository_branch_and_people() -> None:
    match = OutcomeMatch((("repo", Globs("acme/*")), ("base", Globs("main"))), (("author", Globs("*[bot]")),))
    assert match.matches(happening(author="ada"))
    assert match.matches(happening())
    assert not match.matches(happening(author="renovate[bot]"))
    assert not match.matches(happening(repo="other/pay"))
    assert not match.matches(happening(base=None))


def test_reviewed_asks_for_someone_else_than_the_author() -> None:
    match = OutcomeMatch(reviewed=True)
    assert match.matches(happening(reviewed=True))
    assert not match.matches(happening(reviewed=False))
    assert not match.matches(happening(reviewed=None)), "nobody knows who merged it"


def test_one_change_cut_into_many_is_one_outcome_where_task_and_merge_base_are_the_same() -> None:
    parts = {outcome_key("default", "merged", "PAY-7", "acme/pay", "main", "f00d") for _ in range(50)}
    assert len(parts) == 1
    assert outcome_key("default", "merged", "PAY-8", "acme/pay", "main", "f00d") not in parts
    assert outcome_key("default", "merged", "PAY-7", "acme/pay", "main", "beef") not in parts


@pytest.mark.parametrize(
    ("unit", "rule", "kind", "is_one"),
    [
        ("shipped", "shipped", "deployed", True),
        ("merged change", "shipped", "merged", True),
        ("deployment", "x", "deployed", True),
        ("commit on main", "x", "pushed", True),
        ("merged change", "shipped", "deployed", False),
        ("other", "shipped", "merged", False),
    ],
)
def test_a_team_counts_its_own_unit(unit: str, rule: str, kind: str, is_one: bool) -> None:
    assert Team(name="pay", unit=unit, size=8).delivers(rule, kind) is is_one


def test_a_rule_never_shows_its_secret() -> None:
    rule = OutcomeRule(name="merged", origin="github", secret="hush-hush", event="push", accepted_after_ms=0)
    assert "hush" not in repr(rule)
    assert rule.kind == "pushed"
    assert OutcomeRule(name="d", origin="declared", accepted_after_ms=0).kind == "declared"
    assert OutcomeRule(name="d", origin="standard", event="x.done", accepted_after_ms=0).kind == "x.done"
