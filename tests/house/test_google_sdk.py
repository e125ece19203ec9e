"""Google's own SDK through the whole house."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from google import genai
from google.genai import errors, types

from tests.support.house import PROVIDER_KEYS, Caller, House

MODEL = "gemini-2.5-flash"
BOOK = {"input": 300, "output": 2500}
"""What MODEL costs, in nano-USD a token."""


@pytest.fixture
def cleo(house: House) -> Caller:
    return house.caller("cleo")


@pytest.fixture
def sdk(cleo: Caller) -> Iterator[genai.Client]:
    client = genai.Client(api_key=cleo.key, http_options=types.HttpOptions(base_url=cleo.house.url))
    yield client
    client.close()


def wish(text: str) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers={"x-sim": text}))


def test_a_plain_answer_is_recorded_with_thoughts_as_reasoning(sdk: genai.Client, cleo: Caller) -> None:
    answer = sdk.models.generate_content(model=MODEL, contents="hello", config=wish("chunks=4, reasoning=30"))
    assert answer.text == "word0 word1 word2 word3 "
    assert answer.usage_metadata is not None
    record = cleo.record()
    assert (record["user"], record["upstream"], record["api"]) == (cleo.user, "gemini", "gemini.generate")
    assert (record["model"], record["agent"]) == (MODEL, "google-genai")
    assert record["usage"]["input"] == answer.usage_metadata.prompt_token_count
    assert (record["usage"]["output"], record["usage"]["reasoning"]) == (34, 30)
    assert record["cost_nusd"] == record["usage"]["input"] * BOOK["input"] + 34 * BOOK["output"]


def test_the_provider_sees_the_key_of_the_upstream_and_not_the_callers(sdk: genai.Client, cleo: Caller) -> None:
    sdk.models.generate_content(model=MODEL, contents="hello")
    path, headers, _ = cleo.house.providers.seen(f"/v1/models/{MODEL}:generateContent")
    assert headers["x-goog-api-key"] == PROVIDER_KEYS["gemini"]
    assert cleo.key not in path + str(headers)


def test_a_stream_of_events_comes_through(sdk: genai.Client, cleo: Caller) -> None:
    chunks = list(sdk.models.generate_content_stream(model=MODEL, contents="hello", config=wish("chunks=6")))
    assert [chunk.text for chunk in chunks] == [f"word{number} " for number in range(6)]
    record = cleo.record()
    assert (record["stream"], record["usage_source"], record["usage"]["output"]) == (True, "reported", 6)


def test_counting_tokens_is_free(sdk: genai.Client, cleo: Caller) -> None:
    assert sdk.models.count_tokens(model=MODEL, contents="hello").total_tokens
    record = cleo.record()
    assert (record["api"], record["cost_nusd"]) == ("gemini.count_tokens", 0)


def test_a_failure_of_the_provider_raises_with_its_status(sdk: genai.Client, cleo: Caller) -> None:
    with pytest.raises(errors.ServerError) as raised:
        sdk.models.generate_content(model=MODEL, contents="hello", config=wish("status=500"))
    assert raised.value.status == "INTERNAL"
    assert cleo.record()["result"] == "failed"


def test_a_key_that_is_not_genuine_is_refused_in_the_dialect(house: House) -> None:
    options = types.HttpOptions(base_url=house.url)
    sdk = genai.Client(api_key="cm_abcdefgh12345678_" + "0" * 64, http_options=options)
    with pytest.raises(errors.ClientError) as raised:
        sdk.models.generate_content(model=MODEL, contents="hello")
    assert (raised.value.code, raised.value.status) == (401, "UNAUTHENTICATED")
    assert "not genuine" in str(raised.value.message)
    sdk.close()


async def test_the_async_sdk_works_plain_and_streamed(sdk: genai.Client, cleo: Caller) -> None:
    plain = await sdk.aio.models.generate_content(model=MODEL, contents="hello")
    assert plain.text == "word0 word1 word2 word3 word4 "
    stream = await sdk.aio.models.generate_content_stream(model=MODEL, contents="hello")
    assert "".join([chunk.text or "" async for chunk in stream]) == plain.text
    await sdk.aio.aclose()
    assert [record["result"] for record in await asyncio.to_thread(cleo.records, 2)] == ["ok", "ok"]


async def test_a_stream_left_in_mid_answer_is_partial_and_not_free(sdk: genai.Client, cleo: Caller) -> None:
    stream = await sdk.aio.models.generate_content_stream(
        model="gemini-2.0-flash", contents="hello", config=wish("chunks=1000, pause-ms=10")
    )
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator in all but its type
    await sdk.aio.aclose()
    record = await asyncio.to_thread(cleo.record)
    assert (record["result"], record["usage_source"]) == ("client_gone", "partial")
    assert record["cost_nusd"] > 0
