"""Outcomes, teams and `unproven` in policy files: what they come to, every fault at its place, what is warned of."""

from __future__ import annotations

import pytest

from proxy.core.budgets import Budget
from proxy.core.globs import Globs
from proxy.core.outcomes import OutcomeMatch, OutcomeRule, Team
from proxy.core.policy import Policy
from proxy.core.policy_file import Loaded, load
from proxy.core.windows import Every

HEAD = """
upstreams:
  openai: {dialect: openai, url: "https://api.openai.com"}
"""
DAY = 86_400_000
SECRET = "0123456789abcdef"


def loaded(text: str) -> Loaded:
    return load({"a.yaml": HEAD, "b.yaml": text}, {"HOOK": SECRET})


def good(text: str) -> Policy:
    found = loaded(text)
    assert found.faults == []
    assert found.policy is not None
    return found.policy


def one(fields: str) -> str:
    return f"outcomes: [{{name: o, {fields}}}]"


def test_an_outcome_with_every_key() -> None:
    policy = good(
        """
        outcomes:
          - name: merged
            from: github
            secret: "${HOOK}"
            event: pull_request.merged
            match: {repo: "acme/*", base: [main, "release-*"], reviewed: true, not: {author: "*[bot]"}}
            task: "[A-Z]+-[0-9]+"
            accepted_after: 36h
            weight: 3
            per: task
            org: acme
        """
    )
    conditions = (("repo", Globs("acme/*")), ("base", Globs(["main", "release-*"])))
    assert policy.outcomes == (
        OutcomeRule(
            name="merged",
            origin="github",
            secret=SECRET,
            event="pull_request.merged",
            match=OutcomeMatch(conditions, (("author", Globs("*[bot]")),), True),
            task="[A-Z]+-[0-9]+",
            accepted_after_ms=36 * 3_600_000,
            weight=3,
            per="task",
            org="acme",
        ),
    )


def test_defaults() -> None:
    (rule,) = good(one('from: gitlab, secret: "${HOOK}", task: x')).outcomes
    assert (rule.event, rule.accepted_after_ms, rule.weight) == ("merge_request.merged", 14 * DAY, 1)
    assert (rule.per, rule.org, rule.match) == ("change", "default", OutcomeMatch())
    (declared,) = good(one("from: declared, accepted_after: 0d")).outcomes
    assert (declared.secret, declared.event, declared.accepted_after_ms) == ("", "", 0)


def test_a_standard_webhook_names_what_makes_and_what_undoes() -> None:
    text = one(f"from: standard, secret: whsec_{SECRET}, event: deploy.done, undone_by: [deploy.back]")
    (rule,) = good(text).outcomes
    assert (rule.event, rule.undone_by, rule.kind) == ("deploy.done", ("deploy.back",), "deploy.done")


@pytest.mark.parametrize(
    ("text", "at", "fault"),
    [
        (one("from: github"), "{name", "`secret` is missing"),
        (one('from: github, secret: "${UNSET}"'), "\"${", "`UNSET` is not set: without the secret anybody could tell"),
        (one("from: github, secret: short"), "short", "shorter than 8 characters"),
        (one("from: svn, secret: 0123456789"), "svn", "`svn` is not one of"),
        (one("from: github, secret: 0123456789, event: push_back"), "push_back", "is nothing that `github` tells here"),
        (one("from: standard, secret: 0123456789"), "{name", "`event` is missing"),
        (one("from: standard, secret: whsec_??, event: x"), "whsec_", "what follows is not base64"),
        (one("from: standard, secret: 0123456789, event: x, undone_by: [x]"), "[x]", "is what makes the outcome"),
        (one("from: gitlab, secret: 0123456789, undone_by: [x]"), "[x]", "only for `from: standard`"),
        (one("from: declared, secret: 0123456789"), "0123", "nobody signs what a person declares"),
        (one("from: github, secret: 0123456789, task: '(a'"), "'(a", "cannot be used"),
        (one("from: github, secret: 0123456789, task: '(a)(?=b)'"), "'(a", "no look-around"),
        (one("from: github, secret: 0123456789, task: '[0-9]*'"), "'[0", "fits the empty text"),
        (one("from: github, secret: 0123456789, accepted_after: soon"), "soon", "not a length of time"),
        (one("from: github, secret: 0123456789, accepted_after: 400d"), "400d", "not a length of time"),
        (one("from: github, secret: 0123456789, weight: 0"), "0}", "not a whole number"),
        (one("from: github, secret: 0123456789, match: {not: {}}"), "{}}", "never lets the rule apply"),
        (one("from: github, secret: 0123456789, match: {team: a}"), "team", "unknown key `team`"),
        ("teams: {pay: {unit: merged, size: 8}}", "merged", "`merged` is no rule of `outcomes`"),
        ("teams: {pay: {unit: deployment}}", "{unit", "`size` is missing"),
        ("teams: {pay: {unit: deployment, size: 0}}", "0}", "not a whole number"),
        ("unproven: [{name: u, limit: $20}]", "{name", "`every` is missing"),
        ("unproven: [{name: u, limit: 20, every: day}]", "20,", "not an amount of money"),
        ("unproven: [{name: u, limit: $20, every: day, per: user}]", "user", "`user` is not one of `task`"),
        ("unproven: [{name: u, limit: $20, every: day, then: {use: {}}}]", "{use", "must be text"),
        ("budgets: [{name: u, limit: $1, every: day}]\nunproven: [{name: u, limit: $2, every: day}]", "u, limit: $2",
         "rule `u` is already set at b.yaml:1"),
    ],
)  # fmt: skip
def test_a_fault_stands_at_its_place(text: str, at: str, fault: str) -> None:
    found = loaded(text)
    assert found.policy is None
    before, _, _ = text.partition(at)
    place = f"{before.count(chr(10)) + 1}:{len(before.rpartition(chr(10))[2]) + 1}"
    assert [str(each) for each in found.faults if str(each).startswith(f"b.yaml:{place}: ") and fault in str(each)]


def test_a_team_delivers_a_rule_or_a_kind() -> None:
    text = one('from: github, secret: "${HOOK}", event: push, task: x') + "\n"
    assert good(text + "teams: {pay: {unit: o, size: 8}}").teams == (Team(name="pay", unit="o", size=8),)
    assert loaded(text + "teams: {pay: {unit: commit on main, size: 8}}").warnings == []
    (warned,) = loaded(text + "teams: {pay: {unit: deployment, size: 8}}").warnings
    assert "no rule of `outcomes` tells of a deployment, so that team `pay` delivers none" in str(warned)


def test_an_unproven_rule_is_a_budget_per_task() -> None:
    (rule,) = good("unproven: [{name: u, limit: $20, every: rolling 7d, then: warn, help: ask}]").unproven
    assert isinstance(rule, Budget)
    assert (rule.per, rule.unit, rule.limit, rule.then, rule.help) == (("task",), "nusd", 20_000_000_000, "warn", "ask")
    assert rule.every == Every.parse("rolling 7d")
    (shadow,) = good("defaults: {mode: shadow}\nunproven: [{name: u, limit: $20, every: day}]").unproven
    assert (shadow.mode, shadow.then) == ("shadow", "refuse")


def test_an_unproven_rule_without_a_budget_above_its_tasks_is_warned_of() -> None:
    rule = "unproven: [{name: u, match: {team: pay}, limit: $20, every: day}]\n"
    (warned,) = loaded(rule).warnings
    assert str(warned).startswith("b.yaml:1:12: unproven: a new task name is counted anew; add a budget `per: user`")
    for above in ("match: {team: pay}, per: user", "per: team"):
        assert loaded(rule + f"budgets: [{{name: b, {above}, limit: $100, every: day}}]").warnings == []
    assert len(loaded(rule + "budgets: [{name: b, per: user, limit: $9, every: day, then: warn}]").warnings) == 1


def test_the_secret_is_no_part_of_the_version() -> None:
    texts = [one(f"from: github, secret: {secret}, task: x") for secret in ("first-secret", "other-secret")]
    assert len({good(text).version for text in texts}) == 1
