"""Asking for the usage of a stream, and taking it out again before the caller sees it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.wire import UsageRemover, ask_for_usage
from tests.support.answers import JSON, chunk, sse, tokens


def asked_of(
    body: bytes, *, path: str = "/v1/chat/completions", query: str = "", provider: str = "openai"
) -> bytes | None:
    call = wire.read_call(
        method="POST", path=path, query=query, headers=JSON, body=body, dialect="openai", provider=provider
    )
    return ask_for_usage(call, body, provider)


BODY = b'{ "model": "gpt-4o-mini", "stream": true,\n "messages": [{"role":"user","content":"say \\"stream\\""}] }'


def test_the_option_is_put_in_front_and_every_other_byte_stays() -> None:
    asked = asked_of(BODY)
    assert asked == b'{"stream_options":{"include_usage":true},' + BODY[1:]
    assert json.loads(asked)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_obfuscation": False}, None, {}])
def test_the_option_joins_the_others_that_the_caller_chose(options: dict[str, Any] | None) -> None:
    text = 'a "stream_options" in the text, and a number: 1.50'
    body = json.dumps(
        {"model": "m", "stream": True, "stream_options": options, "messages": [{"content": text}], "temperature": 0.10}
    ).encode()
    asked = asked_of(body)
    assert asked is not None
    assert json.loads(asked) == json.loads(body) | {"stream_options": {**(options or {}), "include_usage": True}}


def test_a_word_in_the_text_is_not_taken_for_the_option() -> None:
    body = json.dumps({"model": "m", "stream": True, "tools": [{"stream_options": 1}], "messages": []}).encode()
    asked = asked_of(body)
    assert asked is not None
    assert json.loads(asked) == json.loads(body) | {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[]}',
        b'{"model":"m","messages":[],"stream":false}',
        b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    ],
)
def test_nothing_is_asked_where_there_is_no_stream_or_it_is_asked_already(body: bytes) -> None:
    assert asked_of(body) is None


@pytest.mark.parametrize(
    ("provider", "asks"),
    [
        ("openai", True),
        ("azure", True),
        ("together", True),
        ("ollama", True),
        ("xai", True),
        ("mistral", False),
        ("perplexity", False),
        ("somebody-else", False),
        ("", False),
    ],
)
def test_only_providers_that_are_known_to_take_the_option_are_asked(provider: str, asks: bool) -> None:
    assert (asked_of(BODY, provider=provider) is not None) is asks


@pytest.mark.parametrize(("version", "asks"), [("2024-06-01", False), ("2024-10-21", True), ("preview", True)])
def test_old_versions_of_azure_are_not_asked(version: str, asks: bool) -> None:
    path = "/openai/deployments/chat/chat/completions"
    assert (asked_of(BODY, path=path, query=f"api-version={version}", provider="azure") is not None) is asks


def test_other_endpoints_are_not_asked() -> None:
    assert asked_of(b'{"model":"m","stream":true,"input":"x"}', path="/v1/responses") is None
    assert asked_of(b'{"model":"m","stream":true,"prompt":"x"}', path="/v1/completions") is not None


USAGE_CHUNK = {**chunk(), "choices": [], "usage": tokens(9, 3)}
BEFORE = [chunk("Hel", usage=None), chunk("lo"), {**chunk(), "choices": [], "prompt_filter_results": []}]
AFTER = [{**chunk(), "choices": [], "moderation": {"flagged": False}, "usage": None}]


def remove(*pieces: bytes) -> bytes:
    remover = UsageRemover()
    return b"".join([*(remover.feed(piece) for piece in pieces), remover.close()])


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("after", [[], AFTER], ids=["last", "followed"])
def test_the_chunk_is_taken_out_under_every_cut_and_all_else_stays(ending: str, after: list[Any]) -> None:
    """wire.md 1, 2, 35, 39"""
    whole = sse(": note", *BEFORE, USAGE_CHUNK, *after, ending=ending, done=True)
    expected = sse(": note", *BEFORE, *after, ending=ending, done=True)
    assert remove(whole) == expected
    assert remove(*(whole[at : at + 1] for at in range(len(whole)))) == expected
    for cut in range(len(whole)):
        assert remove(whole[:cut], whole[cut:]) == expected


@pytest.mark.parametrize(
    "kept",
    [
        chunk("x", usage=tokens(1, 1)),
        {**chunk(), "choices": [], "usage": None},
        {**chunk(), "choices": []},
        {"usage": tokens(1, 1)},
        {"error": {"message": '"usage"'}},
    ],
)
def test_what_is_more_or_less_than_usage_stays(kept: dict[str, Any]) -> None:
    """wire.md 4"""
    stream = sse(kept, done=True)
    assert remove(stream) == stream


def test_the_chunk_at_the_end_without_its_blank_line_is_taken_out_too() -> None:
    stream = sse(chunk("a"), USAGE_CHUNK).rstrip(b"\n")
    assert remove(stream) == sse(chunk("a"))


def test_a_cut_stream_is_passed_on_to_its_last_byte() -> None:
    stream = sse(chunk("a")) + b'data: {"id":"x","cho'
    assert remove(stream) == stream


def test_whole_events_leave_at_once_and_an_event_with_choices_is_not_held() -> None:
    remover = UsageRemover()
    event = sse(chunk("a"))
    assert remover.feed(event) == event
    begun = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"half'
    assert remover.feed(begun) == begun
    assert remover.feed(b' and half"}}],"usage":null}\n\n') == b' and half"}}],"usage":null}\n\n'
    assert remover.feed(sse(USAGE_CHUNK)) == b""
    assert remover.close() == b""


def test_an_event_too_large_to_be_the_chunk_is_not_held() -> None:
    remover = UsageRemover()
    begun = b'data: {"big": "' + b"x" * 40_000
    assert remover.feed(begun) == begun
    assert remover.feed(b'"}\n\ndata: [DONE]\n\n') == b'"}\n\ndata: [DONE]\n\n'


pieces = st.sampled_from(
    [
        sse(USAGE_CHUNK),
        sse(chunk("a")),
        sse(chunk("b", usage=None), ending="\r\n"),
        sse(USAGE_CHUNK, ending="\r\n"),
        b": note\n\n",
        b"\n",
        b"data: [DONE]\n\n",
    ]
)


@given(st.lists(pieces, max_size=12), st.lists(st.integers(0, 1500), max_size=8))
def test_nothing_but_the_chunk_is_ever_lost(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut <= len(whole))})
    fed = [whole[start:end] for start, end in itertools.pairwise(bounds)]
    left = remove(*fed)
    assert left == remove(*(whole[at : at + 1] for at in range(len(whole))))
    assert b"total_tokens" not in left
    assert left.replace(b"\n", b"").replace(b"\r", b"") == b"".join(
        part for part in parts if b"total_tokens" not in part
    ).replace(b"\n", b"").replace(b"\r", b"")
