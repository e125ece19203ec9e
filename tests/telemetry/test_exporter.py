from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from proxy.core.record import Record
from proxy.telemetry import exporter as exporter_module
from proxy.telemetry.exporter import (
    BACKOFF_MAX_SECONDS,
    BATCH_CALLS_MAX,
    POLL_SECONDS,
    TraceExporter,
    exporter_from_environment,
    resource_from_environment,
)
from proxy.telemetry.senders import FileSender, HttpSender, SenderInvalid
from tests.support.otlp_sink import HttpSink
from tests.support.telemetry_records import REFUSED, Rows, numbered, record

RESOURCE = Resource({"service.name": "callmeter"})
START_SECONDS = 1_790_000_000.0


class Clock:
    """A clock that moves only when the exporter waits. `at` runs things at moments of that time."""

    def __init__(self) -> None:
        self.now = START_SECONDS
        self.waits: list[float] = []
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self._plans.append((START_SECONDS + seconds, act))
        self._plans.sort(key=lambda plan: plan[0])

    async def pause(self, stopping: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        while self._plans and self._plans[0][0] <= self.now:
            done = self._plans.pop(0)[1]()
            if asyncio.iscoroutine(done):
                await done
        await asyncio.sleep(0)


class Collector(SpanExporter):
    """A collector in memory: `up` says whether it takes a batch, `poison` a call that it never takes."""

    def __init__(self) -> None:
        self.up = True
        self.poison: str | None = None
        self.attempts = 0
        self.spans: list[ReadableSpan] = []
        self.closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.attempts += 1
        held = [span for span in spans if (span.attributes or {})["callmeter.call.id"] == self.poison]
        if not self.up or held:
            return SpanExportResult.FAILURE
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.closed = True

    @property
    def calls(self) -> list[str]:
        return [str((span.attributes or {})["callmeter.call.id"]) for span in self.spans if span.kind.name == "SERVER"]


def make(rows: Rows, collector: SpanExporter, clock: Clock) -> TraceExporter:
    return TraceExporter(
        rows.read_after,
        rows.load_cursor,
        rows.save_cursor,
        exporter=collector,
        resource=RESOURCE,
        clock=clock,
        pause=clock.pause,
    )


async def run_for(tracer: TraceExporter, clock: Clock, seconds: float) -> None:
    """Runs the exporter until that much of the clock's time has gone by."""
    clock.at(seconds, lambda: tracer._stopping.set())
    await asyncio.wait_for(tracer.run(), 20)


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    sink = HttpSink()
    await sink.open()
    yield sink
    await sink.close()


async def test_every_record_is_exported_once_and_the_cursor_ends_at_the_last() -> None:
    rows, collector, clock = Rows([numbered(n) for n in range(1300)]), Collector(), Clock()
    await run_for(make(rows, collector, clock), clock, 1)
    assert collector.calls == [f"call{n:06d}" for n in range(1300)]
    assert rows.saved == [512, 1024, 1300]


async def test_a_collector_that_is_down_for_ten_minutes_loses_nothing() -> None:
    rows, collector, clock = Rows(), Collector(), Clock()
    collector.up = False
    for n in range(600):  # a call each second, all while the collector is away
        clock.at(n, lambda n=n: rows.add(numbered(n, at_ms=int((START_SECONDS + n) * 1000), ms_total=0)))
    clock.at(600, lambda: setattr(collector, "up", True))
    tracer = make(rows, collector, clock)
    lags: list[float] = []
    clock.at(599, lambda: lags.append(tracer.lag_seconds))
    await run_for(tracer, clock, 660)
    assert Counter(collector.calls) == {f"call{n:06d}": 1 for n in range(600)}
    assert collector.calls == sorted(collector.calls)
    assert rows.cursor == 600
    assert lags[0] > 590
    assert tracer.lag_seconds == 0
    assert max(clock.waits) <= BACKOFF_MAX_SECONDS


async def test_a_real_collector_over_http_that_refuses_hangs_and_is_busy_gets_everything_in_the_end(
    sink: HttpSink,
) -> None:
    rows, clock = Rows([numbered(n) for n in range(40)]), Clock()
    sender = HttpSender({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"})
    tracer = make(rows, sender, clock)
    await sink.close()  # connection refused
    clock.at(60, sink.open)
    clock.at(60, lambda: setattr(sink, "mood", "unavailable"))
    clock.at(240, lambda: setattr(sink, "mood", "slow"))
    clock.at(300, lambda: setattr(sink, "mood", "taking"))
    cursors: list[int] = []
    clock.at(299, lambda: cursors.append(rows.cursor))
    await run_for(tracer, clock, 400)
    sender.shutdown()
    assert cursors == [0]
    assert rows.cursor == 40
    # While it was slow it took a batch whose answer came too late: that one came twice, with the same ids.
    seen = Counter((span.trace_id, span.span_id) for span in sink.spans)
    assert len(seen) == 80
    assert set(seen) == {
        ((n + 1).to_bytes(16, "big"), (2 * n + k).to_bytes(8, "big")) for n in range(40) for k in (1, 2)
    }


async def test_a_cursor_that_could_not_be_saved_sends_the_batch_again_with_the_same_ids() -> None:
    rows, collector, clock = Rows([numbered(1)]), Collector(), Clock()
    failing = iter([True, False])

    def save(seq: int) -> None:
        if next(failing):
            raise OSError("the ledger is away")
        rows.save_cursor(seq)

    tracer = TraceExporter(
        rows.read_after, rows.load_cursor, save, exporter=collector, resource=RESOURCE, clock=clock, pause=clock.pause
    )
    await run_for(tracer, clock, 5)
    assert rows.cursor == 1
    first, again = collector.spans[:2], collector.spans[2:]
    assert [span.context for span in first] == [span.context for span in again]


async def test_a_lost_row_that_was_replaced_is_exported_again_with_the_same_ids() -> None:
    rows, collector, clock = Rows([numbered(1, result="lost", status=0)]), Collector(), Clock()
    clock.at(3, lambda: rows.add(numbered(1, revision=2)))
    await run_for(make(rows, collector, clock), clock, 6)
    lost, found = collector.spans[:2], collector.spans[2:]
    assert [span.context for span in lost] == [span.context for span in found]
    assert [(span.attributes or {})["callmeter.result"] for span in (lost[0], found[0])] == ["lost", "ok"]


async def test_a_restart_goes_on_where_the_cursor_stands() -> None:
    rows, collector, clock = Rows([numbered(n) for n in range(10)]), Collector(), Clock()
    await run_for(make(rows, collector, clock), clock, 1)
    rows.add(numbered(10))
    clock = Clock()
    await run_for(make(rows, collector, clock), clock, 1)
    assert Counter(collector.calls) == {f"call{n:06d}": 1 for n in range(11)}


async def test_a_record_that_the_collector_never_takes_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, collector, clock = Rows([numbered(n) for n in range(50)]), Collector(), Clock()
    collector.poison = "call000017"
    tracer = make(rows, collector, clock)
    await run_for(tracer, clock, 600)
    assert set(collector.calls) == {f"call{n:06d}" for n in range(50) if n != 17}
    assert rows.cursor == 50
    assert tracer.rejected == 1
    assert "call000017" in caplog.text


async def test_a_collector_that_is_away_never_makes_a_record_be_set_aside() -> None:
    rows, collector, clock = Rows([numbered(n) for n in range(50)]), Collector(), Clock()
    collector.up = False
    tracer = make(rows, collector, clock)
    await run_for(tracer, clock, 3600)
    assert (tracer.rejected, rows.cursor) == (0, 0)


async def test_a_record_that_makes_no_spans_is_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = exporter_module.record_spans

    def faulty(made: Record, **settings: object) -> list[ReadableSpan]:
        if made.call_id == "call000001":
            raise ZeroDivisionError
        return original(made, **settings)

    monkeypatch.setattr(exporter_module, "record_spans", faulty)
    rows, collector, clock = Rows([numbered(n) for n in range(3)]), Collector(), Clock()
    await run_for(make(rows, collector, clock), clock, 1)
    assert collector.calls == ["call000000", "call000002"]
    assert rows.cursor == 3
    assert "call000001" in caplog.text


async def test_the_ledger_being_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    rows, collector, clock = Rows([numbered(1)]), Collector(), Clock()
    tries = iter(range(100))

    def read_after(seq: int, limit: int) -> list[tuple[int, Record]]:
        if next(tries) < 3:
            raise ConnectionError("no database")
        return rows.read_after(seq, limit)

    tracer = TraceExporter(
        read_after,
        rows.load_cursor,
        rows.save_cursor,
        exporter=collector,
        resource=RESOURCE,
        clock=clock,
        pause=clock.pause,
    )
    await run_for(tracer, clock, 10)
    assert collector.calls == ["call000001"]
    waiting = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(waiting) == 1
    assert "nothing is lost" in waiting[0].getMessage()


async def test_waits_grow_to_their_bound_and_a_caught_up_exporter_polls() -> None:
    rows, collector, clock = Rows([numbered(1)]), Collector(), Clock()
    collector.up = False
    tracer = make(rows, collector, clock)
    await run_for(tracer, clock, 300)
    assert clock.waits[0] <= 0.5
    assert BACKOFF_MAX_SECONDS / 2 <= clock.waits[-1] <= BACKOFF_MAX_SECONDS
    collector.up, idle = True, Clock()
    await run_for(make(rows, collector, idle), idle, 2)
    assert set(idle.waits) == {POLL_SECONDS}


async def test_the_lag_tells_how_old_the_oldest_is() -> None:
    rows, collector, clock = (
        Rows([numbered(n, at_ms=int(START_SECONDS * 1000)) for n in range(7)]),
        Collector(),
        Clock(),
    )
    collector.up = False
    tracer = make(rows, collector, clock)
    assert tracer.lag_seconds == 0
    await run_for(tracer, clock, 100)
    assert tracer.lag_seconds == pytest.approx(clock.now - START_SECONDS - 2.3455)
    collector.up, clock = True, Clock()
    tracer = make(rows, collector, clock)
    await run_for(tracer, clock, 1)
    assert tracer.lag_seconds == 0


async def test_stop_exports_what_is_there_and_closes_the_sender() -> None:
    rows, collector = Rows([numbered(n) for n in range(3 * BATCH_CALLS_MAX)]), Collector()
    tracer = TraceExporter(rows.read_after, rows.load_cursor, rows.save_cursor, exporter=collector, resource=RESOURCE)
    task = asyncio.create_task(tracer.run())
    await asyncio.sleep(0)
    await tracer.stop()
    await task
    assert len(collector.calls) == 3 * BATCH_CALLS_MAX
    assert collector.closed


async def test_stop_does_not_wait_for_a_collector_that_is_away() -> None:
    rows, collector = Rows([numbered(n) for n in range(5)]), Collector()
    collector.up = False
    tracer = TraceExporter(rows.read_after, rows.load_cursor, rows.save_cursor, exporter=collector, resource=RESOURCE)
    task = asyncio.create_task(tracer.run())
    while not collector.attempts:
        await asyncio.sleep(0.001)
    await asyncio.wait_for(tracer.stop(), 5)
    await task
    assert rows.cursor == 0


async def test_stop_without_run_only_closes_the_sender() -> None:
    collector = Collector()
    await make(Rows(), collector, Clock()).stop()
    assert collector.closed


async def test_a_new_policy_changes_profiles_and_join_of_the_next_batch() -> None:
    rows, collector, clock = Rows([numbered(1)]), Collector(), Clock()
    tracer = make(rows, collector, clock)
    tracer.use(profiles=["semconv"], join="new")
    rows.add(record(REFUSED))
    await run_for(tracer, clock, 1)
    assert not [name for span in collector.spans for name in span.attributes or {} if name.startswith("langfuse.")]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
        {"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_without_being_asked_nothing_is_exported(environ: dict[str, str]) -> None:
    assert exporter_from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://x/api/otel"}, "https://x/api/otel"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/c"},
            "http://b/c",
        ),
    ],
)
def test_the_endpoint_is_named_as_the_otlp_specification_says(environ: dict[str, str], endpoint: str) -> None:
    sender = exporter_from_environment(environ)
    assert isinstance(sender, HttpSender)
    assert sender.endpoint == endpoint
    sender.shutdown()


def test_a_file_can_take_the_place_of_a_collector(tmp_path: object) -> None:
    environ = {"OTEL_TRACES_EXPORTER": "otlp_json_file", "OTEL_EXPORTER_OTLP_FILE_PATH": f"{tmp_path}/traces.jsonl"}
    assert isinstance(exporter_from_environment(environ), FileSender)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is `zipkin`"),
        ({"OTEL_TRACES_EXPORTER": "otlp_json_file"}, "OTEL_EXPORTER_OTLP_FILE_PATH"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "http://"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_COMPRESSION": "br"}, "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ],
)
def test_a_variable_that_cannot_be_followed_is_named_in_a_sentence(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SenderInvalid, match=named):
        exporter_from_environment(environ)


def test_the_resource_follows_the_environment() -> None:
    assert resource_from_environment({}).attributes["service.name"] == "callmeter"
    environ = {
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=prod%20eu, team.name = x,bad",
        "OTEL_SERVICE_NAME": "b",
    }
    attributes = resource_from_environment(environ).attributes
    assert attributes["service.name"] == "b"
    assert attributes["deployment.environment.name"] == "prod eu"
    assert attributes["team.name"] == "x"
