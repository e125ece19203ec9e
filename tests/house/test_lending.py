"""`replay` and `join` as people with the real SDKs meet them, across two workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from proxy.edge.lending import KEEP_ALIVE_S
from proxy.store.embedded import EmbeddedServer
from proxy.store.keyspace import KEYS, shard_of
from tests.support.house import POLICY, Answer, Caller, House, Providers, eventually, own_house
from tests.support.store import open_client

CHAT = "/openai/v1/chat/completions"
RULES = """\
duplicates:
  - {name: again, kind: exact, match: {user: "replay*"}, then: replay}
  - {name: together, kind: exact, match: {user: "join*"}, then: join}
  - {name: shared, kind: exact, match: {team: "pool"}, per: org, then: join, share: org}
  - {name: pooled, kind: exact, match: {team: "lake"}, per: org, then: replay, share: org}
  - {name: own, kind: exact, match: {team: "sea"}, per: org, then: replay}
"""
ONE_WAITS = 2
"""Workers: a call and its twin meet on either."""


def chat(content: str = "Where is the rounding fault?", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5-mini", "messages": [{"role": "user", "content": content}], **more}


@pytest.fixture(scope="module")
def lending(providers: Providers) -> Iterator[House]:
    """A house with two workers and the rules above."""
    with own_house(providers, policy=POLICY, workers=ONE_WAITS) as made:
        made.write_policy(RULES, "duplicates.yaml")
        until_rules_apply(made)
        yield made


def until_rules_apply(house: House) -> None:
    """Until each worker has taken the rules: a new connection finds either."""
    probe = house.caller("replay-probe")

    def in_force() -> bool:
        asked = chat(f"probe {time.monotonic()}")
        answers = [probe.post(CHAT, asked) for _ in range(8)]
        return all("x-callmeter-replay" in answer.headers for answer in answers[1:])

    eventually(in_force, "the rules are in force")


def seen(providers: Providers) -> int:
    return len(providers.simulator.seen)


def answered(who: Caller, body: Any) -> Answer:
    """A call whose answer is in the store by now: it gets there when the call is settled, after the agent has it."""
    answer = who.post(CHAT, body)
    who.record(answer.headers["x-callmeter-call"])
    return answer


def running(pool: ThreadPoolExecutor, who: Caller, body: Any, wish: str, providers: Providers) -> Future[Answer]:
    """A call that has reached the provider."""
    before = seen(providers)
    call = pool.submit(who.post, CHAT, body, {"x-sim": wish})
    eventually(lambda: seen(providers) > before, "the provider has the call")
    return call


# -- replay -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_given_again_byte_by_byte_for_nothing(lending: House, providers: Providers) -> None:
    ada = lending.caller("replay")
    first = answered(ada, chat())
    before = seen(providers)
    again = [ada.post(CHAT, chat()) for _ in range(3)]
    assert seen(providers) == before
    assert {answer.body for answer in again} == {first.body}
    assert {answer.headers["x-callmeter-replay"] for answer in again} == {first.headers["x-callmeter-call"]}
    assert {answer.headers["x-callmeter-cost-usd"] for answer in again} == {"0"}
    records = ada.records(4)
    assert [record["replayed"] for record in records] == [False, True, True, True]
    assert {record["twin_of"] for record in records[1:]} == {records[0]["call_id"]}
    assert sum(record["cost_nusd"] for record in records[1:]) == 0
    assert {(record["rule"], record["twin_rule"], record["twin_kind"]) for record in records[1:]} == {
        ("again", "again", "exact")
    }
    assert all(record["ms_overhead"] <= record["ms_total"] for record in records)
    assert (records[1]["result"], records[1]["status"], records[1]["usage_source"]) == ("ok", 200, "none")


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_is_given_again_with_the_same_events(lending: House, usage: bool) -> None:
    ada = lending.caller("replay")
    options = {"stream_options": {"include_usage": True}} if usage else {}
    one = ada.post(CHAT, chat(stream=True, **options), {"x-sim": "chunks=20"})
    ada.record()
    two = ada.post(CHAT, chat(stream=True, **options))
    assert one.body == two.body
    assert one.body.endswith(b"data: [DONE]\n\n")
    assert two.headers["content-type"] == one.headers["content-type"]
    assert "x-callmeter-replay" in two.headers
    assert (b'"usage":{' in two.body.replace(b" ", b"")) is usage


def test_the_sdks_read_a_replayed_stream(lending: House) -> None:
    ada = lending.caller("replay")
    client = openai.OpenAI(base_url=f"{lending.url}/v1", api_key=ada.key)
    words = []
    for number in range(2):
        ada.records(number)
        stream = client.chat.completions.create(**chat(), stream=True)
        words.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
    assert words[0] == words[1] != ""
    claude = anthropic.Anthropic(base_url=lending.url, api_key=ada.key)
    asked: Any = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": chat()["messages"]}
    texts = []
    for number in range(2, 4):
        ada.records(number)
        with claude.messages.stream(**asked) as stream:
            texts.append(stream.get_final_text())
    assert texts[0] == texts[1] != ""
    assert [record["replayed"] for record in ada.records(4)] == [False, True, False, True]


def test_an_answer_of_the_other_form_is_none(lending: House) -> None:
    ada = lending.caller("replay")
    assert ada.post(CHAT, chat()).status == 200
    streamed = ada.post(CHAT, chat(stream=True))
    assert "x-callmeter-replay" not in streamed.headers
    assert streamed.headers["content-type"].startswith("text/event-stream")
    ada.records(2)
    assert "x-callmeter-replay" in ada.post(CHAT, chat(stream=True)).headers


def test_a_failed_answer_is_not_given_again(lending: House) -> None:
    ada = lending.caller("replay")
    assert ada.post(CHAT, chat(), {"x-sim": "status=500"}).status == 500
    assert "x-callmeter-replay" not in ada.post(CHAT, chat()).headers


def test_anothers_answer_is_given_only_where_the_rule_shares(lending: House) -> None:
    shared = [answered(lending.caller("lender", team="lake"), chat()) for _ in range(2)]
    assert ["x-callmeter-replay" in answer.headers for answer in shared] == [False, True]
    own = [answered(lending.caller("keeper", team="sea"), chat()) for _ in range(2)]
    assert ["x-callmeter-replay" in answer.headers for answer in own] == [False, False]
    other = lending.caller("lender", team="lake", org="other").post(CHAT, chat())
    assert "x-callmeter-replay" not in other.headers


async def test_a_damaged_answer_is_ignored_and_the_call_goes_upstream(lending: House, providers: Providers) -> None:
    ada = lending.caller("replay")
    body = chat("damaged later")
    assert answered(ada, body).status == 200
    async with open_client(f"unix://{lending.data / 'valkey.sock'}") as client:
        prefix = KEYS[shard_of("default")].prefix
        for key in await client.call("KEYS", f"{prefix}answer:*"):
            sealed = await client.call("GET", key)
            assert b"chat.completion" not in sealed
            await client.call("SET", key, sealed[:60] + bytes([sealed[60] ^ 1]) + sealed[61:], "KEEPTTL")
    before = seen(providers)
    answer = answered(ada, body)
    assert (answer.status, seen(providers)) == (200, before + 1)
    assert "x-callmeter-replay" not in answer.headers
    assert "x-callmeter-replay" in ada.post(CHAT, body).headers, "the new answer takes its place"


# -- join -------------------------------------------------------------------------------------------------------------


def test_calls_wait_for_their_running_twin_on_whichever_worker(lending: House, providers: Providers) -> None:
    ada = lending.caller("join")
    with ThreadPoolExecutor(8) as pool:
        first = running(pool, ada, chat(), "first-ms=700", providers)
        before = seen(providers)
        others = [pool.submit(ada.post, CHAT, chat()) for _ in range(6)]
        bodies = {call.result().body for call in others}
    assert seen(providers) == before
    assert bodies == {first.result().body}
    records = ada.records(7)
    assert [record["joined"] for record in sorted(records, key=lambda one: one["replayed"])] == [False] + [True] * 6
    assert sum(record["cost_nusd"] > 0 for record in records) == 1
    for record in records:
        assert record["ms_total"] > 500 > record["ms_overhead"], "to wait for a twin is no overhead of ours"
    later = ada.post(CHAT, chat())
    assert "x-callmeter-replay" not in later.headers, "none runs, so this one does"


def test_a_stream_waits_too(lending: House, providers: Providers) -> None:
    ada = lending.caller("join")
    with ThreadPoolExecutor(4) as pool:
        first = running(pool, ada, chat(stream=True), "first-ms=300, chunks=10, pause-ms=20", providers)
        others = [pool.submit(ada.post, CHAT, chat(stream=True)) for _ in range(3)]
        assert {call.result().body for call in others} == {first.result().body}


def test_a_user_joins_another_only_where_the_rule_shares(lending: House, providers: Providers) -> None:
    ada, bob = (lending.caller("swimmer", team="pool") for _ in range(2))
    body = chat("shared question")
    with ThreadPoolExecutor(2) as pool:
        first = running(pool, ada, body, "first-ms=500", providers)
        joined = pool.submit(bob.post, CHAT, body)
        assert joined.result().headers["x-callmeter-replay"] == first.result().headers["x-callmeter-call"]


def test_when_the_one_that_runs_fails_the_next_in_line_goes_upstream(lending: House, providers: Providers) -> None:
    ada = lending.caller("join")
    with ThreadPoolExecutor(4) as pool:
        first = running(pool, ada, chat(), "first-ms=400, status=500", providers)
        before = seen(providers)
        others = [pool.submit(ada.post, CHAT, chat(), {"x-sim": "first-ms=300"}) for _ in range(3)]
        assert [call.result().status for call in others] == [200] * 3
    assert first.result().status == 500
    assert seen(providers) == before + 1, "one of them, and the others waited for that one"


def test_when_its_caller_leaves_the_next_in_line_goes_upstream(lending: House, providers: Providers) -> None:
    ada = lending.caller("join")
    leaving = openai.OpenAI(base_url=f"{lending.url}/v1", api_key=ada.key, max_retries=0, timeout=0.4)
    before = seen(providers)

    def ask() -> None:
        with pytest.raises(openai.APITimeoutError):
            leaving.chat.completions.create(**chat(), extra_headers={"x-sim": "first-ms=3000"})

    gone = threading.Thread(target=ask)
    gone.start()
    eventually(lambda: seen(providers) > before, "the provider has the call")
    begun_s = time.monotonic()
    assert ada.post(CHAT, chat()).status == 200
    assert time.monotonic() - begun_s < 2.5, "it did not wait for what nobody waits for"
    gone.join()


def test_a_waiting_caller_may_leave(lending: House, providers: Providers) -> None:
    ada = lending.caller("join")
    with ThreadPoolExecutor(1) as pool:
        first = running(pool, ada, chat(), "first-ms=900", providers)
        client = openai.OpenAI(base_url=f"{lending.url}/v1", api_key=ada.key, max_retries=0, timeout=0.2)
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**chat())
        assert first.result().status == 200
    records = ada.records(2)
    assert sorted(record["result"] for record in records) == ["client_gone", "ok"]
    assert next(one for one in records if one["result"] == "client_gone")["cost_nusd"] == 0


def test_when_its_worker_is_killed_the_next_in_line_goes_upstream(providers: Providers) -> None:
    """The hold of the killed one must expire first; meanwhile a stream is told that it waits."""
    with own_house(providers, policy=POLICY, workers=2) as made:
        made.write_policy(RULES, "duplicates.yaml")
        until_rules_apply(made)
        ada = made.caller("join")
        before = seen(providers)
        with closing(connected(made)) as first, ThreadPoolExecutor(3) as pool:
            ask(first, ada, "first-ms=60000")
            eventually(lambda: seen(providers) > before, "the provider has the call")
            leader = worker_of(made, first)
            others = [elsewhere(made, leader) for _ in range(3)]
            for other in others:
                ask(other, ada, "")
            time.sleep(0.3)
            os.kill(leader, signal.SIGKILL)
            answers = [pool.submit(body_of, other) for other in others]
            time.sleep(KEEP_ALIVE_S + 0.5)
            assert not any(answer.done() for answer in answers)
            asyncio.run(let_holds_expire(made))
            bodies = [answer.result() for answer in answers]
        assert all(body.startswith(b": waiting for the same call") for body in bodies)
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        assert seen(providers) == before + 2
        assert sorted(record["joined"] for record in ada.records(3)) == [False, True, True]
        for other in others:
            other.close()


def body_of(connection: HTTPConnection) -> bytes:
    return connection.getresponse().read()


async def let_holds_expire(house: House) -> None:
    """The half a minute that a hold lives without its worker passes at once."""
    holds = KEYS[shard_of("default")].holds
    async with open_client(EmbeddedServer(house.data).url) as client:
        for call_id in await client.call("ZRANGE", holds, 0, -1):
            await client.call("ZADD", holds, 1, call_id)


def connected(house: House) -> HTTPConnection:
    connection = HTTPConnection(*house.address(), timeout=90)
    connection.connect()
    return connection


def ask(connection: HTTPConnection, who: Caller, wish: str) -> None:
    headers = {"authorization": f"Bearer {who.key}", "content-type": "application/json", "x-sim": wish}
    connection.request("POST", CHAT, json.dumps(chat(stream=True)), headers)


def elsewhere(house: House, worker: int) -> HTTPConnection:
    """A connection to another worker than this one."""
    for _ in range(64):
        connection = connected(house)
        if eventually(lambda: worker_of(house, connection), "the connection was taken") != worker:  # noqa: B023
            return connection
        connection.close()
    raise AssertionError("all connections went to one worker")


def worker_of(house: House, connection: HTTPConnection) -> int:
    """The process that has the other end of a connection; 0 while none has taken it."""
    assert house.process is not None
    port = f":{connection.sock.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or f"\nPPid:\t{house.process.pid}\n" not in read(entry / "status"):
            continue
        if ends & {target_of(name) for name in (entry / "fd").iterdir()}:
            return int(entry.name)
    return 0


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def target_of(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
