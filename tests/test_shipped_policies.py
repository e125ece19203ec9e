"""The policy files that we ship: they load on a machine without a single key, and what they suggest loads too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from demo.simulator import PORT
from proxy.core.duplicates import Kind
from proxy.core.policy import Defaults
from proxy.core.policy_file import load
from proxy.policy_watch import load_directory, read_directory

SHIPPED = Path(__file__).parent.parent / "policies"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY")


def test_they_load_without_any_key_and_say_which_are_missing() -> None:
    found = load_directory(SHIPPED, {})
    assert found.faults == []
    assert found.policy is not None
    assert len(found.warnings) == len(KEYS)
    assert all(key in warning.message for key, warning in zip(KEYS, found.warnings, strict=True))


def test_with_the_keys_set_there_is_nothing_to_warn_of() -> None:
    found = load_directory(SHIPPED, dict.fromkeys(KEYS, "a-key"))
    assert found.warnings == []
    assert found.policy is not None
    assert found.policy.upstreams["gemini"].key == "a-key"


@pytest.mark.parametrize(
    ("name", "dialect", "provider", "url"),
    [
        ("openai", "openai", "openai", "https://api.openai.com"),
        ("anthropic", "anthropic", "anthropic", "https://api.anthropic.com"),
        ("gemini", "gemini", "google", "https://generativelanguage.googleapis.com"),
        ("groq", "openai", "groq", "https://api.groq.com/openai"),
        ("sim-openai", "openai", "openai", "http://127.0.0.1:8099"),
        ("sim-anthropic", "anthropic", "anthropic", "http://127.0.0.1:8099"),
        ("sim-gemini", "gemini", "google", "http://127.0.0.1:8099"),
    ],
)
def test_the_upstreams_are_those_of_the_readme(name: str, dialect: str, provider: str, url: str) -> None:
    policy = load_directory(SHIPPED, {}).policy
    assert policy is not None
    upstream = policy.upstreams[name]
    assert (upstream.dialect, upstream.provider, upstream.url) == (dialect, provider, url)
    assert policy.short_form(dialect) == policy.upstreams[dialect]


def test_the_simulated_provider_serves_where_its_upstreams_point() -> None:
    policy = load_directory(SHIPPED, {}).policy
    assert policy is not None
    assert policy.upstreams["sim-openai"].url == f"http://127.0.0.1:{PORT}"


def test_the_defaults_written_out_are_those_of_the_product() -> None:
    policy = load_directory(SHIPPED, {}).policy
    assert policy is not None
    assert policy.defaults == Defaults()
    assert policy.access == policy.prices == ()


def test_no_duplicate_rule_stops_anybody_before_an_admin_says_so() -> None:
    policy = load_directory(SHIPPED, {}).policy
    assert policy is not None
    assert {rule.kind for rule in policy.duplicates} == set(get_args(Kind))
    assert {(rule.then, rule.mode) for rule in policy.duplicates} == {("refuse", "shadow"), ("warn", "enforce")}


def test_the_examples_in_comments_load_when_their_marks_are_taken_away() -> None:
    files = {}
    for name, text in read_directory(SHIPPED).items():
        examples = re.split(r"^# (?=access:|prices:)|^  # (?=claude-max:)", text, maxsplit=1, flags=re.MULTILINE)
        if len(examples) == 2:
            indent = "  " if "claude-max" in examples[1] else ""
            bare = re.sub(rf"^{indent}# ?", indent, indent + examples[1], flags=re.MULTILINE)
            files[name] = examples[0] + bare
    assert len(files) == 3
    found = load(files, {})
    assert found.faults == []
    assert found.policy is not None
    assert found.policy.upstreams["claude-max"].billing == "plan"
    assert (len(found.policy.access), len(found.policy.prices)) == (2, 2)
