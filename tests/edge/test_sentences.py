"""What the edge says when it refuses."""

from __future__ import annotations

from proxy.core.policy_file import load
from proxy.edge.paths import read_target
from proxy.edge.sentences import body_too_large, unknown_upstream

LOADED = load({"a.yaml": "upstreams: {work: {dialect: openai, url: 'http://127.0.0.1:9', key: sk}}\n"}, {})


def sentence(path: str, dialect: str) -> str:
    assert LOADED.policy is not None
    return unknown_upstream(read_target(path), LOADED.policy, dialect).sentence


def test_a_name_that_no_upstream_has_is_repeated_beside_those_that_there_are() -> None:
    said = sentence("/wrok/v1/chat/completions", "")
    assert "`wrok`" in said
    assert "`work`" in said


def test_a_short_path_whose_dialect_has_no_upstream_is_told_by_its_dialect() -> None:
    assert "anthropic dialect" in sentence("/v1/messages", "anthropic")


def test_a_name_cannot_end_its_own_quoting() -> None:
    assert "`a'b`" in sentence("/a`b/v1", "")


def test_the_limit_of_a_body_is_told_in_mebibytes() -> None:
    assert "0.5 MiB" in body_too_large(2**19).sentence
    assert "32 MiB" in body_too_large(32 * 2**20).sentence


def test_a_path_without_an_upstream_is_told_how_one_is_named() -> None:
    assert sentence("/", "").startswith("the path names no upstream: call `/<upstream>/...` with one of `")
