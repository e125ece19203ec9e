"""Duplicate rules in policy files: what they come to, and every fault at its place."""

from __future__ import annotations

import pytest

from proxy.core.duplicates import DuplicateRule
from proxy.core.policy_file import load

UPSTREAM = 'upstreams: {openai: {dialect: openai, url: "https://api.openai.com"}}\n'


def faults_of(fields: str) -> list[str]:
    found = load({"a.yaml": UPSTREAM, "b.yaml": f"duplicates: [{{name: d, {fields}}}]"}, {})
    return [fault.message for fault in found.faults]


def good(fields: str) -> DuplicateRule:
    found = load({"a.yaml": UPSTREAM, "b.yaml": f"duplicates: [{{name: d, {fields}}}]"}, {})
    assert found.faults == []
    assert found.policy is not None
    (made,) = found.policy.duplicates
    return made


def test_a_rule_with_every_key() -> None:
    made = good(
        'kind: exact, match: {team: "pay*"}, per: [task, model], limit: 3 calls, every: day, timezone: Europe/Berlin, '
        "then: replay, mode: shadow, share: org, samples: true, help: ask"
    )
    assert (made.kind, made.per, made.limit, made.then, made.mode) == (
        "exact",
        ("task", "model"),
        3,
        "replay",
        "shadow",
    )
    assert (made.share, made.samples, made.help, made.every.timezone) == ("org", True, "ask", "Europe/Berlin")
    assert made.match.fields == ("team",)


def test_defaults() -> None:
    made = good("kind: loop, limit: 3 calls")
    assert (made.per, made.every.text, made.then, made.mode) == (("user",), "rolling 10m", "warn", "enforce")
    assert (made.share, made.samples) == ("user", False)
    assert good("kind: task, limit: 1 calls").per == ("org",)
    assert good("kind: exact, then: join").limit == 1


def test_the_mode_of_the_defaults_counts() -> None:
    text = f"{UPSTREAM}defaults: {{mode: shadow}}\nduplicates: [{{name: d, kind: exact, limit: 1 calls}}]"
    policy = load({"a.yaml": text}, {}).policy
    assert policy is not None
    assert policy.duplicates[0].mode == "shadow"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ("limit: 3 calls", "the key `kind` is missing"),
        ("kind: same, limit: 3 calls", "kind: "),
        ("kind: exact", "the key `limit` is missing: how many calls"),
        ("kind: exact, limit: $3", "limit: counts calls"),
        ("kind: exact, limit: 3 concurrent", "limit: counts calls"),
        ("kind: exact, limit: 3 calls, every: ever", "every: what every call was"),
        ("kind: exact, limit: 3 calls, every: rolling 40d", "longer than calls are remembered"),
        ("kind: normalized, limit: 3 calls, then: replay", "then: `replay` gives the answer of another call"),
        ("kind: loop, limit: 3 calls, then: join", "then: `join` gives the answer of another call"),
        ("kind: similar, limit: 3 calls, then: refuse", "then: what is only alike"),
        ("kind: task, limit: 1 calls, per: task", "per: compares tasks with one another"),
        ("kind: exact, limit: 3 calls, match: {not: {}}", "an empty `not`"),
        ("kind: exact, limit: 3 calls, share: team", "share: "),
        ("kind: exact, limit: 3 calls, reserve: expected", "unknown key `reserve`"),
    ],
)
def test_faults_say_what_is_wrong(fields: str, fault: str) -> None:
    assert any(fault in message for message in faults_of(fields)), faults_of(fields)


def test_a_rule_shares_its_name_with_no_other() -> None:
    budget = "budgets: [{name: d, limit: $5, every: day}]"
    text = f"{UPSTREAM}{budget}\nduplicates: [{{name: d, kind: exact, limit: 1 calls}}]"
    (fault,) = load({"a.yaml": text}, {}).faults
    assert "rule `d` is already set" in fault.message
