from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.money import NUSD_MAX, decimal_usd, format_usd, nusd_from_usd, parse_usd, round_up_pusd

AMOUNTS = st.integers(min_value=0, max_value=NUSD_MAX)


@pytest.mark.parametrize(
    ("text", "nusd"), [("$25", 25_000_000_000), ("$0.05", 50_000_000), ("$0.000000001", 1), ("$1_000", 10**12)]
)
def test_dollars_are_read_to_the_nano_usd(text: str, nusd: int) -> None:
    assert parse_usd(text) == nusd


@pytest.mark.parametrize("text", ["25", "$", "$-1", "$1.0000000001", "$1e3", "€5", "$ nan", "$9999999999", "$1,50"])
def test_what_is_no_amount_of_dollars_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"`.+` is (no amount|more than)"):
        parse_usd(text)


@given(AMOUNTS)
def test_the_decimal_text_of_an_amount_is_exact_and_has_no_exponent(nusd: int) -> None:
    text = decimal_usd(nusd)
    assert Decimal(text) * 10**9 == nusd
    assert "e" not in text.lower()


@given(AMOUNTS)
def test_every_amount_survives_being_written_and_read(nusd: int) -> None:
    assert nusd_from_usd(Decimal(decimal_usd(nusd))) == nusd


@given(st.integers(min_value=0, max_value=10**18))
def test_a_cost_is_rounded_up_and_by_less_than_a_nano_usd(pusd: int) -> None:
    assert 0 <= round_up_pusd(pusd) * 1000 - pusd < 1000


@pytest.mark.parametrize(
    ("nusd", "shown"),
    [
        (0, "$0.00"),
        (24_970_000_000, "$24.97"),
        (41_000, "$0.000041"),
        (1_234_567_890_000, "$1,234.57"),
        (1, "$0.000000001"),
    ],
)
def test_a_person_sees_the_digits_that_matter(nusd: int, shown: str) -> None:
    assert format_usd(nusd) == shown
