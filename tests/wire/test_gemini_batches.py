"""Gemini batches, on fixtures of our own writing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.usage import Usage
from proxy.wire import gemini
from proxy.wire.reader import BodyInvalid, Reader
from proxy.wire.reading import Item

CREATE = "/v1beta/models/gemini-2.5-flash:batchGenerateContent"


def read(path: str, body: Any = b"", method: str = "POST") -> Call:
    route = gemini.match(method, path)
    assert route is not None
    return gemini.read(route, method=method, query="", headers={}, body=body)


def reader_for(call: Call) -> Reader:
    return gemini.reader(call, provider="google", request_body=b"")


def batch_of(*limits: int) -> dict[str, Any]:
    entries = [{"request": {"contents": [], "generationConfig": {"maxOutputTokens": limit}}} for limit in limits]
    return {"batch": {"displayName": "b", "inputConfig": {"requests": {"requests": entries}}}}


def response(prompt: int, output: int) -> dict[str, Any]:
    return {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": prompt, "candidatesTokenCount": output},
        "modelVersion": "gemini-2.5-flash",
        "responseId": f"r{prompt}",
    }


def test_the_call_that_makes_a_batch_is_settled_later() -> None:
    call = read(CREATE, batch_of(64, 128))
    assert (call.api, call.later, call.choices, call.max_output_tokens) == ("gemini.generate", True, 2, 128)
    assert call.model == "gemini-2.5-flash"
    reader = reader_for(call)
    metadata = {"model": "models/gemini-2.5-flash", "state": "BATCH_STATE_PENDING"}
    reader.answer(json.dumps({"name": "batches/b1", "metadata": metadata}).encode())
    assert (reader.reading.later, reader.reading.usage, reader.reading.complete) == ("batches/b1", None, True)


def test_a_batch_from_a_file_is_taken_and_one_from_nowhere_refused() -> None:
    call = read(CREATE, {"batch": {"input_config": {"file_name": "files/in"}}})
    assert (call.later, call.choices, call.max_output_tokens) == (True, 1, None)
    with pytest.raises(BodyInvalid, match="inputConfig"):
        read(CREATE, {"batch": {}})


def test_fetching_a_batch_settles_each_item() -> None:
    """21: results carry a usage each and may be fetched again."""
    call = read("/v1beta/batches/b1", method="GET")
    assert (call.free, call.retrieves, call.later) == (True, "batches/b1", False)
    entries = [
        {"response": response(20, 5), "metadata": {"custom_id": "first"}},
        {"response": response(21, 6), "metadata": {"key": "second"}},
        {"response": response(22, 7)},
        {"error": {"code": 3, "message": "no"}, "metadata": {"key": "fourth"}},
    ]
    operation = {
        "name": "batches/b1",
        "metadata": {"model": "models/gemini-2.5-flash", "state": "BATCH_STATE_SUCCEEDED"},
        "done": True,
        "response": {"inlinedResponses": {"inlinedResponses": entries}},
    }
    reader = reader_for(call)
    reader.answer(json.dumps(operation).encode())
    told = [(item.item_id, item.usage, item.upstream_call_id, item.error) for item in reader.reading.items]
    assert told == [
        ("first", Usage(input=20, output=5), "r20", None),
        ("second", Usage(input=21, output=6), "r21", None),
        ("2", Usage(input=22, output=7), "r22", None),
        ("fourth", None, None, "3"),
    ]
    assert {item.model for item in reader.reading.items} == {"gemini-2.5-flash"}
    assert (reader.reading.outcome_of, reader.reading.later) == ("batches/b1", None)


def test_a_batch_may_point_to_a_file_of_results() -> None:
    reader = reader_for(read("/v1beta/batches/b1", method="GET"))
    reader.answer(json.dumps({"name": "batches/b1", "response": {"responsesFile": "files/out"}}).encode())
    assert reader.reading.files == ["files/out"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_file_of_results_settles_an_item_a_line(at_once: bool) -> None:
    lines = [
        json.dumps({"key": "a", "response": response(20, 5)}).encode(),
        json.dumps({"key": "b", "error": {"status": "INTERNAL"}}).encode(),
    ]
    for path in ("/v1beta/files/out:download", "/download/v1beta/files/out:download"):
        reader = reader_for(read(path, method="GET"))
        if at_once:
            reader.answer(b"\n".join(lines))
        else:
            for line in lines:
                reader.event("", line)
        assert reader.reading.outcome_of == "files/out"
        assert reader.reading.items == [
            Item(item_id="a", usage=Usage(input=20, output=5), model="gemini-2.5-flash", upstream_call_id="r20"),
            Item(item_id="b", usage=None, error="INTERNAL"),
        ]


def test_an_error_instead_of_a_batch_is_named() -> None:
    reader = reader_for(read(CREATE, batch_of(5)))
    reader.answer(b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}')
    assert (reader.reading.error, reader.reading.later) == ("RESOURCE_EXHAUSTED", None)
