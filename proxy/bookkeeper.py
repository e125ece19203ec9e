"""Bookkeeper: the second kind of process. Follows the streams of records into the ledger, and from the ledger into
telemetry; sweeps the holds of calls whose process died; serves the admin port. Everything that can be done a moment
later is done here, so that it costs the walk nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from .admin.api import admin_app
from .admin.context import AdminContext
from .child import EXIT_SETTINGS, say_ready, until_told_to_stop
from .core import record as records
from .core import settlement
from .core.keys import make_key, new_key_id
from .core.record import Record
from .desk import PolicyDesk
from .ledger.database import Ledger, open_ledger
from .ledger.entry import Entry, Position
from .ledger.errors import LedgerUnavailable, PositionMoved
from .ledger.segments import Segments
from .settings import Settings
from .store.client import Client
from .store.epoch import ensure_epochs
from .store.errors import StoreError, StoreUnavailable
from .store.identity import claim
from .store.keyspace import KEYS
from .store.lease import RENEW_S, Lease, LeaseLost
from .store.ledger_stream import Entry as StreamEntry
from .store.ledger_stream import StreamReader
from .store.sweeper import Sweeper
from .telemetry import logs
from .telemetry.exporter import TraceExporter, exporter_from_environment, resource_from_environment
from .telemetry.genai_metrics import GenAiMetrics, meter_provider_from_environment
from .telemetry.prometheus import Metrics
from .telemetry.senders import SenderInvalid

BATCH_RECORDS = 1000
"""Records in one SQL transaction at the most: large enough to be cheap, small enough to be quick."""
BLOCK_MS = 200
EPOCH_S = 0.5
"""How often an emptied store is looked for; until its epoch is set, calls are decided as `store_outage` says."""
SWEEP_S = 5.0
GAUGES_S = 2.0
LEDGER_RETRY_S = 1.0
STAND_BY_S = 1.0
EXPORT_CURSOR = "otlp"

Done = TypeVar("Done")
log = logging.getLogger("callmeter.bookkeeper")


class Bookkeeper:
    """One object a process. `run` ends when the process is told to stop."""

    def __init__(self, settings: Settings, ledger: Ledger, desk: PolicyDesk) -> None:
        self.settings = settings
        self.ledger = ledger
        self.desk = desk
        self.client = Client(settings.redis_url or "")
        self.reader = StreamReader(self.client)
        self.sweeper = Sweeper(self.client)
        self.lease = Lease(self.client, f"{socket.gethostname()}:{settings.data}")
        self.segments = Segments(settings.data / "segments", log.warning)
        self.metrics = Metrics()
        self.export: TraceExporter | None = None
        self.genai: GenAiMetrics | None = None
        self.ledger_up = True
        self.epochs_set = False
        # One thread for writing, so that batches go in one after the other; reads of the admin port have their own.
        self._writing = ThreadPoolExecutor(1, "ledger")
        self._positions: dict[int, Position] = {}

    # -- from the stream into the ledger -----------------------------------------------------------------------------

    async def follow(self) -> None:
        """Reads records and writes them, for ever; while SQL is away they wait in segments on disk."""
        while True:
            if not await self._active():
                continue
            try:
                if self.segments.pending and not await self._replay():
                    self._positions |= self.segments.positions
                elif not self._positions:
                    self._positions = await self._in_writer(self.ledger.positions)
                positions = {shard: (place.epoch, place.id) for shard, place in self._positions.items()}
                found = await self.reader.read(positions, count=BATCH_RECORDS, block_ms=BLOCK_MS)
                if found:
                    await self._take(entries_of(found))
            except (StoreError, LeaseLost) as away:
                log.debug("%s", away)
                await asyncio.sleep(EPOCH_S)
            except LedgerUnavailable as away:
                self._ledger_is(up=False, why=str(away))
                await asyncio.sleep(LEDGER_RETRY_S)
            except PositionMoved:
                self._positions = {}  # another bookkeeper was active meanwhile; read anew where the ledger stands

    async def _active(self) -> bool:
        if self.lease.held:
            return True
        await asyncio.sleep(0 if self.lease.held else STAND_BY_S / 10)
        self._positions = {}
        return self.lease.held

    async def _take(self, entries: list[Entry]) -> None:
        """Into the ledger, or while it is away onto the disk; only then out of the stream."""
        if self.segments.pending:
            await self._in_writer(lambda: self.segments.append(entries))
        else:
            try:
                await self._in_writer(lambda: self._ingest(entries))
                self._ledger_is(up=True)
            except LedgerUnavailable as away:
                self._ledger_is(up=False, why=str(away))
                await self._in_writer(lambda: self.segments.append(entries))
        last = {entry.shard: Position(entry.epoch, entry.id) for entry in entries}
        self._positions |= last
        for shard, place in last.items():
            await self.reader.trim(shard, place.id)

    def _ingest(self, entries: Sequence[Entry]) -> None:
        """In the writing thread: one batch into the ledger, and what was new in it into the metrics."""
        ingested = self.ledger.ingest(entries, fence=self.lease.check)
        for record, replaces in ingested.applied:
            self.metrics.observe(record, replaces=replaces)
            if self.genai is not None:
                self.genai.observe(record)

    async def _replay(self) -> bool:
        """Segments into the ledger, when it is back. True when none is left."""
        try:
            await self._in_writer(self.ledger.check)
            count = await self._in_writer(lambda: self.segments.replay(self._ingest))
        except LedgerUnavailable:
            return False
        self._ledger_is(up=True)
        self._positions = {}
        log.warning("the ledger is back; %d records that waited on disk are in it", count)
        return True

    def _ledger_is(self, *, up: bool, why: str = "") -> None:
        if up != self.ledger_up:
            log.log(logging.WARNING if up else logging.ERROR, "the ledger is %s", "back" if up else f"away: {why}")
        self.ledger_up = up

    # -- beside it ---------------------------------------------------------------------------------------------------

    async def keep_lease(self) -> None:
        while True:
            await self._renew_lease()
            await asyncio.sleep(RENEW_S if self.lease.held else STAND_BY_S)

    async def _renew_lease(self) -> None:
        was_held = self.lease.held
        try:
            if await self.lease.renew() and not was_held:
                log.info("this bookkeeper is active")
        except StoreError:
            pass  # it runs out if the store stays away

    async def keep_epochs(self) -> None:
        """Begins the epoch of an emptied or new store. The running calls register again by themselves."""
        while True:
            if self.lease.held and self.ledger_up:
                await self._begin_epochs()
            await asyncio.sleep(EPOCH_S)

    async def _begin_epochs(self) -> None:
        try:
            stands = await self._in_writer(self.ledger.positions)
            stands |= self.segments.positions
            known = {shard: (place.epoch, place.id) for shard, place in stands.items()}
            await claim(self.client, ledger_id=self.ledger.id, secrets=self.settings.secrets)
            await ensure_epochs(self.client, ledger_position=known)
            self.epochs_set = True
        except StoreError as away:
            self.epochs_set = False
            log.debug("%s", away)
        except LedgerUnavailable as away:
            self._ledger_is(up=False, why=str(away))

    async def sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            if self.lease.held:
                try:
                    if lost := await self.sweeper.sweep():
                        log.warning("%d calls were lost with their process; they are recorded at their estimate", lost)
                except StoreError as away:
                    log.debug("%s", away)

    async def gauges(self) -> None:
        metrics, spool = self.metrics, self.settings.data / "spool"
        while True:
            try:
                positions = {shard: (place.epoch, place.id) for shard, place in self._positions.items()}
                lag = await self.reader.lag(positions)
                metrics.set_gauge("callmeter_ledger_lag_seconds", lag.oldest_ms / 1000)
                metrics.set_gauge("callmeter_running_calls", await self._running())
                metrics.set_gauge("callmeter_store_up", 1)
            except StoreError:
                metrics.set_gauge("callmeter_store_up", 0)
            metrics.set_gauge("callmeter_spooled_records", await asyncio.to_thread(spooled_records, spool))
            metrics.set_gauge("callmeter_export_lag_seconds", self.export.lag_seconds if self.export else 0)
            metrics.set_gauge("callmeter_policy_loaded_timestamp_seconds", self.desk.loaded_at_s)
            metrics.set_gauge("callmeter_policy_faults", len(self.desk.faults))
            await asyncio.sleep(GAUGES_S)

    async def _running(self) -> int:
        return int(sum(await self.client.pipeline(("ZCARD", keys.holds) for keys in KEYS)))

    async def readiness(self) -> dict[str, str]:
        """What the admin port's `/readyz` says is missing."""
        missing = {}
        if not self.client.up:
            missing["store"] = self.client.trouble
        elif not self.epochs_set:
            missing["store"] = "the store is being rebuilt"
        if not self.ledger_up:
            missing["ledger"] = f"the ledger at {self.ledger.name} is away; records wait on disk"
        if self.desk.faults:
            missing["policy"] = f"{len(self.desk.faults)} faults in the policy files; the last good set is in force"
        return missing

    async def _in_writer(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    # -- the process -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._open()
        # Before anybody hears that we serve: the first calls would find a store without epochs.
        await self._renew_lease()
        if self.lease.held:
            await self._begin_epochs()
        runner = web.AppRunner(admin_app(self._admin_context()), access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, self.settings.admin_host, self.settings.admin_port, reuse_port=True)
        await site.start()
        jobs: list[Coroutine[Any, Any, None]] = [
            self.follow(),
            self.keep_lease(),
            self.keep_epochs(),
            self.sweep(),
            self.gauges(),
            self.desk.run(),
        ]
        if self.export is not None:
            jobs.append(self.export.run())
        tasks = [asyncio.create_task(job) for job in jobs]
        say_ready(admin_port=self.settings.admin_port)
        stopping = asyncio.create_task(until_told_to_stop())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        died = [task for task in tasks if task.done()]
        await self._finish()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        await self.lease.leave()
        await self.reader.close()
        await self.client.close()
        for task in died:
            task.result()  # an error nobody foresaw ends the process; the supervisor starts another

    async def _open(self) -> None:
        try:
            await self.client.open()
        except StoreUnavailable as away:
            log.warning("%s", away)
        await self.reader.open()
        resource = resource_from_environment(os.environ)
        sender = exporter_from_environment(os.environ)  # raises SenderInvalid, see main
        telemetry = self.desk.policy.telemetry
        if sender is not None:
            self.export = TraceExporter(
                self.ledger.after,
                lambda: self.ledger.cursor(EXPORT_CURSOR),
                lambda seq: self.ledger.set_cursor(EXPORT_CURSOR, seq),
                exporter=sender,
                resource=resource,
                profiles=telemetry.profiles,
                join=telemetry.join,
            )
        provider = meter_provider_from_environment(os.environ, resource)
        self.genai = GenAiMetrics(provider) if provider is not None else None

    async def _finish(self) -> None:
        """The workers are gone: what they settled last is taken into the ledger, and traces are flushed."""
        deadline_s = time.monotonic() + 5.0
        while self.lease.held and time.monotonic() < deadline_s:
            try:
                positions = {shard: (place.epoch, place.id) for shard, place in self._positions.items()}
                if (await self.reader.lag(positions)).oldest_ms == 0:
                    break
            except StoreError:
                break
            await asyncio.sleep(0.05)
        if self.export is not None:
            await self.export.stop()

    def _admin_context(self) -> AdminContext:
        return AdminContext(
            ledger=self.ledger,
            admin_token=self.settings.admin_token,
            make_key=self._new_key,
            metrics=self.metrics.render,
            readiness=self.readiness,
            policy=self.desk.facts,
            price=self._priced_again,
        )

    def _new_key(self) -> tuple[str, str]:
        key_id = new_key_id(os.urandom(16))
        return key_id, make_key(self.settings.secrets[0], key_id)

    def _priced_again(self, record: Record) -> Record | None:
        """The record at today's prices; None where they know no better than it does."""
        if record.usage_source == "none":
            return None  # what was not told cannot be priced
        upstream = self.desk.policy.upstream_for(record.upstream)
        priced = msgspec.structs.replace(record)
        billing = upstream.billing if upstream is not None else "metered"
        settlement.price(priced, told=None, prices=self.desk.prices, billing=billing)
        return priced if priced.cost_source not in ("assumed", "none") else None


def entries_of(found: Sequence[StreamEntry]) -> list[Entry]:
    """Stream entries as ledger entries. One that cannot be read is logged and left out: it must not stop the rest."""
    entries = []
    for entry in found:
        try:
            record = records.decode(entry.data)
        except msgspec.MsgspecError as error:
            log.error("record %s of shard %d cannot be read and is left out: %s", entry.id, entry.shard, error)
            continue
        record.revision = entry.revision
        entries.append(Entry(shard=entry.shard, epoch=entry.epoch, id=entry.id, record=record))
    return entries


def spooled_records(directory: Path) -> int:
    """Lines that wait in the spool files of this host's workers."""
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("*") if path.is_file())


async def main(settings: Settings) -> None:
    logs.configure(settings.log_format)
    desk = PolicyDesk(settings)
    ledger = await open_when_there(settings.ledger_url)
    try:
        await Bookkeeper(settings, ledger, desk).run()
    except SenderInvalid as invalid:
        log.error("%s", invalid)
        raise SystemExit(EXIT_SETTINGS) from None


async def open_when_there(url: str) -> Ledger:
    """The ledger, waited for: nothing can be kept without it, and a database may start later than we do."""
    said = False
    while True:
        try:
            return await asyncio.to_thread(open_ledger, url)
        except LedgerUnavailable as away:
            if not said:
                log.error("%s; trying again until it is there", away)
                said = True
            await asyncio.sleep(LEDGER_RETRY_S)
