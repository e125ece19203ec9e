"""Anthropic's own SDK through the whole house."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.house import PROVIDER_KEYS, Caller, House

ASK: list[Any] = [{"role": "user", "content": "Plan an index for product names."}]
MODEL = "claude-sonnet-4-5"
BOOK = {"input": 3000, "output": 15000}
"""What MODEL costs, in nano-USD a token."""


@pytest.fixture
def ben(house: House) -> Caller:
    return house.caller("ben")


@pytest.fixture
def sdk(ben: Caller) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=ben.house.url, api_key=ben.key, max_retries=0) as client:
        yield client


def wish(text: str) -> dict[str, str]:
    return {"x-sim": text}


def test_a_plain_answer_is_recorded_with_its_usage_and_cost(sdk: anthropic.Anthropic, ben: Caller) -> None:
    answer = sdk.messages.create(model=MODEL, max_tokens=100, messages=ASK, extra_headers=wish("chunks=9"))
    record = ben.record()
    assert (record["user"], record["upstream"], record["api"]) == (ben.user, "anthropic", "anthropic.messages")
    assert (record["result"], record["model"], record["agent"]) == ("ok", MODEL, "anthropic-python")
    assert (record["usage"]["input"], record["usage"]["output"]) == (answer.usage.input_tokens, 9)
    assert record["cost_nusd"] == answer.usage.input_tokens * BOOK["input"] + 9 * BOOK["output"]
    _, headers, _ = ben.house.providers.seen("/v1/messages")
    assert headers["x-api-key"] == PROVIDER_KEYS["anthropic"]
    assert "authorization" not in headers


def test_a_stream_and_its_final_message_come_through(sdk: anthropic.Anthropic, ben: Caller) -> None:
    with sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASK, extra_headers=wish("chunks=6")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "word0 word1 word2 word3 word4 word5 "
    assert final.usage.output_tokens == 6
    record = ben.record()
    assert (record["stream"], record["usage_source"], record["usage"]["output"]) == (True, "reported", 6)
    assert record["finish_reasons"] == ["end_turn"]


def test_cached_input_lies_beside_the_other_input(sdk: anthropic.Anthropic, ben: Caller) -> None:
    answer = sdk.messages.create(model=MODEL, max_tokens=100, messages=ASK, extra_headers=wish("cached=500"))
    record = ben.record()
    assert (record["usage"]["input"], record["usage"]["cached_input"]) == (answer.usage.input_tokens, 500)
    assert record["cost_parts_nusd"]["cached_input"] == 500 * BOOK["input"] // 10


def test_a_tool_is_used_plain_and_streamed(sdk: anthropic.Anthropic, ben: Caller) -> None:
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    told: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 50,
        "messages": ASK,
        "tools": tools,
        "extra_headers": wish("tool=weather"),
    }
    plain = sdk.messages.create(**told)
    with sdk.messages.stream(**told) as stream:
        streamed = stream.get_final_message()
    for message in (plain, streamed):
        [use] = message.content
        assert isinstance(use, anthropic.types.ToolUseBlock)
        assert (use.name, use.input) == ("weather", {"city": "Berlin"})
    assert [record["finish_reasons"] for record in ben.records(2)] == [["tool_use"], ["tool_use"]]


def test_counting_tokens_is_free(sdk: anthropic.Anthropic, ben: Caller) -> None:
    assert sdk.messages.count_tokens(model=MODEL, messages=ASK).input_tokens > 0
    record = ben.record()
    assert (record["api"], record["cost_nusd"], record["usage_source"]) == ("anthropic.count_tokens", 0, "none")


def test_a_failure_of_the_provider_comes_through_in_its_own_words(sdk: anthropic.Anthropic, ben: Caller) -> None:
    with pytest.raises(anthropic.InternalServerError, match="asked to fail"):
        sdk.messages.create(model=MODEL, max_tokens=10, messages=ASK, extra_headers=wish("status=529"))
    record = ben.record()
    assert (record["result"], record["status"], record["error"]) == ("failed", 529, "api_error")
    assert record["cost_nusd"] == 0


def test_a_stream_that_breaks_ends_in_an_error_event_of_the_dialect(sdk: anthropic.Anthropic, ben: Caller) -> None:
    broken = wish("chunks=20, cut-after=8, pause-ms=2")
    with (
        pytest.raises(anthropic.APIStatusError, match="closed the connection in mid-answer"),
        sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASK, extra_headers=broken) as stream,
    ):
        list(stream.text_stream)
    record = ben.record()
    assert (record["result"], record["usage_source"], record["error"]) == ("failed", "partial", "reset")
    assert record["cost_nusd"] > 0


def test_a_key_that_is_not_genuine_is_refused_in_the_dialect(house: House) -> None:
    with (
        anthropic.Anthropic(base_url=house.url, api_key="cm_abcdefgh12345678_" + "0" * 64) as sdk,
        pytest.raises(anthropic.AuthenticationError) as raised,
    ):
        sdk.messages.create(model=MODEL, max_tokens=10, messages=ASK)
    body: Any = raised.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "authentication_error"
    assert "not genuine" in body["error"]["message"]


def test_a_plan_keeps_its_list_cost_and_bills_nothing(ben: Caller) -> None:
    with anthropic.Anthropic(base_url=f"{ben.house.url}/plan", api_key=ben.key) as sdk:
        sdk.messages.create(model=MODEL, max_tokens=10, messages=ASK)
    record = ben.record()
    assert record["cost_nusd"] == 0
    assert record["list_nusd"] == record["usage"]["input"] * BOOK["input"] + 5 * BOOK["output"]


async def test_the_async_sdk_streams_and_a_break_in_mid_stream_leaves_a_partial_record(ben: Caller) -> None:
    async with anthropic.AsyncAnthropic(base_url=ben.house.url, api_key=ben.key, max_retries=0) as sdk:
        async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=ASK) as whole:
            assert (await whole.get_final_message()).usage.output_tokens == 5
        async with sdk.messages.stream(
            model=MODEL, max_tokens=2000, messages=ASK, extra_headers=wish("chunks=1000, pause-ms=10")
        ) as left:
            async for _ in left.text_stream:
                break
    records = await asyncio.to_thread(ben.records, 2)
    assert [record["result"] for record in records] == ["ok", "client_gone"]
    assert records[1]["usage"]["input"] > 0, "what the provider said of the input at the start of the stream"
    assert records[1]["usage_source"] == "partial"
    assert 0 < records[1]["usage"]["output"] < 500
