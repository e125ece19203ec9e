"""The story that the demo tells: two teams, four people, and what their agents' calls came to.

Honest work that ships, one change that is reverted, a farm of copied tasks, an agent that goes in circles, a budget
that runs out, and what goes wrong on an ordinary day.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any, NamedTuple

import aiohttp

from proxy.core.keys import Caveat, attenuate
from proxy.core.record import rfc3339

MINUTE_MS = 60_000
WEBHOOK_SECRET = "only-for-the-demo-of-callmeter"
REPO = "acme/shop"
TEAM_OF = {"ada": "payments", "ben": "payments", "cleo": "search", "dan": "search"}

POLICY = """\
upstreams:
  sim-openai:    {{dialect: openai, url: "{url}", key: sim}}
  sim-anthropic: {{dialect: anthropic, url: "{url}", key: sim}}
  sim-gemini:    {{dialect: gemini, url: "{url}", key: sim}}
budgets:
  - {{name: trial, match: {{user: ben}}, per: user, limit: $0.06, every: day, help: "ask #ai-budget"}}
duplicates:
  - {{name: in-circles, kind: loop, per: [user, task], every: rolling 1h, limit: 4 calls, then: refuse}}
  - {{name: work-again, kind: task, per: org, every: rolling 7d, limit: 1 calls, then: warn}}
outcomes:
  - name: merged
    from: github
    secret: "{secret}"
    event: pull_request.merged
    match: {{repo: "acme/*", base: main}}
    task: "[A-Z]+-[0-9]+"
    accepted_after: 1m        # two weeks, in earnest
teams:
  payments: {{unit: merged, size: 6}}
  search: {{unit: merged, size: 5}}
"""

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
COPIED = "Read every file of the shop's repository, write down what each one does, then do it once more. Run {}."


def commit(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()[:40]


def waiting(rounds: int) -> dict[str, Any]:
    """The body of an agent that has asked for the state of a build so many times, and heard the same each time."""
    body = chat("Tell me when the build of the search index is through.")
    for number in range(rounds):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "build_state", "arguments": "{}"}}
        body["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
        body["messages"].append({"role": "tool", "tool_call_id": f"call_{number}", "content": "still running"})
    return body


STORY = [
    # Ada fixes a rounding fault, with an agent that reads code and streams. It ships.
    Step(
        "ada",
        "PAY-7",
        CHAT,
        chat("Where is the rounding fault in our totals? Read the code.\n" + CODE, stream=True),
        "chunks=120",
    ),
    Step("ada", "PAY-7", CHAT, chat("Write a test for it.\n" + CODE), "chunks=200, cached=400"),
    Step("ada", "PAY-7", CHAT, chat("Is the fix complete?", "gpt-5"), "chunks=60, reasoning=900"),
    # Her second change is merged as well, and reverted an hour later.
    Step(
        "ada",
        "PAY-9",
        MESSAGES,
        message("Make refunds idempotent, so that none is paid out twice.", stream=True),
        "chunks=700",
    ),
    # Ben has a small budget of his own while he tries agents out. It runs out.
    Step(
        "ben",
        "PAY-8",
        CHAT,
        chat("Plan the move of the ledger to the new tables.\n" + CODE, "gpt-5", max_completion_tokens=4000),
        "chunks=900, reasoning=2400",
    ),
    Step(
        "ben", "PAY-8", CHAT, chat("Now write all of it.\n" + CODE, "gpt-5", max_completion_tokens=4000), "chunks=900"
    ),
    # Cleo builds search on two other providers. It ships.
    Step("cleo", "SEARCH-3", MESSAGES, message("Plan an index for the names of our products."), "chunks=400"),
    Step("cleo", "SEARCH-3", MESSAGES, message("Now write it.", stream=True), "chunks=900"),
    Step("cleo", "SEARCH-3", GEMINI, contents("Translate the release note to German."), "chunks=80"),
    # An ordinary day: the provider has a bad moment, a stream breaks, a model has no price, a call has no task.
    Step("cleo", "SEARCH-5", CHAT, chat("Why did the nightly job fail?"), "status=503, retry-after=1"),
    Step("cleo", "SEARCH-5", CHAT, chat("Explain it step by step.", stream=True), "chunks=200, cut-after=80"),
    Step("cleo", None, CHAT, chat("Try our own model.", "acme-coder-1"), "chunks=30"),
    # Dan's agent waits for a build, and asks for its state with every call. It is stopped.
    *[Step("dan", "SEARCH-6", CHAT, waiting(rounds), "chunks=10") for rounds in range(1, 7)],
    # And somebody set up a farm: one task under five names, to look busy.
    *[
        Step(
            "dan",
            f"SEARCH-{20 + run}",
            CHAT,
            chat(COPIED.format(commit(str(run))), "gpt-5"),
            "chunks=600, reasoning=1200",
        )
        for run in range(5)
    ],
]
"""In the order of the day."""


async def make_keys(session: aiohttp.ClientSession, admin_url: str, token: str) -> dict[str, str]:
    """A key for each user of the story."""
    keys = {}
    for user, team in TEAM_OF.items():
        headers = {"authorization": f"Bearer {token}"}
        async with session.post(f"{admin_url}/api/keys", json={"user": user, "team": team}, headers=headers) as made:
            made.raise_for_status()
            keys[user] = (await made.json())["key"]
    return keys


async def tell(session: aiohttp.ClientSession, url: str, keys: dict[str, str]) -> list[str]:
    """Makes the calls of the story, one after the other; each task has a task key, derived by its user. Returns what
    agents were told that were refused."""
    refused = []
    for step in STORY:
        key = keys[step.user]
        if step.task is not None:
            key = attenuate(key, [Caveat("task", step.task)])
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "x-sim": step.wish}
        try:
            async with session.post(url + step.path, data=json.dumps(step.body), headers=headers) as answer:
                said = await answer.read()
                if "x-callmeter-reason" in answer.headers:
                    refused.append(f"{step.user}: {json.loads(said)['error']['message']}")
        except aiohttp.ClientError:
            pass  # the stream that breaks: part of the story
        await asyncio.sleep(0.02)
    return refused


# -- what it came to --------------------------------------------------------------------------------------------------


def merged(number: int, title: str, author: str, at_ms: int) -> dict[str, Any]:
    """What GitHub sends when a pull request was merged, as far as it matters."""
    return {
        "action": "closed",
        "number": number,
        "pull_request": {
            "number": number,
            "title": title,
            "body": "",
            "merged": True,
            "merged_at": rfc3339(at_ms),
            "merge_commit_sha": commit(f"merge {number}"),
            "user": {"login": author},
            "merged_by": {"login": "erin"},
            "labels": [],
            "head": {"ref": f"change-{number}", "sha": commit(f"head {number}")},
            "base": {"ref": "main", "sha": commit(f"base {number}")},
        },
        "repository": {"full_name": REPO, "default_branch": "main"},
    }


def reverted(number: int, at_ms: int) -> dict[str, Any]:
    """What GitHub sends when a revert was pushed."""
    said = f'Revert "change"\n\nThis reverts commit {commit(f"merge {number}")}.\n'
    return {
        "ref": "refs/heads/main",
        "before": commit("before"),
        "after": commit("after"),
        "commits": [{"id": commit("after"), "message": said}],
        "repository": {"full_name": REPO, "default_branch": "main", "pushed_at": at_ms // 1000},
    }


async def ship(session: aiohttp.ClientSession, admin_url: str) -> None:
    """Three changes were merged a minute ago, so that they are due now, and one of them was reverted since: GitHub
    tells so, signed."""
    now_ms = int(time.time() * 1000)
    merged_ms, reverted_ms = now_ms - MINUTE_MS, now_ms - MINUTE_MS // 2
    deliveries = [
        ("pull_request", merged(41, "PAY-7 round to the cent", "ada", merged_ms)),
        ("pull_request", merged(42, "PAY-9 refunds are idempotent", "ada", merged_ms)),
        ("pull_request", merged(43, "SEARCH-3 index of names", "cleo", merged_ms)),
        ("push", reverted(42, reverted_ms)),
    ]
    for number, (event, payload) in enumerate(deliveries):
        body = json.dumps(payload).encode()
        headers = {
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": f"demo-{number}",
            "x-hub-signature-256": "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, "sha256").hexdigest(),
        }
        async with session.post(f"{admin_url}/webhooks/merged", data=body, headers=headers) as answer:
            answer.raise_for_status()
