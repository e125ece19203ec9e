"""Which records hold news for admins, and that the same news of the same window has the same key."""

from __future__ import annotations

from proxy.core.alerts import Event, events_of, policy_broken, store_unavailable
from proxy.core.policy import Policy
from proxy.core.record import Record
from tests.support.ledger_calls import AT_MS, HOUR_MS, made, refused
from tests.support.policies import policy_of

POLICY = policy_of("budgets: [{name: person-day, per: user, limit: $25, every: day}]")


def only(record: Record, policy: Policy = POLICY) -> Event:
    [event] = events_of(record, policy)
    return event


def test_a_spent_budget_is_told_once_for_each_counter_and_window() -> None:
    spent = only(refused(1, refusal="budget_spent", rule="person-day"))
    again = only(refused(2, refusal="budget_spent", rule="person-day"))
    assert (spent.kind, spent.subject, spent.scope) == ("budget_spent", "person-day", {"user": "ada"})
    assert spent.key("ops") == again.key("ops") != spent.key("finance")
    others = (
        refused(3, refusal="budget_spent", rule="person-day", user="bob"),
        refused(4, refusal="budget_spent", rule="person-day", at_ms=AT_MS + 24 * HOUR_MS),
        made(5, warnings=["person-day; 80% is spent"]),
    )
    assert len({spent.key("ops"), *(only(record).key("ops") for record in others)}) == 4


def test_a_warning_of_a_budget_is_told_and_that_of_an_access_rule_is_not() -> None:
    event = only(made(1, warnings=["person-day; 80% of $25.00 is spent", "frontier; this rule speaks against model x"]))
    assert event.kind == "budget_warned"
    assert event.sentence == "budget `person-day` for user `ada`: 80% of $25.00 is spent"


def test_unknown_prices_are_told_once_a_day_for_each_model() -> None:
    event = only(made(1, cost_source="assumed"))
    assert (event.kind, event.subject) == ("price_unknown", "openai/gpt-5-mini-2025-08-07")
    assert event.key("ops") == only(made(2, cost_nusd=None, user="bob")).key("ops")


def test_an_away_store_is_told_once_an_hour_whoever_sees_it() -> None:
    assert only(made(1, degraded=True)).key("ops") == store_unavailable(AT_MS + 5, "refused").key("ops")
    assert store_unavailable(AT_MS + HOUR_MS).key("ops") != store_unavailable(AT_MS).key("ops")


def test_a_broken_policy_is_told_once_for_each_set_of_faults() -> None:
    first = policy_broken(["a.yaml:1:1: wrong", "b.yaml:1:1: wrong"], AT_MS)
    assert "a.yaml:1:1: wrong (and 1 more)" in first.sentence
    assert first.key("ops") == policy_broken(["a.yaml:1:1: wrong", "b.yaml:1:1: wrong"], AT_MS + 9).key("ops")
    assert first.key("ops") != policy_broken(["a.yaml:1:1: wrong"], AT_MS).key("ops")


def test_a_loop_is_told_once_an_hour_for_each_rule_and_task() -> None:
    policy = policy_of("""
        duplicates:
          - {name: circle, kind: loop, per: task, limit: 3 calls, then: refuse}
          - {name: soft, kind: loop, per: task, limit: 3 calls}
          - {name: same, kind: exact, limit: 1 calls, then: refuse}
    """)
    stopped = only(refused(1, refusal="loop", rule="circle", loop=4), policy)
    assert (stopped.kind, stopped.subject, stopped.scope) == ("loop", "circle", {"task": "PAY-7"})
    assert stopped.sentence == "rule `circle` for task `PAY-7`: the same steps for the 4th time in a row; it is refused"
    again = only(refused(2, refusal="loop", rule="circle", loop=4), policy)
    warned = only(made(3, loop=5, warnings=["soft; it ends in the same tool call"]), policy)
    assert stopped.key("ops") == again.key("ops") != warned.key("ops")
    assert list(events_of(refused(4, refusal="duplicate", rule="same", repeats=1, loop=2), policy)) == []


def test_ordinary_calls_are_no_news() -> None:
    assert list(events_of(made(1), POLICY)) == []
    assert list(events_of(refused(2), POLICY)) == []
    assert list(events_of(made(3, warnings=["gone; no such budget any more"]), POLICY)) == []


def test_alerts_are_read_from_policy_files_and_their_receivers_are_never_shown() -> None:
    policy = policy_of("""
        alerts: [{name: ops, to: "https://hooks.example.com/x?token=y", on: [budget_spent, loop]}]
    """)
    assert policy.alerts[0].on == ("budget_spent", "loop")
    assert "hooks" not in repr(policy.alerts[0])
    other = policy_of("""
        alerts: [{name: ops, to: "https://hooks.example.com/another", on: [budget_spent, loop]}]
    """)
    assert policy.version == other.version
