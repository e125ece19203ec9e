"""What usage objects mean: each token in exactly one field, whoever counted it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.usage import Usage
from proxy.wire.openai_usage import provider_cost, usage_of, usual_usage
from proxy.wire.providers import OTHER, provider_named


def tokens(prompt: int, completion: int, total: int | None = None, **details: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion} | details
    return told if total is None else told | {"total_tokens": total}


def test_cached_and_reasoning_lie_inside_at_openai() -> None:
    """wire.md 23"""
    told = tokens(
        100, 50, 150, prompt_tokens_details={"cached_tokens": 60}, completion_tokens_details={"reasoning_tokens": 20}
    )
    assert usage_of(told, OTHER) == Usage(input=40, cached_input=60, output=50, reasoning=20)


def test_reasoning_beside_the_completion_is_told_by_the_total() -> None:
    """wire.md 25: xAI, 291 + 26 + 189 = 506"""
    told = tokens(291, 26, 506, completion_tokens_details={"reasoning_tokens": 189})
    assert usage_of(told, provider_named("x-ai")) == Usage(input=291, output=215, reasoning=189)


def test_reasoning_beside_that_no_total_shows_is_told_by_the_provider() -> None:
    """wire.md 25: Vercel's gateway with Gemini 3, reasoning 69 beside completion 9 and total 37"""
    told = tokens(28, 9, 37, completion_tokens_details={"reasoning_tokens": 69})
    assert usage_of(told, provider_named("vercel-gateway")) == Usage(input=28, output=78, reasoning=69)


def test_thinking_that_only_the_total_shows_is_reasoning() -> None:
    """wire.md 25: Gemini's OpenAI endpoint, 35 + 12, total 109"""
    assert usage_of(tokens(35, 12, 109), provider_named("gemini")) == Usage(input=35, output=74, reasoning=62)


def test_thinking_that_left_no_room_for_an_answer_is_reasoning() -> None:
    """wire.md 25"""
    told = {"prompt_tokens": 35, "total_tokens": 109}
    assert usage_of(told, provider_named("gemini")) == Usage(input=35, output=74, reasoning=74)


def test_a_little_more_reasoning_than_completion_is_cut_to_it() -> None:
    told = tokens(43, 10, 53, completion_tokens_details={"reasoning_tokens": 11})
    assert usage_of(told, provider_named("openrouter")) == Usage(input=43, output=10, reasoning=10)


@pytest.mark.parametrize(("prompt", "cached"), [(7, 161), (447, 539)])
def test_more_cached_than_prompt_never_gives_less_than_nothing(prompt: int, cached: int) -> None:
    """wire.md 27"""
    told = tokens(prompt, 17, prompt + 17, prompt_tokens_details={"cached_tokens": cached})
    assert usage_of(told, provider_named("azure")) == Usage(input=0, cached_input=prompt, output=17)


def test_cached_beside_the_prompt_is_told_by_the_total() -> None:
    """wire.md 27"""
    told = tokens(7, 5, 173, prompt_tokens_details={"cached_tokens": 161})
    assert usage_of(told, OTHER) == Usage(input=7, cached_input=161, output=5)


def test_sound_beside_the_prompt_is_told_by_the_total() -> None:
    """wire.md 28: Mistral, 9 + 248 + 375 = 632"""
    told = tokens(9, 248, 632, prompt_tokens_details={"audio_tokens": 375}, prompt_audio_seconds=3)
    assert usage_of(told, OTHER) == Usage(input=9, audio_input=375, output=248, seconds=3)


def test_several_details_beside_are_told_by_the_total_together() -> None:
    told = tokens(
        20,
        26,
        20 + 26 + 189 + 300 + 7,
        prompt_tokens_details={"cached_tokens": 300, "cache_write_tokens": 7},
        completion_tokens_details={"reasoning_tokens": 189},
    )
    assert usage_of(told, OTHER) == Usage(input=20, cached_input=300, cache_write=7, output=215, reasoning=189)


def test_one_count_under_two_names_is_one_count_and_zero_in_one_place_hides_nothing() -> None:
    told = tokens(100, 5, 105, prompt_cache_hit_tokens=60, prompt_tokens_details={"cached_tokens": 0})
    assert usage_of(told, OTHER) == Usage(input=40, cached_input=60, output=5)
    assert usage_of(told | {"prompt_tokens_details": {"cached_tokens": 60}}, OTHER) == Usage(
        input=40, cached_input=60, output=5
    )


def test_sound_that_came_from_the_cache_is_cached_and_not_sound_as_well() -> None:
    told = tokens(
        100,
        5,
        105,
        prompt_tokens_details={
            "audio_tokens": 60,
            "cached_tokens": 40,
            "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 30},
        },
    )
    assert usage_of(told, OTHER) == Usage(input=30, cached_input=40, audio_input=30, output=5)


def test_sound_that_only_the_total_shows_is_sound() -> None:
    """wire.md 28"""
    told = tokens(9, 248, 632, prompt_audio_seconds=3)
    assert usage_of(told, OTHER) == Usage(input=9, audio_input=375, output=248, seconds=3)


def test_what_nobody_names_is_not_billed_where_nothing_is_generated() -> None:
    """wire.md 28: moderation, 13 of 74"""
    assert usage_of(tokens(13, 0, 74), OTHER, generates=False) == Usage(input=13)


@pytest.mark.parametrize("total", [57, 0])
def test_a_total_alone_is_input(total: int) -> None:
    """wire.md 28: Voyage"""
    assert usage_of({"total_tokens": total}, OTHER, generates=False) == Usage(input=total)


def test_a_length_of_audio_is_seconds_and_no_tokens() -> None:
    """wire.md 29"""
    assert usage_of({"type": "duration", "seconds": 37.5}, OTHER) == Usage(seconds=37.5)


def test_tokens_of_text_and_sound_are_told_apart() -> None:
    """wire.md 29"""
    told = {
        "type": "tokens",
        "input_tokens": 26,
        "input_token_details": {"text_tokens": 5, "audio_tokens": 21},
        "output_tokens": 4,
        "total_tokens": 30,
    }
    assert usage_of(told, OTHER) == Usage(input=5, audio_input=21, output=4)


def test_fields_that_are_no_counts_are_left_out() -> None:
    """wire.md 29: Azure's latency_checkpoint"""
    told = tokens(4, 2, 6, latency_checkpoint={"engine_ttft_ms": 130}, prompt_tokens_details=None, queue_time=0.02)
    assert usage_of(told, OTHER) == Usage(input=4, output=2)


def test_cache_writes_have_a_field_of_their_own() -> None:
    """wire.md 32"""
    told = {
        "input_tokens": 88,
        "input_tokens_details": {"cache_write_tokens": 86, "cached_tokens": 0},
        "output_tokens": 14,
    }
    assert usage_of(told, OTHER) == Usage(input=2, cache_write=86, output=14)


@pytest.mark.parametrize("name", ["cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens"])
def test_cached_tokens_at_the_top_are_found_under_every_name(name: str) -> None:
    assert usage_of(tokens(50, 2, **{name: 30}), OTHER) == Usage(input=20, cached_input=30, output=2)


def test_sound_and_pictures_lie_outside_input_and_output() -> None:
    told = tokens(
        30,
        20,
        prompt_tokens_details={"cached_tokens": 5, "audio_tokens": 10, "image_tokens": 8},
        completion_tokens_details={"audio_tokens": 12, "image_tokens": 3, "reasoning_tokens": 1},
    )
    assert usage_of(told, OTHER) == Usage(
        input=7, cached_input=5, audio_input=10, image_input=8, output=5, audio_output=12, image_output=3, reasoning=1
    )


@pytest.mark.parametrize(
    ("told", "requests"),
    [
        ({"server_side_tool_usage_details": {"web_search_calls": 2, "mcp_calls": 0}}, {"web_search": 2}),
        ({"server_tool_use_details": {"web_search_requests": 3}}, {"web_search": 3}),
        ({"num_search_queries": 18}, {"web_search": 18}),
        ({"num_sources_used": 4}, {"search_sources": 4}),
        ({"search_units": 1}, {"search_units": 1}),
    ],
)
def test_what_is_paid_by_the_piece_is_counted_by_name(told: dict[str, Any], requests: dict[str, int]) -> None:
    """wire.md 29, 31"""
    usage = usage_of(told, OTHER)
    assert usage is not None
    assert usage.requests == requests


def test_perplexity_research_counts_citations_as_read_and_reasoning_beside() -> None:
    told = tokens(33, 7163, 7196, citation_tokens=20029, reasoning_tokens=73997, num_search_queries=18)
    assert usage_of(told, provider_named("perplexity")) == Usage(
        input=20062, output=81160, reasoning=73997, requests={"web_search": 18}
    )


def test_a_reported_zero_is_a_usage_and_nothing_reported_is_none() -> None:
    assert usage_of(tokens(0, 0, 0), OTHER) == Usage()
    assert usage_of({}, OTHER) is None
    assert usage_of({"prompt_tokens": None, "cost_in_usd_ticks": 5}, OTHER) is None


@pytest.mark.parametrize(
    ("raw", "cost"),
    [
        (b'{"cost": 0.007637029}', "0.007637029"),
        (b'{"cost": 5.8e-06}', "0.0000058"),
        (b'{"cost": 4.1400000000000003e-05}', "0.000041400000000000003"),
        (b'{"cost": 0}', "0"),
        (b'{"cost": {"total_cost": 0.005, "request_cost": 0.005}}', "0.005"),
        (b'{"estimated_cost": 1.2e-7}', "0.00000012"),
        (b'{"cost": "0.25"}', "0.25"),
        (b'{"cost_in_usd_ticks": 2733250}', "0.0002733250"),
        (b'{"cost_in_usd_ticks": 200000000}', "0.0200000000"),
        (b'{"cost_in_usd_ticks": 0}', None),
        (b'{"cost": 0, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.00417}}', "0.00417"),
        (b'{"cost": 0.1, "is_byok": false, "cost_details": {"upstream_inference_cost": 0.1}}', "0.1"),
        (b'{"cost": true}', None),
        (b'{"cost": -1}', None),
        (b'{"cost": 1e999999}', None),
        (b'{"cost": 1e-999999}', None),
        (b'{"cost": "NaN"}', None),
        (b'{"prompt_tokens": 3}', None),
        (b'{"cost": ', None),
    ],
)
def test_a_cost_in_the_answer_is_kept_to_the_last_digit(raw: bytes, cost: str | None) -> None:
    """wire.md 30"""
    assert provider_cost(raw) == cost


counts = st.integers(0, 1000)
details = st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "cache_write_tokens"]), counts
)


@given(
    counts, counts, st.none() | st.integers(0, 4000), details, details, st.sampled_from(["openai", "vercel", "x-ai"])
)
def test_no_count_is_ever_negative_and_none_is_invented(
    prompt: int, completion: int, total: int | None, of_input: dict[str, int], of_output: dict[str, int], provider: str
) -> None:
    told = tokens(prompt, completion, total, prompt_tokens_details=of_input, completion_tokens_details=of_output)
    usage = usage_of(told, provider_named(provider))
    assert usage is not None
    assert (
        min(msgspec.to_builtins({f: getattr(usage, f) for f in usage.__struct_fields__ if f != "requests"}).values())
        >= 0
    )
    assert usage.reasoning <= usage.output
    reasoning = of_output.get("reasoning_tokens", 0)
    assert usage.tokens in {prompt + completion, max(total or 0, prompt + completion), prompt + completion + reasoning}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_a_usage_of_any_shape_is_taken_without_a_fault(value: Any) -> None:
    names = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "seconds", "search_units"]
    usage_of(dict.fromkeys(names, value), OTHER)


usual_input = st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens"]), counts)
usual_output = st.dictionaries(
    st.sampled_from(["reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"]),
    counts,
)


@given(
    counts,
    counts,
    st.integers(-5, 5) | st.just(0),
    usual_input | details,
    usual_output | details,
    st.sampled_from(["openai", "vercel", "x-ai"]),
)
def test_the_short_way_to_a_usual_usage_comes_to_the_same(
    prompt: int, completion: int, gap: int, of_input: dict[str, int], of_output: dict[str, int], provider: str
) -> None:
    total = max(0, prompt + completion + gap)
    told = tokens(prompt, completion, total, prompt_tokens_details=of_input, completion_tokens_details=of_output)
    short = usual_usage(msgspec.json.encode(told))
    assert short is None or short == usage_of(told, provider_named(provider))


def test_the_usage_that_openai_writes_takes_the_short_way() -> None:
    made = {"reasoning_tokens": 3, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    read = {"cached_tokens": 4, "audio_tokens": 0}
    told = tokens(10, 5, 15, prompt_tokens_details=read, completion_tokens_details=made)
    assert usual_usage(msgspec.json.encode(told)) == Usage(input=6, cached_input=4, output=5, reasoning=3)
