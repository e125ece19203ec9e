"""Bookkeeper: the second kind of process. Follows the streams of records into the ledger, and from the ledger into
telemetry; sweeps the holds of calls whose process died; serves the admin port. Everything that can be done a moment
later is done here, so that it costs the walk nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from .admin.api import admin_app
from .admin.context import AdminContext
from .bookkeeping.alerting import Alerting
from .bookkeeping.arrears import Arrears, repriced
from .bookkeeping.beginning import Beginning
from .bookkeeping.claiming import Claiming
from .bookkeeping.closing_days import close_days_while_active
from .bookkeeping.exporting import export_while_active
from .bookkeeping.figures import BudgetFigures
from .bookkeeping.outcome_clock import OutcomeClock
from .bookkeeping.reading import entries_of
from .bookkeeping.rebuild import CounterKeeper
from .bookkeeping.seat import Seat
from .bookkeeping.spooled import SpooledRecords
from .child import EXIT_SETTINGS, keep_what_is_there, say_ready, until_told_to_stop
from .core import alerts as alert_events
from .core import settlement
from .core.keys import make_key, new_key_id
from .core.record import Record
from .desk import PolicyDesk
from .ledger.database import Ledger
from .ledger.entry import Entry, Position
from .ledger.errors import LedgerRefused, LedgerUnavailable, PositionMoved, SegmentsUnavailable
from .ledger.segments import Segments
from .settings import Settings, url_on_this_machine
from .store.client import Client
from .store.errors import StoreError, StoreForeign, StoreRefused, StoreUnavailable
from .store.identity import Identity
from .store.keyspace import KEYS
from .store.lease import RENEW_S, Lease, LeaseLost
from .store.ledger_stream import Entry as StreamEntry
from .store.ledger_stream import StreamReader
from .store.sweeper import Sweeper
from .telemetry import logs
from .telemetry.alerts import AlertSender
from .telemetry.exporter import TraceExporter, exporter_from_environment, resource_from_environment
from .telemetry.genai_metrics import GenAiMetrics, meter_provider_from_environment
from .telemetry.prometheus import Metrics
from .telemetry.senders import SenderInvalid

BATCH_RECORDS = 2000
"""Records in one SQL transaction at the most: large enough to be cheap, small enough to be quick."""
BLOCK_MS = 200
EPOCH_S = 0.5
"""How often an emptied store is looked for; until its epoch is set, calls are decided as `store_outage` says."""
FIRST_EPOCHS_S = 5.0
"""How long a start waits for counters; where there are more to set, that goes on behind it."""
SWEEP_S = 5.0
GAUGES_S = 2.0
LEDGER_RETRY_S = 1.0
STAND_BY_S = 1.0
EXPORT_CURSOR = "otlp"

Done = TypeVar("Done")
log = logging.getLogger("callmeter.bookkeeper")


class Bookkeeper:
    """One object a process. `run` ends when the process is told to stop."""

    def __init__(self, settings: Settings, ledger: Ledger, desk: PolicyDesk, seat: Seat) -> None:
        self.settings = settings
        self.ledger = ledger
        self.desk = desk
        self.client = Client(settings.redis_url or "", identity=Identity(settings.secrets, ledger.id))
        self.reader = StreamReader(self.client)
        self.sweeper = Sweeper(self.client)
        self.lease = Lease(self.client, seat.holder, seat.predecessor)
        self.segments = Segments(settings.data / "segments", log.warning)
        self.metrics = Metrics()
        self.export: TraceExporter | None = None
        self.genai: GenAiMetrics | None = None
        self.ledger_up = True
        self.epochs_set = False
        self.counters = CounterKeeper(
            self.client,
            ledger,
            policy=lambda: desk.policy,
            take=self._take_without_place,
            in_writer=self._in_writer,
        )
        self.alerts = AlertSender(settings.secrets[0])
        # One thread for writing, so that batches go in one after the other; reads of the admin port have their own.
        self._writing = ThreadPoolExecutor(1, "ledger")
        self._loop = asyncio.get_running_loop()
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
                await self._take_what_is_there()
            except (StoreError, LeaseLost) as away:
                log.debug("%s", away)
                await asyncio.sleep(EPOCH_S)
            except LedgerUnavailable as away:
                self._ledger_is(up=False, why=str(away))
                await asyncio.sleep(LEDGER_RETRY_S)
            except OSError as error:
                log.error("records that cannot be read cannot be set aside either: %s; make room", error)
                await asyncio.sleep(LEDGER_RETRY_S)
            except SegmentsUnavailable as full:
                log.error("%s; until then they stay in the store", full)
                await asyncio.sleep(LEDGER_RETRY_S)
            except PositionMoved:
                self._positions = {}  # another bookkeeper was active meanwhile; read anew where the ledger stands

    async def _take_what_is_there(self) -> None:
        """Batch after batch, until none waits. The next one is read while one is written: the writer waits for its disk
        and not for the store as well."""
        found = await self._read(self._positions)
        while found:
            ahead = asyncio.create_task(self._read(self._positions | last_places(found)))
            try:
                await self._take(found)
                found = await ahead if self.lease.held and not self.segments.pending else []
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, positions: Mapping[int, Position]) -> list[StreamEntry]:
        return await self.reader.read(places(positions), count=BATCH_RECORDS, block_ms=BLOCK_MS)

    async def _active(self) -> bool:
        if self.lease.held:
            return True
        await asyncio.sleep(STAND_BY_S / 10)
        self._positions = {}
        return self.lease.held

    async def _take(self, found: Sequence[StreamEntry]) -> None:
        """Into the ledger, or while it is away onto the disk; only then out of the stream. What cannot be read is set
        aside and leaves the stream with the rest."""
        entries = await self._in_writer(lambda: entries_of(found, self.settings.data))
        if entries:
            await self._keep(entries)
        last = last_places(found)
        self._positions |= last
        await self.reader.trim({shard: place.id for shard, place in last.items()})

    async def _keep(self, entries: list[Entry]) -> None:
        if self.segments.pending:
            await self._in_writer(lambda: self.segments.append(entries))
        else:
            try:
                await self._in_writer(lambda: self._take_in(entries))
                self._ledger_is(up=True)
            except LedgerUnavailable as away:
                self._ledger_is(up=False, why=str(away))
                await self._in_writer(lambda: self.segments.append(entries))

    def _take_in(self, entries: Sequence[Entry]) -> None:
        """In the writing thread: what counters lack of a batch is charged, and then it goes into the ledger."""
        self._pay(self.counters.arrears(entries))
        self._ingest(entries)

    def _pay(self, arrears: Arrears) -> None:
        """From any other thread: waits until it is done. Raises StoreError."""
        if arrears:
            asyncio.run_coroutine_threadsafe(self.counters.pay(arrears), self._loop).result()

    async def _take_without_place(self, found: Sequence[StreamEntry]) -> None:
        """Records of a stream whose place is not known any more: into the ledger, which knows what it has."""

        def take() -> None:
            entries = entries_of(found, self.settings.data)
            self._ingest([msgspec.structs.replace(entry, id="") for entry in entries])

        await self._in_writer(take)

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
            count = await self._in_writer(lambda: self.segments.replay(self._take_in))
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
        """Begins the epoch of an emptied or new store, with the counters that the ledger knows of. The running calls
        register again by themselves. Then sees whether a budget is new, whose counters are seeded."""
        while True:
            if self.lease.held and self.ledger_up:
                await self._begin_epochs()
            await asyncio.sleep(EPOCH_S)

    async def _begin_epochs(self) -> None:
        if self.segments.pending:
            return  # records wait on disk, without which counters would be wrong
        try:
            stands = await self._in_writer(self.ledger.positions)
            await self.client.claim()
            await self._look_after_counters(places(stands))
            self.epochs_set = True
        except StoreForeign:
            self.epochs_set = False  # the client has noticed, too, and `run` ends
        except (StoreError, LeaseLost) as away:
            self.epochs_set = False
            log.debug("%s", away)
        except LedgerUnavailable as away:
            self._ledger_is(up=False, why=str(away))

    async def _look_after_counters(self, known: Mapping[int, tuple[str, str]]) -> None:
        """Says how far it is meanwhile: counting a million calls takes half a minute."""
        looking = asyncio.create_task(self.counters.look(known))
        try:
            while not looking.done():
                await asyncio.wait([looking], timeout=EPOCH_S)
                self._show_rebuilding()
            await looking
        finally:
            looking.cancel()

    def _show_rebuilding(self) -> None:
        shards = len(self.counters.rebuilding)
        self.epochs_set = self.epochs_set and not shards
        self.metrics.set_gauge("callmeter_store_rebuilding", shards)

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
        metrics, spooled = self.metrics, SpooledRecords(self.settings.data / "spool")
        while True:
            try:
                lag = await self.reader.lag(places(self._positions))
                metrics.set_gauge("callmeter_ledger_lag_seconds", lag.oldest_ms / 1000)
                metrics.set_gauge("callmeter_running_calls", await self._running())
                metrics.set_gauge("callmeter_store_up", 1)
            except StoreError:
                metrics.set_gauge("callmeter_store_up", 0)
            metrics.set_gauge("callmeter_spooled_records", await asyncio.to_thread(spooled.count))
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
            missing["store"] = "the store is being rebuilt: its counters are being set from the ledger"
        if not self.ledger_up:
            missing["ledger"] = f"the ledger at {self.ledger.name} is away; records wait on disk"
        if self.desk.faults:
            count = len(self.desk.faults)
            faults = "1 fault" if count == 1 else f"{count} faults"
            missing["policy"] = f"{faults} in the policy files; the last good set is in force"
        return missing

    async def _in_writer(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    # -- the process -------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Task[None], serving: Callable[[], Awaitable[None]]) -> None:
        """Until `stopping` is done. `serving` is called as soon as the admin port answers. Raises StoreRefused where
        the store is not ours, and SenderInvalid."""
        await self._open()
        foreign = asyncio.create_task(self.client.until_foreign())
        await self._renew_lease()
        tasks = [asyncio.create_task(job) for job in (self.keep_lease(), self.keep_epochs())]
        # Before anybody hears that we serve: the first calls would find a store without epochs.
        deadline_s = time.monotonic() + FIRST_EPOCHS_S
        while self.lease.held and not self.epochs_set and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        runner = web.AppRunner(admin_app(self._admin_context()), access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, self.settings.admin_host, self.settings.admin_port, reuse_port=True)
        await site.start()
        jobs: list[Coroutine[Any, Any, None]] = [
            self.follow(),
            self.sweep(),
            self.gauges(),
            self.desk.run(),
            self._alerting().run(),
            Claiming(self.client, self.ledger.claims, self.lease, self._in_writer).run(),
            OutcomeClock(self.ledger.outcomes, self.lease, self._in_writer, self.metrics.changed).run(),
            close_days_while_active(self.lease, self._close_days),
        ]
        if self.export is not None:
            jobs.append(export_while_active(self.export, self.lease, lambda: self.desk.policy))
        tasks += [asyncio.create_task(job) for job in jobs]
        await serving()
        await asyncio.wait([stopping, foreign, *tasks], return_when=asyncio.FIRST_COMPLETED)
        died = [task for task in tasks if task.done()]
        await self._finish()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        await self.lease.leave()
        await self.reader.close()
        await self.client.close()
        if foreign.done():
            raise StoreForeign(foreign.result())
        foreign.cancel()
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
        if sender is not None:
            self.export = TraceExporter(
                self.ledger.after,
                lambda: self.ledger.cursor(EXPORT_CURSOR),
                self._move_export_cursor,
                exporter=sender,
                resource=resource,
            )
        provider = meter_provider_from_environment(os.environ, resource)
        self.genai = GenAiMetrics(provider) if provider is not None else None

    def _move_export_cursor(self, seq: int) -> None:
        self.lease.check()  # a batch that outlasted the lease must not set back another bookkeeper's cursor
        self.ledger.set_cursor(EXPORT_CURSOR, seq)

    async def _finish(self) -> None:
        """The workers are gone: what they settled last is taken into the ledger; traces and metrics are flushed."""
        deadline_s = time.monotonic() + 5.0
        while self.lease.held and time.monotonic() < deadline_s:
            try:
                if (await self.reader.lag(places(self._positions))).oldest_ms == 0:
                    break
            except StoreError:
                break
            await asyncio.sleep(0.05)
        ends: list[Awaitable[None]] = []
        if self.export is not None:
            ends.append(self.export.stop())
        if self.genai is not None:
            ends.append(asyncio.to_thread(self.genai.close))
        await asyncio.gather(*ends)

    async def _close_days(self, now_ms: int) -> int:
        return await self._in_writer(lambda: self.ledger.close_days(now_ms))

    def _alerting(self) -> Alerting:
        return Alerting(
            self.ledger,
            self.alerts,
            policy=lambda: self.desk.policy,
            active=lambda: self.lease.held,
            may_tell=lambda: self.lease.held or not self.client.up,
            now_events=self._now_events,
        )

    def _now_events(self) -> Iterator[alert_events.Event]:
        """What is wrong at the moment and in no record."""
        now_ms = int(time.time() * 1000)
        if not self.client.up:
            yield alert_events.store_unavailable(now_ms, self.client.trouble)
        if self.desk.faults:
            yield alert_events.policy_broken([str(fault) for fault in self.desk.faults], now_ms)

    def _admin_context(self) -> AdminContext:
        return AdminContext(
            ledger=self.ledger,
            admin_token=self.settings.admin_token,
            make_key=self._new_key,
            metrics=self.metrics.render,
            readiness=self.readiness,
            policy=self.desk.facts,
            price=self._priced_again,
            charge=lambda pairs: self._pay(repriced(pairs, self.desk.policy, int(time.time() * 1000))),
            rules=lambda: self.desk.policy,
            budgets=BudgetFigures(
                self.client,
                self.ledger,
                policy=lambda: self.desk.policy,
                clock_ms=lambda: int(time.time() * 1000),
            ),
            alert_secret=self.alerts.signing_secret,
            outcome_metrics=self.metrics,
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


def places(positions: Mapping[int, Position]) -> dict[int, tuple[str, str]]:
    """Positions of the ledger as the store's room takes them: the two do not know each other."""
    return {shard: (place.epoch, place.id) for shard, place in positions.items()}


def last_places(found: Sequence[StreamEntry]) -> dict[int, Position]:
    """Where the streams stand behind these entries, which come in order within a shard."""
    return {entry.shard: Position(entry.epoch, entry.id) for entry in found}


async def main(settings: Settings) -> None:
    logs.configure(settings.log_format)
    desk = PolicyDesk(settings, tells=True)
    stopping = asyncio.create_task(until_told_to_stop())
    try:
        await keep_books(settings, desk, stopping)
    except (SenderInvalid, StoreRefused, LedgerRefused) as refused:
        log.error("%s", refused)
        raise SystemExit(EXIT_SETTINGS) from None
    except SegmentsUnavailable as full:
        log.error("%s", full)
        raise SystemExit(1) from None  # the supervisor tries again, later each time


async def keep_books(settings: Settings, desk: PolicyDesk, stopping: asyncio.Task[None]) -> None:
    """Begins as soon as it can, and works until told to stop. The supervisor hears at once that we are there: nobody
    need wait for a ledger that is away, or for another bookkeeper of the same data directory."""
    admin_url = url_on_this_machine(settings.admin_host, settings.admin_port)
    beginning = Beginning(settings.data, settings.ledger_url, admin_url)
    waits = not await beginning.look()
    try:
        if waits:
            await beginning.serve(settings.admin_host, settings.admin_port)
            say_ready(admin_port=settings.admin_port)
            if not await beginning.wait(stopping):
                return
        assert beginning.ledger is not None
        assert beginning.seat is not None

        async def serving() -> None:
            await beginning.close()
            keep_what_is_there()
            if not waits:
                say_ready(admin_port=settings.admin_port)

        await Bookkeeper(settings, beginning.ledger, desk, beginning.seat).run(stopping, serving)
    finally:
        await beginning.close()
