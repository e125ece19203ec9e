"""Unbounded: every kind of request whose cost nothing in it bounds is recognised, and the others are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.core.call import Call

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
GENERATE, INTERACTIONS = "/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta/interactions"


def read(path: str, fields: dict[str, Any], dialect: str = "") -> Call:
    body = json.dumps({"model": "some-model"} | fields).encode()
    return wire.read_call(method="POST", path=path, query="", headers={}, body=body, dialect=dialect, provider="any")


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


UNBOUNDED = [
    (RESPONSES, {"background": True}, ("background",)),
    (RESPONSES, {"previous_response_id": "resp_1"}, ("previous_response_id",)),
    (RESPONSES, {"conversation": {"id": "conv_1"}}, ("conversation",)),
    (RESPONSES, {"prompt": {"id": "pmpt_1"}}, ("prompt",)),
    (RESPONSES, {"tools": [{"type": "web_search"}]}, ("web_search",)),
    (RESPONSES, {"tools": [{"type": "web_search_preview_2025_03_11"}]}, ("web_search_preview",)),
    (RESPONSES, {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, ("file_search", "file_reference")),
    (RESPONSES, {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, ("code_interpreter",)),
    (RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://x"}]}, ("mcp",)),
    (RESPONSES, {"tools": [{"type": "image_generation"}]}, ("image_generation",)),
    (RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, ("shell",)),
    (RESPONSES, {"tools": [{"type": "of_tomorrow"}]}, ("server_tool",)),
    (RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": {"file_id": {"type": "string"}}}]}, ()),
    (RESPONSES, {"input": parts({"type": "input_file", "file_id": "f"})}, ("file_reference",)),
    (RESPONSES, {"input": parts({"type": "input_file", "file_url": "https://x"})}, ("file_reference",)),
    (RESPONSES, {"input": parts({"type": "input_image", "image_url": "https://x"})}, ("file_reference",)),
    (CHAT, {"messages": parts({"type": "image_url", "image_url": {"url": "http://x"}})}, ("file_reference",)),
    (CHAT, {"messages": parts({"type": "image_url", "image_url": {"detail": "low", "url": "https://x"}})},
     ("file_reference",)),
    (CHAT, {"messages": parts({"type": "file", "file": {"file_id": "f"}})}, ("file_reference",)),
    (CHAT, {"web_search_options": {}}, ("web_search",)),
    (CHAT, {"model": "gpt-4o-search-preview"}, ("web_search",)),
    (CHAT, {"modalities": ["text", "audio"]}, ("speech_or_pictures",)),
    ("/v1/agents/completions", {"agent_id": "a"}, ("agent_id",)),
    ("/v1/threads/t1/runs", {}, ("thread",)),
    ("/v1/batches", {"input_file_id": "f"}, ("batch_file",)),
    (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]}, ("web_search",)),
    (MESSAGES, {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, ("web_fetch",)),
    (MESSAGES, {"tools": [{"type": "code_execution_20250825", "name": "x"}]}, ("code_execution",)),
    (MESSAGES, {"mcp_servers": [{"url": "https://x"}]}, ("mcp",)),
    (MESSAGES, {"container": "c"}, ("container",)),
    (MESSAGES, {"context_management": {"edits": [{"type": "compact_20260112"}]}}, ("compaction",)),
    (MESSAGES, {"messages": parts({"type": "image", "source": {"type": "url", "url": "https://x"}})},
     ("file_reference",)),
    (MESSAGES, {"messages": parts({"type": "document", "source": {"type": "file", "file_id": "f"}})},
     ("file_reference",)),
    (MESSAGES, {"messages": parts({"type": "container_upload", "file_id": "f"})}, ("file_reference",)),
    (GENERATE, {"cachedContent": "cachedContents/1"}, ("cached_content",)),
    (GENERATE, {"tools": [{"google_search": {}}]}, ("google_search",)),
    (GENERATE, {"tools": [{"codeExecution": {}}, {"urlContext": {}}]}, ("code_execution", "url_context")),
    (GENERATE, {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}, ("file_reference",)),
    (GENERATE, {"generationConfig": {"responseModalities": ["TEXT", "Image"]}}, ("speech_or_pictures",)),
    (INTERACTIONS, {"previous_interaction_id": "i"}, ("previous_interaction_id",)),
    (INTERACTIONS, {"background": True}, ("background",)),
    (INTERACTIONS, {"agent": "deep-research"}, ("agent",)),
    ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", {"batch": {"inputConfig": {"fileName": "files/1"}}},
     ("batch",)),
]  # fmt: skip

BOUNDED = [
    (RESPONSES, {"background": False, "previous_response_id": None, "conversation": None, "prompt": None}),
    (RESPONSES, {"tools": [{"type": "function", "name": "web_search", "parameters": {}}, {"type": "custom"}]}),
    (RESPONSES, {"tools": [{"type": "local_shell"}, {"type": "apply_patch"}, {"type": "shell"}]}),
    (RESPONSES, {"input": 'say "file_id": and "image_url": "https://x"'}),
    (CHAT, {"messages": parts({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})}),
    (CHAT, {"tools": [{"type": "function", "function": {"parameters": {"properties": {"file_path": {}}}}}]}),
    (CHAT, {"modalities": ["text"]}),
    ("/v1/completions", {"prompt": "once upon a time"}),
    (MESSAGES, {"tools": [{"name": "x", "input_schema": {}}, {"type": "custom", "name": "y"}]}),
    (MESSAGES, {"tools": [{"type": "bash_20250124"}, {"type": "text_editor_20250728"}, {"type": "memory_20250818"}]}),
    (MESSAGES, {"tools": [{"type": "computer_20250124", "display_width_px": 5}]}),
    (MESSAGES, {"messages": parts({"type": "tool_use", "name": "WebFetch", "input": {"url": "https://x"}})}),
    (MESSAGES, {"messages": parts({"type": "tool_use", "name": "f", "input": {"type": "file"}})}),
    (MESSAGES, {"messages": parts({"type": "image", "source": {"type": "base64", "data": "AAAA"}})}),
    (MESSAGES, {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
    (GENERATE, {"tools": [{"functionDeclarations": [{"name": "google_search"}]}]}),
    (GENERATE, {"contents": [{"parts": [{"inlineData": {"data": "AAAA"}}, {"text": '"fileUri": x'}]}]}),
    (GENERATE, {"generationConfig": {"responseModalities": ["TEXT"]}}),
]


@pytest.mark.parametrize(("path", "fields", "reasons"), UNBOUNDED)
def test_what_has_no_bound_is_marked(path: str, fields: dict[str, Any], reasons: tuple[str, ...]) -> None:
    assert read(path, fields).unbounded == reasons


@pytest.mark.parametrize(("path", "fields"), BOUNDED)
def test_what_has_a_bound_is_not_marked(path: str, fields: dict[str, Any]) -> None:
    assert read(path, fields).unbounded == ()


def test_the_fees_of_server_tools_are_named_as_answers_count_them() -> None:
    tools = [{"type": "web_search_20250305", "max_uses": 5}, {"type": "code_execution_20250825"}]
    assert read(MESSAGES, {"tools": tools}).tool_fees == {"web_search": 5, "code_execution": 0}
    assert read(RESPONSES, {"tools": [{"type": "web_search_preview"}]}).tool_fees == {"web_search": 0}
    assert read(GENERATE, {"tools": [{"googleSearch": {}}]}).tool_fees == {"web_search": 0}
    assert read(CHAT, {}).tool_fees == {}


@pytest.mark.parametrize(
    ("path", "fields", "least"),
    [
        (CHAT, {}, 1),
        (RESPONSES, {}, 16),
        (MESSAGES, {}, 1),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 4_096}}, 4_097),
        (GENERATE, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 512}}}, 513),
        (GENERATE, {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}, 1),
        (GENERATE, {"generation_config": {"thinking_config": {"thinking_budget": 8}}}, 9),
    ],
)
def test_how_little_an_answer_may_be_held_to(path: str, fields: dict[str, Any], least: int) -> None:
    assert read(path, fields).output_tokens_min == least


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 9}, 9),
        (CHAT, {"max_tokens": -5}, None),
        (CHAT, {"max_tokens": 10**30}, 1_000_000),
        (CHAT, {"max_tokens": "700"}, 700),
        (CHAT, {"max_tokens": "seven"}, None),
        (CHAT, {"max_tokens": None}, None),
        (MESSAGES, {"max_tokens": True}, None),
        (GENERATE, {"generationConfig": {"maxOutputTokens": 12.0}}, 12),
    ],
)
def test_a_limit_that_is_none_counts_as_none_and_a_huge_one_as_the_most(
    path: str, fields: dict[str, Any], limit: int | None
) -> None:
    assert read(path, fields).max_output_tokens == limit


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
names = st.sampled_from(
    ["tools", "messages", "input", "prompt", "conversation", "modalities", "context_management", "thinking", "batch",
     "generationConfig", "contents", "cachedContent", "background", "mcp_servers", "web_search_options", "system"]
)  # fmt: skip


@given(st.sampled_from([CHAT, RESPONSES, MESSAGES, GENERATE, INTERACTIONS]), st.dictionaries(names, values, max_size=5))
def test_whatever_strangers_send_is_read(path: str, fields: dict[str, Any]) -> None:
    call = read(path, fields)
    assert all(isinstance(reason, str) for reason in call.unbounded)
    assert call.output_tokens_min >= 1
