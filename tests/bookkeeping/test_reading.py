"""What the streams hold becomes records; what is none is kept where a person finds it, and counted nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.bookkeeping.reading import ASIDE_FILE, entries_of
from proxy.bookkeeping.spooled import SpooledRecords
from proxy.core.record import encode
from proxy.store.ledger_stream import Entry, entry_of
from tests.support.store import a_record


def found(number: int, data: bytes, revision: int = 1) -> Entry:
    return Entry(shard=3, epoch="e", id=f"{number}-0", data=data, revision=revision)


def test_records_are_read_with_the_revision_of_the_stream(tmp_path: Path) -> None:
    [entry] = entries_of([found(1, encode(a_record("c1")), revision=2)], tmp_path)
    assert (entry.shard, entry.epoch, entry.id, entry.record.revision) == (3, "e", "1-0", 2)
    assert not (tmp_path / ASIDE_FILE).exists()


def test_what_cannot_be_read_is_on_disk_before_it_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [found(1, b'{"call_id": 7}'), found(2, b"\xff\x00")]
    assert [entry.id for entry in entries_of([*bad, found(3, encode(a_record("c3")))], tmp_path)] == ["3-0"]
    lines = [json.loads(line) for line in (tmp_path / ASIDE_FILE).read_text().splitlines()]
    assert [(line["id"], line["data"]) for line in lines] == [("1-0", '{"call_id": 7}'), ("2-0", "\\xff\x00")]
    assert len(caplog.records) == 1


def test_what_cannot_be_set_aside_stays_in_the_stream(tmp_path: Path) -> None:
    (tmp_path / ASIDE_FILE).mkdir()
    with pytest.raises(OSError, match=ASIDE_FILE):
        entries_of([found(1, b"")], tmp_path)


@pytest.mark.parametrize("fields", [[], [b"r"], [b"what", b"ever"], [b"r", b"{}", b"v", b"one", b"e", b"e"]])
def test_an_entry_that_is_not_ours_is_read_as_no_record(fields: list[bytes], tmp_path: Path) -> None:
    epoch, entry = entry_of(5, "e", b"9-1", fields)
    assert (epoch, entry.shard, entry.id) == ("e", 5, "9-1")
    assert entries_of([entry], tmp_path) == []


def test_spooled_records_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    spooled = SpooledRecords(tmp_path)
    assert spooled.count() == 0
    (tmp_path / "a.spool").write_bytes(b"1\n2\n")
    (tmp_path / "b.spool").write_bytes(b"1\n")
    (tmp_path / "set-aside.lines").write_bytes(b"1\n2\n3\n")
    assert spooled.count() == 3
    with (tmp_path / "a.spool").open("ab") as file:
        file.write(b"3\n")
    assert spooled.count() == 4
    with (tmp_path / "a.spool").open("ab") as file:
        file.truncate(2)
    assert spooled.count() == 2
    (tmp_path / "b.spool").unlink()
    assert spooled.count() == 1


def test_what_was_counted_before_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled = SpooledRecords(tmp_path)
    (tmp_path / "a.spool").write_bytes(b"1\n2\n")
    assert spooled.count() == 2
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    assert spooled.count() == 2
