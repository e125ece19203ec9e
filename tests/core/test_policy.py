"""What a policy says of calls: access rules, caveats of task keys, unknown calls."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.policy import (
    UNKNOWN_CALLS_RULE,
    AccessRule,
    Condition,
    Decision,
    Defaults,
    Match,
    Policy,
    Upstream,
)

OPENAI = Upstream(name="openai", dialect="openai", provider="openai", url="https://api.openai.com", key="sk-secret")
CHAT = Call(api="openai.chat", dialect="openai", route="/v1/chat/completions", model="gpt-5-mini")


def caller(**fields: Any) -> Caller:
    return Caller(**({"org": "acme", "team": "payments", "user": "ada", "key_id": "abcd"} | fields))


def conditions(fields: dict[str, str | list[str]]) -> tuple[Condition, ...]:
    return tuple(
        Condition.on(field, (globs,) if isinstance(globs, str) else tuple(globs)) for field, globs in fields.items()
    )


def match(fields: dict[str, str | list[str]], inverted: dict[str, str | list[str]] | None = None) -> Match:
    return Match(conditions(fields), conditions(inverted or {}))


def rule(name: str, fields: dict[str, str | list[str]], **more: Any) -> AccessRule:
    return AccessRule(name=name, match=match(fields, more.pop("inverted", None)), **more)


def decide(
    *rules: AccessRule, who: Caller | None = None, call: Call = CHAT, upstream: Upstream = OPENAI, **more: Any
) -> Decision:
    policy = Policy(upstreams={upstream.name: upstream}, access=rules, defaults=Defaults(**more))
    return policy.decide(who or caller(), call, upstream)


def code(decision: Decision) -> str | None:
    return decision.refusal.code if decision.refusal else None


def test_without_a_rule_everything_passes() -> None:
    assert decide() == Decision()


def test_each_call_gets_a_decision_of_its_own_to_add_to() -> None:
    decide().warnings.append("budget; nearly spent")
    assert decide().warnings == []


def test_the_first_rule_that_matches_refuses_and_says_why() -> None:
    decision = decide(
        rule("others", {"user": "bob"}),
        rule("no-frontier", {"user": "a*", "model": ["*opus*", "gpt-*"]}, help="ask in #ai"),
        rule("later", {}),
    )
    assert decision.refusal is not None
    assert (code(decision), decision.rule, decision.refusal.rule) == ("not_allowed", "no-frontier", "no-frontier")
    assert decision.refusal.sentence == (
        "rule `no-frontier` refuses this call: user `ada`, model `gpt-5-mini`; use another model; ask in #ai"
    )


FIELD_VALUES = [
    ("org", "acme"),
    ("team", "payments"),
    ("user", "ada"),
    ("key", "abcd"),
    ("task", "PAY-1"),
    ("task_source", "path"),
    ("agent", "codex"),
    ("upstream", "openai"),
    ("provider", "openai"),
    ("api", "openai.chat"),
    ("model", "gpt-5-mini"),
    ("label.cost", "red"),
]


@pytest.mark.parametrize(("field", "value"), FIELD_VALUES)
def test_a_rule_can_match_on_every_field(field: str, value: str) -> None:
    who = caller(task="PAY-1", task_source="path", agent="codex", labels={"cost": "red"})
    assert code(decide(rule("r", {field: value}), who=who)) is not None
    assert code(decide(rule("r", {field: value[:2] + "*"}), who=who)) is not None
    assert code(decide(rule("r", {field: "other"}), who=who)) is None


@pytest.mark.parametrize("field", ["task", "task_source", "agent", "model", "label.cost"])
def test_an_absent_value_matches_none_and_never_a_star(field: str) -> None:
    who, call = caller(), Call(api="openai.chat")
    assert code(decide(rule("r", {field: "*"}), who=who, call=call)) is None
    assert code(decide(rule("r", {field: "none"}), who=who, call=call)) is not None


def test_all_keys_of_a_match_must_match() -> None:
    assert code(decide(rule("r", {"user": "ada", "team": "search"}))) is None
    assert code(decide(rule("r", {"user": "ada", "team": "payments"}))) == "not_allowed"


def test_not_inverts_its_keys_as_a_whole() -> None:
    either = rule("r", {}, inverted={"user": "ada", "team": "payments"})
    assert code(decide(either)) is None
    assert code(decide(either, who=caller(team="search"))) == "not_allowed"
    assert code(decide(either, who=caller(user="bob"))) == "not_allowed"


@pytest.mark.parametrize("field", ["task", "task_source"])
def test_a_rule_about_tasks_asks_for_one(field: str) -> None:
    needed = rule("task-needed", {"team": "payments"}, inverted={field: "key" if field == "task_source" else "*"})
    decision = decide(needed)
    assert code(decision) == "task_required"
    assert decision.refusal is not None
    assert f"{field} `none`" in decision.refusal.sentence
    assert "callmeter task NAME" in decision.refusal.sentence
    assert code(decide(needed, who=caller(task="PAY-1", task_source="key"))) is None


def test_what_is_not_allowed_comes_before_the_task_that_is_missing() -> None:
    decision = decide(
        rule("task-needed", {"task": "none"}), rule("no-gpt", {"model": "gpt-*"}), rule("no-ada", {"user": "ada"})
    )
    assert (code(decision), decision.rule) == ("not_allowed", "no-gpt")


def test_a_rule_in_shadow_is_recorded_and_stops_nobody() -> None:
    decision = decide(rule("a", {}, mode="shadow"), rule("b", {"user": "bob"}, mode="shadow"))
    assert decision == Decision(shadow=["a"])
    decision = decide(rule("a", {}, mode="shadow"), rule("b", {}))
    assert (decision.rule, decision.shadow) == ("b", ["a"])


def test_a_rule_that_warns_lets_the_call_pass_with_a_header() -> None:
    decision = decide(rule("a", {"user": "ada"}, then="warn", help="see früh\nx: y"))
    assert decision == Decision(warnings=["a; this rule speaks against user `ada`; see fr?h x: y"])
    assert decide(rule("a", {}, then="warn", mode="shadow")) == Decision()


def test_long_and_hostile_values_do_not_reach_the_sentence() -> None:
    decision = decide(rule("a", {"model": "*"}), call=Call(model="x\r\n" * 100_000))
    assert decision.refusal is not None
    assert len(decision.refusal.sentence) < 250
    assert decision.refusal.sentence.isprintable()


@pytest.mark.parametrize(
    ("caveats", "refused"),
    [
        ({}, False),
        ({"models": (("gpt-*",),)}, False),
        ({"models": (("claude-*", "o4"),)}, True),
        ({"models": (("gpt-*",), ("*-nano",))}, True),
        ({"upstreams": (("open*",),)}, False),
        ({"upstreams": (("openai",), ("anthropic",))}, True),
    ],
)
def test_a_task_key_can_only_do_what_all_its_caveats_allow(caveats: dict[str, Any], refused: bool) -> None:
    decision = decide(who=caller(**caveats))
    assert code(decision) == ("not_allowed" if refused else None)
    if decision.refusal is not None:
        assert f"caveat `{next(iter(caveats))}`" in decision.refusal.sentence
        assert decision.rule is None


def test_every_model_that_the_provider_may_take_must_be_allowed() -> None:
    both = msgspec.structs.replace(CHAT, other_models=("gpt-5-mini", "o1-pro"))
    dear = rule("no-pro", {"model": "*-pro"})
    assert code(decide(dear)) is None
    assert (code(decide(dear, call=both)), decide(dear, call=both).rule) == ("not_allowed", "no-pro")
    narrowed = caller(models=(("gpt-5-*",),))
    assert code(decide(who=narrowed)) is None
    assert code(decide(who=narrowed, call=both)) == "not_allowed"
    assert decide(rule("no-pro", {"model": "*-pro"}, mode="shadow"), call=both).shadow == ["no-pro"]
    assert len(decide(rule("dear", {"model": "*"}, then="warn"), call=both).warnings) == 2


def test_a_caveat_on_models_lets_no_call_pass_whose_model_is_not_in_sight() -> None:
    narrowed = caller(models=(("*",),))
    assert code(decide(who=narrowed, call=Call(api="openai.responses"))) == "not_allowed"
    assert code(decide(who=narrowed, call=Call(api="unknown"))) == "not_allowed"
    assert code(decide(who=narrowed, call=Call(api="free", free=True))) is None
    assert code(decide(who=caller(models=(("o4",),)), call=Call(api="free", free=True, model="gpt-5"))) == "not_allowed"


def test_caveats_are_enforced_where_rules_are_in_shadow() -> None:
    assert code(decide(who=caller(models=(("o4",),)), mode="shadow")) == "not_allowed"


def test_unknown_calls_are_recorded_or_refused_as_the_policy_says() -> None:
    call = Call(api="unknown", method="POST", route="/v2/things")
    assert decide(call=call) == Decision()
    decision = decide(call=call, unknown_calls="refuse")
    assert (code(decision), decision.rule) == ("unknown_call", UNKNOWN_CALLS_RULE)
    assert decision.refusal is not None
    assert "`POST /v2/things` of upstream `openai`" in decision.refusal.sentence
    assert decide(call=call, unknown_calls="refuse", mode="shadow") == Decision(shadow=[UNKNOWN_CALLS_RULE])
    assert decide(call=CHAT, unknown_calls="refuse") == Decision()


def test_the_short_form_goes_to_the_upstream_named_like_the_dialect_else_to_the_only_one() -> None:
    groq = Upstream(name="groq", dialect="openai", url="https://api.groq.com/openai")
    other = Upstream(name="other", dialect="openai", url="https://other.example")
    brave = Upstream(name="anthropic", url="https://brave.example")
    assert Policy(upstreams={"groq": groq, "openai": OPENAI}).short_form("openai") is OPENAI
    assert Policy(upstreams={"groq": groq}).short_form("openai") is groq
    assert Policy(upstreams={"groq": groq, "other": other}).short_form("openai") is None
    assert Policy(upstreams={"anthropic": brave}).short_form("anthropic") is None
    assert Policy(upstreams={"anthropic": brave}).short_form("") is None
    assert Policy(upstreams={"groq": groq}).upstream_for("groq") is groq
    assert Policy().upstream_for("groq") is None


def test_an_upstream_never_shows_its_key() -> None:
    assert "sk-secret" not in f"{OPENAI!r} {OPENAI} {[OPENAI]}"
    assert "sk-secret" not in repr(Policy(upstreams={"openai": OPENAI}))
