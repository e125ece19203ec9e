"""A worker: builds, opens and closes every object that takes part in the walk of a call. Known by none."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from .child import EXIT_SETTINGS, keep_what_is_there, say_ready, until_told_to_stop
from .core.estimate import Estimator
from .core.expected import Learned
from .desk import PolicyDesk
from .edge.arrival import Arrivals
from .edge.claiming import Claims
from .edge.closing import Closing
from .edge.comparing import Comparer
from .edge.holding import Holder
from .edge.keyring import KeyRing
from .edge.lending import Lending
from .edge.mine import Mine
from .edge.own_pages import OwnPages
from .edge.raises import RaiseFollower
from .edge.relay import Relay
from .edge.retrieval import Retrievals
from .edge.server import DataPort
from .edge.upstream import Upstreams
from .ledger.errors import LedgerRefused, LedgerUnavailable
from .ledger.reader import open_reader
from .settings import Settings
from .store.calls import CallStore
from .store.client import Client
from .store.errors import StoreForeign, StoreRefused, StoreUnavailable
from .store.identity import Identity
from .store.sealing import Sealer
from .store.spool import Spool, SpoolFailed
from .telemetry import logs

SETTLE_S_MAX = 5.0
"""After draining, for what agents left behind."""
LEDGER_ID_S = 0.5
"""How often the ledger is asked which one it is, until it has said so: the store is not used before."""

log = logging.getLogger("callmeter.worker")


def clock_ms() -> int:
    return int(time.time() * 1000)


class Worker:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.desk = PolicyDesk(settings)
        self.ledger = open_reader(settings.ledger_url)
        self.identity = Identity(settings.secrets, settings.ledger_id)
        self.client = Client(settings.redis_url or "", identity=self.identity)
        self.store = CallStore(self.client, Spool(Path(settings.data) / "spool"), clock_ms=clock_ms)
        self.keys = KeyRing(self.ledger.key, self.ledger.keys_changed_since, settings.secrets)
        self.raises = RaiseFollower(
            self.ledger.open_raises,
            clock_ms=clock_ms,
            proven=self.ledger.proven_tasks,
            unproven=lambda: self.desk.policy.unproven,
        )
        self.upstreams = Upstreams()
        self.retrievals = Retrievals(
            store=self.store,
            find_call=lambda *made: asyncio.to_thread(self.ledger.by_upstream_call_id, *made),
            prices=lambda: self.desk.prices,
            policy=lambda: self.desk.policy,
        )
        holder = Holder(
            store=self.store,
            prices=lambda: self.desk.prices,
            raises=lambda: self.raises.current,
            learned=Learned(),
            comparer=Comparer(settings.secrets[0]),
        )
        mine = Mine(
            ledger=self.ledger,
            client=self.client,
            policy=lambda: self.desk.policy,
            raises=lambda: self.raises.current,
            clock_ms=clock_ms,
        )
        lending = Lending(store=self.store, holder=holder, sealer=Sealer(settings.secrets[0]))
        self.relay = Relay(
            policy=lambda: self.desk.policy,
            prices=lambda: self.desk.prices,
            arrivals=Arrivals(self.keys),
            holder=holder,
            upstreams=self.upstreams,
            closing=Closing(
                store=self.store,
                prices=lambda: self.desk.prices,
                estimator=Estimator(),
                holder=holder,
                retrievals=self.retrievals,
                lending=lending,
            ),
            lending=lending,
            own_pages=OwnPages(find_call=self.ledger.call, mine=mine.of, claim=Claims(self.client).take),
            clock_ms=clock_ms,
        )
        self.port = DataPort(self.relay, self.missing)
        self._tasks: list[asyncio.Task[None]] = []

    def missing(self) -> list[str]:
        """Why calls could not pass now; empty: ready. A store that is away does not matter while the policy lets calls
        pass without it."""
        if self.store.healthy or self.desk.policy.defaults.store_outage != "refuse":
            return []
        return [self.store.trouble]

    async def open(self) -> None:
        """Raises StoreRefused and LedgerRefused: this worker must not serve with what it was given."""
        if not self.identity.ledger_id and not await self._ask_ledger_id():
            self._tasks.append(asyncio.create_task(self._learn_ledger_id()))
        try:
            await self.client.open()
        except StoreUnavailable:
            pass  # it goes on trying; until then calls are decided as the policy's `store_outage` says
        await self.store.open()
        await self.keys.start()
        await self.raises.start()
        self._tasks += [asyncio.create_task(self.desk.run()), asyncio.create_task(self.relay.watch())]
        await self.port.open(self.settings.host, self.settings.port)

    async def _learn_ledger_id(self) -> None:
        while not await self._ask_ledger_id():
            await asyncio.sleep(LEDGER_ID_S)

    async def _ask_ledger_id(self) -> bool:
        try:
            self.identity.ledger_id = await asyncio.to_thread(self.ledger.ledger_id)
        except LedgerUnavailable as away:
            log.debug("%s", away)
            return False
        return True

    async def run(self) -> None:
        """Serves until told to stop. Raises StoreForeign where the store turns out to be another installation's."""
        stopping = asyncio.create_task(until_told_to_stop())
        foreign = asyncio.create_task(self.client.until_foreign())
        await asyncio.wait([stopping, foreign], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        foreign.cancel()
        await self.close()
        if foreign.done() and not foreign.cancelled():
            raise StoreForeign(foreign.result())

    async def close(self) -> None:
        await self.port.drain(self.settings.drain_s)
        await self.relay.close(SETTLE_S_MAX)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.keys.close()
        await self.raises.close()
        await self.store.close()
        await self.client.close()
        self.upstreams.close()
        self.ledger.close()


async def main(settings: Settings) -> None:
    logs.configure(settings.log_format)
    logging.getLogger(logs.CALL_LOGGER).setLevel(logging.INFO if settings.log_calls else logging.WARNING)
    try:
        await serve(Worker(settings))
    except (StoreRefused, LedgerRefused) as refused:
        log.error("%s", refused)
        raise SystemExit(EXIT_SETTINGS) from None
    except SpoolFailed as failed:
        log.error("%s", failed)
        raise SystemExit(1) from None  # the supervisor tries again, later each time


async def serve(worker: Worker) -> None:
    await worker.open()
    keep_what_is_there()
    say_ready()
    await worker.run()
