"""What the ledger says of counters: by hourly sums where those can tell, call by call where they cannot."""

from __future__ import annotations

from proxy.bookkeeping.spent import spent_before, spent_now
from proxy.core.policy import Policy
from proxy.core.recorded import seen_in
from proxy.ledger.budgets import Seeding
from proxy.ledger.database import Ledger
from tests.support.ledger_calls import AT_MS, HOUR_MS, MINUTE_MS, entries, made, refused
from tests.support.policies import policy_of

NOW_MS = AT_MS + 30 * MINUTE_MS
CALL_NUSD = 1_200_000


def spent(ledger: Ledger, policy: Policy, now_ms: int = NOW_MS) -> dict[tuple[str, ...], int]:
    found = spent_now(ledger.spending, policy.budgets, policy.upstreams, now_ms)
    return {(counter.scope.budget.name, *counter.scope.values): counter.total for counter in found}


def held(number: int, **changes: object) -> object:
    return made(number, **({"estimate": {"input": 1000}} | changes))


def test_calls_count_for_every_budget_that_matches_them(ledger: Ledger) -> None:
    policy = policy_of("""
        budgets:
          - {name: person-day, per: user, limit: $25, every: day}
          - {name: team-tokens, match: {team: payments}, per: team, limit: 2M tokens, every: month}
          - {name: minis, match: {model: "gpt-5-*"}, per: user, limit: $5, every: rolling 24h}
          - {name: calls, per: user, limit: 500 calls, every: hour}
    """)
    ledger.ingest(
        entries(
            held(1),
            held(2, user="bob", team="search"),
            held(3, model_asked="o9", cost_nusd=5),
            refused(4),
            held(5, at_ms=AT_MS - 40 * 24 * HOUR_MS),
        )
    )
    assert spent(ledger, policy) == {
        ("person-day", "ada"): CALL_NUSD + 5,
        ("person-day", "bob"): CALL_NUSD,
        ("team-tokens", "payments"): 2200,
        ("minis", "ada"): CALL_NUSD,
        ("minis", "bob"): CALL_NUSD,
        ("calls", "ada"): 2,
        ("calls", "bob"): 1,
    }


def test_hourly_sums_and_single_calls_agree_where_a_day_begins_within_an_hour(ledger: Ledger) -> None:
    # Midnight in Calcutta is at half past an hour of UTC. The second budget matches by label, which sums cannot tell.
    policy = policy_of("""
        budgets:
          - {name: rolled, per: user, limit: $25, every: day, timezone: Asia/Kolkata}
          - {name: single, match: {not: {label.x: y}}, per: user, limit: $25, every: day, timezone: Asia/Kolkata}
    """)
    start_ms, _, _ = policy.budgets[0].every.window(NOW_MS)
    offsets = (-1, 0, 1, 29 * MINUTE_MS, 31 * MINUTE_MS, 3 * HOUR_MS)
    ledger.ingest(entries(*(made(number, at_ms=start_ms + offset) for number, offset in enumerate(offsets, 1))))
    assert spent(ledger, policy) == {("rolled", "ada"): 5 * CALL_NUSD, ("single", "ada"): 5 * CALL_NUSD}


def test_a_revision_and_a_call_without_a_task_count_once_and_for_their_user(ledger: Ledger) -> None:
    policy = policy_of("""
        budgets:
          - {name: person, per: user, limit: $25, every: ever}
          - {name: task, per: task, limit: $25, every: day}
    """)
    ledger.ingest(entries(made(1, task=None, result="lost", cost_nusd=9), made(2, task=None, user="bob")))
    ledger.ingest(entries(made(1, task=None, revision=2), first=3))
    found = spent_now(ledger.spending, policy.budgets, policy.upstreams, NOW_MS)
    tasks = {counter.user: counter.total for counter in found if counter.scope.budget.name == "task"}
    assert tasks == {"ada": CALL_NUSD, "bob": CALL_NUSD}


def test_what_a_task_key_may_cost_is_counted_over_all_time(ledger: Ledger) -> None:
    chains = {"max_cost_nusd": {"chain": 10**9}}
    ledger.ingest(entries(made(1, **chains), made(2, at_ms=AT_MS - 900 * 24 * HOUR_MS, **chains), made(3)))
    policy = policy_of("budgets: [{name: day, match: {model: x}, limit: $1, every: rolling 1h}]")
    assert spent(ledger, policy) == {("max-cost",): 2 * CALL_NUSD}


def test_a_counter_is_that_of_the_walk(ledger: Ledger) -> None:
    policy = policy_of("budgets: [{name: person-day, per: user, limit: $25, every: day}]")
    record = made(1)
    ledger.ingest(entries(record))
    [counter] = spent_now(ledger.spending, policy.budgets, policy.upstreams, NOW_MS)
    [scope] = policy.scopes_for(*seen_in(record, policy.upstreams))
    assert counter.scope.counter == scope.counter


def test_a_new_budget_begins_with_calls_that_other_policies_admitted_before_it(ledger: Ledger) -> None:
    policy = policy_of("budgets: [{name: person, per: user, limit: $25, every: month}]")
    old = [made(number, at_ms=NOW_MS - number * HOUR_MS, policy_version="old") for number in range(1, 6)]
    own = made(8, at_ms=NOW_MS - MINUTE_MS, policy_version=policy.version)
    later = made(9, at_ms=NOW_MS + MINUTE_MS, policy_version="old")
    ledger.ingest(entries(*old, own, later))
    for from_ms, calls in ((0, 5), (NOW_MS - 3 * HOUR_MS, 3)):
        seeding = Seeding(policy.budgets[0].identity, NOW_MS, from_ms, frozenset())
        found = spent_before(
            ledger.spending, policy.budgets[0], seeding, policy.upstreams, now_ms=NOW_MS, version=policy.version
        )
        assert [counter.total for counter in found] == [calls * CALL_NUSD]
