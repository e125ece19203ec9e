"""What shapes an answer and is not in the body."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.wire.beside import ANSWERED_BY, said_beside

CHAT = "/v1/chat/completions"


def said(path: str = CHAT, query: str = "", credentials: Any = (), **headers: str) -> str:
    return said_beside(path, query, [(name.replace("_", "-"), value) for name, value in headers.items()], credentials)


@pytest.mark.parametrize("name", ANSWERED_BY)
def test_headers_that_providers_answer_by_make_another_call(name: str) -> None:
    assert len({said(), said(**{name: "a"}), said(**{name: "b"})}) == 3


def test_headers_of_the_client_do_not() -> None:
    assert said() == said(user_agent="x", x_stainless_lang="python", x_request_id="1", traceparent="00-1", accept="*/*")


def test_what_the_query_asks_for_counts_in_any_order_and_the_stream_does_not() -> None:
    assert said(query="api-version=1&a=b") == said(query="a=b&api-version=1")
    assert said(query="api-version=1") != said(query="api-version=2")
    gemini = "/v1beta/models/gemini-2.5-flash:"
    assert said(f"{gemini}generateContent") == said(f"{gemini}streamGenerateContent", query="alt=sse")
    assert said(f"{gemini}generateContent") != said(f"{gemini}countTokens")
    assert said(f"{gemini}generateContent") != said("/v1/models/gemini-2.5-flash:generateContent")


def test_another_account_makes_another_call() -> None:
    held = [], [("x-api-key", "a")], [("x-api-key", "b")], [("api-key", "a")], [("x-api-key", "a"), ("x-api-key", "b")]
    assert len({said(credentials=each) for each in held}) == len(held)


def test_a_header_that_comes_in_several_lines_is_the_same_as_in_one() -> None:
    lines = [("Anthropic-Beta", "a"), ("anthropic-beta", "b")]
    assert said_beside(CHAT, "", lines, ()) == said(anthropic_beta="a, b") == said(anthropic_beta="a,b")
    assert said_beside(CHAT, "", lines, ()) != said_beside(CHAT, "", [lines[0], ("anthropic-beta", "c")], ())


def test_no_value_can_be_taken_for_another() -> None:
    assert said(anthropic_beta="a", anthropic_version="") != said(anthropic_beta="", anthropic_version="a")
    assert said("/v1/a", "b") != said("/v1/a?b")
