"""The worker's reader: sees what the ledger has, without SQLAlchemy, and comes back after a failure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.core.caller import KeyInfo
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.errors import LedgerRefused, LedgerUnavailable
from proxy.ledger.reader import Reader, open_reader
from tests.support.ledger_calls import entries, made, refused


@pytest.fixture
def reader(ledger: Ledger, ledger_url: str) -> Iterator[Reader]:
    opened = open_reader(ledger_url)
    yield opened
    opened.close()


def test_keys_and_their_changes_are_read_as_the_ledger_keeps_them(ledger: Ledger, reader: Reader) -> None:
    assert reader.key("a") is None
    created = ledger.keys.create(KeyInfo(key_id="a", user="ada", labels={"x": "ü"}, acts_for="ci-*", kind="service"))
    assert reader.key("a") == created
    revoked = ledger.keys.revoke("a", 7)
    assert reader.keys_changed_since(1) == [revoked]
    assert reader.keys_changed_since(2) == []


def test_calls_are_found_by_our_id_and_by_the_providers(ledger: Ledger, reader: Reader) -> None:
    ledger.ingest(entries(made(1, upstream_call_id="resp_1")))
    assert reader.call("call000001") == made(1, upstream_call_id="resp_1")
    assert reader.call("call000002") is None
    assert reader.by_upstream_call_id("default", "openai", "resp_1") == reader.call("call000001")
    assert reader.by_upstream_call_id("default", "openai", "") is None
    assert reader.by_upstream_call_id("another", "openai", "resp_1") is None


def test_a_users_own_tasks_are_those_of_the_ledger(ledger: Ledger, reader: Reader) -> None:
    ledger.ingest(entries(made(1, task="A"), made(2, task="B"), made(3, user="bob"), refused(4, task="B")))
    assert reader.tasks_of("ada", "default") == ledger.tasks_of("ada", org="default")
    assert [totals.task for totals in reader.tasks_of("ada", "default")] == ["B", "A"]
    assert reader.tasks_of("ada", "another") == []


def test_a_database_that_appears_later_is_read_then(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    reader = open_reader(url)
    with pytest.raises(LedgerUnavailable, match="bookkeeper"):
        reader.key("a")
    open_ledger(url).close()
    assert reader.key("a") is None
    reader.close()


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    reader = open_reader(f"postgresql://ada:secret@/ledger?host={tmp_path}")
    with pytest.raises(LedgerUnavailable) as raised:
        reader.key("a")
    assert "secret" not in str(raised.value)


def test_a_lost_connection_is_made_again(ledger: Ledger, reader: Reader) -> None:
    assert reader.key("a") is None
    reader._connection.close()
    with pytest.raises(LedgerUnavailable):
        reader.key("a")
    assert reader.key("a") is None


def test_another_database_is_refused() -> None:
    with pytest.raises(LedgerRefused, match="CALLMETER_LEDGER_URL"):
        open_reader("mysql://localhost/ledger")


def test_a_worker_reads_without_loading_sqlalchemy() -> None:
    program = "import sys, proxy.ledger.reader; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
