"""The policy directory: read whole, watched, and never the reason for a policy to be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy import policy_watch
from proxy.core.policy import Policy
from proxy.core.policy_file import Fault
from proxy.policy_watch import LastGood, PolicyFaulty, PolicyUnreadable, PolicyWatch, load_directory, read_directory

SEEN_WITHIN_S = 20.0
"""Far more than it takes; a test that needs it has failed."""


def upstream(name: str) -> str:
    return f"upstreams: {{{name}: {{url: 'http://127.0.0.1:1'}}}}\n"


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_a_directory_is_read_by_its_policy_files_alone(tmp_path: Path) -> None:
    first, second = write(tmp_path, "b.yaml", "b"), write(tmp_path, "a.yml", "a")
    write(tmp_path, "notes.txt", "x")
    write(tmp_path, ".b.yaml.swp", "x")
    write(tmp_path, ".hidden.yaml", "x")
    assert read_directory(tmp_path) == {str(second): "a", str(first): "b"}


def test_a_directory_that_is_missing_empty_or_a_file_says_so(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    cases = ((missing, "no such directory"), (tmp_path, "no policy file"), (write(tmp_path, "x", ""), "is a file"))
    for path, message in cases:
        with pytest.raises(PolicyUnreadable, match=message) as raised:
            read_directory(path)
        assert raised.value.faults == load_directory(path, {}).faults
        assert str(raised.value.faults[0]).startswith(f"{path}:1:1: ")


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "good.yaml", upstream("a"))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    found = load_directory(tmp_path, {})
    assert found.policy is None
    assert [Path(fault.file).name for fault in found.faults] == ["folder.yaml", "gone.yaml"]


def test_bytes_that_are_not_utf_8_are_a_fault_at_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"# fine\naccess: \xff\n")
    assert str(load_directory(tmp_path, {}).faults[0]).startswith(f"{tmp_path}/a.yaml:2:9: not valid YAML")


def test_too_many_files_are_a_mistaken_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_watch, "FILES_MAX", 1)
    write(tmp_path, "a.yaml", upstream("a"))
    write(tmp_path, "b.yaml", upstream("b"))
    with pytest.raises(PolicyUnreadable, match="more than 1 files"):
        read_directory(tmp_path)


def test_a_start_without_a_good_policy_fails_with_all_faults(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "upstreams: {v1: {}}")
    write(tmp_path, "b.yaml", "nonsense: 1")
    with pytest.raises(PolicyFaulty) as raised:
        PolicyWatch(tmp_path, {})
    assert len(raised.value.faults) == len(str(raised.value).splitlines()) == 3
    with pytest.raises(PolicyFaulty, match="no such directory"):
        PolicyWatch(tmp_path / "missing", {})


def test_a_process_that_is_started_while_the_files_are_at_fault_goes_on_with_the_last_good_set(tmp_path: Path) -> None:
    directory, kept = tmp_path / "policies", LastGood(tmp_path / "policy.good")
    directory.mkdir()
    write(directory, "a.yaml", upstream("a"))
    good = PolicyWatch(directory, {}, last_good=kept)
    write(directory, "a.yaml", "nonsense: 1")
    later = PolicyWatch(directory, {}, last_good=kept)
    assert later.policy == good.policy
    assert ["nonsense" in fault.message for fault in later.faults] == [True]
    with pytest.raises(PolicyFaulty, match="nonsense"):
        PolicyWatch(directory, {}, last_good=kept, must_be_good=True)


def test_a_set_that_was_not_kept_whole_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory, path = tmp_path / "policies", tmp_path / "policy.good"
    directory.mkdir()
    write(directory, "a.yaml", "nonsense: 1")
    for damaged in (b"", b'{"a.yaml": ', b"[]"):
        path.write_bytes(damaged)
        with pytest.raises(PolicyFaulty, match="nonsense"):
            PolicyWatch(directory, {}, last_good=LastGood(path))
    write(directory, "a.yaml", upstream("a"))
    assert PolicyWatch(directory, {}, last_good=LastGood(tmp_path / "nowhere" / "x")).policy.upstreams.keys() == {"a"}
    assert "cannot be kept" in caplog.text


class Told:
    """What a watch reported, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.policies: list[Policy] = []
        self.faults: list[list[Fault]] = []
        self._news = asyncio.Event()

    def on_policy(self, policy: Policy) -> None:
        self.policies.append(policy)
        self._news.set()

    def on_faults(self, faults: list[Fault]) -> None:
        self.faults.append(faults)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SEEN_WITHIN_S):
            while not holds():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[tuple[PolicyWatch, Told]]:
    told = Told()
    watch = PolicyWatch(directory, {}, on_policy=told.on_policy, on_faults=told.on_faults)
    running = asyncio.create_task(watch.run())
    try:
        yield watch, told
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_watch, "LOOK_EVERY_MS", 50)


async def test_a_notice_alone_brings_a_changed_file_into_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_watch, "LOOK_EVERY_MS", 60_000)
    write(tmp_path, "a.yaml", upstream("first"))
    async with watching(tmp_path) as (watch, told), asyncio.timeout(SEEN_WITHIN_S):
        before = watch.policy
        changes = 0
        while watch.policy is before:  # the watch takes a moment to begin
            changes += 1
            write(tmp_path, "a.yaml", upstream(f"changed-{changes}"))
            await asyncio.sleep(0.1)
        assert told.policies[-1] is watch.policy
        assert watch.policy.version != before.version


@pytest.mark.usefixtures("looks_often")
async def test_the_last_good_policy_stays_until_the_faults_are_mended(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", upstream("first"))
    async with watching(tmp_path) as (watch, told):
        good = watch.policy
        write(tmp_path, "a.yaml", "upstreams: {v1: {}}")
        await told.until(lambda: bool(watch.faults))
        assert (watch.policy, told.policies) == (good, [])
        assert told.faults[-1] == watch.faults
        # An editor that saves in place leaves the file empty for a moment.
        write(tmp_path, "a.yaml", "")
        await told.until(lambda: "is empty" in watch.faults[0].message)
        path.unlink()
        await told.until(lambda: "no policy file" in watch.faults[0].message)
        assert watch.policy is good
        write(tmp_path, "a.yaml", upstream("second"))
        await told.until(lambda: "second" in watch.policy.upstreams)
        assert watch.faults == []


@pytest.mark.usefixtures("looks_often")
async def test_a_directory_that_is_swapped_by_its_link_is_seen(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "a.yaml", upstream(name))
    link = tmp_path / "policies"
    link.symlink_to("one")
    async with watching(link) as (watch, told):
        assert "one" in watch.policy.upstreams
        fresh = tmp_path / "fresh"
        fresh.symlink_to("two")
        fresh.rename(link)
        await told.until(lambda: "two" in watch.policy.upstreams)


@pytest.mark.usefixtures("looks_often")
async def test_a_directory_that_goes_away_and_comes_back_is_taken_up_again(tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    directory.mkdir()
    write(directory, "a.yaml", upstream("first"))
    async with watching(directory) as (watch, told):
        directory.rename(tmp_path / "away")
        await told.until(lambda: bool(watch.faults))
        directory.mkdir()
        write(directory, "a.yaml", upstream("second"))
        await told.until(lambda: "second" in watch.policy.upstreams)


@pytest.mark.usefixtures("looks_often")
async def test_a_system_without_notices_is_looked_at_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watches_left(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("watchfiles.awatch", no_watches_left)
    write(tmp_path, "a.yaml", upstream("first"))
    async with watching(tmp_path) as (watch, told):
        write(tmp_path, "a.yaml", upstream("second"))
        await told.until(lambda: "second" in watch.policy.upstreams)
