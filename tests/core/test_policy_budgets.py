"""Budgets in policy files: what they come to, every fault at its place, and what is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.core.budgets import Use
from proxy.core.money import NUSD_MAX
from proxy.core.policy import Policy
from proxy.core.policy_file import Loaded, load
from proxy.core.price_book import compile_book
from proxy.core.windows import Every
from tests.support.budgets import OPENAI, USD, call, caller

UPSTREAMS = """
upstreams:
  openai: {dialect: openai, url: "https://api.openai.com"}
  anthropic: {dialect: anthropic, url: "https://api.anthropic.com"}
"""


def loaded(text: str, upstreams: str = UPSTREAMS, **more: Any) -> Loaded:
    return load({"a.yaml": upstreams, "b.yaml": text}, {"LIMIT": "$25"}, **more)


def good(text: str, upstreams: str = UPSTREAMS) -> Policy:
    found = loaded(text, upstreams)
    assert found.faults == []
    assert found.policy is not None
    return found.policy


def one(fields: str) -> str:
    return f"budgets: [{{name: b, {fields}}}]"


def test_a_budget_with_every_key() -> None:
    policy = good(
        """
        budgets:
          - name: person-day
            match: {team: "pay*", not: {label.cost: red}}
            per: [user, label.cost]
            limit: $25
            limits: {ada/red: $100}
            every: day
            timezone: Europe/Berlin
            reserve: worst_case
            unbounded: $1
            when_outgrown: cut
            trim: true
            warn_at: [80%, 50%, 99.5%]
            then: {use: {openai: gpt-5-mini, anthropic: claude-haiku-4-5}}
            mode: shadow
            store_outage: {allow_up_to: $5}
            help: "ask #ai-budget"
        """
    )
    (budget,) = policy.budgets
    assert budget.per == ("user", "label.cost")
    assert (budget.unit, budget.limit, budget.limits) == ("nusd", 25 * USD, {"ada/red": 100 * USD})
    assert budget.every == Every.parse("day", "Europe/Berlin")
    assert (budget.reserve, budget.unbounded_nusd, budget.when_outgrown, budget.trim) == (
        "worst_case", USD, "cut", True,
    )  # fmt: skip
    assert budget.warn_at == (500, 800, 995)
    assert budget.then == Use({"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5"})
    assert (budget.mode, budget.store_outage, budget.help) == ("shadow", 5 * USD, "ask #ai-budget")
    [scope] = policy.scopes_for(caller(labels={"cost": "blue"}), call(), OPENAI)
    assert scope.budget == budget
    assert not policy.scopes_for(caller(labels={"cost": "red"}), call(), OPENAI)


def test_defaults() -> None:
    policy = good("defaults: {mode: shadow}\n" + one('limit: "${LIMIT}", every: ever'))
    (budget,) = policy.budgets
    assert (budget.per, budget.reserve, budget.then, budget.mode) == (("org",), "expected", "refuse", "shadow")
    assert (budget.store_outage, budget.unbounded_nusd) == (None, USD // 4)
    (small,) = good(one("limit: $1, limits: {ada: $0.50}, every: ever, per: user")).budgets
    assert small.unbounded_nusd == USD // 20
    (together,) = good(one("limit: 4 concurrent, per: user")).budgets
    assert (together.unit, together.limit, together.every) == ("concurrent", 4, Every.parse("ever"))
    (fixed,) = good(one("limit: $25, every: day, reserve: $0.05, store_outage: allow, then: warn")).budgets
    assert (fixed.reserve, fixed.store_outage, fixed.then) == (USD // 20, "allow", "warn")


FAULTY = [
    (one("every: day"), "b.yaml:1:11: budgets: the key `limit` is missing"),
    (one("limit: $25"), "b.yaml:1:11: budgets: the key `every` is missing: how often does the limit start anew?"),
    (one("limit: $0, every: day"), "b.yaml:1:28: budgets: limit: `$0` would refuse every call"),
    (one("limit: -$5, every: day"), "b.yaml:1:28: budgets: limit: `-$5` is negative"),
    (one("limit: NaN, every: day"), "b.yaml:1:28: budgets: limit: `NaN` is no limit"),
    (one("limit: .nan, every: day"), "b.yaml:1:28: budgets: limit: `.nan` is no limit"),
    (one("limit: 25, every: day"), "b.yaml:1:28: budgets: limit: `25` does not say of what"),
    (one("limit: $9007200, every: day"), "b.yaml:1:28: budgets: limit: `$9007200` is more than the largest"),
    (one(f"limit: {NUSD_MAX + 1} tokens, every: day"), "is more than the largest limit, 9,007,199,254,740,991"),
    (one("limit: 2 euros, every: day"), "b.yaml:1:28: budgets: limit: `euros` is no unit"),
    (one("limit: [1], every: day"), "b.yaml:1:28: budgets: limit: must be text, not a list"),
    (one("limit: $1, every: dayly"), "b.yaml:1:39: budgets: every: `dayly` is no window"),
    (one("limit: $1, every: day, timezone: Berlin"), "budgets: timezone: `Berlin` is no time zone"),
    (one("limit: $1, every: day, per: []"), "budgets: per: an empty list counts nothing apart"),
    (one("limit: $1, every: day, per: usr"), "per: `usr` is nothing that calls can be counted apart by; did you mean"),
    (one("limit: $1, every: day, per: [user, user]"), "b.yaml:1:56: budgets: per: `user` is already in the list"),
    (one("limit: $1, every: day, per: [user, team, key, agent, api]"), "per: counts more than 4 fields apart"),
    (one("limit: $1, every: day, per: label."), "per: `label.` is nothing that calls can be counted apart by"),
    (
        one("limit: $1, every: day, per: user, limits: {ada: 5 calls}"),
        "budgets: limits: ada: 5 calls is in calls, and `limit` in money",
    ),
    (one("limit: $1, every: day, per: [team, user], limits: {ada: $5}"), "`ada` must have a value for each of `per`"),
    (one("limit: $1, every: day, per: user, limits: {ada: $0}"), "budgets: limits: ada: `$0` would refuse every call"),
    (one("limit: $1, every: day, reserve: worst"), "budgets: reserve: `worst` is not one of"),
    (
        one("limit: $1, every: day, reserve: $2"),
        "budgets: reserve: $2.00 is more than the limit of $1.00: no call would ever",
    ),
    (one("limit: 5 tokens, every: day, reserve: $2"), "reserve: a fixed amount is money, and this limit is in tokens"),
    (one("limit: 5 calls, every: day, reserve: expected"), "reserve: is only for limits in money or tokens; this one"),
    (one("limit: 5 calls, every: day, trim: true"), "trim: is only for limits in money or tokens"),
    (one("limit: 5 concurrent, every: day"), "b.yaml:1:49: budgets: every: is only for limits in money or tokens or"),
    (one("limit: 5 tokens, every: day, unbounded: $1"), "unbounded: is only for limits in money"),
    (one("limit: $1, every: day, trim: yes"), "budgets: trim: `yes` is neither `true` nor `false`"),
    (one("limit: $1, every: day, warn_at: [0%]"), "budgets: warn_at: `0%` is not a percentage from 0.1% to 100%"),
    (one("limit: $1, every: day, warn_at: [120%]"), "warn_at: `120%` is not a percentage"),
    (one("limit: $1, every: day, warn_at: [80]"), "warn_at: `80` is not a percentage"),
    (one("limit: $1, every: day, warn_at: 80%"), "warn_at: must be a list, not text"),
    (one("limit: $1, every: day, then: refuze"), "budgets: then: `refuze` is not one of"),
    (one("limit: $1, every: day, then: {use: {}}"), "names no model; write one for each dialect"),
    (one("limit: $1, every: day, then: {use: {opnai: x}}"), "then: use: unknown key `opnai`; did you mean `openai`?"),
    (one("limit: $1, every: day, then: {use: {openai: 'gpt-*'}}"), "then: use: openai: `gpt-*` is not the name of one"),
    (
        one("limit: $1, every: day, then: {use: {anthropic: gpt-5-mini}}"),
        "b.yaml:1:68: budgets: then: use: anthropic: `gpt-5-mini` is spoken to in the dialect `openai`",
    ),
    (
        one("limit: $1, every: day, then: {use: {openai: claude-haiku-4-5}}"),
        "`claude-haiku-4-5` is spoken to in the dialect `anthropic`, not in `openai`",
    ),
    (one("limit: $1, every: day, store_outage: maybe"), "store_outage: `maybe` is not one of"),
    (one("limit: $1, every: day, match: {usr: x}"), "match: unknown key `usr`; did you mean `user`?"),
    (one("limit: $1, every: day, match: {not: {}}"), "an empty `not` never lets the rule apply"),
    (one("limit: $1, every: day, burst: 5"), "budgets: unknown key `burst`"),
    ("budgets: [{name: max-cost, limit: $1, every: day}]", "`max-cost` is what the `max_cost` of task keys is called"),
    (
        "access: [{name: b}]\n" + one("limit: $1, every: day"),
        "b.yaml:2:18: budgets: rule `b` is already set at b.yaml:1",
    ),
    ("budgets: {name: b}", "b.yaml:1:10: budgets: must be a list, not a table of keys"),
]


@pytest.mark.parametrize(("text", "message"), FAULTY)
def test_a_fault_is_told_with_its_place(text: str, message: str) -> None:
    found = loaded(text)
    assert found.policy is None
    assert any(message in str(fault) for fault in found.faults), found.faults


def test_all_faults_of_a_budget_are_told_at_once() -> None:
    found = loaded(one("limit: 0 calls, every: dayly, timezone: X, per: usr, then: no, warn_at: [5]"))
    assert len(found.faults) == 6


def test_gateways_in_openais_dialect_may_serve_anyones_models() -> None:
    gateway = UPSTREAMS + '  any: {dialect: openai, provider: openrouter, url: "https://gateway.example"}\n'
    assert good(one("limit: $1, every: day, then: {use: {openai: claude-haiku-4-5}}"), gateway).budgets


# -- warnings ---------------------------------------------------------------------------------------------------------


def warned(text: str, **more: Any) -> list[str]:
    found = loaded(text, **more)
    assert found.faults == []
    return [str(warning) for warning in found.warnings]


ALONE = "b.yaml:1:50: budgets: per: a new task name is a new budget; add one `per: user`, `team` or `org`"


@pytest.mark.parametrize(
    ("above", "alone"),
    [
        ("", True),
        ("{name: u, limit: $9, every: day, per: user}", False),
        ("{name: u, limit: $9, every: day}", False),
        ("{name: u, limit: $9, every: day, per: [team, agent]}", True),
        ("{name: u, limit: $9, every: day, per: user, match: {team: x}}", True),
        ("{name: u, limit: $9, every: day, per: user, mode: shadow}", True),
        ("{name: u, limit: $9, every: day, per: user, then: warn}", True),
        ("{name: u, limit: 9 concurrent, per: user}", True),
        ("{name: u, limit: 9 calls, every: day, per: user}", True),
    ],
)
def test_a_budget_per_task_without_one_above_it_is_warned_of(above: str, alone: bool) -> None:
    text = f"budgets: [{{name: b, limit: $1, every: ever, per: task}}, {above}]"
    assert any(ALONE in warning for warning in warned(text)) == alone


def test_a_budget_above_may_meet_the_same_calls_by_the_same_match() -> None:
    text = (
        "budgets: [{name: b, limit: $1, every: ever, per: task, match: {team: x, agent: y}}, "
        "{name: u, limit: $9, every: day, per: user, match: {team: x}}]"
    )
    assert warned(text) == []


@pytest.mark.parametrize(
    ("match", "warning"),
    [
        (
            "{upstream: opena}",
            "b.yaml:1:64: budgets: `opena` matches no `upstream` that is known; did you mean `openai`?",
        ),
        ("{provider: [openai, 'mistral*']}", "`mistral*` matches no `provider` that is known"),
        ("{api: openai.chats}", "`openai.chats` matches no `api` that is known; did you mean `openai.chat`?"),
        ("{task_source: proven}", "`proven` matches no `task_source` that is known"),
        ("{not: {upstream: groq}}", "`groq` matches no `upstream` that is known"),
        ("{model: 'gtp-*'}", "`gtp-*` matches no model"),
        ("{model: gpt-5-mni-turbo-x}", None),
        ("{upstream: 'open*', provider: none, task_source: [key, none], api: '*', user: nobody}", None),
        ("{model: ['gpt-5*', claude-sonnet-4-5, none]}", None),
    ],
)
def test_a_glob_that_matches_nothing_known_is_warned_of(match: str, warning: str | None) -> None:
    text = one(f"limit: $1, every: day, match: {match}").replace("every: day", "every:   day")
    found = warned(text, book=BOOK)
    if warning is None:
        assert found == [] or "gpt-5-mni" in found[0]
    else:
        assert any(warning in told for told in found), found


BOOK = compile_book()


def test_models_of_our_own_are_known_too() -> None:
    ours = 'prices: [{match: {provider: openai, model: "acme-*"}, input_per_mtok: "1", output_per_mtok: "2"}]'
    for model, is_known in (("acme-large", True), ("acme-*", True), ("a*", True), ("acmf-*", False)):
        text = one(f"limit: $1, every: day, match: {{model: '{model}'}}")
        assert (warned(text + "\n" + ours, book=BOOK) == []) is is_known, model
        assert warned(text) == [], "without a price book models are not looked at"


def test_another_model_that_nobody_knows_is_warned_of() -> None:
    text = one("limit: $1, every: day, then: {use: {openai: gpt-5-mimi}}")
    assert "`gpt-5-mimi` matches no model" in warned(text, book=BOOK)[0]


def test_access_rules_are_looked_at_too() -> None:
    assert "`opena` matches no `upstream`" in warned("access: [{name: a, match: {upstream: opena}}]")[0]


def test_keys_without_effect_are_warned_of() -> None:
    assert "makes no difference to `rolling 1h`" in warned(one("limit: $1, every: rolling 1h, timezone: UTC"))[0]
    assert "holds no less" in warned(one("limit: $1, every: day, reserve: $0.1, trim: true"))[0]
    gemini = one("limit: $1, every: day, then: {use: {gemini: gemini-2.5-flash}}")
    assert "no upstream speaks `gemini`" in warned(gemini)[0]


def test_the_budgets_in_the_docs_load() -> None:
    page = Path(__file__).parents[2] / "docs" / "policy-files.md"
    example = page.read_text().split("## Budgets")[1].split("```yaml\n")[1].split("```")[0]
    assert len(good(example).budgets) == 5
    assert loaded(example).warnings == []
