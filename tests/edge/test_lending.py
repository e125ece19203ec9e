"""What is lent to twins, and what those that wait are told, with a provider that does what a test says."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from google import genai
from google.genai import types

from proxy.edge import lending, ways_out
from tests.support.scripted import SSE_HEAD, chunk, event, request_of, scripted, whole
from tests.support.store import eventually
from tests.support.worker import KEY, policy, serving

CHAT = "/openai/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
ASK = [{"role": "user", "content": "Where is the rounding fault?"}]
JOIN = "duplicates:\n  - {name: together, kind: exact, then: join}\n"
REPLAY = "duplicates:\n  - {name: again, kind: exact, then: replay}\n"
FEW = (
    "budgets:\n  - {name: few, match: {model: '*opus*'}, per: user, limit: 1 calls, every: day, "
    "then: {use: {anthropic: claude-haiku-4-5}}}\n"
)
NDJSON_HEAD = SSE_HEAD.replace(b"text/event-stream", b"application/x-ndjson")


REFUSE = "duplicates:\n  - {name: again, kind: exact, limit: 1 calls, then: refuse}\n"


async def test_who_got_no_whole_stream_may_ask_again(store_url: str) -> None:
    asked = {"model": "gpt-5-mini", "messages": ASK, "stream": True}

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(event({"choices": [{"index": 0, "delta": {"content": "cut"}}]})) + b"0\r\n\r\n")

    async with scripted(provider) as url, serving(store_url, policy(url, more=REFUSE)) as edge:
        for count in (1, 2):
            head, _ = await edge.answer(CHAT, asked)
            records = await edge.records(count)
            assert head.status == 200
    assert [record.repeats for record in records] == [0, 0]


async def test_a_stream_that_ended_too_early_is_not_given_again(store_url: str) -> None:
    asked = {"model": "gpt-5-mini", "messages": ASK, "stream": True}
    texts = iter(("cut", "whole"))

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        text = next(texts)
        writer.write(SSE_HEAD + chunk(event({"choices": [{"index": 0, "delta": {"content": text}}]})))
        if text == "whole":
            done = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            writer.write(chunk(event(done)) + chunk(b"data: [DONE]\n\n"))
        writer.write(b"0\r\n\r\n")

    async with scripted(provider) as url, serving(store_url, policy(url, more=REPLAY)) as edge:
        _, first = await edge.answer(CHAT, asked)
        await edge.records(1)
        head, second = await edge.answer(CHAT, asked)
        await edge.records(2)
        again, third = await edge.answer(CHAT, asked)
    assert b"cut" in first
    assert b"whole" in second
    assert "x-callmeter-replay" not in head.headers
    assert third == second
    assert "x-callmeter-replay" in again.headers


@pytest.mark.parametrize("ends", [True, False])
async def test_a_twin_is_given_the_end_for_which_the_first_agent_did_not_wait(
    store_url: str, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(ways_out, "TAIL_S_MAX", 10.0 if ends else 0.1)
    asked = {"model": "gpt-5-mini", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    left = asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        said = {"choices": [{"index": 0, "delta": {"content": "here"}, "finish_reason": "stop"}]}
        writer.write(SSE_HEAD + chunk(event(said) + event({"choices": [], "usage": usage})))
        await left.wait()
        if ends:
            writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            await reader.read()

    async with scripted(provider) as url, serving(store_url, policy(url, more=REPLAY)) as edge:
        async with edge.post(CHAT, asked) as first:
            await first.head()
            await first.chunk()
            first.leave()
        await eventually(lambda: not edge.relay._flights)
        left.set()
        [record] = await edge.records()
        async with edge.post(CHAT, asked) as second:
            await second.head()
            assert ("x-callmeter-replay" in second.headers) is ends
            assert not ends or (await second.body()).endswith(b"data: [DONE]\n\n")
    assert (record.result, record.usage_source, record.usage.output) == ("ok", "reported", 1)


async def test_who_waits_for_json_lines_is_sent_no_comment(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "KEEP_ALIVE_S", 0.01)
    asked = {"model": "llama3.3", "messages": ASK}
    called, go_on = asyncio.Event(), asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        called.set()
        await go_on.wait()
        line = {"model": "llama3.3", "message": {"content": "here"}, "done": True, "eval_count": 1}
        writer.write(NDJSON_HEAD + chunk(json.dumps(line).encode() + b"\n") + b"0\r\n\r\n")

    async with (
        scripted(provider) as url,
        serving(store_url, policy(url, more=JOIN)) as edge,
        edge.post("/openai/api/chat", asked) as leader,
    ):
        await called.wait()
        async with edge.post("/openai/api/chat", asked) as waiting:
            await asyncio.sleep(0.2)
            go_on.set()
            await leader.head()
            told = await leader.rest()
            await waiting.head()
            assert waiting.headers["content-type"] == "application/x-ndjson"
            assert await waiting.body() == told


GEMINI = "/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
CHUNK = {"candidates": [{"content": {"role": "model", "parts": [{"text": "here"}]}, "finishReason": "STOP"}]}


async def test_google_s_sdk_is_kept_waiting_with_what_it_can_read(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "KEEP_ALIVE_S", 0.01)
    called, go_on = asyncio.Event(), asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        called.set()
        await go_on.wait()
        writer.write(SSE_HEAD + chunk(event(CHUNK)) + b"0\r\n\r\n")

    async with scripted(provider) as url, serving(store_url, policy(url, more=JOIN)) as edge:
        host, port = edge.address
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=f"http://{host}:{port}"))

        async def asks() -> list[str | None]:
            stream = await client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="Where?")
            return [part.text async for part in stream]

        leader = asyncio.create_task(asks())
        await called.wait()
        waiting = asyncio.create_task(asks())
        await asyncio.sleep(0.3)
        go_on.set()
        assert await leader == await waiting == ["here"]
        records = await edge.records(2)
    assert [record.joined for record in records] == [False, True]


@pytest.mark.parametrize("answers", ["says no", "packs"])
async def test_who_was_told_to_wait_is_told_of_an_error_of_its_own_call(
    store_url: str, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    """An empty stream with status 200 would look as if all were well."""
    monkeypatch.setattr(lending, "KEEP_ALIVE_S", 0.01)
    asked = {"model": "gpt-5-mini", "messages": ASK, "stream": True}
    called, go_on = asyncio.Event(), asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        called.set()
        await go_on.wait()
        if answers == "says no":
            error = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}
            writer.write(whole(json.dumps(error).encode(), status="429 Too Many Requests"))
        else:
            head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
            writer.write(head + chunk(gzip.compress(b"data: [DONE]\n\n")) + b"0\r\n\r\n")

    async with scripted(provider) as url, serving(store_url, policy(url, more=JOIN)) as edge:
        async with edge.post(CHAT, asked) as leader:
            await called.wait()
            async with edge.post(CHAT, asked) as waiting:
                await waiting.head()
                leader.leave()
                await asyncio.sleep(0.2)
                go_on.set()
                told = (await waiting.rest()).decode()
        records = await edge.records(2)
    assert '"error"' in told
    assert ("answered with status 429" if answers == "says no" else "packed its answer (`gzip`)") in told
    assert records[-1].result == "failed"


async def test_who_was_told_to_wait_gets_nothing_packed(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of its answer is out by then, and told of no packing."""
    monkeypatch.setattr(lending, "KEEP_ALIVE_S", 0.01)
    asked: dict[str, Any] = {"model": "claude-opus-4-1", "messages": ASK, "stream": True, "max_tokens": 90}
    heads: list[bytes] = []
    called, go_on = asyncio.Event(), asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await request_of(reader)
        heads.append(head.lower())
        called.set()
        await go_on.wait()
        writer.write(whole(b"{}", status="500 Oops"))

    packs = {"accept-encoding": "gzip"}
    async with (
        scripted(provider) as url,
        serving(store_url, policy(url, more=JOIN + FEW)) as edge,
        edge.post(MESSAGES, asked, headers=packs) as leader,
    ):
        await called.wait()
        async with edge.post(MESSAGES, asked, headers=packs) as waiting:
            await waiting.head()
            go_on.set()
            await leader.head()
            await waiting.rest()
    assert len(heads) == 2
    assert all(b"accept-encoding: identity\r\n" in head for head in heads)


async def test_who_waited_for_another_model_waits_for_no_one_after_it(store_url: str) -> None:
    """Its answer is nobody else's, and so would be the next one's: all that waited go on at once."""
    asked: dict[str, Any] = {"model": "claude-opus-4-1", "messages": ASK, "max_tokens": 90}
    answered = {"model": "claude-haiku-4-5", "content": [], "stop_reason": "end_turn"}
    answered["usage"] = {"input_tokens": 3, "output_tokens": 2}
    together, first, go_on = asyncio.Barrier(2), asyncio.Event(), asyncio.Event()

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await request_of(reader)
        if b"opus" not in body:
            if not first.is_set():
                first.set()
                await go_on.wait()
            else:
                async with asyncio.timeout(5):
                    await together.wait()
        writer.write(whole(json.dumps(answered).encode()))

    async with scripted(provider) as url, serving(store_url, policy(url, more=JOIN + FEW)) as edge:
        head, _ = await edge.answer(MESSAGES, asked | {"messages": [{"role": "user", "content": "Something else?"}]})
        leader = asyncio.create_task(edge.answer(MESSAGES, asked))
        await first.wait()
        waiting = [asyncio.create_task(edge.answer(MESSAGES, asked)) for _ in range(2)]
        await asyncio.sleep(0.2)
        go_on.set()
        heads = [head, *[each[0] for each in await asyncio.gather(leader, *waiting)]]
    assert [each.status for each in heads] == [200] * 4
    assert not any("x-callmeter-replay" in each.headers for each in heads)
