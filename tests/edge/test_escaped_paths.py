"""Rules and escapes: what the provider would read in a path is what the rules were asked about."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.scripted import request_of, scripted, whole
from tests.support.worker import policy, serving

RULES = 'access:\n  - {name: no-dear, match: {model: ["*opus*", "*-pro"]}, then: refuse}\n'
DEAR = {"model": "claude-opus-5", "messages": [], "contents": [], "max_tokens": 5}
PRO = "/gemini/v1beta/models/gemini-2.5-pr%6F"


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic/v1/mess%61ges",
        "/anthr%6Fpic/v1/messages",
        "/anthropic/v1/messages/",
        "/anthropic/v1/something/new",
        "/openai/v1/chat/c%6fmpletions",
        f"{PRO}:generateContent",
        f"{PRO}%3AgenerateContent",
        f"{PRO}%3A%67enerateContent",
        "/openai/openai/deployments/a-pr%6F/chat/completions",
    ],
)
async def test_no_escape_leads_around_a_rule_against_a_model(store_url: str, path: str) -> None:
    body = {**DEAR, "model": None} if "deployments" in path else DEAR
    async with serving(store_url, policy("http://127.0.0.1:9", more=RULES)) as edge:
        head, _ = await edge.answer(path, body)
        [record] = await edge.records()
    assert head.headers["x-callmeter-reason"] == "not_allowed"
    assert record.rule == "no-dear"
    assert record.model_asked in ("claude-opus-5", "gemini-2.5-pro", "a-pro")


async def test_the_provider_gets_the_path_that_was_read(store_url: str) -> None:
    heads: list[bytes] = []

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await request_of(reader)
            heads.append(head)
            writer.write(whole(b"{}"))

    cheap = {"model": "claude-haiku-4-5", "messages": [], "max_tokens": 5}
    async with scripted(provider) as url, serving(store_url, policy(url)) as edge:
        await edge.answer("/anthropic/v1/mess%61ges?beta=%74rue", cheap)
        await edge.answer("/openai/openai/deployments/org%2fa%7e/chat/completions", cheap)
        records = await edge.records(2)
    lines = [head.split(b"\r\n")[0] for head in heads]
    assert lines == [
        b"POST /v1/messages?beta=%74rue HTTP/1.1",
        b"POST /openai/deployments/org%2Fa~/chat/completions HTTP/1.1",
    ]
    assert [record.api for record in records] == ["anthropic.messages", "openai.chat"]


async def test_a_model_without_a_price_is_refused_at_a_path_that_nobody_knows(store_url: str) -> None:
    async with serving(store_url, policy("http://127.0.0.1:9", "unknown_price: refuse")) as edge:
        head, told = await edge.answer("/openai/v1/something/new", {"model": "made-up-model"})
        assert head.headers["x-callmeter-reason"] == "price_unknown"
        assert "made-up-model" in json.loads(told)["error"]["message"]
        [record] = await edge.records()
    assert (record.api, record.model_asked) == ("unknown", "made-up-model")
