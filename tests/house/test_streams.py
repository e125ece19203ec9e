"""Answers on their way: nothing waits, nothing piles up, and every broken end is told and paid for honestly."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import Caller, House
from tests.support.scripted import SSE_HEAD, Agent, Script, agent, chunk, event, request_of, scripted, whole

CHAT = "/script-openai/v1/chat/completions"
MESSAGES = "/script-anthropic/v1/messages"
GEMINI = "/script-gemini/v1beta/models/gemini-2.0-flash:streamGenerateContent"
ASK = [{"role": "user", "content": "hi"}]
PLAIN = {"model": "gpt-4.1-mini", "messages": ASK}
STREAM = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
MESSAGE_STREAM = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": ASK, "stream": True}
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
ANSWER = {"id": "chatcmpl-1", "model": "gpt-4.1-mini", "choices": [], "usage": USAGE}
PIECE_BYTES = 64 * 1024
OFFERED_BYTES = 256 * 2**20
"""What a provider would send to a reader that never reads."""


@pytest.fixture
def ada(house: House) -> Caller:
    return house.caller("ada")


def delta(text: str) -> bytes:
    return event({"id": "chatcmpl-1", "model": "gpt-4.1-mini", "choices": [{"index": 0, "delta": {"content": text}}]})


def call(caller: Caller, path: str, body: Any, **options: Any) -> AbstractAsyncContextManager[Agent]:
    headers = {"authorization": f"Bearer {caller.key}", **options.pop("headers", {})}
    return agent(caller.house.address(), path, body, headers, **options)


def provider(caller: Caller, script: Script, **options: Any) -> AbstractAsyncContextManager[str]:
    return scripted(script, caller.house.script_port, **options)


async def record_of(caller: Caller) -> Any:
    return await asyncio.to_thread(caller.record)


# -- as it comes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, STREAM), (MESSAGES, MESSAGE_STREAM), (GEMINI + "?alt=sse", {"contents": []})]
)
async def test_each_piece_reaches_the_agent_before_the_next_one_exists(ada: Caller, path: str, body: Any) -> None:
    turn = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for piece in (SSE_HEAD, chunk(event({"n": 1})), chunk(event({"n": 2})), b"0\r\n\r\n"):
            writer.write(piece)
            await turn.wait()
            turn.clear()

    async with provider(ada, script), call(ada, path, body) as reading:
        await reading.head()
        assert (reading.status, reading.headers["content-type"]) == (200, "text/event-stream")
        turn.set()
        assert await reading.chunk() == event({"n": 1})
        turn.set()
        assert await reading.chunk() == event({"n": 2})
        turn.set()
        assert await reading.chunk() == b""


async def test_an_event_that_comes_in_pieces_goes_on_in_pieces(ada: Caller) -> None:
    turn = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(b"data: {"))
        await turn.wait()
        writer.write(chunk(b'"n": 1}\n\n') + b"0\r\n\r\n")

    async with provider(ada, script), call(ada, CHAT, STREAM) as reading:
        await reading.head()
        assert await reading.chunk() == b"data: {"
        turn.set()
        assert await reading.rest() == b'"n": 1}\n\n'


async def test_a_reader_that_does_not_read_stops_the_provider_and_grows_no_memory(ada: Caller) -> None:
    sent_bytes = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await request_of(reader)
        writer.write(SSE_HEAD)
        piece = chunk(b": " + b"x" * (PIECE_BYTES - 4) + b"\n\n")
        while sent_bytes < OFFERED_BYTES:
            writer.write(piece)
            await writer.drain()
            sent_bytes += PIECE_BYTES

    [worker] = ada.house.children("worker")
    before = resident_bytes(worker)
    small: dict[str, Any] = {"buffer_bytes": 64 * 1024}
    async with provider(ada, script, **small), call(ada, CHAT, STREAM, **small) as reading:
        await reading.head()
        seen = -1
        while seen != sent_bytes:
            seen = sent_bytes
            await asyncio.sleep(0.3)
        assert sent_bytes < OFFERED_BYTES / 8, "only what the buffers of the system hold"
        assert resident_bytes(worker) - before < 12 * 2**20
        reading.leave()
    assert (await record_of(ada))["result"] == "client_gone"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_a_small_json_answer_leaves_in_one_piece_with_its_cost_and_a_large_one_without(ada: Caller) -> None:
    small = json.dumps(ANSWER).encode()
    large = json.dumps(ANSWER | {"padding": "x" * 300_000}).encode()
    answers = iter((small, large))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(whole(next(answers)))

    async with provider(ada, script):
        first = await asyncio.to_thread(ada.post, CHAT, PLAIN)
        second = await asyncio.to_thread(ada.post, CHAT, PLAIN)
    assert (first.body, second.body) == (small, large)
    assert first.headers["x-callmeter-cost-usd"] == "0.0000104"
    assert "x-callmeter-cost-usd" not in second.headers
    assert second.headers["content-length"] == str(len(large))
    assert [record["cost_nusd"] for record in await asyncio.to_thread(ada.records, 2)] == [10_400, 10_400]


async def test_the_headers_of_the_provider_pass_but_for_those_of_the_connection_and_ours(ada: Caller) -> None:
    told = ["X-Request-Id: req_1", "openai-processing-ms: 12", "Set-Cookie: a=1", "Set-Cookie: b=2", "x-hop: 1"]
    told += ["connection: keep-alive, x-hop", "alt-svc: h3", "x-callmeter-call: forged", "server: provider/1"]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(json.dumps(ANSWER).encode(), *told, status="201 Created"))

    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.post, CHAT, PLAIN)
    assert answer.status == 201
    assert answer.headers["x-request-id"] == "req_1"
    assert answer.headers["openai-processing-ms"] == "12"
    assert answer.headers["server"] == "provider/1"
    assert answer.headers["x-callmeter-call"] != "forged"
    assert not {"x-hop", "alt-svc", "keep-alive"} & set(answer.headers)


async def test_a_packed_answer_passes_as_it_is_and_is_metered(ada: Caller) -> None:
    packed = gzip.compress(json.dumps(ANSWER).encode())

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(packed, "content-encoding: gzip"))

    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.post, CHAT, PLAIN, {"accept-encoding": "gzip"})
    assert (answer.body, answer.headers["content-encoding"]) == (packed, "gzip")
    assert (await record_of(ada))["usage"]["output"] == 4


async def test_answers_without_a_body_pass(ada: Caller) -> None:
    answers = iter((b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", whole(b"")))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(next(answers))

    async with provider(ada, script):
        first = await asyncio.to_thread(ada.post, CHAT, PLAIN)
        second = await asyncio.to_thread(ada.post, CHAT, PLAIN)
    assert (first.status, first.body) == (204, b"")
    assert (second.status, second.body) == (200, b"")


async def test_the_answer_to_a_head_request_keeps_the_length_that_it_tells(ada: Caller) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1234\r\n\r\n")

    headers = {"authorization": f"Bearer {ada.key}"}
    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.house.request, "HEAD", "/script-openai/v1/models", None, headers)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "1234", b"")


async def test_an_unknown_call_that_succeeds_has_no_price_and_is_not_called_free(ada: Caller) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(b"made", content_type="application/octet-stream"))

    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.post, "/script-openai/v1/brand/new", b"\x00\x01")
    assert (answer.status, answer.body) == (200, b"made")
    record = await record_of(ada)
    assert (record["api"], record["usage_source"], record["cost_nusd"]) == ("unknown", "none", None)


async def test_a_connection_to_the_provider_serves_one_call_after_the_other(ada: Caller) -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await request_of(reader)
            writer.write(whole(json.dumps(ANSWER).encode()))

    async with provider(ada, script):
        for _ in range(4):
            assert (await asyncio.to_thread(ada.post, CHAT, PLAIN)).status == 200
    assert connections == 1


# -- the agent goes ----------------------------------------------------------------------------------------------------


async def test_a_stream_whose_agent_left_is_cancelled_at_the_provider_and_charged_for_what_was_seen(
    ada: Caller,
) -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(delta("four words of text ")) * 3)
        await reader.read()
        closed.set()

    async with provider(ada, script), call(ada, CHAT, STREAM) as reading:
        await reading.head()
        await reading.chunk()
        reading.leave()
        async with asyncio.timeout(10):
            await closed.wait()
        record = await record_of(ada)
    assert (record["result"], record["usage_source"], record["status"]) == ("client_gone", "partial", 200)
    assert record["usage"]["input"] > 0
    assert record["usage"]["output"] > 0
    assert record["cost_nusd"] > 0


async def test_a_stream_whose_agent_left_before_it_began_is_not_free(ada: Caller) -> None:
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        asked.set()
        await reader.read()

    async with provider(ada, script), call(ada, CHAT, STREAM) as waiting:
        async with asyncio.timeout(10):
            await asked.wait()
        waiting.leave()
        record = await record_of(ada)
    assert (record["result"], record["usage_source"]) == ("client_gone", "partial")
    assert record["cost_nusd"] > 0


async def test_a_plain_call_whose_agent_left_is_read_to_its_end(ada: Caller) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        asked.set()
        await go.wait()
        body = json.dumps(ANSWER).encode()
        writer.write(whole(body)[: -len(body) // 2])
        await asyncio.sleep(0.01)
        writer.write(whole(body)[-len(body) // 2 :])
        await reader.read()

    async with provider(ada, script), call(ada, CHAT, PLAIN) as waiting:
        async with asyncio.timeout(10):
            await asked.wait()
        waiting.leave()
        await asyncio.sleep(0.05)
        go.set()
        record = await record_of(ada)
    assert (record["result"], record["usage_source"]) == ("client_gone", "reported")
    assert (record["usage"]["input"], record["usage"]["output"], record["cost_nusd"]) == (10, 4, 10_400)


# -- the provider breaks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        (CHAT, PLAIN, 502, "server_error"),
        (CHAT, STREAM, 502, "server_error"),
        (MESSAGES, MESSAGE_STREAM, 502, "api_error"),
        (GEMINI, {"contents": []}, 502, "UNAVAILABLE"),
        ("/script-openai/v1/brand/new", {}, 502, "server_error"),
    ],
)
async def test_a_provider_that_cannot_be_reached_is_a_retryable_refusal_in_the_dialect(
    ada: Caller, path: str, body: Any, status: int, word: str
) -> None:
    answer = await asyncio.to_thread(ada.post, path, body)  # nobody listens there
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (status, "upstream_unreachable")
    assert word in answer.body.decode()
    assert "refuses connections" in answer.body.decode()
    assert "x-should-retry" not in answer.headers
    record = await record_of(ada)
    assert (record["result"], record["refusal"], record["error"]) == (
        "failed",
        "upstream_unreachable",
        "connect_refused",
    )
    assert (record["cost_nusd"], record["usage_source"]) == (0, "none")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", "reset"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "bad_answer"),
    ],
)
async def test_a_provider_that_breaks_before_it_answers_is_a_refusal_that_invites_no_repeat(
    ada: Caller, said: bytes, error: str
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(said)

    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.post, CHAT, PLAIN)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (502, "upstream_unreachable")
    assert answer.headers["x-should-retry"] == "false", "the provider may have begun to work, and to bill"
    record = await record_of(ada)
    assert (record["result"], record["error"], record["cost_nusd"]) == ("failed", error, 0)


async def test_a_json_answer_that_breaks_off_is_a_refusal_and_charged_as_made(ada: Caller) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(json.dumps(ANSWER).encode())[:-20])

    async with provider(ada, script):
        answer = await asyncio.to_thread(ada.post, CHAT, PLAIN)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_unreachable")
    record = await record_of(ada)
    assert (record["result"], record["usage_source"], record["error"]) == ("failed", "partial", "reset")
    assert record["cost_nusd"] > 0


@pytest.mark.parametrize(
    ("path", "body", "first", "told"),
    [
        (CHAT, STREAM, delta("one"), b'"code":"upstream_unreachable"'),
        (MESSAGES, MESSAGE_STREAM, event({"type": "ping"}, "ping"), b"event: error\ndata: "),
        (GEMINI + "?alt=sse", {"contents": []}, event({"candidates": []}), b'"error"'),
    ],
)
async def test_a_stream_that_breaks_between_two_events_ends_in_an_error_event(
    ada: Caller, path: str, body: Any, first: bytes, told: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(first[:-1]))
        await asyncio.sleep(0.02)
        writer.write(chunk(first[-1:]))
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with provider(ada, script), call(ada, path, body) as reading:
        await reading.head()
        whole_answer = await reading.rest()
    assert whole_answer.startswith(first)
    ending = whole_answer.removeprefix(first)
    assert told in ending
    assert ending.endswith((b"\n\n", b"\r\n\r\n"))
    assert b"closed the connection in mid-answer" in ending
    record = await record_of(ada)
    assert (record["result"], record["usage_source"], record["error"]) == ("failed", "partial", "reset")
    assert record["cost_nusd"] > 0


@pytest.mark.parametrize(
    ("path", "body", "first"),
    [
        (CHAT, STREAM, b'data: {"choices": [{"delta": {"content": "half an ev'),
        (GEMINI, {"contents": []}, b'[{"candidates": []},\n'),
    ],
)
async def test_a_stream_that_breaks_where_nothing_can_be_said_breaks_for_the_agent_too(
    ada: Caller, path: str, body: Any, first: bytes
) -> None:
    head = SSE_HEAD if path == CHAT else SSE_HEAD.replace(b"text/event-stream", b"application/json")

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(head + chunk(first))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with provider(ada, script), call(ada, path, body) as reading:
        await reading.head()
        assert await reading.chunk() == first
        assert await reading.broke()
    assert (await record_of(ada))["usage_source"] == "partial"


async def test_a_stream_that_ends_early_but_in_good_order_is_told_from_a_whole_one(ada: Caller) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(delta("one ")) + b"0\r\n\r\n")
        await reader.read()

    async with provider(ada, script), call(ada, CHAT, STREAM) as reading:
        await reading.head()
        assert await reading.rest() == delta("one ")
    record = await record_of(ada)
    assert (record["result"], record["usage_source"]) == ("ok", "estimated")
    assert record["cost_nusd"] > 0


async def test_an_answer_without_usage_is_estimated_and_not_free(ada: Caller) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        choice = {"message": {"content": "some words of text"}, "finish_reason": "stop"}
        writer.write(whole(json.dumps({"id": "x", "model": "gpt-4.1-mini", "choices": [choice]}).encode()))

    async with provider(ada, script):
        assert (await asyncio.to_thread(ada.post, CHAT, PLAIN)).status == 200
    record = await record_of(ada)
    assert (record["usage_source"], record["result"]) == ("estimated", "ok")
    assert record["cost_nusd"] > 0
