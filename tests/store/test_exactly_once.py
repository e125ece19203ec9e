"""Whatever happens to a call, and in whatever order, the ledger ends with exactly one row for it."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.record import decode
from proxy.store.calls import CallStore, StoreUnavailable
from proxy.store.client import Client
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.spool import Spool
from proxy.store.sweeper import Sweeper
from tests.support.store import a_record, begin_epochs, entries, now_ms, open_client
from tests.support.valkey import PATIENT_S, RunningServer, short_folder

CALLS = ("c1", "c2", "c3")
EPOCH = KEYS[shard_of("acme")].epoch

# Said twice: what must often meet a call in the middle of its life.
steps = st.sampled_from(
    [(step, call_id) for step in ("reserve", "settle", "settle again, later") for call_id in CALLS]
    + [(step, None) for step in ("sweep", "sweep", "renew", "store away", "store back", "store back", "drain")]
    + [("another worker", None)]
)


class World:
    """A worker that is told each step, a bookkeeper that sweeps, and what must be in the ledger after it all."""

    worker: CallStore

    def __init__(self, client: Client, url: str, folder: Path) -> None:
        self.client = client
        self.url = url
        self.folder = folder
        self.reserved: set[str] = set()
        self.asked: Counter[str] = Counter()

    async def begin_worker(self) -> None:
        # It does nothing by itself: the steps say when it renews and drains. Its holds expire at once.
        client = Client(self.url, command_timeout_s=PATIENT_S)
        never = {"probe_s": 3600.0, "renew_s": 3600.0, "orphans_s": 0.0}
        self.worker = CallStore(client, Spool(self.folder), clock_ms=now_ms, hold_life_ms=0, **never)
        await self.worker.open()

    async def do(self, step: str, call_id: str | None) -> None:
        try:
            if step == "reserve" and call_id is not None and call_id not in self.asked:
                await self.worker.reserve(a_record(call_id))
                self.reserved.add(call_id)
            elif step == "settle" and call_id is not None:
                self.asked[call_id] = max(1, self.asked[call_id])
                await self.worker.settle(a_record(call_id))
            elif step == "settle again, later" and call_id is not None and self.asked[call_id]:
                self.asked[call_id] = 2
                await self.worker.settle(a_record(call_id, revision=2))
            elif step == "sweep":
                await Sweeper(self.client, hold_life_ms=0).sweep()
            elif step == "renew":
                await self.worker._renew()
            elif step == "store away":
                await self.client.call("DEL", EPOCH)
            elif step == "store back":
                await self.client.call("SET", EPOCH, "back")
            elif step == "drain":
                await self.worker._drain()
            elif step == "another worker":
                await self.worker.close()
                await self.begin_worker()
        except StoreUnavailable:
            pass  # the store is away: what matters is what stands in the end

    async def end(self) -> None:
        for step in ("store back", "drain", "sweep"):
            await self.do(step, None)
        await self.worker.close()

    async def check(self) -> None:
        rows = [(decode(entry.data), entry.revision) for entry in await entries(self.client)]
        count = Counter((record.call_id, revision) for record, revision in rows)
        assert set(count.values()) <= {1}, count
        live: dict[str, tuple[int, str]] = {}
        for record, revision in rows:
            live[record.call_id] = max(live.get(record.call_id, (0, "")), (revision, record.result))
        assert set(live) == self.reserved | set(self.asked)
        for call_id, (_, result) in live.items():
            assert result == ("ok" if self.asked[call_id] else "lost")
        assert await self.client.call("ZCARD", KEYS[shard_of("acme")].holds) == 0
        assert not list(self.folder.glob("*.spool"))


async def live_through(url: str, happenings: list[tuple[str, str | None]]) -> None:
    folder = short_folder()
    try:
        async with open_client(url) as client:
            await client.call("FLUSHALL")
            await begin_epochs(url)
            world = World(client, url, folder)
            await world.begin_worker()
            for step, call_id in happenings:
                await world.do(step, call_id)
            await world.end()
            await world.check()
    finally:
        shutil.rmtree(folder)


@settings(max_examples=40, deadline=None)
@given(happenings=st.lists(steps, min_size=20, max_size=60))
def test_each_call_ends_with_exactly_one_live_row(
    valkey_server: RunningServer, happenings: list[tuple[str, str | None]]
) -> None:
    asyncio.run(asyncio.wait_for(live_through(valkey_server.url, happenings), PATIENT_S))
