"""Gemini interactions, on fixtures of our own writing. Numbers in docstrings are those of the wire reference."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.usage import Usage
from proxy.wire import gemini
from proxy.wire.reader import BodyInvalid, Reader

PATH = "/v1beta/interactions"


def read(body: Any = b"", path: str = PATH, method: str = "POST", query: str = "") -> Call:
    route = gemini.match(method, path)
    assert route is not None
    return gemini.read(route, method=method, query=query, headers={}, body=body)


def reader_for(call: Call) -> Reader:
    return gemini.reader(call, provider="google", request_body=b"")


def usage(**counts: Any) -> dict[str, Any]:
    return {f"total_{name}_tokens": number for name, number in counts.items()}


def interaction(status: str, **fields: Any) -> dict[str, Any]:
    return {"id": "v1_a", "object": "interaction", "status": status, "model": "gemini-2.5-flash", **fields}


def test_a_model_or_an_agent_is_named_in_the_body() -> None:
    config = {"max_output_tokens": 500}
    call = read({"model": "models/gemini-2.5-flash", "input": "x", "generation_config": config, "stream": True})
    assert (call.api, call.model, call.stream, call.max_output_tokens) == (
        "gemini.generate",
        "gemini-2.5-flash",
        True,
        500,
    )
    call = read({"agent": "deep-research", "input": "x", "background": True})
    assert (call.model, call.later) == ("deep-research", True)
    with pytest.raises(BodyInvalid, match="agent"):
        read({"input": "x"})


def test_a_plain_interaction_counts_under_names_of_its_own() -> None:
    """14: input 9 of which 2 cached, output 13, thoughts 207, tools 4: in all 233."""
    reader = reader_for(read({"model": "gemini-2.5-flash", "input": "x"}))
    counts = usage(input=9, cached=2, output=13, thought=207, tool_use=4)
    steps = [{"type": "thought"}, {"type": "model_output", "content": [{"type": "text", "text": "Why?"}]}]
    reader.answer(json.dumps(interaction("completed", usage=counts, steps=steps, service_tier="standard")).encode())
    reading = reader.reading
    assert reading.usage == Usage(input=7 + 4, cached_input=2, output=13 + 207, reasoning=207)
    assert (reading.model, reading.upstream_call_id, reading.service_tier) == ("gemini-2.5-flash", "v1_a", "standard")
    assert (reading.finish_reasons, reading.complete, reading.later) == (["completed"], True, None)
    assert reading.seen_bytes == 4


def test_of_the_usages_in_a_stream_the_last_one_counts() -> None:
    """14: usage in `interaction.created.metadata`, `step.delta.metadata` and `interaction.completed.interaction`."""
    reader = reader_for(read({"model": "gemini-2.5-flash", "input": "x", "stream": True}))
    modalities = [{"modality": "text", "tokens": 5}, {"modality": "image", "tokens": 6}]
    events: list[dict[str, Any]] = [
        {
            "event_type": "interaction.created",
            "interaction": interaction("in_progress"),
            "metadata": {"usage": usage(input=11, output=0, thought=68)},
        },
        {"event_type": "step.delta", "delta": {"type": "thought_summary", "content": {"type": "text", "text": "Hm"}}},
        {
            "event_type": "step.delta",
            "delta": {"type": "text", "text": "Blue."},
            "metadata": {"usage": usage(input=11, output=20, thought=126)},
        },
        {
            "event_type": "interaction.completed",
            "interaction": interaction(
                "completed", usage={**usage(input=11, output=42, thought=126), "input_tokens_by_modality": modalities}
            ),
        },
    ]
    for event in events[:-1]:
        reader.event(event["event_type"], json.dumps(event).encode())
    assert reader.reading.usage == Usage(input=11, output=146, reasoning=126)
    assert not reader.reading.complete
    reader.event("interaction.completed", json.dumps(events[-1]).encode())
    reader.event("done", b"[DONE]")
    assert reader.reading.usage == Usage(input=5, image_input=6, output=168, reasoning=126)
    assert reader.reading.complete
    assert reader.reading.hidden_reasoning
    assert reader.reading.seen_bytes == len("HmBlue.")


@pytest.mark.parametrize(("model", "billed"), [("gemini-2.5-flash", 1), ("gemini-3-pro", 3)])
def test_searches_are_billed_as_elsewhere(model: str, billed: int) -> None:
    reader = reader_for(read({"model": model, "input": "x", "stream": True}))
    step = {"type": "google_search_call", "arguments": {"queries": ["a", "b", "c"]}}
    reader.event("step.delta", json.dumps({"delta": step}).encode())
    done = {"interaction": {"id": "v1_a", "status": "completed", "model": model, "usage": usage(input=1, output=1)}}
    reader.event("interaction.completed", json.dumps(done).encode())
    assert reader.reading.usage == Usage(input=1, output=1, requests={"web_search": billed})


def test_a_count_of_searches_in_the_usage_goes_before_the_steps() -> None:
    reader = reader_for(read({"model": "gemini-3-pro", "input": "x"}))
    counts = {**usage(input=1, output=1), "grounding_tool_count": [{"type": "google_search", "count": 4}]}
    reader.answer(json.dumps({"id": "v1_a", "status": "completed", "usage": counts}).encode())
    assert reader.reading.usage == Usage(input=1, output=1, requests={"web_search": 4})


def test_one_that_runs_in_the_background_is_settled_by_fetching_it() -> None:
    """8: the first answer has no usage; a later GET shows it."""
    reader = reader_for(read({"agent": "deep-research", "input": "x", "background": True}))
    reader.answer(json.dumps({"id": "v1_b", "status": "in_progress", "agent": "deep-research"}).encode())
    assert (reader.reading.later, reader.reading.usage, reader.reading.model) == ("v1_b", None, "deep-research")
    call = read(path=f"{PATH}/v1_b", method="GET")
    assert (call.free, call.retrieves, call.stream) == (True, "v1_b", False)
    reader = reader_for(call)
    reader.answer(json.dumps(interaction("completed", usage=usage(input=5, output=6))).encode())
    assert (reader.reading.outcome_of, reader.reading.usage) == ("v1_b", Usage(input=5, output=6))
    assert reader.reading.later is None
    assert read(path=f"{PATH}/v1_b", method="GET", query="stream=true").stream


def test_errors_are_named_plain_and_in_streams() -> None:
    """41, 42: `{"error": {"code": "invalid_request"}}`."""
    error = json.dumps({"error": {"code": "invalid_request", "message": "no"}}).encode()
    plain = reader_for(read({"model": "m"}))
    plain.answer(error)
    assert (plain.reading.error, plain.reading.usage) == ("invalid_request", None)
    streamed = reader_for(read({"model": "m", "stream": True}))
    streamed.event("error", error)
    assert (streamed.reading.error, streamed.reading.complete) == ("invalid_request", False)


def test_a_broken_stream_ends_with_an_error_event() -> None:
    end = gemini.end_of_stream(read({"model": "m", "stream": True}), "upstream_timeout", "too slow")
    assert end.startswith(b"\n\nevent: error\ndata: ")
    assert json.loads(end.split(b"data: ")[1])["error"] == {"code": "upstream_timeout", "message": "too slow"}
