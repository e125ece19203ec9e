"""Globs, against a matcher that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.globs import Globs, compiled


def simply_matches(pattern: str, value: str) -> bool:
    """The definition, character by character: slow, and plain to see."""
    reachable = {0}
    for character in pattern:
        if character == "*":
            reachable = {end for start in reachable for end in range(start, len(value) + 1)}
        else:
            reachable = {start + 1 for start in reachable if start < len(value) and character in ("?", value[start])}
    return len(value) in reachable


few_letters = st.text(alphabet="ab*?.\n[\\", max_size=12)


@given(patterns=st.lists(few_letters, max_size=4), value=st.text(alphabet="ab.\n[\\*?", min_size=1, max_size=12))
def test_globs_match_as_their_definition_says(patterns: list[str], value: str) -> None:
    assert Globs(patterns).matches(value) == any(simply_matches(pattern, value) for pattern in patterns)


@given(patterns=st.lists(st.text(max_size=8), max_size=4), value=st.text(max_size=8))
def test_any_text_can_be_a_pattern(patterns: list[str], value: str) -> None:
    expected = any(simply_matches(pattern, value) for pattern in patterns) if value else "none" in patterns
    assert Globs(patterns).matches(value) == expected


@pytest.mark.parametrize("absent", [None, ""])
def test_an_absent_value_matches_only_none(absent: str | None) -> None:
    assert Globs("none").matches(absent)
    assert Globs(["PAY-*", "none"]).matches(absent)
    assert not Globs("*").matches(absent)
    assert not Globs("").matches(absent)
    assert not Globs("non?").matches(absent)


def test_case_matters_and_brackets_are_themselves() -> None:
    assert not Globs("Ada").matches("ada")
    assert Globs("claude-opus-4[1m]").matches("claude-opus-4[1m]")
    assert not Globs("claude-opus-4[1m]").matches("claude-opus-41")


def test_a_pattern_with_many_stars_is_not_slow_on_a_long_value() -> None:
    assert not Globs("*a*a*a*a*a*a*a*a*a*a*b").matches("a" * 50_000)


def test_globs_with_the_same_patterns_are_equal_and_compiled_once() -> None:
    assert Globs("a*") == Globs(["a*"])
    assert Globs("a*") != Globs("a")
    assert hash(Globs("a*")) == hash(Globs(("a*",)))
    assert repr(Globs(["a*", "b"])) == "Globs(a*, b)"
    assert compiled(("a*",)) is compiled(("a*",))
