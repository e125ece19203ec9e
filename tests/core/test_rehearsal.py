"""What another policy would have refused of calls that were made."""

from __future__ import annotations

from proxy.core.proven import ProvenTask
from proxy.core.record import Record
from proxy.core.rehearsal import Effect, Rehearsal
from tests.support.ledger_calls import AT_MS, HOUR_MS, made, refused
from tests.support.policies import policy_of

CALL_NUSD = 1_200_000


def effects(text: str, *records: Record, since_ms: int = AT_MS) -> tuple[Rehearsal, dict[tuple[str, str], Effect]]:
    rehearsal = Rehearsal(policy_of(text), since_ms)
    for record in records:
        rehearsal.add(record)
    return rehearsal, {(effect.rule, effect.mode): effect for effect in rehearsal.effects()}


def test_calls_beyond_a_budget_would_have_been_refused_and_their_tasks_stopped() -> None:
    calls = [made(1), made(2), made(3, task="PAY-9"), made(4, user="bob")]
    rehearsal, found = effects("budgets: [{name: person, per: user, limit: $0.0024, every: day}]", *calls)
    effect = found["person", "enforce"]
    assert (effect.calls, effect.cost_nusd, effect.tasks) == (1, CALL_NUSD, {"PAY-9"})
    assert (rehearsal.total.calls, rehearsal.total.refused_calls) == (4, 1)
    assert rehearsal.total.refused_nusd == CALL_NUSD


def test_what_was_spent_in_the_open_window_before_counts_but_is_not_refused() -> None:
    text = "budgets: [{name: person, per: user, limit: $0.0024, every: month}]"
    before = [made(number, at_ms=AT_MS - HOUR_MS) for number in (1, 2, 3)]
    rehearsal, found = effects(text, *before, made(4))
    assert rehearsal.begins_ms < AT_MS - HOUR_MS
    assert found["person", "enforce"].calls == 1
    assert rehearsal.total.calls == 1


def test_access_rules_speak_first_and_shadow_rules_stop_nothing() -> None:
    text = """
        access: [{name: no-mini, match: {model: "*mini"}, mode: shadow}, {name: no-bob, match: {user: bob}}]
        budgets:
          - {name: tight, limit: $0.0001, every: day, mode: shadow}
          - {name: soft, limit: $0.0001, every: day, then: warn}
    """
    rehearsal, found = effects(text, made(1), made(2, user="bob"), refused(3))
    assert {name: effect.calls for name, effect in found.items()} == {
        ("no-mini", "shadow"): 2,
        ("no-bob", "enforce"): 1,
        ("tight", "shadow"): 2,
        ("soft", "shadow"): 2,
    }
    assert rehearsal.total.calls == 2


def test_what_shadow_rules_in_force_said_is_reported_the_same_way() -> None:
    _, found = effects("defaults: {}", made(1, shadow=["trial"]), made(2))
    effect = found["trial", "recorded"]
    assert (effect.calls, effect.cost_nusd, effect.tasks) == (1, CALL_NUSD, {"PAY-7"})


def test_another_model_is_no_refusal() -> None:
    text = """
        budgets: [{name: person, limit: $0.0001, every: day, then: {use: {openai: gpt-5-nano}}}]
    """
    rehearsal, found = effects(text, made(1))
    assert found["person", "use"].calls == 1
    assert rehearsal.total.refused_calls == 0


def test_rolling_windows_forget_and_calls_at_once_are_counted_by_their_time() -> None:
    text = """
        budgets:
          - {name: hourly, limit: 1 call, every: rolling 1h}
          - {name: two, limit: 1 concurrent}
    """
    calls = [
        made(1, at_ms=AT_MS, ms_total=1000, estimate={"input": 1}),
        made(2, at_ms=AT_MS + 2 * HOUR_MS, ms_total=10_000, estimate={"input": 1}),
        made(3, at_ms=AT_MS + 4 * HOUR_MS, ms_total=10_000, estimate={"input": 1}),
    ]
    rehearsal, _ = effects(text, *calls)
    assert rehearsal.total.refused_calls == 0
    second = made(4, at_ms=calls[2].at_ms + 1000, estimate={"input": 1})
    rehearsal.add(second)
    assert {effect.rule: effect.calls for effect in rehearsal.effects()} == {"hourly": 1}


def test_an_outcome_lifts_a_rule_of_unproven_from_when_it_landed() -> None:
    rule = "unproven: [{name: nothing-shipped, limit: $0.0012, every: ever}]"
    calls = [made(1), made(2), made(3, at_ms=AT_MS + 2 * HOUR_MS)]
    landed = ProvenTask("k", "default", "PAY-7", "pending", AT_MS + HOUR_MS, AT_MS + HOUR_MS, 0)
    for proven, refused_calls in (((), 2), ((landed,), 1)):
        rehearsal = Rehearsal(policy_of(rule), AT_MS, proven)
        for call in calls:
            rehearsal.add(call)
        (effect,) = rehearsal.effects()
        assert (effect.rule, effect.calls) == ("nothing-shipped", refused_calls)
