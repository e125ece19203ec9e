"""What the holder of a key sees of their own: tasks, outcomes, sessions, what budgets have left; nothing of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.core.budgets import Raises
from proxy.core.caller import Caller
from proxy.core.counter_fields import scopes_of_caller
from proxy.core.policy import Policy
from proxy.core.proven import with_proven
from proxy.edge.mine import Mine
from proxy.ledger.database import open_ledger
from proxy.ledger.reader import open_reader
from proxy.store.client import Client
from tests.support.deliveries import AT_MS, DAY, merged
from tests.support.ledger_calls import entries, made
from tests.support.outcome_book import MERGED, Book
from tests.support.policies import policy_of
from tests.support.store import open_client

ADA = Caller(org="default", team="payments", user="ada", key_id="k1")
POLICY = policy_of(
    """
    budgets:
      - {name: person, match: {team: payments, model: "gpt-*"}, per: user, limit: $25, every: day}
      - {name: others, match: {team: search}, per: user, limit: $1, every: day}
      - {name: by-model, per: model, limit: $1, every: day}
      - {name: not-ada, match: {not: {user: ada}}, per: user, limit: $1, every: day}
      - {name: not-opus, match: {not: {user: ada, model: "*opus*"}}, per: org, limit: $9, every: day}
      - {name: per-task, per: task, limit: $5, every: ever}
    unproven:
      - {name: nothing-shipped, limit: $20, every: rolling 7d}
    """
)


def test_budgets_of_a_caller_are_those_that_some_call_of_theirs_may_meet() -> None:
    names = [scope.budget.name for scope in scopes_of_caller(POLICY.counted, ADA)]
    assert names == ["person", "not-opus", "per-task", "nothing-shipped"]


def mine(ledger_url: str, client: Client, policy: Policy = POLICY, raises: Raises | None = None) -> Mine:
    return Mine(
        ledger=open_reader(ledger_url),
        client=client,
        policy=lambda: policy,
        raises=lambda: raises or {},
        clock_ms=lambda: AT_MS + DAY,
    )


async def test_tasks_sessions_and_budgets_of_ones_own(store_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = open_ledger(url)
    Book(ledger).tell(merged(), MERGED)
    silent: dict[str, Any] = {"task": None, "task_source": "none", "session": "s1"}
    ledger.ingest(
        entries(
            made(1),
            made(2, task="OPS-1", task_source="header", at_ms=AT_MS),
            made(3, task="c0ffee", task_source="agent"),
            made(4, **silent),
            made(5, user="bob"),
            made(6, user="bob", task="BOBS-1"),
        )
    )
    raises = with_proven({}, POLICY.unproven, ledger.outcomes.proven(0, 0))
    async with open_client(store_url) as client:
        found = await mine(url, client, raises=raises).of(ADA)
    tasks = {task["task"]: task for task in found["tasks"]}
    assert set(tasks) == {"PAY-7", "OPS-1", "c0ffee"}
    assert [outcome["state"] for outcome in tasks["PAY-7"]["outcomes"]] == ["pending"]
    assert (tasks["PAY-7"]["link"], tasks["PAY-7"]["others"], tasks["PAY-7"]["claimable"]) == (None, True, False)
    assert tasks["PAY-7"]["cost_nusd"] == 1_200_000, "nobody else's share can be told from it"
    assert (tasks["OPS-1"]["link"], tasks["OPS-1"]["others"], tasks["OPS-1"]["outcomes"]) == ("Task: OPS-1", False, [])
    assert (tasks["c0ffee"]["link"], tasks["c0ffee"]["claimable"]) == (None, True)
    assert [(each["session"], each["calls"]) for each in found["sessions"]] == [("s1", 1)]
    budgets = {(row["name"], row["scope"].get("task")): row for row in found["budgets"]}
    assert set(budgets) == {
        ("person", None), ("not-opus", None), ("per-task", "PAY-7"), ("per-task", "OPS-1"), ("per-task", "c0ffee"),
        ("nothing-shipped", "PAY-7"), ("nothing-shipped", "OPS-1"), ("nothing-shipped", "c0ffee"),
    }  # fmt: skip
    assert budgets["person", None]["left_nusd"] == 25 * 10**9
    assert budgets["nothing-shipped", "PAY-7"]["proven"] is True
    assert budgets["nothing-shipped", "OPS-1"]["proven"] is False
    assert budgets["nothing-shipped", "PAY-7"]["limit_nusd"] == 20 * 10**9
    ledger.close()


async def test_without_the_store_everything_else_is_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = open_ledger(url)
    ledger.ingest(entries(made(1)))
    found = await mine(url, Client("unix:///nowhere/callmeter.sock")).of(ADA)
    assert (found["budgets"], [task["task"] for task in found["tasks"]]) == (None, ["PAY-7"])
    ledger.close()
