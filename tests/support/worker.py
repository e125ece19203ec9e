"""One worker inside the test process, on a real store, with its works within reach: for tests that shorten a limit or
take a collaborator away. What needs no such thing is tested from outside (`house.py`)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from proxy.app import Worker
from proxy.core.caller import KeyInfo
from proxy.core.keys import make_key
from proxy.core.record import Record, decode
from proxy.desk import BOOK_FILE, load_book
from proxy.ledger.database import open_ledger
from proxy.settings import Settings
from tests.support.scripted import Agent, agent
from tests.support.store import begin_epochs, entries, eventually
from tests.support.valkey import short_folder

SECRET = b"secret-of-the-tests-0123456789ab"
KEY_ID = "adaskeyadaskey77"
KEY = make_key(SECRET, KEY_ID)
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


class Edge:
    """A worker that serves. Its only key belongs to `ada`."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.relay = worker.relay
        listener = worker.port._listener
        assert listener is not None
        self.address: tuple[str, int] = listener.sockets[0].getsockname()[:2]

    @asynccontextmanager
    async def post(self, path: str, body: Any, **options: Any) -> AsyncIterator[Agent]:
        """A call with ada's key; nothing of its answer has been read yet."""
        headers = {**AUTHORIZED, **options.pop("headers", {})}
        async with agent(self.address, path, body, headers, **options) as calling:
            yield calling

    async def answer(self, path: str, body: Any, **options: Any) -> tuple[Agent, bytes]:
        """The whole answer to a call: its head, and its body."""
        async with self.post(path, body, **options) as calling:
            await calling.head()
            if "content-length" in calling.headers:
                return calling, await calling.body()
            return calling, await calling.rest()

    async def records(self, count: int = 1) -> list[Record]:
        """What was written to the store, oldest first, as soon as there are `count`."""
        found: list[Record] = []

        async def enough() -> bool:
            found[:] = [decode(entry.data) for entry in await entries(self.worker.client)]
            return len(found) >= count

        await eventually(enough)
        return found


@asynccontextmanager
async def serving(store_url: str, policy: str) -> AsyncIterator[Edge]:
    """A worker with this policy file, from open to close."""
    folder = short_folder()
    data = folder / "data"
    data.mkdir()
    (data / BOOK_FILE).write_bytes(compiled_book())
    (folder / "policy.yaml").write_text(policy)
    settings = Settings(
        port=0,
        policies=folder,
        data=data,
        redis_url=store_url,
        drain_s=0.2,
        secrets=(SECRET,),
        ledger_url=f"sqlite:///{data / 'ledger.db'}",
    )
    ledger = open_ledger(settings.ledger_url)
    ledger.keys.create(KeyInfo(key_id=KEY_ID, user="ada"))
    ledger.close()
    await begin_epochs(store_url)
    worker = Worker(settings)
    await worker.open()
    try:
        yield Edge(worker)
    finally:
        await worker.close()
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def compiled_book() -> bytes:
    """The price book, compiled once for all tests of a process."""
    folder = short_folder()
    try:
        load_book(folder)
        return (folder / BOOK_FILE).read_bytes()
    finally:
        shutil.rmtree(folder)


def policy(url: str, defaults: str = "", more: str = "") -> str:
    """Upstreams `openai`, `anthropic` and `gemini` at one URL, and the lines of `defaults`."""
    names = "".join(
        f'  {name}: {{dialect: {name}, url: "{url}", key: sk}}\n' for name in ("openai", "anthropic", "gemini")
    )
    return f"upstreams:\n{names}defaults: {{{defaults}}}\n{more}"
