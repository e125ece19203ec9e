"""Ollama's own interface: JSON lines with the counts at the top level."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy import wire
from proxy.core.usage import Usage
from tests.support.answers import call_to, read_answer


def lines(*documents: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/json"])
def test_the_last_line_of_a_stream_has_the_counts(content_type: str) -> None:
    """wire.md 19; the label may be plain JSON"""
    call = call_to("/api/chat", {"model": "llama3", "messages": []}, dialect="ollama", provider="ollama")
    assert (call.api, call.stream, call.model) == ("ollama.chat", True, "llama3")
    body = lines(
        {"model": "llama3", "message": {"role": "assistant", "content": "He"}, "done": False},
        {"model": "llama3", "message": {"role": "assistant", "content": "y", "thinking": "m"}, "done": False},
        {"model": "llama3", "done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 2},
    )
    reading = read_answer(call, body, content_type=content_type)
    assert reading.usage == Usage(input=26, output=2)
    assert reading.seen_bytes == 4
    assert reading.finish_reasons == ["stop"]
    assert reading.complete


def test_a_prompt_still_in_memory_is_not_counted() -> None:
    """wire.md 19"""
    call = call_to("/api/generate", {"model": "llama3", "prompt": "x", "stream": False}, dialect="ollama")
    assert not call.stream
    reading = read_answer(call, {"model": "llama3", "response": "abc", "done": True, "eval_count": 79})
    assert reading.usage == Usage(output=79)
    assert reading.seen_bytes == 3


def test_the_openai_form_says_zero_for_a_prompt_in_memory() -> None:
    """wire.md 19"""
    call = call_to("/v1/chat/completions", {"model": "llama3", "messages": []}, provider="ollama")
    usage = {"prompt_tokens": 0, "completion_tokens": 26, "total_tokens": 26}
    assert read_answer(call, {"id": "1", "choices": [], "usage": usage}).usage == Usage(output=26)


def test_embeddings_count_their_prompt_or_tell_nothing() -> None:
    """wire.md 22"""
    call = call_to("/api/embed", {"model": "all-minilm", "input": "x"}, dialect="ollama")
    assert (call.api, call.stream) == ("openai.embeddings", False)
    counted = read_answer(call, {"model": "all-minilm", "embeddings": [[0.1]], "prompt_eval_count": 3})
    assert counted.usage == Usage(input=3)
    silent = read_answer(call_to("/api/embeddings", {"model": "all-minilm"}, dialect="ollama"), {"embedding": [0.1]})
    assert silent.usage is None
    assert silent.complete


def test_a_stream_that_is_cut_or_fails_says_so() -> None:
    call = call_to("/api/chat", {"model": "llama3", "messages": []}, dialect="ollama")
    first = {"model": "llama3", "message": {"content": "He"}, "done": False}
    assert not read_answer(call, lines(first, first)).complete
    failed = read_answer(call, lines(first, {"error": "out of memory"}))
    assert failed.error == "error"
    assert failed.complete
    end = wire.end_of_stream(call, "upstream_timeout", "The provider went silent.")
    assert read_answer(call, lines(first, first) + end).error == "error"


def test_options_and_images_are_read_from_the_request() -> None:
    image = "iVBORw0KGgo" * 40
    asked = {
        "model": "llava",
        "messages": [{"role": "user", "content": "x", "images": [image]}],
        "options": {"num_predict": 128},
    }
    call = call_to("/api/chat", asked, dialect="ollama")
    assert call.max_output_tokens == 128
    assert call.inline_bytes == len(image)


def test_ollamas_paths_are_known_on_an_upstream_of_another_dialect_and_its_lists_are_free() -> None:
    assert call_to("/api/chat", {"model": "llama3"}, dialect="openai").api == "ollama.chat"
    assert call_to("/api/tags", method="GET", dialect="").free
    with pytest.raises(wire.BodyInvalid, match="names no model"):
        call_to("/api/chat", {"messages": []}, dialect="ollama")
