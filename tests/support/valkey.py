"""A real Valkey for tests: one for each test process, emptied before each test that asks for it.

A test folder gets the fixtures by importing them in its `conftest.py`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.store.embedded import EmbeddedServer, ask

PATIENT_S = 10.0
"""A time limit for tests that are not about time limits: the machine may be busy."""


class RunningServer:
    """A server in a directory of its own, which a test may kill, stop, continue and start again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._server = EmbeddedServer(data, dies_with_parent=True)
        self.url = self._server.url
        self.socket = self._server.socket

    async def start(self) -> None:
        self._server = EmbeddedServer(self.data, dies_with_parent=True)
        await self._server.open()

    async def stop(self) -> None:
        self.signal(signal.SIGCONT)
        await self._server.close()

    def signal(self, number: signal.Signals) -> None:
        child = self._server._child
        if child is not None and child.poll() is None:
            child.send_signal(number)

    async def kill(self) -> None:
        """As a power cut for the process: no chance to write anything more."""
        child = self._server._child
        assert child is not None
        child.kill()
        await asyncio.to_thread(child.wait)
        self._server._child = None
        self._server._leave()

    async def ask(self, *command: str) -> object:
        return await ask(self.socket, *command)


def short_folder() -> Path:
    """A new folder whose path is short enough for a unix socket in it."""
    return Path(tempfile.mkdtemp(prefix="cm-"))


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RunningServer]:
    """The server of this test process. It ends with it, whatever happens."""
    folder = short_folder()
    server = RunningServer(folder)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store_url(valkey_server: RunningServer) -> str:
    """The URL of a store with nothing in it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENT_S)
        connection.connect(os.fspath(valkey_server.socket))
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    return valkey_server.url


@pytest.fixture
async def own_valkey() -> AsyncIterator[RunningServer]:
    """A server for this test alone, which it may treat badly."""
    folder = short_folder()
    server = RunningServer(folder)
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(folder, ignore_errors=True)
