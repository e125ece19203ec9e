"""Every recorded exchange of the OpenAI family, read as the relay reads it and compared with what was reported."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.usage import Usage
from proxy.wire.reading import Reading
from tests.support.recordings import Recording, recordings

OTHER_FAMILIES = ("anthropic.", "gemini.", "vertex.", "bedrock.", "cohere.", "aleph-alpha.")
RECORDINGS = [
    recording
    for recording in recordings()
    if recording.api.startswith("gemini.openai.") or not recording.api.startswith(OTHER_FAMILIES)
]
ANSWERED = [recording for recording in RECORDINGS if recording.status < 400]
SMALL_STREAMS = [r for r in ANSWERED if r.kind in ("sse", "ndjson") and len(r.body) < 3_000]
ENDLESS = ("writer.completions",)  # Streams that just stop, with no sign that they are whole.
BYTE_BY_BYTE_MAX = 16_000
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=4),
    "zstd": zstandard.ZstdCompressor().compress,
}


def read_in(recording: Recording, pieces: Iterable[bytes]) -> Reading:
    meter = recording.meter()
    for piece in pieces:
        meter.feed(piece)
    return meter.close()


def number(fields: dict[str, Any], *names: str) -> int:
    """The first of these figures that is told."""
    return next((fields[name] for name in names if fields.get(name) is not None), 0)


def expected_usage(recording: Recording) -> Usage | None:
    """By hand from the raw figures, provider by provider; written without a look at the code under test."""
    reported = recording.usage_reported
    if recording.status >= 400 or recording.api.endswith((".batches", ".input_tokens")):
        return None  # Errors cost nothing, token counts are free, and batches are settled item by item.
    if recording.api.endswith("audio.speech"):
        return expected_speech(recording)
    if recording.api == "mistral.ocr":
        return Usage(requests={"pages": 1})
    if recording.api == "xai.images":
        return Usage(images=1)
    if reported is None:
        return None
    if "(top level)" in reported:
        told = reported["(top level)"]
        return Usage(input=told.get("prompt_eval_count", 0), output=told.get("eval_count", 0))
    told = reported.get("usage") or list(reported.values())[-1]
    if told.get("type") == "duration":
        return Usage(seconds=told["seconds"])
    return expected_tokens(recording, told)


def expected_tokens(recording: Recording, told: dict[str, Any]) -> Usage:
    prompt_details = told.get("prompt_tokens_details") or told.get("input_tokens_details") or {}
    prompt_details = prompt_details or told.get("input_token_details") or told.get("prompt_token_details") or {}
    output_details = told.get("completion_tokens_details") or told.get("output_tokens_details") or {}
    output_details = output_details or told.get("completion_token_details") or {}
    prompt = number(told, "prompt_tokens", "input_tokens")
    output = number(told, "completion_tokens", "output_tokens")
    cached = number(prompt_details, "cached_tokens") or number(told, "cached_tokens", "prompt_cache_hit_tokens")
    written = number(prompt_details, "cache_write_tokens")
    audio_input = number(prompt_details, "audio_tokens")
    audio_output = number(output_details, "audio_tokens")
    reasoning = number(output_details, "reasoning_tokens")
    match recording.api.split("."):
        case ["xai", "chat"]:
            output += reasoning
        case ["gemini", "openai", "chat"]:
            reasoning = told["total_tokens"] - prompt - output
            output += reasoning
        case ["mistral", *_]:
            prompt += audio_input
        case ["voyage", _] | ["openrouter", "rerank"]:
            prompt = told.get("total_tokens", 0)
        case ["azure", "chat"]:
            cached = min(cached, prompt)
    output -= audio_output
    return Usage(
        input=prompt - cached - written - audio_input,
        cached_input=cached,
        cache_write=written,
        audio_input=audio_input,
        output=output,
        audio_output=audio_output,
        reasoning=min(reasoning, output),
        requests=expected_requests(recording, told),
        seconds=told.get("prompt_audio_seconds") or 0,
    )


def expected_requests(recording: Recording, told: dict[str, Any]) -> dict[str, int]:
    """Paid pieces: as counted by the provider, else the items of that kind in the recorded text."""
    if "search_units" in told:
        return {"search_units": told["search_units"]}
    if searches := told.get("server_tool_use_details", {}).get("web_search_requests"):
        return {"web_search": searches}
    if searches := told.get("server_side_tool_usage_details", {}).get("web_search_calls"):
        return {"web_search": searches}
    if "search-preview" in (recording.model or ""):
        return {"web_search": 1}
    if ".responses" not in recording.api:
        return {}
    found: dict[str, int] = {}
    for item in last_document(recording)["output"]:
        kind = item["type"].removesuffix("_call")
        if kind in ("web_search", "file_search", "code_interpreter", "image_generation"):
            opened_a_page = item.get("action", {}).get("type") == "open_page"
            found[kind] = found.get(kind, 0) + (not opened_a_page)
    return {kind: count for kind, count in found.items() if count}


def last_document(recording: Recording) -> dict[str, Any]:
    """The response as it stood in the end."""
    if recording.kind == "json":
        return json.loads(recording.plain_body)
    lines = [line for line in recording.plain_body.splitlines() if b'"response"' in line]
    return json.loads(lines[-1].removeprefix(b"data:"))["response"]


def expected_speech(recording: Recording) -> Usage | None:
    """Speech tells nothing; models paid by the character are paid for the text in the request."""
    if "gpt-" in (recording.model or ""):
        return None
    return Usage(characters=len(json.loads(recording.request_body)["input"]))


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_the_usage_of_a_recorded_answer_is_what_the_provider_reported(recording: Recording) -> None:
    assert read_in(recording, [recording.body]).usage == expected_usage(recording)


@pytest.mark.parametrize("recording", ANSWERED, ids=str)
def test_no_token_of_a_recorded_answer_is_counted_twice_or_below_zero(recording: Recording) -> None:
    usage = read_in(recording, [recording.body]).usage
    if usage is None:
        return
    counts = [getattr(usage, field) for field in usage.__struct_fields__ if field != "requests"]
    assert min(counts) >= 0
    assert usage.reasoning <= usage.output


@pytest.mark.parametrize("recording", [r for r in ANSWERED if len(r.body) <= BYTE_BY_BYTE_MAX], ids=str)
def test_a_recorded_answer_reads_the_same_byte_by_byte(recording: Recording) -> None:
    whole = read_in(recording, [recording.body])
    single = read_in(recording, (recording.body[at : at + 1] for at in range(len(recording.body))))
    assert single == whole


@pytest.mark.parametrize("recording", SMALL_STREAMS, ids=str)
def test_a_small_recorded_stream_reads_the_same_however_it_is_cut_in_two(recording: Recording) -> None:
    whole = read_in(recording, [recording.body])
    for cut in range(len(recording.body)):
        assert read_in(recording, [recording.body[:cut], recording.body[cut:]]) == whole


@pytest.mark.parametrize("recording", [r for r in ANSWERED if r.kind != "other"], ids=str)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_recorded_answer_reads_the_same_in_pieces_of_any_size(recording: Recording, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(recording.body)), max_size=40)))
    bounds = zip([0, *cuts], [*cuts, len(recording.body)], strict=True)
    whole = read_in(recording, [recording.body])
    assert read_in(recording, (recording.body[start:end] for start, end in bounds)) == whole


@pytest.mark.parametrize("encoding", ENCODERS)
def test_recorded_answers_read_the_same_in_every_encoding(encoding: str) -> None:
    for recording in ANSWERED:
        plain = read_in(recording, [recording.body])
        encoded = ENCODERS[encoding](recording.plain_body)
        meter = recording.meter(content_encoding=encoding)
        for start in range(0, len(encoded), 611):
            meter.feed(encoded[start : start + 611])
        assert meter.close() == plain, recording.name


@pytest.mark.parametrize("recording", [r for r in ANSWERED if r.api not in ENDLESS], ids=str)
def test_a_recorded_answer_is_seen_to_its_end(recording: Recording) -> None:
    assert read_in(recording, [recording.body]).complete


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status >= 400], ids=str)
def test_a_recorded_error_has_a_word_for_it(recording: Recording) -> None:
    reading = read_in(recording, [recording.body])
    assert reading.usage is None
    assert reading.error or b'"error"' not in recording.plain_body


@pytest.mark.parametrize("recording", [r for r in ANSWERED if r.kind in ("sse", "ndjson")], ids=str)
def test_a_recorded_stream_that_is_cut_shows_what_was_written(recording: Recording) -> None:
    body = recording.plain_body
    meter = recording.meter(content_encoding="")
    meter.feed(body[: len(body) // 2])
    half = meter.close().seen_bytes
    assert 0 <= half <= read_in(recording, [recording.body]).seen_bytes
