"""Chat completions, plain and streamed, with the oddities of everyone who speaks this dialect."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.usage import Usage
from tests.support.answers import call_to, chat, chunk, read_answer, sse, tokens


def test_usage_in_a_chunk_of_its_own_before_the_end_is_read() -> None:
    """wire.md 1"""
    stream = sse(
        chunk("Hel", usage=None),
        chunk("lo", usage=None),
        chunk(finish_reason="stop", usage=None),
        {**chunk(), "choices": [], "usage": tokens(9, 3)},
        done=True,
    )
    reading = read_answer(chat(), stream)
    assert reading.usage == Usage(input=9, output=3)
    assert reading.complete
    assert reading.finish_reasons == ["stop"]
    assert reading.upstream_call_id == "chatcmpl-1"
    assert reading.seen_bytes == 5


def test_a_chunk_after_the_usage_takes_nothing_away() -> None:
    """wire.md 2"""
    stream = sse(
        chunk("a"),
        {**chunk(), "choices": [], "usage": tokens(9, 3)},
        {**chunk(), "choices": [], "moderation": {"flagged": False}, "usage": None},
        done=True,
    )
    assert read_answer(chat(), stream).usage == Usage(input=9, output=3)


def test_a_stream_that_tells_no_usage_has_none_and_shows_what_was_written() -> None:
    """wire.md 3"""
    reading = read_answer(chat(), sse(chunk("Grüße"), chunk(finish_reason="stop"), done=True))
    assert reading.usage is None
    assert reading.complete
    assert reading.seen_bytes == len("Grüße".encode())


def test_usage_beside_the_last_choices_is_read() -> None:
    """wire.md 4"""
    stream = sse(chunk("a"), chunk("b", finish_reason="stop", usage=tokens(5, 2)), done=True)
    assert read_answer(chat("deepseek"), stream, provider="deepseek").usage == Usage(input=5, output=2)


@pytest.mark.parametrize("beside", [{}, {"usage": tokens(7, 4)}])
def test_groq_usage_is_read_from_its_own_corner_and_counted_once(beside: dict[str, Any]) -> None:
    """wire.md 5"""
    stream = sse(
        chunk("a", x_groq={"id": "req_1"}),
        chunk(finish_reason="stop", x_groq={"id": "req_1", "usage": tokens(7, 4)}),
        {**chunk(), "choices": [], **beside},
        done=True,
    )
    assert read_answer(chat("groq"), stream, provider="groq").usage == Usage(input=7, output=4)


def test_usage_inside_a_choice_is_read_where_the_chunk_has_none_of_its_own() -> None:
    """Moonshot, unasked."""
    usage = {"prompt_tokens": 19, "completion_tokens": 3, "total_tokens": 22}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]}
    stream = sse(chunk("Hi"), last, done=True)
    assert read_answer(chat("moonshotai"), stream, provider="moonshotai").usage == Usage(input=19, output=3)


def test_running_totals_are_not_added_up_and_the_last_cost_counts() -> None:
    """wire.md 6; also the cumulative usage of DeepSeek-like servers (made by hand after bug reports)"""
    stream = sse(
        chunk("a", usage=tokens(8, 1)),
        chunk("b", usage=tokens(8, 2)),
        chunk(
            finish_reason="stop",
            message={"role": "assistant", "content": "ab"},
            usage=tokens(8, 3, cost={"total_cost": 0.005003, "request_cost": 0.005}),
        ),
        ending="\r\n",
    )
    reading = read_answer(chat("perplexity"), stream, provider="perplexity")
    assert reading.usage == Usage(input=8, output=3)
    assert reading.provider_cost_usd == "0.005003"
    assert reading.complete
    assert reading.seen_bytes == 2


def test_the_model_answered_is_kept_where_it_differs_from_the_one_asked() -> None:
    """wire.md 34"""
    stream = sse({**chunk("a"), "model": "deepseek-v4-flash"}, done=True)
    assert read_answer(chat(model="deepseek-chat"), stream).model == "deepseek-v4-flash"


def test_comments_between_events_are_no_events() -> None:
    """wire.md 36"""
    stream = sse(": OPENROUTER PROCESSING", ": ", chunk("a"), ": OPENROUTER PROCESSING", chunk(usage=tokens(1, 2)))
    assert read_answer(chat(), stream).usage == Usage(input=1, output=2)


def test_blank_lines_before_a_plain_answer_are_no_part_of_it() -> None:
    """wire.md 37"""
    body = (
        b"\n         " * 300 + b'{"id": "gen-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
    )
    assert read_answer(chat(stream=False), body).usage == Usage(input=3, output=1)


def test_padding_fields_do_not_count_as_written_text() -> None:
    """wire.md 38"""
    stream = sse({**chunk("ab"), "obfuscation": "x" * 30, "p": "abcdef"}, done=True)
    assert read_answer(chat(), stream).seen_bytes == 2


def test_a_first_chunk_without_choices_is_not_the_end() -> None:
    """wire.md 39"""
    first = {**chunk(), "choices": [], "prompt_filter_results": [{"prompt_index": 0}], "model": ""}
    stream = sse(first, chunk("a"), chunk(finish_reason="stop"), {**chunk(), "choices": [], "usage": tokens(4, 1)})
    reading = read_answer(chat("azure"), stream, provider="azure")
    assert reading.usage == Usage(input=4, output=1)
    assert reading.finish_reasons == ["stop"]


def test_chunks_without_any_choices_field_are_taken() -> None:
    """Made by hand after a bug report: chunks without `choices`."""
    stream = sse({"id": "x", "usage": None}, chunk("a"), {"id": "x", "usage": tokens(4, 1)}, done=True)
    assert read_answer(chat(), stream).usage == Usage(input=4, output=1)


def test_events_labelled_as_json_are_read_as_events() -> None:
    """wire.md 40"""
    stream = sse(chunk("a"), {**chunk(), "choices": [], "usage": tokens(17, 19)}, done=True)
    reading = read_answer(chat(), stream, content_type="application/json")
    assert reading.usage == Usage(input=17, output=19)


def test_an_error_event_inside_a_good_stream_is_an_error() -> None:
    """wire.md 41"""
    error = {"error": {"message": "no tool was called", "type": "invalid_request_error", "code": "tool_use_failed"}}
    reading = read_answer(chat("groq"), sse(chunk("maybe"), ("error", error)), provider="groq")
    assert reading.error == "tool_use_failed"
    assert reading.usage is None
    assert reading.seen_bytes == 5
    assert reading.complete


def test_an_error_in_a_chunk_keeps_the_usage_that_comes_with_it() -> None:
    """wire.md 41"""
    last = {**chunk(""), "error": {"code": 400, "message": "Token limit reached"}, "usage": tokens(43, 10, cost=0)}
    reading = read_answer(chat("openrouter"), sse(chunk("a"), last, done=True), provider="openrouter")
    assert reading.error == "400"
    assert reading.usage == Usage(input=43, output=10)
    assert reading.provider_cost_usd == "0"


def test_a_stream_that_is_cut_is_not_complete() -> None:
    reading = read_answer(chat(), sse(chunk("one"), chunk(" two")) + b'data: {"id":"chatcmpl-1","cho')
    assert not reading.complete
    assert reading.seen_bytes == 7


def test_text_reasoning_refusals_and_tool_calls_count_as_seen() -> None:
    deltas: list[dict[str, Any]] = [
        {"content": "abc"},
        {"reasoning_content": "de"},
        {"reasoning": "f"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "go", "arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    stream = sse(*({**chunk(), "choices": [{"index": 0, "delta": delta}]} for delta in deltas))
    assert read_answer(chat(), stream).seen_bytes == 3 + 2 + 1 + 2 + 2 + 5 + 2


def test_content_in_parts_is_read_although_it_has_another_shape() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    stream = sse(
        {**chunk(), "choices": [{"index": 0, "delta": {"content": parts}}]},
        {
            **chunk(),
            "choices": [{"index": 0, "delta": {"content": parts}, "finish_reason": "stop"}],
            "usage": tokens(2, 3),
        },
    )
    reading = read_answer(chat("mistral"), stream, provider="mistral")
    assert reading.usage == Usage(input=2, output=3)
    assert reading.seen_bytes > 0
    assert reading.finish_reasons == ["stop"]


def test_each_of_several_choices_has_its_finish_reason_in_order() -> None:
    stream = sse(
        {**chunk(), "choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        {**chunk(), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        done=True,
    )
    assert read_answer(chat(n=2), stream).finish_reasons == ["stop", "length"]


def test_the_tier_answered_counts_and_auto_is_no_tier() -> None:
    """wire.md 32"""
    stream = sse({**chunk("a"), "service_tier": "auto"}, {**chunk("b"), "service_tier": "priority"}, done=True)
    assert read_answer(chat(service_tier="auto"), stream).service_tier == "priority"


def test_a_plain_answer_tells_model_id_usage_and_finish_reason() -> None:
    body = {
        "id": "chatcmpl-9",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": tokens(9, 2),
    }
    reading = read_answer(chat(stream=False), body)
    assert (reading.model, reading.upstream_call_id) == ("gpt-4o-mini-2024-07-18", "chatcmpl-9")
    assert reading.usage == Usage(input=9, output=2)
    assert reading.finish_reasons == ["stop"]
    assert reading.complete


def test_a_plain_answer_that_is_cut_off_tells_nothing_and_is_not_complete() -> None:
    reading = read_answer(chat(stream=False), b'{"id": "chatcmpl-9", "usage": {"prompt_tokens": 9, "comp')
    assert reading.usage is None
    assert not reading.complete


def test_a_search_model_is_paid_for_one_search_a_call() -> None:
    """wire.md 31"""
    body = {"id": "1", "model": "gpt-4o-search-preview-2025-03-11", "choices": [], "usage": tokens(9, 2)}
    reading = read_answer(chat(stream=False, model="gpt-4o-search-preview"), body)
    assert reading.usage == Usage(input=9, output=2, requests={"web_search": 1})


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        ("o3-mini", True),
        ("gpt-5-nano", True),
        ("openai/gpt-5.2-codex", True),
        ("gpt-5-chat-latest", False),
        ("gpt-4o", False),
        ("claude-opus-4", False),
        ("google/gemini-2.5-flash", True),
        ("grok-4-1-fast-non-reasoning", False),
    ],
)
def test_models_that_reason_unseen_are_known(model: str, hidden: bool) -> None:
    assert read_answer(chat(model=model), sse(chunk("a", model=model))).hidden_reasoning is hidden


def test_reasoning_in_sight_is_not_hidden() -> None:
    stream = sse({**chunk(), "model": "gpt-5", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    assert read_answer(chat(model="gpt-5"), stream).hidden_reasoning is False


def test_an_error_status_has_its_code_and_no_usage() -> None:
    """wire.md 42"""
    body = {
        "error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": None},
        "usage": tokens(9, 9),
    }
    reading = read_answer(chat(), body, status=429, content_type="application/json")
    assert reading.error == "insufficient_quota"
    assert reading.usage is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"error": {"message": "x", "type": "t", "code": "c"}}, "c"),
        ({"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}, "INVALID_ARGUMENT"),
        ([{"error": {"code": 429, "message": "x"}}], "429"),
        ({"object": "error", "message": "x", "type": "invalid_request_error", "code": "1500"}, "invalid_request_error"),
        ({"error": "model not found"}, "error"),
        ({"detail": "Unauthorized"}, "error"),
    ],
)
def test_every_shape_of_error_body_has_a_word(body: Any, word: str) -> None:
    """wire.md 42"""
    assert read_answer(chat(stream=False), body, status=400).error == word


def test_an_error_page_in_html_has_no_word_and_breaks_nothing() -> None:
    reading = read_answer(chat(), b"<html><h1>502 Bad Gateway</h1></html>", status=502, content_type="text/html")
    assert reading.error is None
    assert reading.usage is None


def test_completions_are_read_like_chat() -> None:
    """wire.md 3"""
    call = call_to("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "a", "stream": True})
    stream = sse(
        {"id": "cmpl-1", "choices": [{"index": 0, "text": "abc", "finish_reason": None}], "usage": None},
        {"id": "cmpl-1", "choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": None},
        done=True,
    )
    reading = read_answer(call, stream)
    assert reading.usage is None
    assert reading.seen_bytes == 3
    assert reading.finish_reasons == ["length"]


def test_completions_that_only_stream_values_show_what_was_written() -> None:
    """wire.md 22"""
    call = call_to("/v1/completions", {"model": "palmyra-x4", "prompt": "a", "stream": True}, provider="writer")
    reading = read_answer(call, sse({"value": "Why"}, {"value": " not"}), provider="writer")
    assert reading.usage is None
    assert reading.seen_bytes == 7
