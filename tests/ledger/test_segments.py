"""Segments: what append returned from is replayed once SQL is back, in its order, whatever crashed in between."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import segments as module
from proxy.ledger.database import Ledger
from proxy.ledger.entry import Entry, Position
from proxy.ledger.errors import LedgerUnavailable, SegmentsUnavailable
from proxy.ledger.queries import Filters
from proxy.ledger.segments import Segments, frame, payload_at
from tests.support.ledger_calls import entries, made


def quiet(sentence: str) -> None:
    pytest.fail(f"warned: {sentence}")


def replayed(segments: Segments) -> list[str]:
    seen: list[str] = []
    segments.replay(lambda batch: seen.extend(entry.record.call_id for entry in batch))
    return seen


def test_entries_come_back_in_their_order_and_their_files_are_gone(tmp_path: Path) -> None:
    segments = Segments(tmp_path / "segments", quiet)
    segments.append(entries(made(1), made(2)))
    segments.append(entries(made(3), first=3))
    assert segments.pending == 3
    assert replayed(segments) == ["call000001", "call000002", "call000003"]
    assert (segments.pending, segments.bytes_on_disk, os.listdir(tmp_path / "segments")) == (0, 0, [])
    assert replayed(segments) == []


def test_another_process_finds_what_waits_and_where_the_streams_stand(tmp_path: Path) -> None:
    Segments(tmp_path, quiet).append(entries(made(1), shard=5, first=8) + entries(made(2), shard=6, epoch="second"))
    found = Segments(tmp_path, quiet)
    assert found.pending == 2
    assert found.positions == {5: Position("first", "8-0"), 6: Position("second", "1-0")}
    found.append(entries(made(3), shard=5, first=9))
    assert found.positions[5] == Position("first", "9-0")
    assert replayed(found) == ["call000001", "call000002", "call000003"]


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    segments = Segments(tmp_path, quiet)
    [entry] = entries(made(1, task="Zoë\0", revision=3), shard=63, epoch="e")
    batch = [entry, msgspec.structs.replace(entry, uncharged=b'["acme",[]]')]
    segments.append(batch)
    seen: list[Entry] = []
    segments.replay(seen.extend)
    assert seen == batch


def test_sql_that_is_away_again_leaves_what_was_not_committed(tmp_path: Path) -> None:
    segments = Segments(tmp_path, quiet)
    segments.append(entries(made(1)))

    def away(_batch: Sequence[Entry]) -> None:
        raise LedgerUnavailable("away")

    with pytest.raises(LedgerUnavailable):
        segments.replay(away)
    assert segments.pending == 1
    segments.append(entries(made(2), first=2))
    assert replayed(segments) == ["call000001", "call000002"]


def test_a_crash_between_commit_and_delete_counts_nothing_twice(tmp_path: Path, ledger: Ledger) -> None:
    segments = Segments(tmp_path, quiet)
    segments.append(entries(*(made(number) for number in range(30))))
    ledger.ingest(entries(*(made(number) for number in range(20))))  # committed, and then the process died
    Segments(tmp_path, quiet).replay(ledger.ingest)
    assert len(ledger.calls(Filters()).records) == 30
    assert ledger.report(["task"], since_ms=0, until_ms=2**45).total.calls == 30


def test_a_frame_cut_short_by_a_crash_is_left_out_and_said(tmp_path: Path) -> None:
    segments = Segments(tmp_path, quiet)
    segments.append(entries(made(1), made(2)))
    [path] = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 3)
    warnings: list[str] = []
    found = Segments(tmp_path, warnings.append)
    assert found.pending == 1
    assert "broken frame" in warnings[0]
    # What comes now goes to a file of its own, not behind the broken frame.
    found.append(entries(made(3), first=2))
    assert replayed(found) == ["call000001", "call000003"]


def test_a_disk_that_is_full_is_a_sentence_and_nothing_of_the_batch_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(tmp_path, quiet)
    segments.append(entries(made(1)))

    def half(file: FileIO, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", half)
        with pytest.raises(SegmentsUnavailable, match="No space left"):
            segments.append(entries(made(2), first=2))
    assert segments.pending == 1
    segments.append(entries(made(3), first=2))
    assert replayed(Segments(tmp_path, quiet)) == ["call000001", "call000003"]


def test_a_full_segment_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES_MAX", 1)
    segments = Segments(tmp_path, quiet)
    for number in range(12):
        segments.append(entries(made(number), first=number + 1))
    assert len(list(tmp_path.iterdir())) == 12
    assert replayed(segments) == [f"call{number:06d}" for number in range(12)]


def test_many_records_that_wait_are_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_WARN", 10)
    warnings: list[str] = []
    segments = Segments(tmp_path, warnings.append)
    segments.append(entries(made(1)))
    segments.append(entries(made(2), first=2))
    assert len(warnings) == 1
    assert "wait in" in warnings[0]


def test_nobody_else_can_look_into_the_directory(tmp_path: Path) -> None:
    Segments(tmp_path / "segments", quiet)
    assert stat.S_IMODE((tmp_path / "segments").stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SegmentsUnavailable, match="make room or make it writable"):
        Segments(tmp_path / "file" / "segments", quiet)


@given(st.integers(0, 3), st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_goes_unnoticed(number: int, place: int, value: int) -> None:
    data = frame(entries(made(number))[0])
    place %= len(data)
    changed = data[:place] + bytes([value]) + data[place + 1 :]
    payload = payload_at(changed, 0)
    assert payload is None or changed == data
