"""Regular expressions of policies: linear in the text, whatever they say and whatever they meet."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.patterns import PatternInvalid, compiled, found_in

MANY = 10_000_000


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("[A-Z]+-[0-9]+", "feat/PAY-7-refund and OPS-1", "PAY-7"),
        ("task/([a-z]+)", "x task/refund", "refund"),
        ("(PAY|OPS)-[0-9]+", "PAY-7", "PAY"),
        ("(?:PAY|OPS)-[0-9]+", "PAY-7", "PAY-7"),
        ("(?i)pay-[0-9]+", "Pay-7", "Pay-7"),
        ("x(y)?", "x", ""),
        ("nothing", "at all", ""),
        ("[A-Z]+-[0-9]+", "\ud800 PAY-7", "PAY-7"),
    ],
)
def test_what_is_found(pattern: str, text: str, found: str) -> None:
    assert found_in(pattern, text, MANY) == found


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "([A-Z]+)+-[0-9]+", "(a*)*b"])
def test_an_expression_that_takes_exponential_time_elsewhere_is_as_fast_as_any(pattern: str) -> None:
    started = time.process_time()
    found_in(pattern, "a" * 200_000 + "A" * 200_000 + "!", MANY)
    # A backtracking engine would not end in the age of the universe; the bound only tells the two apart.
    assert time.process_time() - started < 30


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(?<!a)b", r"(a)\1", "a{1001}", "(?:a{500}){500}", "[z-a]"])
def test_what_it_cannot_do_is_refused_with_a_sentence(pattern: str) -> None:
    with pytest.raises(PatternInvalid, match=r"cannot be used: .*RE2"):
        compiled(pattern)


@given(st.text(max_size=30), st.text(max_size=60))
def test_no_expression_breaks_it(pattern: str, text: str) -> None:
    try:
        compiled(pattern)
    except PatternInvalid:
        return
    assert isinstance(found_in(pattern, text, 50), str)
