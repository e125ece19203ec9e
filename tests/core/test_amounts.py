"""Amounts: limits as people write them, and what is none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.amounts import EXAMPLES, parse_limit, told_amount
from proxy.core.money import NUSD_MAX


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("$25", ("nusd", 25 * 10**9)),
        ("$0.000000001", ("nusd", 1)),
        ("2M tokens", ("tokens", 2_000_000)),
        ("1.5M  tokens", ("tokens", 1_500_000)),
        ("500k tokens", ("tokens", 500_000)),
        ("1 token", ("tokens", 1)),
        ("500 calls", ("calls", 500)),
        ("10,000 calls", ("calls", 10_000)),
        ("1_000 calls", ("calls", 1_000)),
        ("4 concurrent", ("concurrent", 4)),
        ("4 concurrent calls", ("concurrent", 4)),
        (f"{NUSD_MAX} tokens", ("tokens", NUSD_MAX)),
    ],
)
def test_a_limit_is_read(text: str, limit: tuple[str, int]) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("$0", "`$0` would refuse every call; to do that, write an `access` rule"),
        ("0 calls", "`0 calls` would refuse every call"),
        ("-5 calls", f"`-5 calls` is negative; write a limit like {EXAMPLES}"),
        ("-$5", "`-$5` is negative"),
        ("$-5", "`$-5` is no amount of money"),
        ("NaN tokens", f"`NaN tokens` is no limit; write one like {EXAMPLES}"),
        ("$NaN", "`$NaN` is no amount of money"),
        ("inf calls", "`inf calls` is no limit"),
        ("$1e3", "`$1e3` is no amount of money"),
        ("25", "`25` does not say of what"),
        ("25 dollars", "`dollars` is no unit"),
        ("2M toks", "`toks` is no unit; write a limit like " + EXAMPLES + "; did you mean `tokens`?"),
        ("4 calls calls", "`calls` is no unit"),
        ("1.5 calls", "`1.5 calls` is not a whole number of calls"),
        ("$9007200", "`$9007200` is more than the largest amount, $9007199"),
        (f"{NUSD_MAX + 1} tokens", f"is more than the largest limit, {NUSD_MAX:,}"),
        ("99999999 B tokens", "is more than the largest limit"),
        ("", "`` is no limit"),
    ],
)
def test_what_is_no_limit_is_said_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_limit(text)


@given(st.text(max_size=40))
def test_any_text_is_a_limit_within_bounds_or_a_sentence(text: str) -> None:
    try:
        _, amount = parse_limit(text)
    except ValueError:
        return
    assert 0 < amount <= NUSD_MAX


def test_amounts_are_told_in_their_unit() -> None:
    told = [told_amount("nusd", 24_970_000_000), told_amount("tokens", 2_000_000), told_amount("calls", 1)]
    assert told == ["$24.97", "2,000,000 tokens", "1 call"]
    assert told_amount("concurrent", 4) == "4 concurrent calls"
