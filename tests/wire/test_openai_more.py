"""Embeddings, images, sound, moderation, reranking and documents."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.usage import Usage
from tests.support.answers import call_to, read_answer, sse


def test_embeddings_tell_their_input() -> None:
    call = call_to("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]})
    body = {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
    }
    reading = read_answer(call, body)
    assert reading.usage == Usage(input=12)
    assert reading.model == "text-embedding-3-small"
    assert reading.complete


def test_a_total_alone_is_the_input_of_an_embedding() -> None:
    """wire.md 28"""
    call = call_to("/v1/embeddings", {"model": "voyage-3", "input": "a"}, provider="voyage")
    assert read_answer(call, {"data": [], "usage": {"total_tokens": 12}}, provider="voyage").usage == Usage(input=12)


def test_reranking_is_paid_by_search_units_or_tokens() -> None:
    """wire.md 29"""
    call = call_to("/v1/rerank", {"model": "rerank-v3.5", "query": "x", "documents": []}, provider="openrouter")
    assert call.api == "cohere.rerank"
    reading = read_answer(call, {"results": [], "usage": {"search_units": 1, "cost": 0.001}}, provider="openrouter")
    assert reading.usage == Usage(requests={"search_units": 1})
    assert reading.provider_cost_usd == "0.001"
    assert read_answer(call, {"meta": {"billed_units": {"search_units": 2}}}).usage == Usage(
        requests={"search_units": 2}
    )
    assert read_answer(call, {"data": [], "usage": {"total_tokens": 57}}).usage == Usage(input=57)


def test_moderation_bills_what_it_names_and_is_free_at_openai() -> None:
    """wire.md 28"""
    mistral = call_to("/v1/moderations", {"model": "mistral-moderation", "input": "x"}, provider="mistral")
    assert not mistral.free
    body = {"results": [], "usage": {"prompt_tokens": 13, "completion_tokens": 0, "total_tokens": 74}}
    assert read_answer(mistral, body, provider="mistral").usage == Usage(input=13)
    assert call_to("/v1/moderations", {"input": "x"}).free


def test_images_are_counted_and_their_tokens_are_pictures() -> None:
    call = call_to("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 2})
    assert call.choices == 2
    body = {
        "created": 1,
        "data": [{"b64_json": "aGk="}, {"b64_json": "aGk="}],
        "usage": {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 1056,
            "total_tokens": 1106,
        },
    }
    assert read_answer(call, body).usage == Usage(input=10, image_input=40, image_output=1056, images=2)


def test_images_that_tell_no_tokens_are_counted_and_keep_their_cost() -> None:
    """wire.md 29"""
    call = call_to("/v1/images/generations", {"model": "grok-imagine-image", "prompt": "x"}, provider="xai")
    body = {"data": [{"url": "https://images.test/1"}], "usage": {"cost_in_usd_ticks": 200000000}}
    reading = read_answer(call, body, provider="xai")
    assert reading.usage == Usage(images=1)
    assert reading.provider_cost_usd == "0.0200000000"


def test_streamed_images_count_when_they_are_finished() -> None:
    call = call_to("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x", "stream": True})
    stream = sse(
        {"type": "image_generation.partial_image", "b64_json": "aGk="},
        {
            "type": "image_generation.completed",
            "b64_json": "aGk=",
            "usage": {"input_tokens": 10, "output_tokens": 272, "total_tokens": 282},
        },
    )
    reading = read_answer(call, stream)
    assert reading.usage == Usage(input=10, image_output=272, images=1)
    assert reading.complete


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"type": "duration", "seconds": 37}, Usage(seconds=37)),
        (
            {"type": "tokens", "input_tokens": 26, "input_token_details": {"text_tokens": 5, "audio_tokens": 21}}
            | {"output_tokens": 4, "total_tokens": 30},
            Usage(input=5, audio_input=21, output=4),
        ),
        (
            {"prompt_audio_seconds": 36, "prompt_tokens": 13, "completion_tokens": 151, "total_tokens": 164},
            Usage(input=13, output=151, seconds=36),
        ),
        (None, None),
    ],
)
def test_transcripts_are_paid_by_length_or_by_tokens(usage: dict[str, Any] | None, expected: Usage | None) -> None:
    """wire.md 29"""
    call = call_to("/v1/audio/transcriptions", {"model": "whisper-1"})
    assert read_answer(call, {"text": "hello", "usage": usage}).usage == expected


def test_a_streamed_transcript_ends_with_its_usage() -> None:
    """wire.md 29, 35"""
    call = call_to("/v1/audio/transcriptions", {"model": "gpt-4o-transcribe", "stream": True})
    done = {
        "type": "transcript.text.done",
        "text": "Ruby",
        "usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 1},
    }
    stream = sse({"type": "transcript.text.delta", "delta": "Ruby"}, done, ending="\r\n", done=True)
    reading = read_answer(call, stream)
    assert reading.usage == Usage(input=3, output=1)
    assert reading.seen_bytes == 4
    assert reading.complete


def test_a_transcript_as_plain_text_tells_nothing() -> None:
    call = call_to("/v1/audio/transcriptions", {"model": "whisper-1"})
    reading = read_answer(call, b"1\n00:00:00,000 --> 00:00:01,000\nHello\n", content_type="text/plain")
    assert reading.usage is None
    assert reading.complete


def test_speech_is_paid_by_its_characters_or_by_tokens_that_nobody_tells() -> None:
    by_character = call_to("/v1/audio/speech", {"model": "tts-1", "input": "Grüße!", "voice": "alloy"})
    assert by_character.characters == 6
    reading = read_answer(by_character, b"\xff\xf3\xe4\xc4 sound", content_type="audio/mpeg")
    assert reading.usage == Usage(characters=6)
    assert reading.complete
    by_token = call_to("/v1/audio/speech", {"model": "gpt-4o-mini-tts", "input": "Hi", "voice": "alloy"})
    assert read_answer(by_token, b"\x06\x00\x06\x00", content_type="audio/pcm").usage is None


def test_streamed_speech_ends_with_its_usage() -> None:
    call = call_to("/v1/audio/speech", {"model": "gpt-4o-mini-tts", "input": "Hi", "stream_format": "sse"})
    usage = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    stream = sse({"type": "speech.audio.delta", "audio": "aGk="}, {"type": "speech.audio.done", "usage": usage})
    reading = read_answer(call, stream, content_type="text/event-stream")
    assert reading.usage == Usage(input=14, audio_output=101)


def test_speech_that_failed_costs_nothing() -> None:
    call = call_to("/v1/audio/speech", {"model": "tts-1", "input": "Hi", "voice": "x"})
    reading = read_answer(call, {"error": {"message": "x", "type": "invalid_request_error"}}, status=400)
    assert reading.usage is None
    assert reading.error == "invalid_request_error"


def test_documents_are_paid_by_the_page() -> None:
    call = call_to("/v1/ocr", {"model": "mistral-ocr-latest", "document": {}}, provider="mistral")
    body = {"pages": [], "model": "mistral-ocr-latest", "usage_info": {"pages_processed": 3, "doc_size_bytes": 9}}
    assert read_answer(call, body, provider="mistral").usage == Usage(requests={"pages": 3})


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("GET", "/v1/models/a/b"), ("DELETE", "/v1/models/ft:1")]
)
def test_lists_of_models_are_free(method: str, path: str) -> None:
    call = call_to(path, method=method)
    assert (call.api, call.free) == ("free", True)
    reading = read_answer(call, {"object": "list", "data": []})
    assert reading.usage is None
    assert reading.complete
