"""Claims on their way: a worker may only read the ledger, so it leaves a claim in the store, and the active bookkeeper
answers it there a moment later."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from .client import Client

ASKED = "callmeter:claims"
"""List: claims that wait for the bookkeeper (JSON of `Asked`)."""
ASKED_LIFE_MS = 10_000
"""Whoever asked has gone by then, and asks again."""
ANSWER_LIFE_MS = 30_000
ANSWER_S = 4.0
"""How long an answer is waited for: a long session takes a second or two."""
LOOK_S = 0.05
AT_ONCE = 32


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One claim of one user."""

    id: str
    org: str
    user: str
    session: str
    task: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: an HTTP status, and what is shown or a sentence."""

    status: int
    sentence: str = ""
    calls: int = 0
    cost_nusd: int = 0
    at_ms: int = 0


def new_claim(org: str, user: str, session: str, task: str) -> Asked:
    return Asked(id=secrets.token_hex(16), org=org, user=user, session=session, task=task)


async def ask(client: Client, asked: Asked) -> Answered | None:
    """The bookkeeper's answer; None where it gave none in time. Raises StoreError."""
    put = ("RPUSH", ASKED, msgspec.json.encode(asked))
    await client.pipeline([put, ("PEXPIRE", ASKED, str(ASKED_LIFE_MS))])
    try:
        async with asyncio.timeout(ANSWER_S):
            while True:
                await asyncio.sleep(LOOK_S)
                if (answer := await client.call("GETDEL", _place(asked.id))) is not None:
                    return msgspec.json.decode(answer, type=Answered)
    except TimeoutError:
        return None


async def waiting(client: Client) -> Sequence[Asked]:
    """Takes what waits: each claim once. Raises StoreError."""
    found = await client.call("LPOP", ASKED, str(AT_ONCE))
    asked = []
    for data in found or ():
        try:
            asked.append(msgspec.json.decode(data, type=Asked))
        except msgspec.MsgspecError:
            continue  # of a newer version, whose worker asks again
    return asked


async def answer(client: Client, asked: Asked, answered: Answered) -> None:
    """Raises StoreError."""
    await client.call("SET", _place(asked.id), msgspec.json.encode(answered), "PX", str(ANSWER_LIFE_MS))


def _place(claim_id: str) -> str:
    return f"callmeter:claim:{claim_id}"
