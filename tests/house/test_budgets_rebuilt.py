"""A store that was emptied under a running house: budgets go on from what the ledger knows, to the nano-USD."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.store.embedded import ask, socket_path
from tests.support.house import POLICY, Caller, House, Providers, eventually, own_house

BUDGETS = """
budgets:
  - {name: person-day, per: user, limit: $1, every: day}
  - {name: person-rolling, per: user, limit: 1M tokens, every: rolling 24h}
"""
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


def doubled(text: str) -> str:
    """For a template, in which a brace is written twice."""
    return text.replace("{", "{{").replace("}", "}}")


def counters(house: House, caller: Caller) -> dict[str, Any]:
    found = house.admin("GET", "/api/budgets").json["budgets"]
    return {row["name"]: row for row in found if row["scope"] == {"user": caller.user}}


def spent(house: House, caller: Caller) -> tuple[int, int]:
    rows = counters(house, caller)
    if len(rows) < 2:
        return 0, 0
    return rows["person-day"]["spent_nusd"], rows["person-rolling"]["spent"]


def test_counters_come_back_after_the_store_was_emptied_and_raises_count(providers: Providers) -> None:
    with own_house(providers, policy=POLICY + doubled(BUDGETS)) as house:
        ada = house.caller("ada")
        for _ in range(3):
            assert ada.post("/openai/v1/chat/completions", CHAT).status == 200
        records = ada.records(3)
        expected = (
            sum(record["cost_nusd"] for record in records),
            sum(record["usage"]["input"] + record["usage"]["output"] for record in records),
        )
        assert expected[0] > 0
        assert eventually(lambda: spent(house, ada) == expected, "the counters do not equal the ledger")
        asyncio.run(ask(socket_path(house.data), "FLUSHALL"))
        eventually(lambda: house.admin("GET", "/readyz").status == 200 and spent(house, ada) == expected, "not rebuilt")
        assert ada.post("/openai/v1/chat/completions", CHAT).status == 200
        more = expected[0] + ada.records(4)[-1]["cost_nusd"]
        eventually(lambda: spent(house, ada)[0] == more, "what came after is not counted on top")

        # A limit that is spent already refuses; a raise lets calls pass again, within a second.
        tight = POLICY + doubled(BUDGETS.replace("$1", "$0.000001"))
        house.write_policy(tight.format(simulator=providers.simulator_url, script=house.script_url))
        eventually(lambda: counters(house, ada)["person-day"]["limit_nusd"] == 1000, "the policy was not taken")
        eventually(lambda: ada.post("/openai/v1/chat/completions", CHAT).status >= 400, "the new limit refuses nobody")
        body = {"budget": "person-day", "for": {"user": ada.user}, "by": "$1", "until": "1h", "reason": "a test"}
        assert house.admin("POST", "/api/budgets/raises", body).status == 201
        eventually(lambda: ada.post("/openai/v1/chat/completions", CHAT).status == 200, "the raise does not count")
        refused = next(record for record in ada.records(5) if record["refusal"])
        told = house.admin("GET", f"/api/explain?call_id={refused['call_id']}").json
        assert (told["call"]["refusal"], told["call"]["rule"]) == ("budget_spent", "person-day")
        assert told["budgets"][0]["limit_nusd"] == 1_000_001_000
