"""Anthropic message batches, on fixtures of our own writing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.core.call import Call
from proxy.core.usage import Usage
from proxy.wire import anthropic_messages as anthropic
from proxy.wire.reader import BodyInvalid
from proxy.wire.reading import Item

BATCH = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress", "results_url": None}


def read(path: str, body: Any = b"", method: str = "POST") -> Call:
    route = anthropic.match(method, path)
    assert route is not None
    return anthropic.read(route, method=method, query="", headers={}, body=body)


def request(custom_id: str, model: str = "claude-opus-5", max_tokens: int = 64) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": {"model": model, "max_tokens": max_tokens, "messages": []}}


def line(custom_id: str, result: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": custom_id, "result": result}).encode()


def succeeded(custom_id: str, **usage: Any) -> bytes:
    message = {"id": f"msg_{custom_id}", "type": "message", "model": "claude-opus-5", "usage": usage}
    return line(custom_id, {"type": "succeeded", "message": message})


@pytest.mark.parametrize("undecoded", [False, True])
def test_the_call_that_makes_a_batch_is_settled_later(undecoded: bool) -> None:
    requests: Any = [request("a"), request("b", max_tokens=128)]
    if undecoded:
        requests = msgspec.Raw(json.dumps(requests).encode())
    call = read("/v1/messages/batches", {"requests": requests})
    assert call.later
    assert not call.free
    assert (call.model, call.choices, call.max_output_tokens) == ("claude-opus-5", 2, 128)
    reader = anthropic.reader(call, provider="anthropic", request_body=b"")
    reader.answer(json.dumps(BATCH).encode())
    assert reader.reading.later == "msgbatch_1"
    assert reader.reading.complete
    assert reader.reading.usage is None


def test_a_batch_over_several_models_names_them_all() -> None:
    call = read("/v1/messages/batches", {"requests": [request("a"), request("b", model="claude-haiku-4-5")]})
    assert call.model == "claude-haiku-4-5,claude-opus-5"


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": "x"}, {"requests": [{"params": {}}]}, b"{"])
def test_a_batch_without_requests_is_refused(body: Any) -> None:
    with pytest.raises(BodyInvalid):
        read("/v1/messages/batches", body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages/batches/msgbatch_1"),
        ("POST", "/v1/messages/batches/msgbatch_1/cancel"),
        ("DELETE", "/v1/messages/batches/msgbatch_1"),
        ("GET", "/v1/messages/batches/msgbatch_1/results"),
    ],
)
def test_what_follows_is_free_and_names_the_batch(method: str, path: str) -> None:
    call = read(path, method=method)
    assert call.free
    assert not call.later
    assert call.retrieves == "msgbatch_1"


def test_looking_at_a_batch_tells_no_usage_and_starts_nothing() -> None:
    reader = anthropic.reader(
        read("/v1/messages/batches/msgbatch_1", method="GET"), provider="anthropic", request_body=b""
    )
    reader.answer(json.dumps(BATCH).encode())
    assert reader.reading.later is None
    assert reader.reading.usage is None
    assert reader.reading.outcome_of == "msgbatch_1"


def test_each_line_of_results_settles_one_item() -> None:
    """21: results are JSONL, each line with its own usage; only what succeeded is billed."""
    lines = [
        succeeded("a", input_tokens=20, output_tokens=5, cache_read_input_tokens=7, service_tier="batch"),
        line("b", {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error"}}}),
        line("c", {"type": "expired"}),
    ]
    call = read("/v1/messages/batches/msgbatch_1/results", method="GET")
    expected = [
        Item(
            item_id="a",
            usage=Usage(input=20, cached_input=7, output=5),
            model="claude-opus-5",
            upstream_call_id="msg_a",
        ),
        Item(item_id="b", usage=None, error="invalid_request_error"),
        Item(item_id="c", usage=None, error="expired"),
    ]
    by_line = anthropic.reader(call, provider="anthropic", request_body=b"")
    for each in lines:
        by_line.event("", each)
    at_once = anthropic.reader(call, provider="anthropic", request_body=b"")
    at_once.answer(b"\n".join(lines) + b"\n\n")
    assert by_line.reading.items == at_once.reading.items == expected
    assert by_line.reading.outcome_of == "msgbatch_1"
    assert by_line.reading.complete


def test_results_that_are_not_there_yet_are_an_error() -> None:
    call = read("/v1/messages/batches/msgbatch_1/results", method="GET")
    reader = anthropic.reader(call, provider="anthropic", request_body=b"")
    reader.answer(b'{"type":"error","error":{"type":"not_found_error","message":"no results yet"}}')
    assert reader.reading.error == "not_found_error"
    assert reader.reading.items == []


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"x"', b'{"custom_id": 5}\n{"result": []}\n{'])
def test_no_answer_makes_the_reader_raise(body: bytes) -> None:
    for path in ("/v1/messages/batches/b", "/v1/messages/batches/b/results"):
        reader = anthropic.reader(read(path, method="GET"), provider="anthropic", request_body=b"")
        reader.answer(body)
        assert reader.reading.items == []
