"""The story that the demo tells: three people, four tasks, every dialect, and what goes wrong on an ordinary day."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import aiohttp

from proxy.core.keys import Caveat, attenuate

CHAT, MESSAGES, GEMINI = (
    "/sim-openai/v1/chat/completions",
    "/sim-anthropic/v1/messages",
    "/sim-gemini/v1beta/models/gemini-2.5-flash:generateContent",
)


class Step(NamedTuple):
    """One call: who, for which task, where to, with what wish to the simulated provider (see simulator.py)."""

    user: str
    task: str | None
    path: str
    body: dict[str, Any]
    wish: str = ""


def chat(prompt: str, model: str = "gpt-5-mini", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


def message(prompt: str, model: str = "claude-sonnet-4-5", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2000, "messages": [{"role": "user", "content": prompt}], **more}


def contents(prompt: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}


CODE = "def total(rows): return sum(row.amount for row in rows)\n" * 60

STORY = [
    # Ada fixes a rounding fault, with an agent that reads code and streams.
    Step("ada", "PAY-7", CHAT, chat("Where is the rounding fault?\n" + CODE, stream=True), "chunks=120"),
    Step("ada", "PAY-7", CHAT, chat("Write a test for it.\n" + CODE), "chunks=200, cached=400"),
    Step("ada", "PAY-7", CHAT, chat("Is the fix complete?", "gpt-5"), "chunks=60, reasoning=900"),
    # Ben builds search, on another provider.
    Step("ben", "SEARCH-3", MESSAGES, message("Plan an index for product names."), "chunks=400"),
    Step("ben", "SEARCH-3", MESSAGES, message("Now write it.", stream=True), "chunks=900"),
    Step("ben", "SEARCH-3", MESSAGES, message("Is it deployed?"), "tool=deploy_status"),
    Step("ben", "SEARCH-3", GEMINI, contents("Translate the release note to German."), "chunks=80"),
    # Cleo looks after the nightly job; the provider has a bad moment, and a stream breaks.
    Step("cleo", "OPS-12", CHAT, chat("Why did the nightly job fail?"), "status=503, retry-after=1"),
    Step("cleo", "OPS-12", CHAT, chat("Why did the nightly job fail?"), "chunks=90"),
    Step("cleo", "OPS-12", CHAT, chat("Explain it step by step.", stream=True), "chunks=200, cut-after=80"),
    # A docs task that two people work on.
    Step("ada", "DOCS-1", GEMINI, contents("Draft the upgrade guide.\n" + CODE), "chunks=500"),
    Step("ben", "DOCS-1", MESSAGES, message("Shorten the upgrade guide."), "chunks=150"),
    # A call without a task, and one with a model that has no price.
    Step("cleo", None, CHAT, chat("What is the capital of France?"), "chunks=8"),
    Step("cleo", None, CHAT, chat("Try our own model.", "acme-coder-1"), "chunks=30"),
]


async def make_keys(session: aiohttp.ClientSession, admin_url: str, token: str) -> dict[str, str]:
    """A key for each user of the story."""
    keys = {}
    for user, team in (("ada", "payments"), ("ben", "search"), ("cleo", "platform")):
        headers = {"authorization": f"Bearer {token}"}
        async with session.post(f"{admin_url}/api/keys", json={"user": user, "team": team}, headers=headers) as made:
            made.raise_for_status()
            keys[user] = (await made.json())["key"]
    return keys


async def tell(session: aiohttp.ClientSession, url: str, keys: dict[str, str]) -> None:
    """Makes the calls of the story, one after the other; each task has a task key, derived by its user."""
    for step in STORY:
        key = keys[step.user]
        if step.task is not None:
            key = attenuate(key, [Caveat("task", step.task)])
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "x-sim": step.wish}
        try:
            async with session.post(url + step.path, data=json.dumps(step.body), headers=headers) as answer:
                await answer.read()
        except aiohttp.ClientError:
            pass  # the stream that breaks: part of the story
        await asyncio.sleep(0.02)
