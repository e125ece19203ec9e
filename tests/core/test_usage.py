from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.usage import TOKEN_FIELDS, Usage

USAGES = st.builds(
    Usage,
    **{field: st.integers(min_value=0, max_value=10**9) for field in TOKEN_FIELDS},
    reasoning=st.integers(min_value=0, max_value=10**9),
    requests=st.dictionaries(st.sampled_from(["web_search", "file_search"]), st.integers(0, 100)),
)


def test_reasoning_is_a_part_of_output_and_not_counted_again() -> None:
    assert Usage(input=10, output=5, reasoning=4).tokens == 15


@given(USAGES, USAGES)
def test_the_tokens_of_two_parts_are_the_tokens_of_both_together(first: Usage, second: Usage) -> None:
    both = first + second
    assert both.tokens == first.tokens + second.tokens
    assert both.requests.get("web_search", 0) == sum(one.requests.get("web_search", 0) for one in (first, second))


@given(USAGES)
def test_the_counts_of_tokens_stand_in_the_order_of_their_fields(usage: Usage) -> None:
    assert usage.token_counts == tuple(getattr(usage, field) for field in TOKEN_FIELDS)
    assert usage.tokens == sum(usage.token_counts)
