"""Claims on their way: from a worker through the store to the bookkeeper, and the answer back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.bookkeeping.claiming import Claiming
from proxy.core.caller import Caller
from proxy.core.refusal import Refusal
from proxy.edge.answers import WholeAnswer
from proxy.edge.claiming import Claims
from proxy.ledger.database import open_ledger
from proxy.store import claims as claims_module
from proxy.store.claims import ASKED, new_claim, waiting
from proxy.store.lease import Lease
from tests.support.ledger_calls import entries, made
from tests.support.store import open_client

ADA = Caller(org="default", team="t", user="ada", key_id="k1")
SILENT = {"task": None, "task_source": "none", "session": "s1"}


async def directly(work: Any) -> Any:
    return work()


def shown(page: WholeAnswer | Refusal) -> Any:
    assert isinstance(page, WholeAnswer)
    assert isinstance(page.body, bytes)
    return page.status, json.loads(page.body)


async def test_a_claim_goes_to_the_active_bookkeeper_and_its_answer_comes_back(store_url: str, tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.ingest(entries(made(1, **SILENT)))
    async with open_client(store_url) as client:
        lease = Lease(client, "me")
        assert await lease.renew()
        running = asyncio.create_task(Claiming(client, ledger.claims, lease, directly, lambda: 5).run())
        claims = Claims(client)
        taken = await claims.take(ADA, b'{"session": "s1", "task": "PAY-8"}')
        assert shown(taken) == (
            200,
            {
                "session": "s1",
                "task": "PAY-8",
                "calls": 1,
                "cost_nusd": 1_200_000,
                "claimed_at": "1970-01-01T00:00:00.005Z",
            },
        )
        status, problem = shown(await claims.take(ADA, b'{"session": "s1", "task": "PAY-9"}'))
        assert (status, "claimed for task `PAY-8` already" in problem["detail"]) == (409, True)
        assert shown(await claims.take(ADA, b'{"session": "s9", "task": "PAY-9"}'))[0] == 404
        running.cancel()
    ledger.close()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"session": "s1"}', b'{"session": "", "task": "x"}', b'{"session": "s", "task": "a\\n"}',
             b'{"session": "s", "task": "x", "user": "bob"}', b'{"session": 1, "task": "x"}', b"\xff"]
)  # fmt: skip
async def test_a_claim_that_cannot_be_read_is_refused_with_a_sentence(store_url: str, body: bytes) -> None:
    async with open_client(store_url) as client:
        refusal = await Claims(client).take(ADA, body)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, "`" in refusal.sentence) == ("body_invalid", True)


async def test_an_agent_with_a_task_key_claims_nothing(store_url: str) -> None:
    agent = Caller(org="default", team="t", user="ada", key_id="k1", task="PAY-7", task_source="key")
    async with open_client(store_url) as client:
        refusal = await Claims(client).take(agent, b'{"session": "s1", "task": "PAY-7"}')
        assert await client.call("LLEN", ASKED) == 0
    assert isinstance(refusal, Refusal)
    assert refusal.code == "not_allowed"


async def test_where_no_bookkeeper_answers_it_is_to_be_tried_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "ANSWER_S", 0.05)
    async with open_client(store_url) as client:
        refusal = await Claims(client).take(ADA, b'{"session": "s1", "task": "PAY-7"}')
        assert 0 < await client.call("PTTL", ASKED) <= claims_module.ASKED_LIFE_MS
        await client.call("RPUSH", ASKED, b"of a newer version")
        assert [each.session for each in await waiting(client)] == ["s1"]
        assert await waiting(client) == []
    assert isinstance(refusal, Refusal)
    assert refusal.code == "store_unavailable"
    assert new_claim("o", "u", "s", "t").id != new_claim("o", "u", "s", "t").id
