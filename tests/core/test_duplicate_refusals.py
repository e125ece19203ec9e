"""What duplicate rules tell callers, and what they put into the record."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.duplicate_refusals import Finding, told_ago, weigh
from proxy.core.duplicates import DuplicateRule
from proxy.core.twins import Seen
from tests.support.budgets import NOON_MS, caller
from tests.support.duplicates import call_id, mark, rule, scope_of

FIRST = call_id(1, at_ms=NOON_MS - 180_000)
BY_ADA = Seen(1, FIRST, "ada", "PAY-7")
BY_BOB = Seen(1, FIRST, "bob", "PAY-9")


def found(*pairs: tuple[DuplicateRule, Seen], **who: Any) -> Finding:
    scopes = [scope_of(one) for one, _ in pairs]
    marks = [mark(one.kind, limit=one.limit) for one, _ in pairs]
    return weigh(scopes, marks, [seen for _, seen in pairs], caller=caller(**({"task": "PAY-7"} | who)), now_ms=NOON_MS)


def sentence(*pairs: tuple[DuplicateRule, Seen], **who: Any) -> str:
    refusal = found(*pairs, **who).refusal
    assert refusal is not None
    return refusal.told


def test_a_refusal_names_rule_earlier_call_when_and_how_to_go_on() -> None:
    assert sentence((rule(help="ask #ai"), BY_ADA)) == (
        f"rule `same-exact` refuses this call: it is the same as call `{FIRST}` of 3 min ago, and 1 such call may pass "
        "in any 10m; use its answer, or change what is asked; ask #ai"
    )


def test_who_made_it_is_told_only_to_those_who_may_know() -> None:
    assert "3 min ago by another user, and" in sentence((rule(), BY_BOB))
    assert "PAY-9" not in sentence((rule(), BY_BOB))
    assert "3 min ago by user `bob` for task `PAY-9`, and" in sentence((rule(share="org"), BY_BOB))
    assert "3 min ago for task `PAY-7`, and" in sentence((rule(), BY_ADA), task="PAY-8")


def test_a_task_is_told_which_task_was_the_same_work() -> None:
    same = rule("task", every="rolling 7d")
    assert sentence((same, BY_ADA), task="PAY-8") == (
        "rule `same-task` refuses this call: its task is the same work as task `PAY-7` of 3 min ago, and 1 such task "
        "may pass in any 7d; go on with what that task came to, or ask for something else"
    )
    assert "the same work as an earlier task of 3 min ago by another user" in sentence((same, BY_BOB))


def test_a_loop_has_a_code_of_its_own_and_counts_its_rounds() -> None:
    finding = found((rule("loop", limit=3), Seen(3)))
    assert finding.refusal is not None
    assert finding.refusal.code == "loop"
    assert finding.refusal.told == (
        "rule `same-loop` refuses this call: it ends in the same tool calls with the same results for the 4th time in "
        "a row, and 3 rounds may pass; try something else, or stop"
    )
    assert (finding.loop, finding.twin_of, finding.kind) == (4, None, "loop")


def test_of_two_refusals_the_one_goes_first_that_has_precedence() -> None:
    finding = found((rule("loop"), Seen(1, FIRST)), (rule(), BY_ADA))
    assert finding.refusal is not None
    assert (finding.refusal.code, finding.rule, finding.kind) == ("duplicate", "same-exact", "exact")


def test_a_warning_is_one_line_for_a_header() -> None:
    (warning,) = found((rule(then="warn", help="ask"), BY_ADA)).warnings
    assert warning.startswith("same-exact; it is the same as call")
    assert warning.endswith("; ask")


def test_shadow_rules_say_nothing_and_are_recorded() -> None:
    finding = found((rule(mode="shadow"), BY_ADA), (rule("normalized", mode="shadow", then="warn"), BY_ADA))
    assert (finding.refusal, finding.warnings, finding.shadow) == (None, [], ["same-exact"])


def test_a_shadow_rule_that_would_have_answered_it_is_recorded_too() -> None:
    assert found((rule(then="replay", mode="shadow"), BY_ADA)).shadow == ["same-exact"]


def test_facts_are_recorded_below_the_limit_as_well() -> None:
    finding = found((rule("task", limit=9), BY_BOB), (rule("normalized", limit=9), Seen(4, FIRST, "ada", "")))
    assert (finding.refusal, finding.warnings) == (None, [])
    assert (finding.twin_of, finding.rule, finding.kind) == (FIRST, "same-normalized", "normalized")
    assert (finding.repeats, finding.moved_on) == (4, False)


def test_likeness_is_no_fact_until_there_is_too_much_of_it() -> None:
    once = found((rule("similar", limit=3, then="warn"), Seen(2, FIRST)))
    assert (once.twin_of, once.kind, once.warnings) == (None, None, [])
    often = found((rule("similar", limit=3, then="warn"), Seen(3, FIRST)))
    assert (often.twin_of, often.kind, len(often.warnings)) == (FIRST, "similar", 1)


@pytest.mark.parametrize(
    ("kind", "seen", "moved_on"),
    [
        ("exact", Seen(), True),
        ("exact", BY_ADA, False),
        ("loop", Seen(), True),
        ("loop", Seen(1), False),
        ("task", BY_BOB, None),
        ("similar", BY_BOB, None),
    ],
)
def test_a_conversation_moves_on_unless_it_repeats_itself(kind: Any, seen: Seen, moved_on: bool | None) -> None:
    assert found((rule(kind, then="warn", limit=9), seen)).moved_on is moved_on


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (-5, "0 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (7_200_000, "2 h"),
        (86_400_000, "1 day"),
        (200_000_000, "2 days"),
    ],
)
def test_how_long_ago(ms: int, told: str) -> None:
    assert told_ago(ms) == told
