"""Streams that need more than their hold covers: they take more, and a budget that cuts ends them in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.expected import Subject
from proxy.core.usage import Usage
from proxy.store.errors import StoreUnavailable
from tests.support.scripted import SSE_HEAD, Script, chunk, event, request_of, scripted
from tests.support.worker import Edge, policy, serving

CHAT = "/openai/v1/chat/completions"
STREAM: dict[str, Any] = {
    "model": "gpt-4.1-mini",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
PRICES = 'prices:\n  - {match: {provider: openai}, input_per_mtok: "0", output_per_mtok: "10"}\n'
EXPECTED = 100
"""Output tokens that a call without a limit is expected to make, at $0.00001 each."""
PIECE = event({"choices": [{"index": 0, "delta": {"content": "x" * 30}}]})
"""Ten tokens, at three bytes each."""
PIECE_TOKENS = 10
PIECES = 200


def budget(name: str, tokens: int, rest: str = "when_outgrown: cut") -> str:
    return f"  - {{name: {name}, limit: $0.{tokens:05}, every: ever, {rest}}}\n"


@asynccontextmanager
async def edge_with(store_url: str, script: Script, *budgets: str) -> AsyncIterator[Edge]:
    more = f"{PRICES}budgets:\n{''.join(budgets)}"
    async with (
        scripted(script) as url,
        serving(store_url, policy(url, f"max_output_tokens: {EXPECTED}", more)) as edge,
    ):
        yield edge


class Talker:
    """A provider whose answer is longer than anybody expects: each piece is sent when the agent has the one before."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.left = asyncio.Event()
        self.wanted = asyncio.Semaphore(1)
        self._at_once = at_once

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if self._at_once:
            writer.write(SSE_HEAD + chunk(PIECE * PIECES + b"data: [DONE]\n\n") + chunk(b""))
            return
        writer.write(SSE_HEAD)
        gone = asyncio.create_task(reader.read())
        gone.add_done_callback(lambda _: self.left.set())
        for _ in range(PIECES):
            await self.wanted.acquire()
            writer.write(chunk(PIECE))
        writer.write(chunk(b"data: [DONE]\n\n") + chunk(b""))
        await gone


async def told(edge: Edge, talker: Talker, **more: Any) -> bytes:
    """The whole answer, taken piece by piece."""
    text = b""
    async with edge.post(CHAT, STREAM | more) as agent:
        await agent.head()
        while data := await agent.chunk():
            text += data
            for _ in range(data.count(PIECE)):
                talker.wanted.release()
    return text


async def test_a_stream_is_cut_within_a_step_of_what_its_budget_can_give(store_url: str) -> None:
    talker, limit = Talker(), 150
    async with edge_with(store_url, talker, budget("leash", limit)) as edge:
        text = await told(edge, talker)
        [record] = await edge.records()
        await asyncio.wait_for(talker.left.wait(), 5)
    assert (record.result, record.error, record.refusal, record.rule) == (
        "failed",
        "budget_cut",
        "budget_spent",
        "leash",
    )
    seen = text.count(PIECE) * PIECE_TOKENS
    assert limit - PIECE_TOKENS < seen <= limit + limit // 4, "neither early nor more than a step late"
    assert b"budget `leash` of $0.0015 in all for org `default` has no room for the rest of this answer" in text
    assert b"`when_outgrown: cut`" in text


async def test_a_budget_that_lets_streams_finish_does_not_cut_one_for_the_sake_of_another_that_cuts(
    store_url: str,
) -> None:
    budgets = (budget("small", 110, "when_outgrown: finish"), budget("large", 90_000))
    async with edge_with(store_url, talker := Talker(), *budgets) as edge:
        text = await told(edge, talker)
        [record] = await edge.records()
    assert record.result == "ok"
    assert text.count(PIECE) == PIECES


async def test_of_two_budgets_that_cut_the_one_without_room_is_named(store_url: str) -> None:
    async with edge_with(store_url, talker := Talker(), budget("large", 90_000), budget("small", 120)) as edge:
        await told(edge, talker)
        [record] = await edge.records()
    assert record.rule == "small"


async def test_a_hold_of_the_worst_case_is_not_outgrown_by_an_answer_longer_than_expected(store_url: str) -> None:
    leash = budget("bounded", 3500, "reserve: worst_case, when_outgrown: cut")
    async with edge_with(store_url, talker := Talker(), leash) as edge:
        alike = Subject(org="default", user="ada", provider="openai", model="gpt-4.1-mini")
        for _ in range(5):  # calls of this model are short, as far as is known
            edge.relay._holder._learned.learn(alike, Call(), Usage(output=100), answer_s=1)
        text = await told(edge, talker, max_tokens=3000)
        [record] = await edge.records()
    assert (record.result, record.estimate["output"]) == ("ok", 100)
    assert text.count(PIECE) == PIECES


async def test_a_fixed_hold_is_outgrown_where_its_amount_ends(store_url: str) -> None:
    async with edge_with(
        store_url, talker := Talker(), budget("fixed", 60, "when_outgrown: cut, reserve: $0.00040")
    ) as edge:
        text = await told(edge, talker)
    assert 50 < text.count(PIECE) * PIECE_TOKENS <= 60 + 60 // 4


async def test_an_answer_that_the_provider_has_sent_in_full_is_not_cut(store_url: str) -> None:
    async with edge_with(store_url, talker := Talker(at_once=True), budget("leash", 150)) as edge:
        text = await told(edge, talker)
        [record] = await edge.records()
    assert record.result == "ok"
    assert text.count(PIECE) == PIECES, "it is made and paid for"


@pytest.mark.parametrize(
    ("outgrown", "outage", "pieces_max"),
    [
        ("cut", "refuse", 12),
        ("cut", "{allow_up_to: $0.00030}", 16),
        ("cut", "allow", PIECES),
        ("finish", "refuse", PIECES),
    ],
)
async def test_while_the_store_is_away_the_rule_says_whether_a_stream_is_cut(
    store_url: str, monkeypatch: pytest.MonkeyPatch, outgrown: str, outage: str, pieces_max: int
) -> None:
    async with edge_with(
        store_url, talker := Talker(), budget("leash", 90_000, f"when_outgrown: {outgrown}, store_outage: {outage}")
    ) as edge:

        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("the store is away")

        monkeypatch.setattr(edge.worker.store, "extend", away)
        text = await told(edge, talker)
        [record] = await edge.records()
    assert record.degraded is (outgrown == "cut")
    assert EXPECTED // PIECE_TOKENS < text.count(PIECE) <= pieces_max
    cut = pieces_max < PIECES
    assert (record.refusal, record.rule) == (("store_unavailable", "leash") if cut else (None, None))
