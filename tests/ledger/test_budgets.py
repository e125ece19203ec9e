"""Raises, and the identities of budgets that were ever in force; an older ledger gets the tables for them."""

from __future__ import annotations

import msgspec
from sqlalchemy import text

from proxy.core.raises import GivenRaise
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.engine import Database
from proxy.ledger.reader import open_reader
from proxy.ledger.tables import SCHEMA_VERSION

RAISE = GivenRaise(
    budget="person-day",
    scope={"team": "payments", "user": "ada"},
    amount=20_000_000_000,
    unit="nusd",
    until_ms=2_000,
    reason="launch",
    at_ms=1_000,
)


def test_raises_are_kept_and_workers_read_those_that_count(ledger: Ledger, ledger_url: str) -> None:
    made = ledger.raises.add(RAISE)
    assert made == msgspec.structs.replace(RAISE, id=made.id)
    ledger.raises.add(msgspec.structs.replace(RAISE, until_ms=9_000))
    assert [each.until_ms for each in ledger.raises.list()] == [2_000, 9_000]
    assert ledger.raises.list()[0].scope == {"team": "payments", "user": "ada"}
    reader = open_reader(ledger_url)
    assert [each.until_ms for each in reader.open_raises(1_999)] == [2_000, 9_000]
    assert reader.open_raises(2_000) == ledger.raises.open(2_000)
    reader.close()


def test_a_budget_is_seeded_once_and_again_when_it_comes_back(ledger: Ledger) -> None:
    [first] = ledger.budgets.in_force(["a"], 100)
    assert (first.identity, first.since_ms, first.from_ms, first.rebuilt) == ("a", 100, 0, frozenset())
    assert ledger.budgets.in_force(["a"], 200) == [first]  # not seeded yet
    ledger.budgets.seeded(["a"])
    assert ledger.budgets.in_force(["a"], 300) == []
    assert ledger.budgets.in_force([], 400) == []
    [back] = ledger.budgets.in_force(["a"], 500)
    assert (back.since_ms, back.from_ms) == (500, 400)


def test_shards_that_are_rebuilt_need_no_seed(ledger: Ledger) -> None:
    ledger.budgets.in_force(["a"], 100)
    ledger.budgets.rebuilding([3, 5])
    ledger.budgets.rebuilding([4])
    [seeding] = ledger.budgets.in_force(["a"], 200)
    assert seeding.rebuilt == {3, 4, 5}


def test_a_ledger_of_the_first_version_is_brought_up_to_date(ledger_url: str) -> None:
    open_ledger(ledger_url).close()
    database = Database(ledger_url)
    with database.writing() as connection:
        for table in ("raises", "budgets", "alerts"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE meta SET value = '1' WHERE name = 'schema_version'"))
    database.close()
    upgraded = open_ledger(ledger_url)
    assert upgraded.raises.list() == []
    upgraded.close()
    database = Database(ledger_url)
    with database.reading() as connection:
        version = connection.execute(text("SELECT value FROM meta WHERE name = 'schema_version'")).scalar()
    assert version == str(SCHEMA_VERSION)
    database.close()
