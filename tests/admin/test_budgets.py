"""Budgets, raises, explanations and rehearsals as clients of the admin port meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.core.caller import KeyInfo
from proxy.ledger.database import open_ledger
from tests.support.admin_server import Admin
from tests.support.ledger_calls import entries, made, refused
from tests.support.policies import policy_of

Client = TestClient[web.Request, web.Application]
POLICY = """
    access:
      - {name: no-opus, match: {model: "*opus*"}, help: "ask #ai"}
    budgets:
      - {name: person-day, per: user, limit: $0.002, every: day}
      - {name: team, per: team, limit: 2M tokens, every: rolling 24h, mode: shadow}
"""


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield Admin(ledger, policy=policy_of(POLICY))
    ledger.close()


async def test_counters_stand_by_name_and_scope_and_never_by_what_people_spent(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, user="cy"), made(2, user="ada"), made(3, user="cy"), made(4, user="bob")))
    found = (await (await client.get("/api/budgets")).json())["budgets"]
    assert [(row["name"], row["scope"]) for row in found] == [
        ("person-day", {"user": "ada"}),
        ("person-day", {"user": "bob"}),
        ("person-day", {"user": "cy"}),
        ("team", {"team": "payments"}),
    ]
    day_end = admin.policy.budgets[0].every.window(admin.now_ms)[1]
    assert found[2] == {
        "name": "person-day",
        "scope": {"user": "cy"},
        "window": "day",
        "unit": "nusd",
        "limit_nusd": 2_000_000,
        "spent_nusd": 2_400_000,
        "held_nusd": 0,
        "left_nusd": 0,
        "overshoot_nusd": 400_000,
        "resets_at": found[2]["resets_at"],
        "mode": "enforce",
    }
    assert found[2]["resets_at"].endswith("T00:00:00.000Z")
    assert day_end % 86_400_000 == 0
    assert found[3] == {
        "name": "team",
        "scope": {"team": "payments"},
        "window": "rolling 24h",
        "unit": "tokens",
        "limit": 2_000_000,
        "spent": 4_400,
        "held": 0,
        "left": 1_995_600,
        "resets_at": None,
        "mode": "shadow",
    }
    assert (await client.get("/api/budgets", params={"sort": "spent"})).status == 400


async def test_a_raise_is_recorded_and_raises_the_limit_at_once(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1)))
    body = {"budget": "person-day", "for": {"user": "ada"}, "by": "$20", "until": "3d", "reason": "launch week"}
    answer = await client.post("/api/budgets/raises", json=body)
    assert answer.status == 201
    given = await answer.json()
    assert (given["by_nusd"], given["for"]) == (20 * 10**9, {"user": "ada"})
    assert (given["made_by"], given["open"]) == ("admin", True)
    [row, _] = (await (await client.get("/api/budgets")).json())["budgets"]
    assert row["limit_nusd"] == 20_002_000_000
    admin.now_ms += 4 * 86_400_000
    [listed] = (await (await client.get("/api/budgets/raises")).json())["raises"]
    assert (listed["reason"], listed["open"]) == ("launch week", False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": "person"}, "no budget `person`"),
        ({"by": "5 calls"}, "is $0.002"),
        ({"by": "-$5"}, "`by`"),
        ({"by": "$0"}, "`by`"),
        ({"until": "yesterday"}, "`until`"),
        ({"until": "2020-01-01T00:00:00Z"}, "not in the future"),
        ({"reason": " "}, "`reason`"),
        ({"for": {"team": "payments"}}, "--for user=..."),
        ({"for": {}}, "--for user=..."),
        ({"forever": True}, "unknown field"),
    ],
)
async def test_a_raise_that_cannot_be_is_refused_with_the_reason(
    client: Client, admin: Admin, changes: dict[str, Any], words: str
) -> None:
    body = {"budget": "person-day", "for": {"user": "ada"}, "by": "$20", "until": "3d", "reason": "launch"} | changes
    answer = await client.post("/api/budgets/raises", json=body)
    assert answer.status in (400, 404)
    assert words in (await answer.json())["detail"]
    assert admin.ledger.raises.list() == []


async def test_an_explanation_has_the_rules_in_order_with_what_they_stand_at(client: Client, admin: Admin) -> None:
    admin.ledger.keys.create(KeyInfo(key_id="k1", user="ada", team="payments"))
    admin.ledger.ingest(entries(made(1)))
    answer = await client.get("/api/explain", params={"user": "ada", "model": "claude-opus-9"})
    told = await answer.json()
    assert told["call"] is None
    assert (told["scope"]["team"], told["scope"]["upstream"]) == ("payments", "openai")
    assert [(rule["name"], rule["then"]) for rule in told["access"]] == [("no-opus", "refuse")]
    assert "ask #ai" in told["access"][0]["sentence"]
    assert [row["name"] for row in told["budgets"]] == ["person-day", "team"]
    assert told["duplicates"] == []


async def test_duplicate_rules_are_explained_with_whom_they_compare(client: Client, admin: Admin) -> None:
    admin.policy = policy_of("duplicates: [{name: circle, kind: loop, per: task, limit: 3 calls, mode: shadow}]")
    told = await (await client.get("/api/explain", params={"user": "ada", "task": "PAY-7"})).json()
    [rule] = told["duplicates"]
    assert (rule["name"], rule["kind"], rule["scope"], rule["mode"]) == ("circle", "loop", {"task": "PAY-7"}, "shadow")
    assert (rule["limit"], rule["window"], rule["then"]) == (3, "rolling 10m", "warn")


async def test_a_call_is_explained_by_its_record(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(refused(1, refusal="budget_spent", rule="person-day")))
    told = await (await client.get("/api/explain", params={"call_id": "call000001"})).json()
    assert (told["call"]["refusal"], told["call"]["rule"]) == ("budget_spent", "person-day")
    assert [row["name"] for row in told["budgets"]] == ["person-day", "team"]
    assert (await client.get("/api/explain", params={"call_id": "nothing"})).status == 404
    assert (await client.get("/api/explain")).status == 400
    assert (await client.get("/api/explain", params={"user": "ada", "upstream": "mars"})).status == 400


async def test_a_rehearsal_says_what_would_have_been_refused_and_changes_nothing(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, task="PAY-9"), made(3, task=None)))
    text = "budgets: [{name: tight, limit: $0.0012, every: day}]"
    answer = await client.post("/api/rehearse", json={"files": {"a.yaml": text}, "since": "1h"})
    told = await answer.json()
    assert told["total"] == {"calls": 3, "cost_nusd": 3_600_000, "refused_calls": 2, "refused_nusd": 2_400_000}
    [rule] = told["rules"]
    assert (rule["rule"], rule["mode"], rule["tasks_stopped"], rule["tasks"]) == ("tight", "enforce", 2, ["", "PAY-9"])
    assert admin.ledger.call("call000002") == made(2, task="PAY-9")


async def test_a_faulty_policy_is_not_rehearsed(client: Client) -> None:
    told = await (await client.post("/api/rehearse", json={"files": {"a.yaml": "budget: 5"}})).json()
    assert "a.yaml:1:1" in told["faults"][0]
    answer = await client.post("/api/rehearse", json={"files": {}, "since": "soon"})
    assert answer.status == 400


async def test_alerts_are_listed_without_where_they_go(client: Client, admin: Admin) -> None:
    admin.policy = policy_of('alerts: [{name: ops, to: "https://hooks.example.com/hidden", on: [budget_spent]}]')
    text = await (await client.get("/api/alerts")).text()
    assert '"ops"' in text
    assert "whsec_" in text
    assert "hidden" not in text
