"""What outcomes do to the rules of `unproven`: a proven task is not held by them, for as long as its outcome lies in
the window and stands."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.admission import Reserved, State
from proxy.core.alerts import events_of
from proxy.core.budget_refusals import refusal_for, shadow_rules, warnings_for
from proxy.core.budgets import Budget, Raise, Scope
from proxy.core.limits_headers import limit_headers
from proxy.core.policy import Policy
from proxy.core.proven import FOR_EVER_MS, ProvenTask, ProvenTasks, is_proven, proven_until_ms, reach_ms, with_proven
from proxy.core.refusal import Refusal
from proxy.core.takes import takes_for
from proxy.core.windows import Every
from tests.support.budgets import NOON_MS, OPENAI, USD, budget, call, caller, estimate
from tests.support.ledger_calls import made

DAY = 86_400_000


def rule(every: str = "rolling 7d", **more: Any) -> Budget:
    return budget(every, name="nothing-shipped", per=("task",), limit=20 * USD, unproven=True, **more)


def outcome(task: str = "PAY-7", org: str = "acme", **more: Any) -> ProvenTask:
    given: dict[str, Any] = {"key": "k", "state": "pending", "landed_ms": NOON_MS, "changed_ms": NOON_MS}
    return ProvenTask(org=org, task=task, **{"accepted_after_ms": DAY} | given | more)


def scope(one: Budget, task: str | None = "PAY-7", **who: Any) -> Scope:
    (found,) = Policy(unproven=(one,)).scopes_for(caller(task=task, **who), call(), OPENAI)
    return found


def refused(one: Budget, task: str | None = "PAY-7", *, spent: int = 20 * USD, held: int = 0) -> Refusal:
    scopes = [scope(one, task)]
    takes = takes_for(scopes, estimate(USD // 10), NOON_MS)
    return refusal_for(scopes, takes, Reserved(False, 0, [State(spent, held)], [0], NOON_MS), run_s=9)


@pytest.mark.parametrize(
    ("every", "days"), [("day", 0.5), ("rolling 7d", 7 + 7 / 60 + 7 / 60), ("rolling 24h", 1 + 1 / 60 + 1 / 60)]
)
def test_an_outcome_proves_its_task_for_the_window_in_which_it_landed(every: str, days: float) -> None:
    until_ms = proven_until_ms(Every.parse(every), NOON_MS)
    assert NOON_MS < until_ms <= NOON_MS + days * DAY
    if every != "day":
        assert until_ms >= NOON_MS + Every.parse(every).length_ms


def test_of_a_window_that_never_ends_it_proves_for_ever() -> None:
    assert proven_until_ms(Every.parse("ever"), NOON_MS) == FOR_EVER_MS
    assert reach_ms([rule("ever")], NOON_MS) == 0


def test_all_that_can_still_matter_is_asked_for() -> None:
    week = rule()
    assert proven_until_ms(week.every, reach_ms([week, rule("day")], NOON_MS)) <= NOON_MS + week.every.length_ms // 30


def limit(one: Budget, known: list[ProvenTask], *, org: str = "acme", now_ms: int = NOON_MS) -> int:
    (take,) = takes_for([scope(one, org=org)], estimate(1), now_ms, with_proven({}, [one], known))
    return take.limit


def test_a_proven_task_has_no_limit_and_others_keep_theirs() -> None:
    assert limit(rule(), [outcome()]) > 10**15
    assert limit(rule(), []) == 20 * USD
    assert limit(rule(), [outcome("PAY-8")]) == 20 * USD
    assert limit(rule(), [outcome(org="other")]) == 20 * USD
    assert limit(rule(), [outcome()], now_ms=NOON_MS + 8 * DAY) == 20 * USD


@pytest.mark.parametrize("more", [{"state": "undone"}, {"accepted_after_ms": None}, {"task": ""}])
def test_what_does_not_stand_or_never_counts_proves_nothing(more: dict[str, Any]) -> None:
    assert limit(rule(), [outcome(**more)]) == 20 * USD


def test_an_outcome_that_is_undone_later_proves_no_more_and_another_one_still_does() -> None:
    tasks = ProvenTasks()
    assert tasks.learn([outcome(key="a"), outcome(key="b", landed_ms=NOON_MS - DAY)], 0)
    assert not tasks.learn([outcome(key="a")], 0), "nothing new"
    found = tasks.raises({}, [rule()])
    assert is_proven(scope(rule()), found, NOON_MS)
    assert tasks.learn([outcome(key="a", state="undone", changed_ms=NOON_MS + 5)], 0)
    assert tasks.changed_ms == NOON_MS + 5
    assert is_proven(scope(rule()), tasks.raises({}, [rule()]), NOON_MS)
    tasks.learn([outcome(key="b", landed_ms=NOON_MS - DAY, state="undone")], 0)
    assert not is_proven(scope(rule()), tasks.raises({}, [rule()]), NOON_MS)


def test_a_raise_by_hand_adds_to_the_limit_and_is_no_proof() -> None:
    given = {
        ("nothing-shipped", ("PAY-7",)): [Raise(budget="nothing-shipped", values=("PAY-7",), by=5, until_ms=2**50)]
    }
    (take,) = takes_for([scope(rule())], estimate(1), NOON_MS, with_proven(given, [rule()], []))
    assert take.limit == 20 * USD + 5
    assert not is_proven(scope(rule()), given, NOON_MS)
    both = with_proven(given, [rule()], [outcome()])
    assert is_proven(scope(rule()), both, NOON_MS)


def test_the_refusal_says_how_to_link_an_outcome() -> None:
    no = refused(rule(help="ask #ai"))
    assert (no.code, no.rule, no.retry_after_s) == ("unproven", "nothing-shipped", None)
    assert no.sentence == (
        "task `PAY-7` has come to no outcome yet: rule `nothing-shipped` lets it cost $20.00 in any 7d without one; "
        "$20.00 used, $0.10 needed; put the line `Task: PAY-7` into the commit or pull request that it comes to; it "
        "counts when that is merged or deployed; ask #ai"
    )


def test_work_without_a_task_is_held_too_and_told_to_name_one() -> None:
    no = refused(rule(), None)
    assert no.code == "unproven"
    assert no.sentence.startswith("work without a task has come to no outcome yet")
    assert "`callmeter task NAME`" in no.sentence
    mine, theirs = (scope(rule(), None, user=user).counter for user in ("ada", "bob"))
    assert mine != theirs, "it counts by user, or leaving the task away would be the way out"


def test_where_only_running_calls_stand_in_the_way_it_may_be_tried_again() -> None:
    no = refused(rule(), spent=19 * USD, held=USD)
    assert (no.code, no.retry_after_s) == ("budget_held", 9)


def test_a_rule_that_warns_lets_pass_and_says_the_same() -> None:
    scopes = [scope(rule(then="warn"))]
    takes = takes_for(scopes, estimate(USD), NOON_MS)
    (said,) = warnings_for(scopes, takes, [State(20 * USD, 0)])
    assert said.startswith("nothing-shipped; task `PAY-7` has come to no outcome yet")
    assert "`Task: PAY-7`" in said
    assert warnings_for(scopes, takes, [State(0, 0)]) == []


def test_a_rule_in_the_shadow_is_recorded() -> None:
    scopes = [scope(rule(mode="shadow"))]
    takes = takes_for(scopes, estimate(USD), NOON_MS)
    assert shadow_rules(scopes, takes, [State(20 * USD, 0)]) == ["nothing-shipped"]
    assert warnings_for(scopes, takes, [State(20 * USD, 0)]) == []


def test_no_header_tells_of_a_limit_that_is_none() -> None:
    scopes = [scope(rule())]
    raised = with_proven({}, [rule()], [outcome()])
    for raises, told in (({}, True), (raised, False)):
        takes = takes_for(scopes, estimate(USD), NOON_MS, raises)
        assert bool(limit_headers(takes, [State(0, 0)], now_ms=NOON_MS, admitted=True)) is told


def test_alerts_tell_of_unproven_tasks_once_in_a_window() -> None:
    policy = Policy(unproven=(rule(),), upstreams={"openai": OPENAI})
    said = {"warnings": ["nothing-shipped; task `PAY-7` has come to no outcome yet"]}
    refusal = {"result": "refused", "refusal": "unproven", "rule": "nothing-shipped"}
    for fields in (said, refusal):
        (event,) = events_of(made(1, **fields), policy)
        assert (event.kind, event.subject, event.scope) == ("unproven", "nothing-shipped", {"task": "PAY-7"})
        assert event.sentence.startswith("rule `nothing-shipped` for task `PAY-7`: ")
