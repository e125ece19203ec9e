"""Export of traces: follows the ledger by a cursor, which moves only when the collector has acknowledged a batch.

The ledger is the truth and this is its shadow in another system. A collector that is away for a minute or a day
makes the cursor wait and the lag grow; nothing is kept in memory, so nothing is lost by waiting or by a restart.
A batch may reach the collector twice (its answer was lost, or the process died before the cursor was saved); the
spans then have the ids that they had the first time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.version import __version__ as sdk_version

from .. import __version__
from ..core.record import Record
from .profiles import PROFILES
from .senders import FileSender, HttpSender, SenderInvalid, grpc_sender, otlp_setting
from .spans import Join, record_spans

BATCH_CALLS_MAX = 512
"""Calls in one request: about 1.5 MB of spans, below the 4 MiB that a gRPC collector takes."""
POLL_SECONDS = 0.5
"""How long a caught-up exporter waits before it looks again: calls are in the trace backend about a second later."""
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
"""The longest wait between attempts, so that export goes on within half a minute of a collector's return."""
ATTEMPTS_BEFORE_PROBE = 5
"""Failures in a row before the exporter tries whether it is the first record alone that the collector does not take."""
PROBE_ROUNDS = 3
"""How often the two records are tried in turn: a collector that fails now and then must not cost a record."""
FLUSH_SECONDS = 5.0

Progress = Literal["more", "caught up", "failed"]

log = logging.getLogger(__name__)


async def wait_for(stopping: asyncio.Event, seconds: float) -> None:
    """Waits `seconds`, or until `stopping`."""
    try:
        async with asyncio.timeout(seconds):  # not wait_for: in Python 3.11 it can swallow a cancellation
            await stopping.wait()
    except TimeoutError:
        pass


class TraceExporter:
    """Exports the spans of every record behind the cursor, in the order of the ledger.

    read_after(seq, limit)   up to `limit` rows behind `seq`, oldest first, each with its own seq; a row that was
                             replaced by a later revision has a later seq
    load_cursor, save_cursor the seq of the last exported row, kept with the ledger

    These three may block and are called in a thread; so is the sender. All four may raise or fail: the batch is
    tried again. `pause` waits between attempts; tests put a clock of their own there.
    """

    def __init__(
        self,
        read_after: Callable[[int, int], list[tuple[int, Record]]],
        load_cursor: Callable[[], int],
        save_cursor: Callable[[int], None],
        *,
        exporter: SpanExporter,
        resource: Resource,
        profiles: Iterable[str] = tuple(PROFILES),
        join: Join = "parent",
        clock: Callable[[], float] = time.time,
        pause: Callable[[asyncio.Event, float], Awaitable[None]] = wait_for,
    ) -> None:
        self._read_after = read_after
        self._load_cursor = load_cursor
        self._save_cursor = save_cursor
        self._exporter = exporter
        self._resource = resource
        self._profiles = tuple(profiles)
        self._join: Join = join
        self._clock = clock
        self._pause = pause
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._resting = False
        self._cursor: int | None = None
        self._oldest_waiting_ms: float | None = None
        self._batch_calls = BATCH_CALLS_MAX
        self._failures = 0
        self.rejected = 0
        """Records set aside because the collector takes others but not them."""

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest record that waits for its export, 0 when none does."""
        if self._oldest_waiting_ms is None:
            return 0.0
        return max(0.0, self._clock() - self._oldest_waiting_ms / 1000)

    def use(self, *, profiles: Iterable[str], join: Join) -> None:
        """What a new policy says; the next batch follows it."""
        self._profiles, self._join = tuple(profiles), join

    async def run(self) -> None:
        """Exports until `stop` or `rest`. Raises nothing but CancelledError."""
        self._running = True
        self._ended.clear()
        self._cursor = None  # another bookkeeper may have moved it since an earlier run
        try:
            while True:
                try:
                    progress = await asyncio.to_thread(self._export_batch)
                except Exception as error:  # the ledger is away: wait, as for a collector that is away
                    self._failed(f"{type(error).__name__}: {error}")
                    progress = "failed"
                if self._resting:
                    return
                if progress == "more":
                    continue
                if self._stopping.is_set():
                    return
                await self._pause(self._stopping, self._backoff_seconds() if progress == "failed" else POLL_SECONDS)
        finally:
            self._running = False
            self._ended.set()

    async def rest(self) -> None:
        """Ends `run` with the batch that is under way: another bookkeeper exports from here. `run` may follow again."""
        self._resting = True
        self._stopping.set()
        try:
            if self._running:
                await self._ended.wait()
        finally:
            self._stopping.clear()
            self._resting = False
        self._oldest_waiting_ms = None

    async def stop(self, *, deadline_seconds: float = FLUSH_SECONDS) -> None:
        """Exports what is there, as long as that goes well and the deadline has not passed; then closes the sender.
        What is left waits in the ledger for the next start."""
        self._stopping.set()
        if self._running:
            try:
                async with asyncio.timeout(deadline_seconds):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("Stopped before all traces were exported; the rest is exported after the next start")
        await asyncio.to_thread(self._exporter.shutdown)

    def _export_batch(self) -> Progress:
        """One batch, in a thread."""
        if self._cursor is None:
            self._cursor = self._load_cursor()
        rows = self._read_after(self._cursor, self._batch_calls)
        if not rows:
            self._oldest_waiting_ms = None
            return "caught up"
        self._oldest_waiting_ms = rows[0][1].at_ms + rows[0][1].ms_total
        if not self._send(rows):
            self._failed(getattr(self._exporter, "reason", "") or "the collector did not take the batch")
            self._batch_calls = max(1, self._batch_calls // 2)
            return self._set_aside_if_alone_to_blame()
        self._move_cursor(rows[-1][0])
        self._succeeded()
        full = len(rows) == self._batch_calls
        self._batch_calls = min(self._batch_calls * 2, BATCH_CALLS_MAX)
        if full:
            return "more"
        # A short batch was everything: what has arrived since is not late yet.
        self._oldest_waiting_ms = None
        return "caught up"

    def _send(self, rows: Sequence[tuple[int, Record]]) -> bool:
        """True when the collector has acknowledged the spans of all `rows`."""
        spans: list[ReadableSpan] = []
        for _, record in rows:
            try:
                spans += record_spans(record, resource=self._resource, profiles=self._profiles, join=self._join)
            except Exception:
                # A fault of ours in one record must not hold up all others; the ledger has the record.
                log.exception("Cannot make spans of call %s; it is left out of the export", record.call_id)
        if not spans:
            return True
        try:
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:
            log.debug("The sender failed: %s: %s", type(error).__name__, error)
            return False

    def _set_aside_if_alone_to_blame(self) -> Progress:
        """After every few failures: where the collector takes the second record in line but not the first, and does so
        several times in turn, it is the record and not an outage. It is left out then, with a word in the log."""
        if self._failures % ATTEMPTS_BEFORE_PROBE or self._cursor is None:
            return "failed"
        rows = self._read_after(self._cursor, 2)
        if len(rows) < 2:
            return "failed"
        for _ in range(PROBE_ROUNDS):
            if not self._send(rows[1:]) or self._send(rows[:1]):
                return "failed"
        seq, record = rows[0]
        self._move_cursor(seq)
        self.rejected += 1
        log.error("The collector takes other calls but not %s; it is left out of the export", record.call_id)
        self._succeeded()
        return "more"

    def _move_cursor(self, seq: int) -> None:
        self._save_cursor(seq)
        self._cursor = seq

    def _succeeded(self) -> None:
        if self._failures:
            log.info("Export of traces goes on after %d failed attempts", self._failures)
        self._failures = 0

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            log.warning("Export of traces waits, nothing is lost: %s", reason)

    def _backoff_seconds(self) -> float:
        """Doubles with each failure up to its bound; the jitter keeps several proxies from coming back as one."""
        longest = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 10))
        return longest * random.uniform(0.5, 1.0)


def exporter_from_environment(environ: Mapping[str, str]) -> SpanExporter | None:
    """The sender that the standard variables ask for, None where they ask for none. Raises SenderInvalid.

    OTEL_TRACES_EXPORTER is `otlp`, `otlp_json_file` (to OTEL_EXPORTER_OTLP_FILE_PATH) or `none`; unset it is `otlp`
    where an OTLP endpoint is named, else `none`. OTEL_SDK_DISABLED turns all off.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    endpoint = otlp_setting(environ, "ENDPOINT")
    kind = environ.get("OTEL_TRACES_EXPORTER", "").strip() or ("otlp" if endpoint else "none")
    if kind == "none":
        return None
    if kind == "otlp_json_file":
        path = environ.get("OTEL_EXPORTER_OTLP_FILE_PATH")
        if not path:
            raise SenderInvalid(
                "OTEL_TRACES_EXPORTER is `otlp_json_file`, so OTEL_EXPORTER_OTLP_FILE_PATH must name a file"
            )
        return FileSender(Path(path))
    if kind != "otlp":
        raise SenderInvalid(f"OTEL_TRACES_EXPORTER is `{kind}`; write `otlp`, `otlp_json_file` or `none`")
    protocol = otlp_setting(environ, "PROTOCOL") or "http/protobuf"
    if protocol == "grpc":
        return grpc_sender()
    if protocol == "http/protobuf":
        return HttpSender(environ)
    raise SenderInvalid(f"OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; write `http/protobuf` or `grpc`")


def resource_from_environment(environ: Mapping[str, str]) -> Resource:
    """OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, beside our name and version."""
    attributes: dict[str, str] = {
        "service.name": "callmeter",
        "service.version": __version__,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            attributes[name.strip()] = unquote(value.strip())
    if environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = environ["OTEL_SERVICE_NAME"]
    return Resource(attributes)
