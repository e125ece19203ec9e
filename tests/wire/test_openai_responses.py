"""The Responses API: plain, streamed, in the background, retrieved, and what is paid by the piece."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.usage import Usage
from tests.support.answers import call_to, read_answer, responses, sse


def usage(given: int, written: int, **more: Any) -> dict[str, Any]:
    return {"input_tokens": given, "output_tokens": written, "total_tokens": given + written} | more


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    told = {"id": "resp_1", "object": "response", "status": status, "model": "gpt-4o-mini-2024-07-18", "output": []}
    return told | {"usage": None, "error": None, "incomplete_details": None, "service_tier": "auto"} | fields


def event(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return kind, {"type": kind, "sequence_number": 0} | fields


def test_usage_comes_with_the_event_that_ends_the_stream() -> None:
    """wire.md 7"""
    stream = sse(
        event("response.created", response=response("in_progress")),
        event("response.in_progress", response=response("in_progress")),
        event("response.output_text.delta", delta="Hal", item_id="msg_1"),
        event("response.output_text.delta", delta="lo", item_id="msg_1"),
        event("response.completed", response=response(usage=usage(12, 4), service_tier="default")),
    )
    reading = read_answer(responses(), stream)
    assert reading.usage == Usage(input=12, output=4)
    assert reading.complete
    assert reading.seen_bytes == 5
    assert reading.service_tier == "default"
    assert reading.finish_reasons == ["completed"]
    assert (reading.upstream_call_id, reading.model) == ("resp_1", "gpt-4o-mini-2024-07-18")


def test_a_done_mark_after_the_end_changes_nothing() -> None:
    """wire.md 7: OpenRouter; wire.md 36: its empty comment"""
    stream = sse(": ", event("response.completed", response=response(usage=usage(12, 4)))[1], done=True)
    assert read_answer(responses(), stream).usage == Usage(input=12, output=4)


def test_an_incomplete_answer_tells_why_it_ended() -> None:
    """wire.md 7"""
    ended = response("incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=usage(0, 0))
    reading = read_answer(responses(), sse(event("response.incomplete", response=ended)))
    assert reading.finish_reasons == ["max_output_tokens"]
    assert reading.usage == Usage()
    assert reading.complete


@pytest.mark.parametrize(
    "error",
    [
        {"code": "insufficient_quota", "message": "x", "param": None},
        {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "x"}},
    ],
)
def test_a_failure_inside_a_good_stream_is_an_error(error: dict[str, Any]) -> None:
    """wire.md 41"""
    failed = response("failed", error={"code": "insufficient_quota", "message": "x"})
    stream = sse(event("error", **error), event("response.failed", response=failed))
    reading = read_answer(responses(), stream)
    assert reading.error == "insufficient_quota"
    assert reading.usage is None
    assert reading.complete


def test_a_stream_that_is_cut_is_not_complete() -> None:
    stream = sse(
        event("response.created", response=response("in_progress")),
        event("response.function_call_arguments.delta", delta='{"a":1}'),
    )
    reading = read_answer(responses(), stream)
    assert not reading.complete
    assert reading.seen_bytes == 7
    assert reading.usage is None


def test_an_answer_made_in_the_background_is_told_later() -> None:
    """wire.md 8"""
    call = responses(background=True, stream=False)
    assert call.later
    reading = read_answer(call, response("queued", background=True))
    assert reading.later == "resp_1"
    assert reading.usage is None
    assert reading.complete


def test_a_background_stream_that_is_cut_is_still_told_later_and_one_that_ends_is_not() -> None:
    """wire.md 8"""
    begun = event("response.created", response=response("queued", background=True))
    ended = event("response.completed", response=response(background=True, usage=usage(3, 4)))
    assert read_answer(responses(background=True), sse(begun)).later == "resp_1"
    assert read_answer(responses(background=True), sse(begun, ended)).later is None


@pytest.mark.parametrize("query", ["", "stream=true"])
def test_a_retrieval_shows_the_usage_of_the_earlier_call(query: str) -> None:
    """wire.md 8"""
    call = call_to("/v1/responses/resp_1", method="GET", query=query)
    assert call.free
    assert call.retrieves == "resp_1"
    shown = response(background=True, usage=usage(14, 12))
    reading = read_answer(call, sse(event("response.completed", response=shown)) if query else shown)
    assert reading.outcome_of == "resp_1"
    assert reading.usage == Usage(input=14, output=12)


def test_a_retrieval_that_comes_too_early_shows_nothing() -> None:
    """wire.md 8"""
    reading = read_answer(call_to("/v1/responses/resp_1", method="GET"), response("in_progress", background=True))
    assert reading.outcome_of is None
    assert reading.later is None
    assert reading.usage is None


SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
OPEN_PAGE = {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page"}}
FILE_SEARCH = {"type": "file_search_call", "id": "fs_1", "status": "completed"}
CODE = {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "container_id": "cntr_1"}
IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGVsbG8="}
MESSAGE = {"type": "message", "id": "msg_1", "content": []}


@pytest.mark.parametrize(
    ("output", "requests"),
    [
        ([SEARCH, {**SEARCH, "id": "ws_9"}, MESSAGE], {"web_search": 2}),
        ([SEARCH, OPEN_PAGE], {"web_search": 1}),
        ([{"type": "web_search_call", "id": "ws_3", "status": "completed"}], {"web_search": 1}),
        ([{**SEARCH, "status": "failed"}], {}),
        ([FILE_SEARCH, CODE, IMAGE], {"file_search": 1, "code_interpreter": 1, "image_generation": 1}),
        ([CODE, {**CODE, "id": "ci_2"}], {"code_interpreter": 1}),
        ([{"type": "function_call", "id": "fc_1"}, {"type": "mcp_call", "id": "mcp_1"}], {}),
    ],
)
def test_items_that_are_paid_by_the_piece_are_counted_once(output: list[Any], requests: dict[str, int]) -> None:
    """wire.md 31"""
    ended = response(output=output, usage=usage(5, 6))
    assert read_answer(responses(stream=False), ended).usage == Usage(input=5, output=6, requests=requests)
    shown_twice = [
        event("response.output_item.done", output_index=index, item=item) for index, item in enumerate(output)
    ]
    stream = sse(*shown_twice, event("response.completed", response=ended))
    assert read_answer(responses(), stream).usage == Usage(input=5, output=6, requests=requests)


def test_a_count_of_the_providers_own_goes_before_the_items() -> None:
    """wire.md 31"""
    told = response(output=[SEARCH], usage=usage(5, 6), tool_usage={"web_search": {"num_requests": 3}})
    assert read_answer(responses(stream=False), told).usage == Usage(input=5, output=6, requests={"web_search": 3})
    none = response(output=[SEARCH], usage=usage(5, 6), tool_usage={"web_search": {"num_requests": 0}})
    assert read_answer(responses(stream=False), none).usage == Usage(input=5, output=6)


@pytest.mark.parametrize(
    ("tools", "model"),
    [([{"type": "image_generation", "model": "gpt-image-1.5"}], "gpt-image-1.5"), ([], "gpt-image-1")],
)
def test_the_tokens_of_pictures_are_those_of_the_model_that_drew_them(tools: list[Any], model: str) -> None:
    """They lie outside `usage`, and are paid in place of the piece."""
    drawn = usage(
        656,
        2058,
        input_tokens_details={"text_tokens": 600, "image_tokens": 56},
        output_tokens_details={"image_tokens": 2058, "text_tokens": 0},
    )
    ended = response(
        output=[{"type": "image_generation_call", "id": "ig_1", "status": "completed"}],
        tools=tools,
        tool_usage={"image_gen": drawn, "web_search": {"num_requests": 0}},
        usage=usage(3476, 715),
    )
    reading = read_answer(responses(), sse(event("response.completed", response=ended)))
    own, pictures = reading.parts
    assert (own.model, own.usage) == ("gpt-4o-mini-2024-07-18", Usage(input=3476, output=715))
    assert (pictures.model, pictures.usage) == (model, Usage(input=600, image_input=56, image_output=2058, images=1))
    assert reading.usage == own.usage + pictures.usage


def test_a_tool_that_drew_nothing_adds_nothing() -> None:
    ended = response(tool_usage={"image_gen": usage(0, 0)}, usage=usage(12, 4))
    reading = read_answer(responses(stream=False), ended)
    assert (reading.usage, reading.parts) == (Usage(input=12, output=4), [])


def test_the_model_answered_goes_before_the_one_asked_also_with_a_stored_prompt() -> None:
    """wire.md 34"""
    call = call_to("/v1/responses", {"prompt": {"id": "pmpt_1"}})
    assert call.model is None
    assert read_answer(call, response(usage=usage(1, 1), model="gpt-4.1")).model == "gpt-4.1"


def test_a_compaction_is_billed() -> None:
    """wire.md 33"""
    call = call_to("/v1/responses/compact", {"model": "gpt-4.1", "input": []})
    assert not call.free
    body = {"id": "resp_2", "object": "response.compaction", "output": [], "usage": usage(117, 186)}
    reading = read_answer(call, body)
    assert reading.usage == Usage(input=117, output=186)
    assert reading.complete


def test_counting_input_tokens_is_free_and_no_usage() -> None:
    """wire.md 33"""
    call = call_to("/v1/responses/input_tokens", {"model": "gpt-4.1", "input": "x"})
    assert (call.api, call.free) == ("free", True)
    assert read_answer(call, {"object": "response.input_tokens", "input_tokens": 16}).usage is None


def test_an_error_status_has_its_code() -> None:
    body = {"error": {"message": "x", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
    assert read_answer(responses(), body, status=400, content_type="application/json").error == "model_not_found"


def test_a_padded_event_counts_its_text_alone() -> None:
    """wire.md 38"""
    stream = sse(event("response.output_text.delta", delta="ab", obfuscation="y" * 20))
    assert read_answer(responses(), stream).seen_bytes == 2


@pytest.mark.parametrize("data", ["data: {", 'data: {"type": 5}', 'data: {"type":"response.completed","response":7}'])
def test_events_of_a_strange_shape_are_passed_over(data: str) -> None:
    stream = sse(data, event("response.completed", response=response(usage=usage(1, 2))))
    assert read_answer(responses(), stream).usage == Usage(input=1, output=2)
