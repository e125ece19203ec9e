"""Batches and assistant runs: ordered now, told later, each item once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.usage import Usage
from proxy.wire import Item
from tests.support.answers import call_to, read_answer, sse, tokens


def batch(status: str, **fields: Any) -> dict[str, Any]:
    zero = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    told = {"id": "batch_1", "object": "batch", "status": status, "model": None, "usage": zero}
    return told | {"output_file_id": None, "error_file_id": None, "errors": None} | fields


def test_a_batch_that_is_made_is_told_later() -> None:
    """wire.md 21"""
    call = call_to("/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/embeddings"})
    assert (call.api, call.later, call.free) == ("openai.batches", True, False)
    reading = read_answer(call, batch("validating"))
    assert reading.later == "batch_1"
    assert reading.usage is None


def test_a_finished_batch_names_the_files_with_its_results_and_is_not_billed_itself() -> None:
    """wire.md 21"""
    call = call_to("/v1/batches/batch_1", method="GET")
    assert (call.free, call.retrieves) == (True, "batch_1")
    done = batch("completed", output_file_id="file-2", error_file_id="file-3", usage=tokens(36, 224))
    reading = read_answer(call, done)
    assert reading.files == ["file-2", "file-3"]
    assert reading.outcome_of == "batch_1"
    assert reading.usage is None


def test_a_running_batch_has_no_files_yet() -> None:
    """wire.md 21"""
    assert read_answer(call_to("/v1/batches/batch_1", method="GET"), batch("in_progress")).files == []


def line(custom_id: str, body: dict[str, Any], status: int = 200) -> bytes:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return json.dumps({"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}).encode()


CHAT = line("a", {"id": "chatcmpl-1", "model": "gpt-5-nano-2025-08-07", "choices": [], "usage": tokens(10, 20)})
RESPONSE = line("b", {"id": "resp_1", "model": "gpt-5", "usage": {"input_tokens": 3, "output_tokens": 4}})
FAILED = line("c", {"error": {"message": "x", "type": "invalid_request_error", "code": None}}, status=400)
EXPIRED = json.dumps({"id": "x", "custom_id": "d", "response": None, "error": {"code": "batch_expired"}}).encode()


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/jsonl", "application/json", ""])
@pytest.mark.parametrize("ending", [b"\n", b""])
def test_each_line_of_a_results_file_is_an_item(content_type: str, ending: bytes) -> None:
    """wire.md 21"""
    call = call_to("/v1/files/file-2/content", method="GET")
    assert (call.free, call.retrieves) == (True, "file-2")
    body = b"\n".join([CHAT, RESPONSE, FAILED, EXPIRED]) + ending
    reading = read_answer(call, body, content_type=content_type)
    assert reading.items == [
        Item(
            item_id="a", usage=Usage(input=10, output=20), model="gpt-5-nano-2025-08-07", upstream_call_id="chatcmpl-1"
        ),
        Item(item_id="b", usage=Usage(input=3, output=4), model="gpt-5", upstream_call_id="resp_1"),
        Item(item_id="c", usage=None, error="invalid_request_error"),
        Item(item_id="d", usage=None, error="batch_expired"),
    ]
    assert reading.outcome_of == "file-2"
    assert reading.usage is None
    assert reading.complete


def test_a_results_file_of_one_line_is_one_item() -> None:
    """wire.md 21"""
    reading = read_answer(call_to("/v1/files/file-2/content", method="GET"), CHAT + b"\n")
    assert [item.item_id for item in reading.items] == ["a"]


@pytest.mark.parametrize("body", [b'{"messages": []}\n{"messages": []}\n', b"a,b\n1,2\n", b"%PDF-1.4", b"{\n}", b""])
def test_other_files_have_no_items(body: bytes) -> None:
    reading = read_answer(call_to("/v1/files/file-9/content", method="GET"), body, content_type="")
    assert reading.items == []
    assert reading.outcome_of is None
    assert reading.error is None


def run(status: str, **fields: Any) -> dict[str, Any]:
    return {"id": "run_1", "object": "thread.run", "status": status, "model": "gpt-4o-mini", "usage": None} | fields


def test_an_assistants_run_is_told_later_and_retrieved() -> None:
    made = call_to("/v1/threads/thread_1/runs", {"assistant_id": "asst_1"})
    assert made.later
    assert read_answer(made, run("queued")).later == "run_1"
    fetched = call_to("/v1/threads/thread_1/runs/run_1", method="GET")
    assert (fetched.free, fetched.retrieves) == (True, "run_1")
    reading = read_answer(fetched, run("completed", usage=tokens(381, 88)))
    assert reading.outcome_of == "run_1"
    assert reading.usage == Usage(input=381, output=88)


def test_a_streamed_run_counts_its_own_usage_and_not_that_of_its_steps() -> None:
    call = call_to("/v1/threads/thread_1/runs", {"assistant_id": "asst_1", "stream": True})
    assert not call.later
    step = {"id": "step_1", "object": "thread.run.step", "usage": tokens(154, 62)}
    delta = {"object": "thread.message.delta", "delta": {"content": [{"type": "text", "text": {"value": "hi"}}]}}
    stream = sse(
        ("thread.run.created", run("queued")),
        ("thread.run.step.completed", step),
        ("thread.message.delta", delta),
        ("thread.run.completed", run("completed", usage=tokens(381, 88))),
        ("done", "[DONE]"),
    ).replace(b'"[DONE]"', b"[DONE]")
    reading = read_answer(call, stream)
    assert reading.usage == Usage(input=381, output=88)
    assert reading.later is None
    assert reading.seen_bytes > 0
    assert reading.complete
