"""OpenAI's own SDK through the whole house: nothing changes for it, and every call is in the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from tests.support.house import Caller, House, eventually

ASK: list[Any] = [{"role": "user", "content": "Where is the rounding fault?"}]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
MODEL = "gpt-5-mini"
BOOK = {"input": 250, "output": 2000}
"""What MODEL costs, in nano-USD a token."""


@pytest.fixture
def ada(house: House) -> Caller:
    return house.caller("ada")


@pytest.fixture
def sdk(ada: Caller) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ada.house.url}/v1", api_key=ada.key, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_sdk(ada: Caller) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{ada.house.url}/v1", api_key=ada.key, max_retries=0) as client:
        yield client


def wish(text: str) -> dict[str, str]:
    """What the simulated provider shall do."""
    return {"x-sim": text}


def test_a_plain_answer_is_recorded_with_its_user_model_usage_and_cost(sdk: openai.OpenAI, ada: Caller) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, extra_headers=wish("chunks=7"))
    answer = raw.parse()
    assert answer.choices[0].message.content == "word0 word1 word2 word3 word4 word5 word6 "
    assert answer.usage is not None
    record = ada.record(raw.headers["x-callmeter-call"])
    assert (record["user"], record["upstream"], record["api"]) == (ada.user, "openai", "openai.chat")
    assert (record["result"], record["status"], record["degraded"]) == ("ok", 200, False)
    assert (record["model_asked"], record["model"], record["stream"]) == (MODEL, MODEL, False)
    assert record["usage_source"] == "reported"
    assert (record["usage"]["input"], record["usage"]["output"]) == (answer.usage.prompt_tokens, 7)
    assert record["cost_nusd"] == answer.usage.prompt_tokens * BOOK["input"] + 7 * BOOK["output"]
    assert (record["cost_source"], record["upstream_call_id"]) == ("book", answer.id)
    assert (record["agent"], record["finish_reasons"]) == ("openai-python", ["stop"])
    assert raw.headers["x-callmeter-cost-usd"] == f"{record['cost_nusd'] / 1e9:.9f}".rstrip("0")


def test_cached_and_reasoning_tokens_are_priced_as_such(sdk: openai.OpenAI, ada: Caller) -> None:
    body: list[Any] = [{"role": "user", "content": "x" * 4000}]
    sdk.chat.completions.create(model=MODEL, messages=body, extra_headers=wish("chunks=4, cached=600, reasoning=90"))
    record = ada.record()
    assert record["usage"]["cached_input"] == 600
    assert (record["usage"]["output"], record["usage"]["reasoning"]) == (94, 90)
    assert sum(record["cost_parts_nusd"].values()) == record["cost_nusd"]
    assert record["cost_parts_nusd"]["cached_input"] == 600 * BOOK["input"] // 10


def test_a_stream_is_metered_although_its_caller_asked_for_no_usage(
    sdk: openai.OpenAI, ada: Caller, house: House
) -> None:
    with sdk.chat.completions.create(model=MODEL, messages=ASK, stream=True, extra_headers=wish("chunks=6")) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(f"word{n} " for n in range(6))
    assert all(chunk.choices for chunk in chunks), "the chunk with the usage is not for this caller"
    _, _, body = house.providers.seen("/v1/chat/completions")
    assert json.loads(body)["stream_options"] == {"include_usage": True}
    record = ada.record()
    assert (record["result"], record["stream"], record["usage_source"]) == ("ok", True, "reported")
    assert (record["usage"]["output"], record["cost_source"]) == (6, "book")


def test_a_caller_who_asks_for_the_usage_of_a_stream_gets_it(sdk: openai.OpenAI, ada: Caller) -> None:
    with sdk.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    record = ada.record()
    assert (record["usage"]["input"], record["usage"]["output"]) == (last.usage.prompt_tokens, 5)


def test_an_explicit_no_to_usage_is_kept_towards_the_caller_and_metered_all_the_same(
    sdk: openai.OpenAI, ada: Caller
) -> None:
    with sdk.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": False, "include_obfuscation": False}
    ) as stream:
        chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    _, _, body = ada.house.providers.seen("/v1/chat/completions")
    assert json.loads(body)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert ada.record()["usage_source"] == "reported"


def test_tool_calls_come_through_plain_and_streamed(sdk: openai.OpenAI, ada: Caller) -> None:
    plain = sdk.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, extra_headers=wish("tool=weather"))
    [call] = plain.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Berlin"}')
    with sdk.chat.completions.stream(
        model=MODEL, messages=ASK, tools=TOOLS, extra_headers=wish("tool=weather")
    ) as stream:
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls or []
    assert streamed.function.name == "weather"
    assert [record["finish_reasons"] for record in ada.records(2)] == [["tool_calls"], ["tool_calls"]]


def test_the_responses_interface_works_plain_and_streamed(sdk: openai.OpenAI, ada: Caller) -> None:
    plain = sdk.responses.create(model=MODEL, input="hello", extra_headers=wish("chunks=3"))
    assert plain.output_text == "word0 word1 word2 "
    with sdk.responses.create(model=MODEL, input="hello", stream=True, extra_headers=wish("chunks=4")) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed"
    first, second = ada.records(2)
    assert (first["api"], first["usage"]["output"], first["stream"]) == ("openai.responses", 3, False)
    assert (second["api"], second["usage"]["output"], second["stream"]) == ("openai.responses", 4, True)


def test_a_background_answer_is_charged_once_to_its_maker_however_often_it_is_fetched(
    sdk: openai.OpenAI, ada: Caller, house: House
) -> None:
    made = sdk.responses.create(model=MODEL, input="take your time", background=True, extra_headers=wish("chunks=40"))
    assert made.status == "queued"
    waiting = ada.record()
    assert (waiting["usage_source"], waiting["cost_nusd"], waiting["revision"]) == ("none", None, 1)
    ben = house.caller("ben")
    for key in (ben.key, ada.key):
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0) as fetching:
            assert fetching.responses.retrieve(made.id).status == "completed"
    records = ada.records(2, until=lambda records: any(record["revision"] == 2 for record in records))
    [settled] = [record for record in records if record["call_id"] == waiting["call_id"]]
    assert (settled["revision"], settled["usage_source"], settled["usage"]["output"]) == (2, "reported", 40)
    assert settled["cost_nusd"] == settled["usage"]["input"] * BOOK["input"] + 40 * BOOK["output"]
    [fetched] = [record for record in records if record["call_id"] != waiting["call_id"]]
    assert (fetched["cost_nusd"], fetched["usage_source"]) == (0, "none")
    assert ben.record()["cost_nusd"] == 0


def test_embeddings_cost_their_input(sdk: openai.OpenAI, ada: Caller) -> None:
    made = sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two"], encoding_format="float")
    assert len(made.data[0].embedding) == 8
    record = ada.record()
    assert (record["api"], record["usage"]["output"]) == ("openai.embeddings", 0)
    assert record["usage"]["input"] == made.usage.prompt_tokens
    assert record["cost_nusd"] == made.usage.prompt_tokens * 20


def test_a_list_of_models_is_free(sdk: openai.OpenAI, ada: Caller) -> None:
    assert [model.id for model in sdk.models.list()] == [MODEL]
    record = ada.record()
    assert (record["api"], record["http_method"], record["cost_nusd"], record["usage_source"]) == (
        "free",
        "GET",
        0,
        "none",
    )


def test_a_rate_limit_of_the_provider_comes_through_as_it_is(sdk: openai.OpenAI, ada: Caller) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        sdk.chat.completions.create(model=MODEL, messages=ASK, extra_headers=wish("status=429, retry-after=17"))
    assert raised.value.response.headers["retry-after"] == "17"
    assert raised.value.response.headers["x-request-id"] == "req_sim"
    assert raised.value.body == {
        "message": "the simulated provider was asked to fail",
        "type": "server_error",
        "param": None,
        "code": "simulated",
    }
    record = ada.record()
    assert (record["result"], record["status"], record["error"]) == ("failed", 429, "simulated")
    assert (record["cost_nusd"], record["usage_source"], record["refusal"]) == (0, "none", None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_provider_comes_through_and_costs_nothing(
    sdk: openai.OpenAI, ada: Caller, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model=MODEL, messages=ASK, stream=stream, extra_headers=wish("status=500"))
    record = ada.record()
    assert (record["result"], record["status"], record["cost_nusd"]) == ("failed", 500, 0)


def test_the_retries_of_the_sdk_are_calls_of_their_own(ada: Caller) -> None:
    with (
        openai.OpenAI(base_url=f"{ada.house.url}/v1", api_key=ada.key, max_retries=1) as sdk,
        pytest.raises(openai.InternalServerError),
    ):
        sdk.chat.completions.create(model=MODEL, messages=ASK, extra_headers=wish("status=503, retry-after=0.01"))
    assert [record["status"] for record in ada.records(2)] == [503, 503]


def test_a_stream_that_breaks_raises_in_the_sdk_and_is_not_free(sdk: openai.OpenAI, ada: Caller) -> None:
    broken = wish("chunks=9, cut-after=4, pause-ms=2")
    with (
        pytest.raises(openai.APIError, match="closed the connection in mid-answer"),
        sdk.chat.completions.create(model=MODEL, messages=ASK, stream=True, extra_headers=broken) as stream,
    ):
        list(stream)
    record = ada.record()
    assert (record["result"], record["error"], record["usage_source"]) == ("failed", "reset", "partial")
    assert record["usage"]["output"] >= 3
    assert record["cost_nusd"] > 0


def test_a_policy_rule_refuses_with_its_name_and_help_in_the_error_of_the_sdk(house: House) -> None:
    intern = house.caller("intern")
    with (
        openai.OpenAI(base_url=f"{house.url}/v1", api_key=intern.key) as sdk,
        pytest.raises(openai.PermissionDeniedError) as raised,
    ):
        sdk.chat.completions.create(model="claude-opus-4-1", messages=ASK)
    assert "no-frontier-for-interns" in raised.value.message
    assert "ask in #ai" in raised.value.message
    assert raised.value.code == "not_allowed"
    record = intern.record()
    assert (record["result"], record["refusal"], record["rule"]) == (
        "refused",
        "not_allowed",
        "no-frontier-for-interns",
    )
    assert (record["status"], record["cost_nusd"], record["count"]) == (403, 0, 1)


def test_a_wrong_key_is_an_authentication_error_without_retries(house: House) -> None:
    with (
        openai.OpenAI(base_url=f"{house.url}/v1", api_key="cm_abcdefgh12345678_" + "0" * 64) as sdk,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        sdk.chat.completions.create(model=MODEL, messages=ASK)
    assert raised.value.code == "invalid_api_key"
    assert raised.value.response.headers["x-should-retry"] == "false"


async def test_the_async_sdk_works_plain_and_streamed(async_sdk: openai.AsyncOpenAI, ada: Caller) -> None:
    plain = await async_sdk.chat.completions.create(model=MODEL, messages=ASK)
    assert plain.choices[0].finish_reason == "stop"
    stream = await async_sdk.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream][1] == "word0 "
    assert [record["result"] for record in await asyncio.to_thread(ada.records, 2)] == ["ok", "ok"]


async def test_a_stream_cancelled_in_mid_answer_is_cancelled_at_the_provider_and_metered(
    async_sdk: openai.AsyncOpenAI, ada: Caller
) -> None:
    # Not a model that reasons unseen: of those more than what was seen is charged, by the time they took.
    stream = await async_sdk.chat.completions.create(
        model="gpt-4.1-mini", messages=ASK, stream=True, extra_headers=wish("chunks=1000, pause-ms=10")
    )
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 5:
            break
    await stream.close()
    record = await asyncio.to_thread(ada.record)
    assert (record["result"], record["usage_source"]) == ("client_gone", "partial")
    assert 3 <= record["usage"]["output"] < 500
    assert record["usage"]["input"] > 0
    assert record["cost_nusd"] > 0


async def test_a_plain_call_whose_task_is_cancelled_is_read_on_and_costs_what_the_provider_says(
    async_sdk: openai.AsyncOpenAI, ada: Caller
) -> None:
    providers = ada.house.providers
    providers.simulator.seen.clear()
    call = asyncio.create_task(
        async_sdk.chat.completions.create(model=MODEL, messages=ASK, extra_headers=wish("first-ms=300, chunks=11"))
    )
    await asyncio.to_thread(eventually, lambda: providers.simulator.seen, "the provider saw no call")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    record = await asyncio.to_thread(ada.record)
    assert (record["result"], record["usage_source"], record["usage"]["output"]) == ("client_gone", "reported", 11)


async def test_many_calls_at_once_are_each_recorded_once(async_sdk: openai.AsyncOpenAI, ada: Caller) -> None:
    async def one(number: int) -> str:
        raw = await async_sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=ASK, extra_headers=wish(f"chunks={number + 1}")
        )
        call_id: str = raw.headers["x-callmeter-call"]
        return call_id

    call_ids = await asyncio.gather(*(one(number) for number in range(40)))
    records = await asyncio.to_thread(ada.records, 40)
    assert sorted(record["call_id"] for record in records) == sorted(call_ids)
    assert sorted(record["usage"]["output"] for record in records) == list(range(1, 41))
