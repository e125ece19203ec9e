"""Duplicate rules: which a call meets, what it leaves under them, and what its client says of retries."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from proxy.core.duplicates import NO_TOKEN, DuplicateIndex, Prints, marks_for, retry_of
from proxy.core.matching import Condition, Match
from proxy.core.policy import Policy
from tests.support.budgets import NOON_MS, OPENAI, call, caller
from tests.support.conversations import conversation, told
from tests.support.duplicates import MAKER, marks_of, rule

MINUTE_MS = 60_000
WORK = "Please add a page that lists all open invoices of a customer, newest first"


def test_a_policy_without_rules_asks_nothing_of_a_call() -> None:
    assert Policy().duplicates_for(caller(), call(), OPENAI) == ()


def test_a_call_meets_the_rules_that_match_it_and_its_own_memory_in_each() -> None:
    only = rule(name="only", match=Match((Condition.on("team", ("pay*",)),)))
    other = rule(name="other", match=Match((Condition.on("team", ("sales",)),)))
    index = DuplicateIndex([only, other])
    (ada,) = index.scopes(caller(), call(), OPENAI)
    (bob,) = index.scopes(caller(user="bob"), call(), OPENAI)
    (elsewhere,) = index.scopes(caller(org="other"), call(), OPENAI)
    assert ada.rule is only
    assert (ada.values, bob.values) == (("ada",), ("bob",))
    assert len({ada.counter, bob.counter, elsewhere.counter}) == 3
    assert re.fullmatch("[a-f0-9]{16}", ada.counter)
    assert index.scopes(caller(), call(), OPENAI)[0] is ada


def test_calls_without_a_task_are_compared_with_those_of_the_same_user() -> None:
    index = DuplicateIndex([rule(per=("task",))])
    ada, bob = (index.scopes(caller(user=user), call(), OPENAI)[0].counter for user in ("ada", "bob"))
    assert ada != bob


@pytest.mark.parametrize(
    ("fields", "task", "stops"),
    [
        ({"per": ("task",)}, "PAY-7", True),
        ({"per": ("user", "task")}, "none", True),
        ({"per": ("task",)}, None, False),
        ({"per": ("user",)}, "PAY-7", False),
        ({"per": ("task",), "then": "warn"}, "PAY-7", False),
        ({"per": ("task",), "mode": "shadow"}, "PAY-7", False),
    ],
)
def test_a_cycle_is_stopped_where_the_steps_of_one_task_are_refused(
    fields: dict[str, Any], task: str | None, stops: bool
) -> None:
    (scope,) = DuplicateIndex([rule("loop", **fields)]).scopes(caller(task=task), call(), OPENAI)
    assert scope.frame(NOON_MS).stops is stops
    (scope,) = DuplicateIndex([rule("exact", **fields)]).scopes(caller(task=task), call(), OPENAI)
    assert not scope.frame(NOON_MS).stops


@pytest.mark.parametrize(
    "changed", [{"limit": 9}, {"then": "warn"}, {"mode": "shadow"}, {"help": "x"}, {"samples": True}]
)
def test_what_a_rule_remembers_survives_changes_of_everything_but_its_identity(changed: dict[str, Any]) -> None:
    assert rule().identity == rule(**changed).identity


@pytest.mark.parametrize("changed", [{"name": "x"}, {"kind": "normalized"}, {"per": ("team",)}, {"every": "day"}])
def test_another_rule_remembers_by_itself(changed: dict[str, Any]) -> None:
    assert rule(name="a").identity != rule(**({"name": "a"} | changed)).identity


# -- marks ------------------------------------------------------------------------------------------------------------


def test_each_kind_leaves_what_it_compares() -> None:
    ends_in_a_tool = told("openai.chat", said=[WORK], steps=[("1", "bash", {"command": "ls"}, "total 3")] * 3)
    kinds = ["exact", "normalized", "loop", "task"]
    marks = marks_of(*[rule(kind) for kind in kinds], conversation=ends_in_a_tool, who={"task": "PAY-7"})
    assert [(mark.frame.kind, len(mark.fingerprint)) for mark in marks] == list(
        zip(kinds, (12, 12, 8, 12), strict=True)
    )
    assert marks[2].rounds == 3
    assert marks[3].token != NO_TOKEN


def test_a_rule_that_finds_nothing_to_compare_leaves_nothing() -> None:
    kinds = ["loop", "task", "similar"]
    assert marks_of(*[rule(kind) for kind in kinds], said=["hi"]) == []
    embeddings = conversation("openai.embeddings", {"model": "m", "input": "x"})
    marks = marks_of(rule("exact"), rule("normalized"), conversation=embeddings, call=call(api="openai.embeddings"))
    assert [mark.frame.kind for mark in marks] == ["exact"]


def test_a_probe_is_looked_at_by_no_rule() -> None:
    probe = conversation("openai.chat", {"messages": [{"role": "user", "content": "quota"}]}, max_output_tokens=1)
    assert marks_of(rule("exact"), conversation=probe) == []


def test_a_call_without_task_and_session_is_the_work_of_no_task() -> None:
    assert marks_of(rule("task"), said=[WORK]) == []
    assert len(marks_of(rule("task"), said=[WORK], who={"session": "s1"})) == 1


def test_so_many_answers_at_once_are_another_call_than_one() -> None:
    def fingerprints(choices: int) -> list[bytes]:
        return [mark.fingerprint for mark in marks_of(rule("normalized"), call=call(choices=choices))]

    assert len({*fingerprints(1), *fingerprints(2), *fingerprints(3)}) == 3
    assert fingerprints(2) == fingerprints(2)


def test_samples_are_no_twins_where_the_rule_says_so() -> None:
    def asking(**fields: Any) -> Any:
        return conversation("openai.chat", {"messages": [{"role": "user", "content": WORK}], **fields})

    every, but_samples = rule("normalized"), rule("normalized", samples=True)
    assert marks_of(but_samples, conversation=asking(temperature=0.5)) == []
    assert len(marks_of(every, conversation=asking(temperature=0.5))) == 1
    seeds = [marks_of(but_samples, conversation=asking(seed=seed))[0].fingerprint for seed in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]
    assert len({marks_of(every, conversation=asking(seed=seed))[0].fingerprint for seed in (1, 2)}) == 1


@pytest.mark.parametrize(
    ("every", "since_ms"), [("rolling 10m", NOON_MS - 10 * MINUTE_MS), ("day", NOON_MS - 720 * MINUTE_MS)]
)
def test_a_window_begins_where_its_rule_says(every: str, since_ms: int) -> None:
    (mark,) = marks_of(rule(every=every))
    assert mark.frame.since_ms(NOON_MS) == since_ms
    assert mark.frame.expires_ms > NOON_MS


def test_the_place_of_now_is_the_place_before_of_later() -> None:
    (now,) = marks_of(rule())
    (later,) = marks_of(rule(), now_ms=NOON_MS + 10 * MINUTE_MS)
    assert later.frame.places[1] == now.frame.places[0]
    (much_later,) = marks_of(rule(), now_ms=NOON_MS + 20 * MINUTE_MS)
    assert now.frame.places[0] not in much_later.frame.places
    assert now.frame.expires_ms <= NOON_MS + 20 * MINUTE_MS


def test_only_enforced_rules_refuse_and_lend() -> None:
    rules = [rule(), rule(mode="shadow"), rule(then="warn"), rule(then="replay"), rule(then="join", mode="shadow")]
    marks = marks_of(*rules)
    assert [mark.frame.refuses for mark in marks] == [True, False, False, False, False]
    assert [mark.frame.lends for mark in marks] == ["", "", "", "replay", ""]
    assert [bool(mark.answer) for mark in marks] == [False, False, False, True, False]


def test_an_answer_belongs_to_an_org_to_a_user_unless_shared_and_to_a_form() -> None:
    def name(share: str = "user", form: str = "plain", **who: Any) -> str:
        return marks_of(rule(then="join", share=share), who=who, form=form)[0].answer

    assert name() == name()
    assert name() != name(user="bob")
    assert name("org") == name("org", user="bob") != name()
    assert name("org") != name("org", org="other")
    assert name() != name(form="events")


def test_an_answer_that_comes_later_is_lent_to_nobody() -> None:
    (mark,) = marks_of(rule(then="replay"), call=call(later=True))
    assert (mark.frame.lends, mark.answer) == ("", "")


def test_fingerprints_are_made_for_the_rules_that_ask_alone() -> None:
    index = DuplicateIndex([rule("exact")])
    what = told("openai.chat", said=[WORK])
    scopes = index.scopes(caller(), call(), OPENAI)
    prints = Prints()
    where = {"caller": caller(), "call": call(), "upstream": OPENAI}
    marks_for(scopes, what, MAKER, now_ms=NOON_MS, prints=prints, **where)
    made = {name for name in prints.__struct_fields__ if getattr(prints, name)}
    assert made == {"exact"}
    assert msgspec.structs.astuple(prints)[0] == prints.exact


# -- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        ({}, 0),
        ({"x-stainless-retry-count": "0"}, 0),
        ({"x-stainless-retry-count": "2"}, 2),
        ({"amz-sdk-request": "attempt=1; max=3"}, 0),
        ({"amz-sdk-request": "attempt=3; max=3"}, 2),
        ({"x-stainless-retry-count": "many"}, 0),
        ({"x-stainless-retry-count": "9" * 40}, 0),
        ({"x-stainless-retry-count": "99999"}, 255),
    ],
)
def test_sdks_say_which_attempt_a_call_is(headers: dict[str, str], attempt: int) -> None:
    assert retry_of(headers) == (NO_TOKEN, attempt)


def test_clients_that_do_not_count_are_known_by_the_id_of_their_turn() -> None:
    turn = {"x-codex-turn-metadata": '{"turn_id":"t1","at":1}', "x-client-request-id": "thread"}
    again = turn | {"x-codex-turn-metadata": '{"turn_id":"t1","at":2}'}
    next_turn = turn | {"x-codex-turn-metadata": '{"turn_id":"t2","at":3}'}
    assert retry_of(turn) == retry_of(again) != retry_of(next_turn)
    assert retry_of({"x-client-request-id": "a"})[0] not in (NO_TOKEN, retry_of({"x-client-request-id": "b"})[0])
