from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path

import pytest

from proxy.store.spool import SUFFIX, File, Spool, SpoolFailed, framed


async def opened(folder: Path, **options: int) -> Spool:
    spool = Spool(folder, **options)
    await spool.open()
    return spool


async def test_lines_come_back_in_order_and_their_file_goes_when_they_are_done(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    lines = [b"line %d" % number for number in range(100)]
    await asyncio.gather(*map(spool.append, lines))
    assert spool.waiting == 100
    segment = await spool.take(orphans=False)
    assert segment is not None
    assert segment.lines == lines
    await spool.done(segment, lines[60:])
    assert (spool.waiting, len(list(tmp_path.glob(f"*{SUFFIX}")))) == (40, 1)
    await spool.done(segment, [])
    assert (spool.waiting, list(tmp_path.iterdir())) == (0, [])
    await spool.close()


async def test_lines_that_wait_at_the_same_time_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = await opened(tmp_path)
    await spool.append(b"first")
    syncs: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (syncs.append(descriptor), sync(descriptor)))
    await asyncio.gather(*[spool.append(b"more") for _ in range(50)])
    assert len(syncs) == 1
    await spool.close()


async def test_a_sealed_file_takes_no_more_lines(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.append(b"one")
    segment = await spool.take(orphans=False)
    await spool.append(b"two")
    following = await spool.take(orphans=False)
    assert segment is not None
    assert following is not None
    assert (segment.lines, following.lines) == ([b"one"], [b"two"])
    await spool.close()


async def test_a_file_that_grew_too_large_is_followed_by_another(tmp_path: Path) -> None:
    spool = await opened(tmp_path, segment_bytes_max=30)
    for number in range(6):
        await spool.append(b"line %d" % number)
    found = []
    while segment := await spool.take(orphans=False):
        found.append(segment.lines)
        await spool.done(segment, [])
    assert [line for lines in found for line in lines] == [b"line %d" % number for number in range(6)]
    assert len(found) == 3
    await spool.close()


async def test_what_was_torn_by_a_crash_is_left_out(tmp_path: Path) -> None:
    good, torn = framed(b"good"), framed(b"torn in two")[:-5]
    (tmp_path / f"1-a{SUFFIX}").write_bytes(good + b"00000000 wrong sum\n" + good + torn)
    spool = await opened(tmp_path)
    segment = await spool.take(orphans=True)
    assert segment is not None
    assert segment.lines == [b"good", b"good"]
    await spool.done(segment, [])
    await spool.close()


async def test_a_file_with_nothing_whole_in_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"1-a{SUFFIX}").write_bytes(framed(b"torn")[:-1])
    spool = await opened(tmp_path)
    assert await spool.take(orphans=True) is None
    assert list(tmp_path.iterdir()) == []
    await spool.close()


def append_and_die(folder: Path) -> None:
    File.create(folder).append(framed(b"of the dead"))
    os._exit(9)


async def test_the_file_of_a_dead_process_is_adopted_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    living = await opened(tmp_path)
    await living.append(b"of the living")
    process = multiprocessing.get_context("spawn").Process(target=append_and_die, args=(tmp_path,))
    process.start()
    await asyncio.to_thread(process.join)
    other = await opened(tmp_path)
    segment = await other.take(orphans=True)
    assert segment is not None
    assert segment.lines == [b"of the dead"]
    assert other.waiting == 1
    await other.done(segment, [])
    assert await other.take(orphans=True) is None
    await living.close()
    left = await other.take(orphans=True)
    assert left is not None
    assert left.lines == [b"of the living"]
    await other.close()


async def test_a_failed_write_says_so_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = await opened(tmp_path)
    await spool.append(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SpoolFailed, match="No space left"):
            await spool.append(b"does not fit")
    await spool.append(b"after")
    segment = await spool.take(orphans=False)
    assert segment is not None
    assert segment.lines == [b"before", b"after"]
    await spool.close()


async def test_a_file_that_is_left_in_the_middle_is_found_again_as_it_was(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await asyncio.gather(spool.append(b"one"), spool.append(b"two"))
    segment = await spool.take(orphans=False)
    assert segment is not None
    await spool.done(segment, [b"two"])
    assert await spool.take(orphans=True) is None
    await spool.leave(segment)
    again = await spool.take(orphans=True)
    assert again is not None
    assert again.lines == [b"one", b"two"]
    await spool.done(again, [])
    await spool.leave(again)
    await spool.close()
