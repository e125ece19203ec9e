"""Opening: makes its tables once, keeps its id, and refuses what it must not touch, with a sentence."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, update

from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.engine import Database
from proxy.ledger.errors import LedgerRefused, LedgerUnavailable
from proxy.ledger.tables import SCHEMA, meta
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made
from tests.support.ledger_model import check_months


def test_a_ledger_keeps_its_id_and_what_is_in_it(ledger: Ledger, ledger_url: str) -> None:
    ledger.ingest(entries(made(1)))
    again = open_ledger(ledger_url)
    assert again.id == ledger.id
    assert len(again.id) == 16
    assert again.last_seq() == 1
    again.close()


def test_several_that_open_an_empty_database_at_once_make_one_ledger(ledger_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(open_ledger, [ledger_url] * 4))
    assert len({ledger.id for ledger in opened}) == 1
    for ledger in opened:
        ledger.close()


def test_a_file_that_is_no_database_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"anything but a database " * 100)
    with pytest.raises(LedgerRefused, match="is no SQLite database"):
        Database(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_ledger_of_a_newer_version_is_refused(ledger: Ledger, ledger_url: str) -> None:
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(update(meta).where(meta.c.name == SCHEMA).values(value="999"))
    with pytest.raises(LedgerRefused, match=r"schema 999 .* written by a newer version"):
        open_ledger(ledger_url)
    database.close()


def test_a_ledger_of_before_repeats_were_known_is_brought_up_to_date(ledger: Ledger, ledger_url: str) -> None:
    """Schema 2 had neither the columns nor their index. Its calls repeat nothing, as far as anybody knows."""
    ledger.ingest(entries(made(1)))
    ledger.close()
    database = Database(ledger_url)
    gone = {
        "calls": ("twin_of", "loop"),
        "hourly": ("repeat_calls", "repeat_nusd"),
        "tasks": ("repeat_calls", "repeat_nusd", "still_calls", "longest_loop"),
    }
    with database.writing() as connection:
        connection.exec_driver_sql("DROP INDEX calls_twins")
        for table, columns in gone.items():
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute(update(meta).where(meta.c.name == SCHEMA).values(value="2"))
    database.close()
    upgraded = open_ledger(ledger_url)
    upgraded.ingest(entries(made(2, moved_on=False, twin_of="call000001", loop=3), first=2))
    [totals] = upgraded.task("PAY-7")
    assert (totals.calls, totals.repeat_calls, totals.repeat_nusd, totals.longest_loop) == (2, 1, 1_200_000, 3)
    # An old row that is replaced takes nothing away that was never added.
    upgraded.ingest(entries(made(1, revision=2), first=3))
    assert upgraded.task("PAY-7")[0].repeat_calls == 1
    upgraded.close()
    open_ledger(ledger_url).close()


def test_a_ledger_of_before_days_were_summed_up_has_all_its_days_open(ledger: Ledger, ledger_url: str) -> None:
    ledger.ingest(entries(made(1), made(2, at_ms=AT_MS - 40 * 24 * HOUR_MS)))
    ledger.close()
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE daily")
        connection.exec_driver_sql("DROP TABLE open_days")
        connection.exec_driver_sql("ALTER TABLE hourly DROP COLUMN shadow_refused")
        connection.execute(update(meta).where(meta.c.name == SCHEMA).values(value="4"))
    database.close()
    upgraded = open_ledger(ledger_url)
    for _ in range(2):
        assert upgraded.report(["task"], since_ms=0, until_ms=2 * AT_MS).total.calls == 2
        upgraded.close_days(2 * AT_MS)
    assert upgraded.close_days(2 * AT_MS) == 0
    upgraded.close()


def test_a_ledger_of_before_months_were_summed_up_has_all_its_days_open(ledger: Ledger, ledger_url: str) -> None:
    """Schema 6 had days, and an index on them."""
    ledger.ingest(entries(made(1), made(2, at_ms=AT_MS - 40 * 24 * HOUR_MS)))
    ledger.close_days(2 * AT_MS)
    ledger.close()
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE monthly")
        connection.exec_driver_sql("CREATE INDEX daily_task ON daily (task, org) WHERE task <> ''")
        connection.execute(update(meta).where(meta.c.name == SCHEMA).values(value="6"))
    database.close()
    upgraded = open_ledger(ledger_url)
    for closed in (2, 0):
        assert upgraded.report(["task"], since_ms=0, until_ms=2 * AT_MS).total.calls == 2
        check_months(upgraded)
        assert upgraded.close_days(2 * AT_MS) == closed
    with upgraded._database.reading() as connection:
        assert inspect(connection).get_indexes("daily") == []
    upgraded.close()


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.executescript("CREATE TABLE meta (name TEXT, value TEXT); INSERT INTO meta VALUES ('site', 'blog');")
    connection.close()
    with pytest.raises(LedgerRefused, match="not Callmeter's"):
        open_ledger(f"sqlite:///{tmp_path / 'other.db'}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to be mistaken for one" * 20)
    with pytest.raises((LedgerUnavailable, LedgerRefused), match=r"notes\.txt"):
        open_ledger(f"sqlite:///{tmp_path / 'notes.txt'}")


@pytest.mark.parametrize("url", ["", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_a_url_of_another_database_is_refused_with_the_forms_there_are(url: str) -> None:
    with pytest.raises(LedgerRefused, match=r"sqlite:////absolute/path\.db"):
        open_ledger(url)


def test_a_database_that_is_away_is_unavailable_and_its_password_stays_unsaid(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable) as raised:
        open_ledger(f"postgresql://ada:secret@/ledger?host={tmp_path}")
    assert "CALLMETER_LEDGER_URL" in str(raised.value)
    assert "secret" not in str(raised.value)
    with pytest.raises(LedgerUnavailable, match="unable to open"):
        open_ledger(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}")


def test_a_commit_on_sqlite_outlives_a_power_cut(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    database.close()


def test_a_reader_sees_one_moment_while_a_writer_goes_on(ledger: Ledger, ledger_url: str) -> None:
    database = Database(ledger_url)
    with database.reading() as connection:
        before = connection.execute(select(meta.c.value).where(meta.c.name == "x")).all()
        with database.writing() as writer:
            writer.execute(meta.insert(), {"name": "x", "value": "1"})
        assert connection.execute(select(meta.c.value).where(meta.c.name == "x")).all() == before == []
    database.close()
