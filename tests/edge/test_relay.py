"""The walk of a call where something in it takes too long, is away or fails."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy import app
from proxy.core.record import Record, decode
from proxy.core.refusal import CODES
from proxy.edge import body, relay, upstream, ways_out
from proxy.ledger.errors import LedgerUnavailable
from proxy.wire.framing import AnswerMeter
from tests.support.scripted import SSE_HEAD, chunk, event, request_of, scripted, whole
from tests.support.store import entries, eventually, open_client
from tests.support.valkey import RunningServer
from tests.support.worker import KEY, Edge, policy, serving

CHAT = "/openai/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
ASK = [{"role": "user", "content": "hi"}]
PLAIN = {"model": "gpt-4.1-mini", "messages": ASK}
STREAM = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
ANSWER = json.dumps({"id": "c1", "model": "gpt-4.1-mini", "choices": [], "usage": USAGE}).encode()


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider that always answers."""
    while True:
        await request_of(reader)
        writer.write(whole(ANSWER))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider that takes the call and says nothing, until the connection is closed."""
    await request_of(reader)
    await reader.read()


async def begins(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider that sends one event and then says nothing more."""
    await request_of(reader)
    writer.write(SSE_HEAD + chunk(event({"choices": [{"index": 0, "delta": {"content": "some text"}}]})))
    await reader.read()


# -- time limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "word"), [(CHAT, b'"upstream_timeout"'), (MESSAGES, b'"timeout_error"')])
async def test_a_provider_that_never_answers_is_given_up_and_may_have_cost(
    store_url: str, monkeypatch: pytest.MonkeyPatch, path: str, word: bytes
) -> None:
    monkeypatch.setattr(upstream, "FIRST_BYTE_S_MAX", 0.05)
    async with scripted(silent) as url, serving(store_url, policy(url)) as edge:
        head, told = await edge.answer(path, PLAIN | {"max_tokens": 50})
        assert head.status == 504
        assert word in told
        assert head.headers["x-should-retry"] == "false", "a repeat might be paid for twice"
        [record] = await edge.records()
    assert (record.result, record.error, record.refusal) == ("failed", "first_byte_timeout", "upstream_timeout")
    assert record.usage_source == "partial"
    assert record.cost_nusd


async def test_a_provider_that_falls_silent_ends_the_stream_with_an_error_event(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "SILENCE_S_MAX", 0.05)
    async with scripted(begins) as url, serving(store_url, policy(url)) as edge:
        head, told = await edge.answer(CHAT, STREAM)
        assert head.status == 200
        assert b'"code":"upstream_timeout"' in told
        assert b"fell silent" in told
        [record] = await edge.records()
    assert (record.result, record.error, record.usage_source) == ("failed", "idle_timeout", "partial")


async def test_an_agent_that_takes_nothing_for_too_long_is_given_up(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "WATCH_S", 0.02)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD)
        while True:
            writer.write(chunk(b": " + b"x" * 65536 + b"\n\n"))
            await writer.drain()

    small = 64 * 1024
    async with (
        scripted(endless, buffer_bytes=small) as url,
        serving(store_url, policy(url)) as edge,
        edge.post(CHAT, STREAM, buffer_bytes=small) as stuck,
    ):
        await stuck.head()
        monkeypatch.setattr(relay, "WRITE_S_MAX", 0.1)
        [record] = await edge.records()
        assert record.result == "client_gone"
        assert await stuck.broke()


async def test_a_call_beyond_the_longest_is_cut(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WATCH_S", 0.02)
    async with (
        scripted(begins) as url,
        serving(store_url, policy(url)) as edge,
        edge.post(CHAT, STREAM) as reading,
    ):
        await reading.head()
        monkeypatch.setattr(relay, "CALL_S_MAX", 0.1)
        assert await reading.broke()
        [record] = await edge.records()
    assert (record.result, record.usage_source) == ("client_gone", "partial")


async def test_an_upload_that_stands_still_is_refused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SILENCE_S_MAX", 0.05)
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        head, told = await edge.answer(CHAT, b'{"model"', headers={"content-length": "1000"})
        assert (head.status, head.headers["x-callmeter-reason"]) == (400, "body_invalid")
        assert b"stopped after 8 bytes" in told
        [record] = await edge.records()
    assert (record.user, record.refusal) == ("ada", "body_invalid")


# -- the agent goes ------------------------------------------------------------------------------------------------


async def leave_in_mid_stream(edge: Edge) -> None:
    async with edge.post(CHAT, STREAM) as reading:
        await reading.head()
        await reading.chunk()
        reading.leave()


async def test_the_policy_may_have_streams_read_to_their_end_behind_an_agent_that_left(store_url: str) -> None:
    left = asyncio.Event()

    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(event({"choices": []})))
        await left.wait()
        last = event({"id": "c1", "model": "gpt-4.1-mini", "choices": [], "usage": USAGE})
        writer.write(chunk(last) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with scripted(goes_on) as url, serving(store_url, policy(url, "client_gone: drain")) as edge:
        await leave_in_mid_stream(edge)
        left.set()
        [record] = await edge.records()
    assert (record.result, record.usage_source, record.usage.output) == ("client_gone", "reported", 4)


async def test_an_agent_that_leaves_at_the_end_of_its_stream_has_had_it_whole(store_url: str) -> None:
    ended = asyncio.Event()

    async def stays_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        last = event({"id": "c1", "model": "gpt-4.1-mini", "choices": [], "usage": USAGE})
        writer.write(SSE_HEAD + chunk(last + b"data: [DONE]\n\n"))
        await ended.wait()

    async with scripted(stays_open) as url, serving(store_url, policy(url)) as edge:
        async with edge.post(CHAT, STREAM) as reading:
            await reading.head()
            assert b"[DONE]" in await reading.chunk()
            reading.leave()
        [record] = await edge.records()
        ended.set()
    assert (record.result, record.usage_source, record.usage.output) == ("ok", "reported", 4)


async def test_a_stream_that_is_read_on_is_counted_to_its_very_end_also_where_it_seemed_whole(store_url: str) -> None:
    """Of several answers in one stream, the first may be at its end long before the last."""
    left = asyncio.Event()

    def part(index: int, output: int) -> bytes:
        choice = {"index": index, "delta": {"content": "text"}, "finish_reason": "stop"}
        return chunk(event({"choices": [choice], "usage": USAGE | {"completion_tokens": output}}))

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + part(0, 4))
        await left.wait()
        writer.write(part(1, 400) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with scripted(provider) as url, serving(store_url, policy(url, "client_gone: drain")) as edge:
        await leave_in_mid_stream(edge)
        await eventually(lambda: not edge.relay._flights)
        left.set()
        [record] = await edge.records()
    assert (record.usage_source, record.usage.output) == ("reported", 400)


async def test_reading_on_behind_an_agent_that_left_has_an_end(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_out, "DRAIN_S_MAX", 0.1)
    async with scripted(begins) as url, serving(store_url, policy(url, "client_gone: drain")) as edge:
        await leave_in_mid_stream(edge)
        [record] = await edge.records()
    assert (record.result, record.usage_source) == ("client_gone", "partial")
    assert record.cost_nusd


async def test_what_is_still_read_when_the_worker_stops_is_settled_with_what_was_seen(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SETTLE_S_MAX", 0.1)
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        asked.set()
        await reader.read()

    async with scripted(slow) as url:
        async with serving(store_url, policy(url)) as edge, edge.post(CHAT, PLAIN) as waiting:
            await asked.wait()
            waiting.leave()
        [record] = await written_to(store_url)
    assert (record.result, record.usage_source) == ("client_gone", "partial")
    assert record.cost_nusd


async def written_to(store_url: str) -> list[Record]:
    async with open_client(store_url) as client:
        return [decode(entry.data) for entry in await entries(client)]


@pytest.mark.parametrize("asked", [PLAIN, STREAM])
async def test_an_agent_that_leaves_with_its_answer_while_the_store_is_slow_is_settled_once(
    store_url: str, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        last = event({"id": "c1", "model": "gpt-4.1-mini", "choices": [], "usage": USAGE})
        writer.write(SSE_HEAD + chunk(last) + b"0\r\n\r\n" if asked.get("stream") else whole(ANSWER))

    async with scripted(answers) as url, serving(store_url, policy(url)) as edge:
        settle = edge.worker.store.settle

        async def slow_settle(*arguments: Any, **options: Any) -> None:
            begun.set()
            await go.wait()
            await settle(*arguments, **options)

        monkeypatch.setattr(edge.worker.store, "settle", slow_settle)
        async with edge.post(CHAT, asked) as reading:
            await begun.wait()
            reading.leave()
        await eventually(lambda: not edge.relay._flights)
        go.set()
        [record] = await edge.records()
        await eventually(lambda: not edge.relay.running)
        assert len(await edge.records()) == 1
    assert (record.usage_source, record.usage.output) == ("reported", 4)


async def test_the_maker_of_a_background_answer_is_remembered_also_when_they_leave_at_once(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    queued = json.dumps({"id": "resp_1", "object": "response", "status": "queued", "background": True}).encode()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(queued))

    async with scripted(answers) as url, serving(store_url, policy(url)) as edge:
        settle = edge.worker.store.settle

        async def slow_settle(*arguments: Any, **options: Any) -> None:
            begun.set()
            await go.wait()
            await settle(*arguments, **options)

        monkeypatch.setattr(edge.worker.store, "settle", slow_settle)
        ask = {"model": "gpt-4.1-mini", "input": "hi", "background": True}
        async with edge.post("/openai/v1/responses", ask) as reading:
            await begun.wait()
            reading.leave()
        await eventually(lambda: not edge.relay._flights)
        go.set()
        await eventually(lambda: not edge.relay.running)
        made = await edge.worker.store.recall_later("default", "openai", "resp_1")
    assert made is not None
    assert made.user == "ada"


# -- the store is away ---------------------------------------------------------------------------------------------


async def test_a_store_that_is_away_refuses_where_the_policy_says_so(own_valkey: RunningServer) -> None:
    async with scripted(good) as url, serving(own_valkey.url, policy(url, "store_outage: refuse")) as edge:
        assert (await edge.answer(CHAT, PLAIN))[0].status == 200
        await edge.records()
        await own_valkey.kill()
        head, told = await edge.answer(CHAT, PLAIN)
        assert (head.status, head.headers["x-callmeter-reason"]) == (503, "store_unavailable")
        assert int(head.headers["retry-after"]) <= 60
        assert b"Traceback" not in told
        assert edge.worker.missing()
        await own_valkey.start()
        await eventually(lambda: edge.worker.store.healthy)
        records = await edge.records(2)
    assert [record.result for record in records] == ["ok", "refused"]


async def test_a_store_that_is_away_lets_calls_pass_up_to_an_allowance_and_gets_their_records_later(
    own_valkey: RunningServer,
) -> None:
    allowed = "store_outage: {allow_up_to: $0.10}"
    async with scripted(good) as url, serving(own_valkey.url, policy(url, allowed)) as edge:
        assert (await edge.answer(CHAT, PLAIN))[0].status == 200
        await edge.records()
        await own_valkey.kill()
        head, _ = await edge.answer(CHAT, PLAIN)
        assert (head.status, head.headers["x-callmeter-degraded"]) == (200, "store")
        dear = STREAM | {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x" * 9000}]}
        head, _ = await edge.answer(CHAT, dear)
        assert (head.status, head.headers["x-callmeter-reason"]) == (503, "store_unavailable")
        await own_valkey.start()
        await eventually(lambda: edge.worker.store.healthy)
        records = await edge.records(3)
    assert sorted(record.result for record in records) == ["ok", "ok", "refused"]
    assert sum(record.degraded for record in records if record.result == "ok") == 1


# -- decisions -----------------------------------------------------------------------------------------------------


async def test_a_model_without_a_known_price_is_refused_where_the_policy_says_so(store_url: str) -> None:
    async with scripted(good) as url, serving(store_url, policy(url, "unknown_price: refuse")) as edge:
        head, told = await edge.answer(CHAT, PLAIN | {"model": "acme-coder-1"})
        assert (head.status, head.headers["x-callmeter-reason"]) == (403, "price_unknown")
        assert b"`acme-coder-1`" in told
        assert (await edge.answer(CHAT, PLAIN))[0].status == 200


async def test_an_unknown_path_is_refused_where_the_policy_says_so(store_url: str) -> None:
    async with scripted(good) as url, serving(store_url, policy(url, "unknown_calls: refuse")) as edge:
        head, _ = await edge.answer("/openai/v1/brand/new", {})
        assert (head.status, head.headers["x-callmeter-reason"]) == (403, "unknown_call")


async def test_in_shadow_mode_a_rule_is_recorded_and_stops_nobody(store_url: str) -> None:
    rule = "access: [{name: none-at-all, then: refuse}]\n"
    async with scripted(good) as url, serving(store_url, policy(url, "mode: shadow", rule)) as edge:
        assert (await edge.answer(CHAT, PLAIN))[0].status == 200
        [record] = await edge.records()
    assert (record.result, record.refusal, record.shadow) == ("ok", None, ["none-at-all"])


async def test_of_several_refusals_the_caller_hears_the_first_by_precedence(store_url: str) -> None:
    rule = "access: [{name: none-at-all, then: refuse}]\n"
    async with serving(store_url, policy("http://127.0.0.1:9", more=rule)) as edge:
        head, _ = await edge.answer(CHAT, b"{")
        assert head.headers["x-callmeter-reason"] == "not_allowed"
        assert list(CODES).index("not_allowed") < list(CODES).index("body_invalid")


# -- our own faults ------------------------------------------------------------------------------------------------


async def test_a_key_that_cannot_be_looked_up_is_answered_with_503_and_never_401(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key_id: str) -> None:
        raise LedgerUnavailable("the database is away")

    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        monkeypatch.setattr(edge.worker.keys, "_lookup", away)
        head, told = await edge.answer(MESSAGES, PLAIN)
    assert (head.status, head.headers["x-callmeter-reason"]) == (503, "store_unavailable")
    assert json.loads(told)["error"]["type"] == "api_error"
    assert "retry-after" in head.headers


async def test_a_fault_of_ours_is_told_in_the_dialect_and_logged_with_the_id_of_the_call(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("a fault")

    async with scripted(good) as url, serving(store_url, policy(url)) as edge:
        monkeypatch.setattr(edge.relay, "_prices", broken)
        head, told = await edge.answer(CHAT, PLAIN)
        assert (head.status, json.loads(told)["error"]["code"]) == (500, "policy_broken")
        assert b"a fault" not in told
        assert head.headers["x-callmeter-call"] in caplog.text
        monkeypatch.undo()
        assert (await edge.answer(CHAT, PLAIN))[0].status == 200


@pytest.mark.parametrize("asked", [STREAM, PLAIN | {"stream": True}])
async def test_a_fault_of_ours_in_mid_answer_breaks_the_connection_and_is_recorded(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: dict[str, Any]
) -> None:
    """Also where no more than the head is out: another head would be read as a piece of the body."""

    def broken(flight: Any, data: bytes) -> None:
        raise RuntimeError("a fault")

    async with scripted(begins) as url, serving(store_url, policy(url)) as edge:
        monkeypatch.setattr(AnswerMeter, "feed", broken)
        async with edge.post(CHAT, asked) as reading:
            await reading.head()
            assert reading.status == 200
            assert await reading.broke()
        [record] = await edge.records()
        assert record.call_id in caplog.text
    assert (record.result, record.usage_source) == ("failed", "partial")


async def test_a_header_that_is_no_text_leaves_no_hold_behind(store_url: str) -> None:
    """The tier of a call stands in its record when the answer has left."""
    budget = "budgets: [{name: much, per: org, limit: $1, every: day}]\n"
    contents = [{"parts": [{"text": "hi"}]}]
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    answered = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(whole(json.dumps(answered).encode()))

    async with scripted(provider) as url, serving(store_url, policy(url, more=budget)) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        asked = json.dumps({"contents": contents}).encode()
        path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(asked)}\r\n"
        writer.write(head.encode() + b"x-vertex-ai-llm-shared-request-type: \xff\r\n\r\n" + asked)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        [record] = await edge.records()
        await eventually(lambda: edge.worker.store.running() == 0)
        writer.close()
    assert (record.result, record.service_tier, record.usage.tokens) == ("ok", "?", 5)


async def test_a_user_agent_that_is_no_text_stops_nobody(store_url: str) -> None:
    async with scripted(good) as url, serving(store_url, policy(url)) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        asked = json.dumps(PLAIN).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(asked)}\r\n"
        writer.write(head.encode() + b"user-agent: curl/\xff\r\n\r\n" + asked)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        [record] = await edge.records()
    assert (record.result, record.user_agent) == ("ok", "curl/?")


async def test_a_worker_knows_how_many_calls_run(store_url: str) -> None:
    async with scripted(begins) as url, serving(store_url, policy(url)) as edge:
        assert edge.relay.running == 0
        async with edge.post(CHAT, STREAM) as reading:
            await reading.head()
            assert edge.relay.running == 1
        await eventually(lambda: edge.relay.running == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_begins_early_and_goes_on_late_is_no_overhead_of_ours(
    store_url: str, stream: bool
) -> None:
    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"
        head, body = (SSE_HEAD, chunk(end) + b"0\r\n\r\n") if stream else (whole(ANSWER)[:-20], whole(ANSWER)[-20:])
        writer.write(head)
        await asyncio.sleep(0.4)
        writer.write(body)

    async with scripted(provider) as url, serving(store_url, policy(url)) as edge:
        await edge.answer(CHAT, PLAIN | {"stream": stream})
        (record,) = await edge.records(1)
    assert record.ms_total > 390 > 200 > record.ms_overhead > 0


async def test_a_packed_stream_that_breaks_before_its_first_bytes_is_told_nothing_in_plain_text(store_url: str) -> None:
    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()

    async with scripted(provider) as url, serving(store_url, policy(url)) as edge:
        async with edge.post(CHAT, STREAM, headers={"accept-encoding": "gzip"}) as reading:
            await reading.head()
            assert await reading.broke()
        (record,) = await edge.records(1)
    assert record.result == "failed"
