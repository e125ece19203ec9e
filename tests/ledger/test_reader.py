"""The worker's reader: sees what the ledger has, without SQLAlchemy, and comes back after a failure."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.core.caller import KeyInfo
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.errors import LedgerRefused, LedgerUnavailable
from proxy.ledger.reader import Line, Reader, open_reader
from tests.support.ledger_calls import entries, made, refused
from tests.support.postgresql import Postgresql


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
    reader._keys._connection.close()
    with pytest.raises(LedgerUnavailable):
        reader.key("a")
    assert reader.key("a") is None


def test_the_ledger_tells_which_one_it_is(ledger: Ledger, reader: Reader) -> None:
    assert reader.ledger_id() == ledger.id


class Stuck:
    """A connection whose answer never comes, until it is cut off from the outside."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.asked = threading.Event()

    def fileno(self) -> int:
        return self.ours.fileno()

    def execute(self, _statement: str, _values: object) -> Stuck:
        self.asked.set()
        if not self.ours.recv(1):
            raise OSError("closed by the other end")
        return self

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def test_a_look_up_that_hangs_is_cut_off_and_the_next_one_connects_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.ledger.reader.TURN_S", 0.01)
    stuck = Stuck()
    connections = [stuck, sqlite3.connect(":memory:")]
    line = Line(lambda: connections.pop(0), (OSError,), "?")
    failed: list[Exception] = []

    def hang() -> None:
        try:
            line.rows("SELECT 1")
        except LedgerUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    stuck.asked.wait()
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        line.rows("SELECT 2")
    thread.join()
    assert "closed by the other end" in str(failed[0])
    assert line.rows("SELECT 3") == [(3,)]
    line.close()


def test_keys_do_not_wait_for_pages(ledger: Ledger, reader: Reader) -> None:
    with reader._pages._turn:
        assert reader.key("a") is None
        assert reader.keys_changed_since(0) == []


class Route:
    """Carries a TCP connection to PostgreSQL's unix socket, until it becomes a black hole."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_hole = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.is_hole:
                    sink.sendall(data)


def test_a_route_to_the_database_that_swallows_everything_blocks_nobody_for_long(
    postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.ledger.reader.TURN_S", 0.05)
    url = postgresql.fresh_url()
    ledger = open_ledger(url)
    user, _, folder = url.removeprefix("postgresql://").partition("@/postgres?host=")
    route = Route(f"{folder}/.s.PGSQL.5432")
    reader = open_reader(f"postgresql://{user}@127.0.0.1:{route.port}/postgres?sslmode=disable&gssencmode=disable")
    try:
        assert reader.key("a") is None
        route.is_hole = True
        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(reader.key, "a") for _ in range(4)]
            assert all(isinstance(each.exception(), LedgerUnavailable) for each in asked)
            route.is_hole = False
        assert reader.key("a") is None
    finally:
        reader.close()
        route.close()
        ledger.close()


def test_another_database_is_refused() -> None:
    with pytest.raises(LedgerRefused, match="CALLMETER_LEDGER_URL"):
        open_reader("mysql://localhost/ledger")


def test_a_worker_reads_without_loading_sqlalchemy() -> None:
    program = "import sys, proxy.ledger.reader; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
