"""Budgets: which a call meets, which counter it falls into, and what it takes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budgets import (
    MAX_COST_RULE,
    Budget,
    BudgetIndex,
    Raise,
    Raises,
)
from proxy.core.matching import Condition, Match
from proxy.core.money import NUSD_MAX
from proxy.core.policy import Policy
from proxy.core.windows import Every
from tests.support.budgets import NOON_MS, OPENAI, USD, budget, call, caller, estimate


def matching(**fields: Any) -> Match:
    inverted = fields.pop("inverted", {})
    return Match(
        tuple(Condition.on(field, patterns) for field, patterns in fields.items()),
        tuple(Condition.on(field, patterns) for field, patterns in inverted.items()),
    )


# -- the counter ------------------------------------------------------------------------------------------------------


def counter(one: Budget, **who: Any) -> str:
    return one.counter(caller(**who), call(), OPENAI)[0]


def test_a_counter_is_named_by_letters_and_digits() -> None:
    assert re.fullmatch("[a-z0-9]{16}", counter(budget()))


@pytest.mark.parametrize(
    "changed",
    [
        {"limit": 1},
        {"limits": {"ada": 7}},
        {"match": matching(team=("pay*",))},
        {"then": "warn"},
        {"mode": "shadow"},
        {"reserve": "worst_case"},
        {"warn_at": (500,)},
        {"help": "ask"},
    ],
)
def test_changing_limit_or_match_keeps_the_counter(changed: dict[str, Any]) -> None:
    assert counter(budget(**changed)) == counter(budget())


@pytest.mark.parametrize(
    "other",
    [
        budget(name="person"),
        budget(per=("team",)),
        budget(per=("user", "team")),
        budget(unit="tokens"),
        budget(every="week"),
        budget(timezone="Europe/Berlin"),
        budget(every="rolling 24h"),
    ],
)
def test_another_name_per_unit_window_or_zone_is_another_counter(other: Budget) -> None:
    assert counter(other) != counter(budget())


def test_values_are_counted_apart_and_orgs_always() -> None:
    one = budget(per=("user", "model"))
    assert one.counter(caller(), call(), OPENAI)[1] == ("ada", "gpt-5-mini")
    apart = {counter(one), counter(one, user="bob"), counter(one, org="other")}
    assert len(apart) == 3
    for_all = budget(per=("org",))
    assert counter(for_all, user="bob") == counter(for_all)
    assert counter(for_all, org="other") != counter(for_all)


def test_calls_without_a_task_are_counted_by_user() -> None:
    one = budget(per=("task",))
    assert one.counter(caller(), call(), OPENAI)[1] == ("none",)
    assert counter(one) != counter(one, user="bob")
    assert counter(one, task="T-1") == counter(one, task="T-1", user="bob")
    assert counter(one, task="none") != counter(one), "a task that is called so is not an absent one"


def test_values_never_run_into_each_other() -> None:
    one = budget(per=("team", "user"))
    assert counter(one, team="a", user="b,c") != counter(one, team="a,b", user="c")
    assert counter(one, team='a","b', user="c") != counter(one, team="a", user='b","c')


# -- the limit --------------------------------------------------------------------------------------------------------


def test_exceptions_and_raises_change_the_limit_of_one_counter() -> None:
    one = budget(limits={"ada": 100 * USD})
    more = Raise(budget="person-day", values=("ada",), by=20 * USD, until_ms=NOON_MS)
    raises: Raises = {("person-day", ("ada",)): [more]}
    assert one.limit_for(("bob",), raises, NOON_MS - 1) == 25 * USD
    assert one.limit_for(("ada",), raises, NOON_MS - 1) == 120 * USD
    assert one.limit_for(("ada",), raises, NOON_MS) == 100 * USD, "a raise ends"
    assert one.limit_for(("ada",)) == 100 * USD


def test_a_raise_never_lifts_a_limit_beyond_what_the_store_counts() -> None:
    more = Raise(budget="person-day", values=("ada",), by=NUSD_MAX, until_ms=NOON_MS)
    assert budget().limit_for(("ada",), {("person-day", ("ada",)): [more]}, 0) == NUSD_MAX


def test_exceptions_of_several_dimensions_are_joined_by_a_slash() -> None:
    one = budget(per=("team", "user"), limits={"payments/ada": 7})
    assert one.limit_for(("payments", "ada")) == 7
    assert one.limit_for(("search", "ada")) == 25 * USD


# -- what a call takes ------------------------------------------------------------------------------------------------

FORESEEN = estimate(300, 1_000, worst_nusd=900, worst_tokens=5_000)
UNBOUNDED = estimate(300, 1_000, worst_nusd=900, worst_tokens=5_000, unbounded=("background",))


@pytest.mark.parametrize(
    ("fields", "foreseen", "amount"),
    [
        ({}, FORESEEN, 300),
        ({"reserve": "worst_case"}, FORESEEN, 900),
        ({"reserve": 50}, FORESEEN, 50),
        ({"unbounded_nusd": 700}, FORESEEN, 300),
        ({"unbounded_nusd": 700}, UNBOUNDED, 700),
        ({"unbounded_nusd": 200}, UNBOUNDED, 300),
        ({"unbounded_nusd": 700, "reserve": "worst_case"}, UNBOUNDED, 700),
        ({"unbounded_nusd": 700, "reserve": 50}, UNBOUNDED, 50),
        ({"unit": "tokens"}, FORESEEN, 1_000),
        ({"unit": "tokens", "reserve": "worst_case"}, FORESEEN, 5_000),
        ({"unit": "calls"}, FORESEEN, 1),
        ({"unit": "concurrent"}, FORESEEN, 1),
    ],
)
def test_what_a_call_holds(fields: dict[str, Any], foreseen: Any, amount: int) -> None:
    assert budget(**fields).amount(foreseen) == amount


# -- which budgets a call meets ---------------------------------------------------------------------------------------


def test_a_task_key_brings_its_own_budgets() -> None:
    policy = Policy(budgets=(budget(),))
    who = caller(max_cost_nusd={"chain-1": 5 * USD, "chain-2": USD})
    own, first, second = policy.scopes_for(who, call(), OPENAI)
    assert own.budget.name == "person-day"
    assert [scope.budget.name for scope in (first, second)] == [MAX_COST_RULE, MAX_COST_RULE]
    assert [scope.budget.limit for scope in (first, second)] == [5 * USD, USD]
    assert first.budget.every == Every.parse("ever")
    assert len({own.counter, first.counter, second.counter}) == 3
    again = caller(max_cost_nusd={"chain-1": 5 * USD}, user="bob", task="other")
    assert policy.scopes_for(again, call(), OPENAI)[1].counter == first.counter, "the chain alone names the counter"
    elsewhere = caller(max_cost_nusd={"chain-1": 5 * USD}, org="other")
    assert policy.scopes_for(elsewhere, call(), OPENAI)[1].counter != first.counter
    assert len(Policy().scopes_for(who, call(), OPENAI)) == 2


names = st.sampled_from(["ada", "adam", "bob", "none", "a", ""])
patterns = st.lists(st.sampled_from(["ada", "ad*", "*", "b?b", "*a", "none", "a*a", "a", "?"]), min_size=1, max_size=3)
fields = st.sampled_from(["user", "team", "task", "org", "model", "label.x", "agent", "task_source"])
conditions = st.dictionaries(fields, patterns, max_size=3)


@given(
    st.lists(st.tuples(conditions, conditions), max_size=12),
    st.lists(st.tuples(names, names, names, names, names, names), min_size=1, max_size=5),
)
def test_the_index_finds_what_a_look_at_every_budget_finds(
    rules: list[tuple[dict[str, list[str]], dict[str, list[str]]]], people: list[tuple[str, ...]]
) -> None:
    budgets = tuple(
        budget(name=f"b{place}", match=matching(**wanted, inverted=inverted))
        for place, (wanted, inverted) in enumerate(rules)
    )
    policy = Policy(budgets=budgets)
    for user, team, task, org, model, label in people:
        who = caller(user=user, team=team, task=task or None, org=org, labels={"x": label} if label else {})
        what = call(model=model or None)
        expected = [one for one in budgets if one.match.matches(who, what, OPENAI)]
        for _ in range(2):  # the second time from memory
            assert [scope.budget for scope in policy.scopes_for(who, what, OPENAI)] == expected


def test_what_is_remembered_of_one_caller_is_not_told_of_another() -> None:
    one = budget(per=("label.cost",), match=matching(team=("pay*",)))
    policy = Policy(budgets=(one,))
    red = policy.scopes_for(caller(labels={"cost": "red"}), call(), OPENAI)
    blue = policy.scopes_for(caller(labels={"cost": "blue"}), call(), OPENAI)
    absent = policy.scopes_for(caller(), call(), OPENAI)
    assert len({scopes[0].counter for scopes in (red, blue, absent)}) == 3
    tasks = Policy(budgets=(budget(per=("task",)),))
    ada, bob = (tasks.scopes_for(caller(user=user), call(), OPENAI)[0].counter for user in ("ada", "bob"))
    assert ada != bob


def test_a_policy_with_other_budgets_finds_the_other_budgets() -> None:
    policy = Policy(budgets=(budget(),))
    changed = msgspec.structs.replace(policy, budgets=(budget(name="other"),))
    assert [scope.budget.name for scope in changed.scopes_for(caller(), call(), OPENAI)] == ["other"]
    assert policy == Policy(budgets=(budget(),))


def test_ten_thousand_budgets_are_not_all_looked_at() -> None:
    looked_at = 0

    class Counting(Match, frozen=True):
        def matches(self, *given: Any) -> bool:
            nonlocal looked_at
            looked_at += 1
            return super().matches(*given)

    def counting(**wanted: Any) -> Match:
        made = matching(**wanted)
        return Counting(made.conditions, made.inverted)

    budgets = [budget(name=f"u{place}", match=counting(user=(f"user-{place}",))) for place in range(5_000)]
    budgets += [budget(name=f"t{place}", match=counting(team=(f"team-{place}-*",))) for place in range(5_000)]
    index = BudgetIndex(budgets)
    found = index.matching(caller(user="user-7", team="team-9-x"), call(), OPENAI)
    assert [one.name for one in found] == ["u7", "t9"]
    assert looked_at <= 4
