"""`/callmeter/...`: a caller's own figures, and nobody else's."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from proxy.core.caller import Caller
from proxy.core.record import Record, public
from proxy.core.refusal import Refusal
from proxy.edge import own_pages
from proxy.edge.answers import WholeAnswer, json_answer
from proxy.edge.own_pages import OwnPages
from proxy.ledger.errors import LedgerUnavailable

ADA = Caller(org="acme", team="search", user="ada", key_id="k1", task="PAY-7", task_source="key")
RECORD = Record(call_id="1" * 32, at_ms=1_790_000_000_000, org="acme", user="ada", key_id="k1", cost_nusd=5)


def pages(find_call: Any = lambda call_id: None) -> OwnPages:
    async def mine(caller: Caller) -> dict[str, Any]:
        return {"tasks": [], "sessions": [], "budgets": None}

    async def claim(caller: Caller, body: bytes) -> WholeAnswer:
        return json_answer({"claimed": f"{caller.user} {body.decode()}"})

    return OwnPages(find_call=find_call, mine=mine, claim=claim)


def shown(page: WholeAnswer | Refusal) -> Any:
    assert isinstance(page, WholeAnswer)
    assert isinstance(page.body, bytes)
    return json.loads(page.body)


async def test_me_tells_who_the_key_stands_for() -> None:
    me = shown(await pages().answer("GET", "/me", ADA))
    assert {"user": "ada", "team": "search", "org": "acme", "task": "PAY-7", "task_source": "key"}.items() <= me.items()


async def test_a_claim_is_taken_with_its_body() -> None:
    page = await pages().answer("POST", "/claims", ADA, b"it")
    assert shown(page) == {"claimed": "ada it"}


async def test_a_call_of_ones_own_is_shown_as_its_record() -> None:
    asked = []

    def find(call_id: str) -> Record:
        asked.append(call_id)
        return RECORD

    assert shown(await pages(find).answer("GET", f"/calls/{RECORD.call_id}", ADA)) == public(RECORD)
    assert asked == [RECORD.call_id]


@pytest.mark.parametrize(
    "caller",
    [
        Caller(org="acme", team="search", user="ben", key_id="k2"),
        Caller(org="other", team="search", user="ada", key_id="k3"),
    ],
)
async def test_the_call_of_somebody_else_looks_like_one_that_never_was(caller: Caller) -> None:
    foreign = await pages(lambda call_id: RECORD).answer("GET", "/calls/x", caller)
    missing = await pages().answer("GET", "/calls/x", caller)
    assert foreign == missing
    assert isinstance(foreign, Refusal)
    assert foreign.code == "unknown_call"


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/me"), ("DELETE", "/calls/x"), ("GET", "/keys")])
async def test_what_is_not_there_is_told_with_what_is(method: str, path: str) -> None:
    page = await pages().answer(method, path, ADA)
    assert isinstance(page, Refusal)
    assert page.code == "unknown_call"
    assert "/callmeter/me" in page.sentence


async def test_a_ledger_that_is_away_is_told_as_such() -> None:
    def away(call_id: str) -> None:
        raise LedgerUnavailable("postgresql://user:password@host is away")

    page = await pages(away).answer("GET", "/calls/x", ADA)
    assert isinstance(page, Refusal)
    assert page.code == "store_unavailable"
    assert "password" not in page.sentence


async def test_a_ledger_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_pages, "LEDGER_S_MAX", 0.02)
    go = threading.Event()
    page = await pages(lambda call_id: go.wait(10)).answer("GET", "/calls/x", ADA)
    go.set()
    assert isinstance(page, Refusal)
    assert page.code == "store_unavailable"
