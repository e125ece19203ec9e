"""One bookkeeper at a time works in a data directory; the next one waits, says so, and takes over at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from proxy.bookkeeping.beginning import Beginning
from proxy.bookkeeping.seat import Seat

ADMIN_URL = "http://127.0.0.1:8081"
HOLDS_THE_SEAT = """\
import sys
from pathlib import Path
from proxy.bookkeeping.seat import Seat
seat = Seat.take(Path(sys.argv[1]))
print(seat.holder, flush=True)
sys.stdin.read()
"""


def test_the_seat_is_taken_once_and_free_again_when_its_holder_leaves(tmp_path: Path) -> None:
    first = Seat.take(tmp_path)
    assert first is not None
    assert first.predecessor == ""
    assert Seat.take(tmp_path) is None
    first.leave()
    second = Seat.take(tmp_path)
    assert second is not None
    assert second.predecessor == first.holder != second.holder
    second.leave()


def test_two_directories_with_the_same_name_give_two_names(tmp_path: Path) -> None:
    seats = []
    for container in ("one", "other"):
        data = tmp_path / container / "data"
        data.mkdir(parents=True)
        seats.append(Seat.take(data))
    assert len({seat.holder for seat in seats if seat is not None}) == 2
    for seat in seats:
        assert seat is not None
        seat.leave()


def test_a_holder_that_is_killed_leaves_its_seat_to_a_successor_who_knows_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_THE_SEAT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        assert Seat.take(tmp_path) is None
        holder.kill()
        holder.wait()
    successor = Seat.take(tmp_path)
    assert successor is not None
    assert successor.predecessor == name
    successor.leave()


async def test_a_second_bookkeeper_of_a_directory_stands_by_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr("proxy.bookkeeping.beginning.LOOK_S", 0.01)
    first = Seat.take(tmp_path)
    assert first is not None
    second = Beginning(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", ADMIN_URL)
    assert not await second.look()
    assert not (tmp_path / "admin.url").exists()  # commands go on asking the one that works
    stopping = asyncio.get_running_loop().create_future()
    await second.serve("127.0.0.1", unused_tcp_port)
    waiting = asyncio.create_task(second.wait(stopping))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{unused_tcp_port}") as session:
        answer = await session.get("/readyz")
        assert answer.status == 503
        assert "another bookkeeper" in (await answer.json())["faults"]["bookkeeper"]
        assert (await session.get("/healthz")).status == 200
        assert (await session.post("/api/keys")).status == 503
    first.leave()
    assert await waiting
    assert second.seat is not None
    assert second.seat.predecessor == first.holder
    assert (tmp_path / "admin.url").read_text() == f"{ADMIN_URL}\n"
    assert second.ledger is not None
    await second.close()
    second.ledger.close()
    second.seat.leave()


async def test_a_ledger_that_is_away_is_waited_for_until_told_to_stop(tmp_path: Path) -> None:
    beginning = Beginning(tmp_path, f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}", ADMIN_URL)
    assert not await beginning.look()
    assert "ledger" in beginning.missing
    stopping = asyncio.create_task(asyncio.sleep(0))
    assert not await beginning.wait(stopping)
    await beginning.close()
    assert beginning.seat is not None
    beginning.seat.leave()
