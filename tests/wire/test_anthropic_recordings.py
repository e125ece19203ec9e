"""Every recorded Anthropic exchange, read as the relay reads it and compared with what the provider reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from proxy.core.usage import Usage
from proxy.wire.reading import Reading
from tests.support.recordings import Recording, recordings

FAMILIES = ("anthropic.", "vertex.rawPredict", "vertex.streamRawPredict")
RECORDINGS = [recording for recording in recordings() if recording.api.startswith(FAMILIES)]
STREAMS = [recording for recording in RECORDINGS if recording.kind == "sse"]
CUT_EVERYWHERE_BYTES_MAX = 2_000
CUTS_OF_THE_OTHERS = 40


def read_in(recording: Recording, pieces: Iterable[bytes]) -> Reading:
    meter = recording.meter()
    for piece in pieces:
        meter.feed(piece)
    return meter.close()


def expected_usage(reported: dict[str, Any]) -> Usage:
    """By hand from the raw figures. Iterations, where there are any, are the whole; else delta over start."""
    if "usage" in reported:
        told = reported["usage"]
    else:
        told = {**reported["message_start.message.usage"], **reported.get("message_delta.usage", {})}
    counted = told.get("iterations") or [told]
    written = sum(entry.get("cache_creation_input_tokens", 0) for entry in counted)
    written_1h = sum(entry.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0) for entry in counted)
    tools = told.get("server_tool_use", {})
    searches, fetches = tools.get("web_search_requests", 0), tools.get("web_fetch_requests", 0)
    requests = {"web_search": searches} if searches else {}
    if fetches:
        requests["web_fetch"] = fetches
    return Usage(
        input=sum(entry["input_tokens"] for entry in counted),
        cached_input=sum(entry.get("cache_read_input_tokens", 0) for entry in counted),
        cache_write=written - written_1h,
        cache_write_1h=written_1h,
        output=sum(entry["output_tokens"] for entry in counted),
        reasoning=told.get("output_tokens_details", {}).get("thinking_tokens", 0),
        requests=requests,
    )


def expected(recording: Recording) -> Usage | None:
    reported = recording.usage_reported
    if reported is None or recording.api in ("anthropic.count_tokens", "anthropic.batches"):
        return None  # Counting is free, and batches are settled item by item.
    return expected_usage(reported)


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_the_usage_of_a_recorded_answer_is_what_the_provider_reported(recording: Recording) -> None:
    reading = read_in(recording, [recording.body])
    assert reading.usage == expected(recording)
    assert reading.complete
    assert (reading.error is not None) == (recording.status >= 400)


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.api == "anthropic.batches"], ids=str)
def test_each_line_of_recorded_results_is_an_item(recording: Recording) -> None:
    reported = next(iter((recording.usage_reported or {"none": []}).values()))
    items = read_in(recording, [recording.body]).items
    assert [item.usage for item in items] == [expected_usage({"usage": usage}) for usage in reported]
    assert [item.item_id for item in items] == [str(position) for position in range(len(reported))]
    assert recording.call().free


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.api == "anthropic.messages"], ids=str)
def test_the_parts_of_a_recorded_answer_add_up_to_its_usage(recording: Recording) -> None:
    reading = read_in(recording, [recording.body])
    advised = "advisor_message" in str(recording.usage_reported)
    assert len(reading.parts) == (2 if advised else 0)
    if advised:
        assert reading.parts[0].usage + reading.parts[1].usage == reading.usage
        assert reading.parts[1].model != reading.model


@pytest.mark.parametrize(
    "recording", [r for r in RECORDINGS if "Predict" in r.api or r.api[-8:] == "messages"], ids=str
)
def test_a_recorded_request_names_its_model_and_how_it_wants_the_answer(recording: Recording) -> None:
    call = recording.call()
    assert call.api == "anthropic.messages"
    assert call.model
    assert call.stream == recording.streaming
    assert not call.free


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_a_recorded_answer_reads_the_same_byte_by_byte_and_cut_in_two(recording: Recording) -> None:
    body = recording.body
    whole = read_in(recording, [body])
    assert read_in(recording, (body[at : at + 1] for at in range(len(body)))) == whole
    step = 1 if len(body) <= CUT_EVERYWHERE_BYTES_MAX else len(body) // CUTS_OF_THE_OTHERS
    for cut in range(0, len(body), step):
        assert read_in(recording, [body[:cut], body[cut:]]) == whole


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recorded_stream_that_is_cut_short_is_told_from_a_whole_one(recording: Recording) -> None:
    end = recording.body.rstrip()
    cut = read_in(recording, [end[: len(end) // 2]])
    assert not cut.complete
    assert cut.error is None
