"""What real providers once sent, played back through the whole house: the agent gets the very bytes, and the ledger the
usage that the provider reported."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.support.house import House
from tests.support.recordings import Recording, recordings

RECORDINGS = {recording.name: recording for recording in recordings()}


class Told(NamedTuple):
    """What the record must say: the fields of usage that are not zero, by hand from what the provider reported."""

    usage: dict[str, Any]
    source: str = "reported"
    error: str | None = None
    cost_nusd: int | None = None
    """Where the provider says itself what the call cost."""


NOTHING: dict[str, Any] = {}
EXPECTED = {
    "alibaba.chat/plain-200-qwen3-max-4ec28007": Told({"input": 295, "output": 22}),
    "anthropic.count_tokens/plain-200-claude-haiku-4-5-20251001-935328ed": Told(NOTHING, "none"),
    "anthropic.messages/plain-200-claude-sonnet-4-20250514-e015bc97": Told(
        {"input": 3, "cache_write": 14, "cache_write_1h": 2056, "output": 459}
    ),
    "anthropic.messages/plain-200-claude-sonnet-4-6-a9a9c41e": Told(
        {"input": 329, "cache_write": 55096, "output": 136}
    ),
    "anthropic.messages/plain-401-claude-haiku-4-5-20251001-f0019e37": Told(NOTHING, "none", "authentication_error"),
    "anthropic.messages/plain-404-there-is-no-such-model-960b95a4": Told(NOTHING, "none", "not_found_error"),
    "anthropic.messages/stream-200-claude-haiku-4-5-20251001-4b72053a": Told(
        {"input": 3, "cached_input": 4548, "cache_write": 1359, "output": 74}
    ),
    "anthropic.messages/stream-200-claude-opus-4-1-20250805-37bc198e": Told(
        {"input": 10423, "output": 341, "requests": {"web_search": 1}}
    ),
    "azure.chat/plain-200-grok-4-1-fast-non-reasoning-9dde0b18": Told({"cached_input": 447, "output": 17}),
    "cerebras.chat/plain-200-llama-3.3-70b-fea427cb": Told({"input": 43, "output": 9}),
    "deepseek.chat/plain-200-deepseek-v4-flash-6383fd7a": Told(
        {"input": 51, "cached_input": 512, "output": 116, "reasoning": 60}
    ),
    "gemini.generateContent/plain-200-gemini-1.5-flash-7a59739f": Told({"input": 14}),
    "gemini.generateContent/plain-200-gemini-2.0-flash-001-2f3b63e6": Told({"input": 39, "output": 7}),
    "gemini.interactions/stream-200-gemini-2.5-flash-88a43d9a": Told({"input": 11, "output": 168, "reasoning": 126}),
    "gemini.openai.chat/plain-200-gemini-2.5-pro-preview-05-06-315ce879": Told(
        {"input": 35, "output": 74, "reasoning": 62}
    ),
    "gemini.streamGenerateContent/stream-200-gemini-2.0-flash-35156b36": Told({"input": 4, "output": 11}),
    "gemini.streamGenerateContent/stream-200-gemini-3.6-flash-147e5577": Told(
        {"input": 6, "output": 635, "reasoning": 570}
    ),
    "groq.chat/stream-200-gpt-oss-120b-a7abdb0b": Told(NOTHING, "estimated", "tool_use_failed"),
    "groq.chat/stream-200-kimi-k2-instruct-0905-09e33382": Told({"input": 201, "output": 58}),
    "huggingface.chat/plain-200-kimi-k2-instruct-0905-1fde6860": Told({"input": 205, "output": 57}),
    "local.openai.chat/plain-200-opt-125m-b4ddbb42": Told({"input": 57, "output": 20}),
    "mistral.chat/plain-200-voxtral-small-latest-e45a2f18": Told(
        {"input": 9, "output": 248, "audio_input": 375, "seconds": 3}
    ),
    "mistral.chat/stream-200-mistral-small-2506-cca99555": Told({"input": 10, "output": 4}),
    "ollama.chat/plain-200-llama3.1-140dcf26": Told({"input": 44, "output": 113}),
    "openai.audio.transcriptions/stream-200-none-d23073e9": Told({"output": 12, "audio_input": 37}),
    "openai.chat/stream-200-gpt-4.1-mini-2025-04-14-79a75355": Told(NOTHING, "estimated"),
    "openai.chat/stream-200-gpt-4o-mini-2024-07-18-6cbc14a5": Told({"input": 8525, "output": 5}),
    "openai.chat/stream-200-gpt-5-2025-08-07-e43c00bf": Told({"input": 13, "output": 11}),
    "openai.completions/plain-200-gpt-3.5-turbo-instruct-be984a6f": Told({"input": 61, "output": 145}),
    "openai.embeddings/plain-200-text-embedding-ada-002-3336d2fd": Told({"input": 8}),
    "openai.images/plain-400-gpt-image-1.5-67903e5f": Told(NOTHING, "none", "invalid_image_file"),
    "openai.responses/plain-200-o4-mini-2025-04-16-3d19d1b7": Told({"input": 11041, "output": 1522, "reasoning": 640}),
    "openai.responses/plain-401-gpt-4.1-nano-99250f56": Told(NOTHING, "none", "invalid_api_key"),
    "openai.responses/stream-200-gpt-4.1-nano-2025-04-14-c9b46e76": Told({"input": 25, "output": 2}),
    "openai.responses/stream-200-gpt-5-nano-2025-08-07-5a603aba": Told(NOTHING, "none", "insufficient_quota"),
    "openrouter.chat/plain-200-deepseek-chat-2f01e087": Told(
        {"input": 2315, "output": 40, "requests": {"web_search": 1}}, cost_nusd=7_637_029
    ),
    "openrouter.chat/stream-200-claude-haiku-4.5-1ff68675": Told(
        {"input": 626, "output": 106, "reasoning": 54}, cost_nusd=1_156_000
    ),
    "openrouter.responses/stream-200-gpt-4.1-mini-11cd5564": Told({"input": 42, "output": 12}, cost_nusd=36_000),
    "perplexity.chat/stream-200-sonar-46491883": Told({"input": 8, "output": 213}, cost_nusd=5_220_000),
    "together.chat/stream-200-Llama-3.3-70B-Instruct-Turbo-c37e8b5d": Told({"input": 41, "output": 15}),
    "vercel-gateway.chat/stream-200-gpt-5-0aa50d71": Told(
        {"input": 19, "output": 93, "reasoning": 64}, cost_nusd=1_593_750
    ),
    "xai.chat/plain-200-grok-4-fast-reasoning-f722a77d": Told(
        {"input": 9, "cached_input": 156, "output": 127, "reasoning": 125}, cost_nusd=73_100
    ),
    "xai.chat/stream-200-grok-4-fast-reasoning-72f451fc": Told(
        {"input": 1, "cached_input": 467, "output": 659, "reasoning": 582}
    ),
    "zai.chat/plain-200-glm-4.7-flash-aaad0db9": Told(
        {"input": 182, "cached_input": 43, "output": 100, "reasoning": 77}
    ),
}


def not_zero(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value}


def headers_of(recording: Recording, key: str) -> dict[str, str]:
    return {"x-replay": recording.name, "x-callmeter-key": key, **recording.request_headers}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_answer_reaches_the_agent_byte_for_byte_and_the_ledger_in_full(house: House, name: str) -> None:
    recording, told = RECORDINGS[name], EXPECTED[name]
    house.providers.replay.recordings[name] = recording
    caller = house.caller("replay")
    target = recording.path + (f"?{recording.query}" if recording.query else "")
    upstream = f"/replay-{recording.provider}"
    answer = house.request(
        recording.method, upstream + target, recording.request_body, headers_of(recording, caller.key)
    )

    assert answer.status == recording.status, answer.body
    assert answer.body == recording.body
    assert answer.headers.get("content-encoding", "") == recording.content_encoding
    seen_target, _ = house.providers.replay.seen[name]
    assert seen_target == target

    record = caller.record(answer.headers["x-callmeter-call"])
    assert (record["usage_source"], record["error"]) == (told.source, told.error)
    assert record["result"] == ("failed" if told.error else "ok")
    assert record["status"] == recording.status
    if told.source == "estimated":
        assert record["usage"]["input"] > 0, "silence is never free"
    else:
        assert not_zero(record["usage"]) == told.usage
    if told.cost_nusd is not None:
        assert (record["cost_nusd"], record["cost_source"]) == (told.cost_nusd, "provider")
    assert (record["cost_nusd"] or 0) > 0 or told.source == "none"


def test_the_usage_that_we_asked_for_is_taken_out_of_a_recorded_stream_again(house: House) -> None:
    name = "alibaba.chat/stream-200-qwen3-max-905541ab"
    recording = RECORDINGS[name]
    house.providers.replay.recordings[name] = recording
    caller = house.caller("replay")
    answer = house.request(
        "POST", f"/replay-alibaba{recording.path}", recording.request_body, headers_of(recording, caller.key)
    )
    events = recording.body.split(b"\n\n")
    [usage] = [event for event in events if b'"prompt_tokens"' in event]
    assert answer.body == recording.body.replace(usage + b"\n\n", b"")
    record = caller.record()
    assert (record["usage"]["input"], record["usage"]["output"]) == (295, 22)
