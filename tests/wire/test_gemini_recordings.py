"""Every recorded Gemini and Vertex exchange, read as the relay reads it and compared with what was reported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from proxy.core.usage import Usage
from proxy.wire.reading import Reading
from tests.support.recordings import Recording, recordings

OTHERS = ("gemini.openai.", "vertex.rawPredict", "vertex.streamRawPredict")
PROMPT_DETAILS = ("promptTokensDetails", "promptTokenDetails", "input_tokens_by_modality")
CUT_EVERYWHERE_BYTES_MAX = 2_000
CUTS_OF_THE_OTHERS = 40


def with_a_request(recording: Recording) -> Recording:
    """Two recordings have lost the body of their request; any one that is valid serves."""
    if recording.method != "POST" or recording.request_body not in (b"", b"{}"):
        return recording
    body = json.dumps({"model": recording.model, "stream": recording.streaming}).encode()
    return dataclasses.replace(recording, request_body=body)


RECORDINGS = [
    with_a_request(recording)
    for recording in recordings()
    if recording.api.startswith(("gemini.", "vertex.")) and not recording.api.startswith(OTHERS)
]
STREAMS = [r for r in RECORDINGS if r.kind in ("sse", "json-array") and r.status < 400 and not r.content_encoding]


def read_in(recording: Recording, pieces: Iterable[bytes]) -> Reading:
    meter = recording.meter()
    for piece in pieces:
        meter.feed(piece)
    return meter.close()


def expected_usage(api: str, reported: dict[str, Any]) -> Usage | None:
    """By hand from the raw figures of the last object that was reported."""
    if "countTokens" in api or "cachedContents" in api:
        return None
    if "predictions[].embeddings.statistics" in reported:
        return Usage(input=sum(entry["token_count"] for entry in reported["predictions[].embeddings.statistics"]))
    told = list(reported.values())[-1]
    if "interactions" in api:
        prompt, cached, tools = told["total_input_tokens"], told["total_cached_tokens"], told["total_tool_use_tokens"]
        output, thoughts = told["total_output_tokens"], told["total_thought_tokens"]
    else:
        prompt, cached = told.get("promptTokenCount", 0), told.get("cachedContentTokenCount", 0)
        tools, thoughts = told.get("toolUsePromptTokenCount", 0), told.get("thoughtsTokenCount", 0)
        output = told.get("candidatesTokenCount", 0)
    details = next((told[name] for name in PROMPT_DETAILS if name in told), [])
    image = sum(entry["tokenCount"] for entry in details if entry["modality"] == "IMAGE")
    return Usage(
        input=prompt - cached - image + tools,
        cached_input=cached,
        image_input=image,
        output=output + thoughts,
        reasoning=thoughts,
    )


def queries(recording: Recording) -> int:
    """Searches that the model made, as the recorded text shows them."""
    found = 0
    text = recording.plain_body.decode()
    for name in ('"webSearchQueries":', '"arguments":{"queries":'):
        for place in text.split(name)[1:]:
            found = max(found, len(json.JSONDecoder().raw_decode(place.lstrip())[0]))
    return found


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_the_usage_of_a_recorded_answer_is_what_was_reported(recording: Recording) -> None:
    reading = read_in(recording, [recording.body])
    usage = expected_usage(recording.api, recording.usage_reported) if recording.usage_reported else None
    if usage is not None and (searches := queries(recording)):
        by_query = "gemini-3" in (recording.model or "")
        usage = msgspec.structs.replace(usage, requests={"web_search": searches if by_query else 1})
    assert reading.usage == usage
    assert reading.complete
    assert (reading.error is not None) == (recording.status >= 400)


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if "totalTokenCount" in str(r.usage_reported)], ids=str)
def test_all_tokens_of_a_recorded_answer_add_up_to_its_total(recording: Recording) -> None:
    usage = read_in(recording, [recording.body]).usage
    if usage is not None and recording.usage_reported is not None:
        assert usage.tokens == list(recording.usage_reported.values())[-1]["totalTokenCount"]


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_a_recorded_request_is_known(recording: Recording) -> None:
    call = recording.call()
    counting = "countTokens" in recording.api or recording.method == "DELETE"
    assert call.free == counting
    assert call.route
    assert "REDACTED" not in call.route
    assert call.stream == (recording.streaming and not counting)
    assert call.model or counting or recording.method == "PATCH"
    in_background = b'"background":true' in recording.request_body
    assert call.later == (in_background or recording.api == "gemini.batchGenerateContent")
    assert call.json_array == (recording.kind == "json-array")


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
