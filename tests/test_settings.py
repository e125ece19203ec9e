"""Settings: what is kept in the data directory is whole, the same for all, and nobody else's to read."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.settings import SettingsInvalid, kept, load, make_private


def test_what_is_kept_stays_the_same_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    text = kept(tmp_path / "secret")
    assert (len(text), kept(tmp_path / "secret")) == (64, text)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "secret" in path.name] == ["secret"]


def test_an_empty_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    text = kept(tmp_path / "secret")
    assert text
    assert (tmp_path / "secret").read_text().strip() == text


def test_many_who_start_at_once_keep_the_same_text(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        texts = set(threads.map(kept, [tmp_path / "secret"] * 64))
    assert len(texts) == 1
    assert texts != {""}


def test_a_crash_while_it_is_written_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_descriptor: int) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="the disk is gone"):
            kept(tmp_path / "secret")
    assert not (tmp_path / "secret").exists()
    assert kept(tmp_path / "secret")


def test_a_data_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    assert make_private(data) is None
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_one_that_is_not_ours_to_close_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError("not the owner")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert str(tmp_path) in (make_private(tmp_path) or "")


def test_a_secret_that_cannot_be_read_is_told_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="secret cannot be read: it is not text"):
        load({}, {"data": tmp_path})
    assert (tmp_path / "secret").read_bytes() == b"\xff\xfe"


def test_files_of_another_user_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("os.access", lambda _path, _mode: False)  # who runs tests as root may read everything
    with pytest.raises(SettingsInvalid, match=r"cannot use secret, spool in .*: another user ran"):
        load({}, {"data": tmp_path})


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        load(
            {"CALLMETER_PORT": "x", "CALLMETER_ONLY": "half", "CALLMETER_LEDGER_URL": "mysql://ada:hidden@host/books"},
            {"data": tmp_path},
        )
    assert len(invalid.value.faults) == 3
    assert "hidden" not in str(invalid.value)
