from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.store import embedded
from proxy.store.embedded import EmbeddedFailed, EmbeddedServer, ask, find_programs, listens, wheel_programs
from tests.support.store import eventually, open_client
from tests.support.valkey import short_folder


@pytest.fixture
def data() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def server_in(data: Path) -> EmbeddedServer:
    return EmbeddedServer(data, dies_with_parent=True)


async def test_it_starts_keeps_what_it_was_told_and_stops_clean(data: Path) -> None:
    server = server_in(data)
    await server.open()
    async with open_client(server.url) as client:
        await client.call("SET", "a", 1)
        facts = await client.pipeline(
            ("CONFIG", "GET", name)
            for name in ("port", "unixsocketperm", "appendonly", "appendfsync", "save", "maxmemory-policy")
        )
    assert [value for _, value in facts] == [b"0", b"700", b"yes", b"everysec", b"", b"noeviction"]
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    await server.close()
    assert not await listens(server.socket)
    again = server_in(data)
    await again.open()
    assert await ask(again.socket, "GET", "a") == b"1"
    await again.close()


async def test_it_loses_nothing_when_it_is_killed_and_is_started_again(data: Path) -> None:
    server = server_in(data)
    await server.open()
    watching = asyncio.create_task(server.watch())
    async with open_client(server.url) as client:
        await client.call("SET", "a", 1)
        os.kill(await server.pid(), signal.SIGKILL)
        await eventually(lambda: server.restarts)
        await client.until_up()
        assert await client.call("GET", "a") == b"1"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await server.close()


async def test_a_server_that_runs_is_adopted_and_stopped_with_its_last_user(data: Path) -> None:
    first, second = server_in(data), server_in(data)
    await asyncio.gather(first.open(), second.open())
    assert sorted([first.adopted, second.adopted]) == [False, True]
    assert await first.pid() == await second.pid()
    await first.close()
    assert await listens(second.socket)
    await second.close()
    assert not await listens(second.socket)


START_AND_BE_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from proxy.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), dies_with_parent=sys.argv[2] == "True")
asyncio.run(server.open())
os.kill(os.getpid(), signal.SIGKILL)
"""


async def supervisor_that_is_killed(data: Path, *, dies_with_parent: bool) -> None:
    arguments = [sys.executable, "-c", START_AND_BE_KILLED, str(data), str(dies_with_parent)]
    await asyncio.to_thread(subprocess.run, arguments, check=False, timeout=60)


async def test_the_server_of_a_supervisor_that_was_killed_is_adopted(data: Path) -> None:
    await supervisor_that_is_killed(data, dies_with_parent=False)
    server = server_in(data)
    await server.open()
    assert server.adopted
    watching = asyncio.create_task(server.watch())
    os.kill(await server.pid(), signal.SIGKILL)
    await eventually(lambda: server.restarts)
    assert not server.adopted
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await server.close()
    assert not await listens(server.socket)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
async def test_it_can_be_made_to_end_with_its_parent(data: Path) -> None:
    await supervisor_that_is_killed(data, dies_with_parent=True)

    async def gone() -> bool:
        return not await listens(data / "valkey.sock")

    await eventually(gone)


async def test_a_socket_path_that_is_too_long_moves_to_a_private_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(data))
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    server = server_in(deep)
    assert server.socket.parent.parent == data
    assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    assert server_in(deep).socket == server.socket
    await server.open()
    assert await ask(server.socket, "PING") == b"PONG"
    await server.close()
    server.socket.parent.chmod(0o755)
    with pytest.raises(EmbeddedFailed, match="not a private folder"):
        server_in(deep)


async def test_a_program_that_does_not_work_is_passed_over(data: Path) -> None:
    broken, missing = data / "broken", data / "missing"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    server = EmbeddedServer(data, dies_with_parent=True, programs=lambda: [missing, broken, *find_programs()])
    await server.open()
    assert await ask(server.socket, "PING") == b"PONG"
    await server.close()
    with pytest.raises(EmbeddedFailed, match="ended with status 3") as failed:
        await EmbeddedServer(data, programs=lambda: [missing, broken]).open()
    assert "missing: No such file" in str(failed.value)


async def test_without_any_program_the_error_says_what_to_do(data: Path) -> None:
    with pytest.raises(EmbeddedFailed, match="Install one, or give --redis-url"):
        await EmbeddedServer(data, programs=list).open()


def test_the_wheels_program_comes_before_those_on_path(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis-server", "valkey-server"):
        (data / name).write_text("")
        (data / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(data))
    wheel = wheel_programs()
    assert wheel
    assert find_programs() == [*wheel, data / "valkey-server", data / "redis-server"]
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    assert find_programs() == [data / "valkey-server", data / "redis-server"]
