"""Traces leave through the active bookkeeper alone, and as the policy in force says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from proxy.bookkeeping import exporting
from proxy.bookkeeping.exporting import export_while_active
from proxy.core.record import Record
from proxy.telemetry.exporter import TraceExporter
from tests.support.store import a_record, eventually


class Ledger:
    """Rows of records, and the cursor that all bookkeepers share."""

    def __init__(self, count: int) -> None:
        self.rows = [(seq, a_record(f"call{seq}")) for seq in range(1, count + 1)]
        self.cursor = 0

    def after(self, seq: int, limit: int) -> list[tuple[int, Record]]:
        return [row for row in self.rows if row[0] > seq][:limit]

    def save(self, seq: int) -> None:
        self.cursor = seq


class Collector(SpanExporter):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closed = False

    def export(self, spans: Any) -> SpanExportResult:
        self.calls += [span.attributes["callmeter.call.id"] for span in spans if span.kind.name == "SERVER"]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.closed = True


class Host:
    """A bookkeeper's export: its lease is a switch."""

    def __init__(self, ledger: Ledger, collector: Collector) -> None:
        self.held = False
        self.policy = a_policy("parent")
        self.export = TraceExporter(
            ledger.after, lambda: ledger.cursor, ledger.save, exporter=collector, resource=Resource({})
        )


def a_policy(join: str) -> SimpleNamespace:
    """What stands for a Policy: only its telemetry is read."""
    return SimpleNamespace(telemetry=SimpleNamespace(profiles=("semconv",), join=join))


@asynccontextmanager
async def exporting_on(host: Host) -> AsyncIterator[None]:
    task = asyncio.create_task(export_while_active(host.export, cast(Any, host), lambda: cast(Any, host.policy)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LOOK_S", 0.005)
    monkeypatch.setattr("proxy.telemetry.exporter.POLL_SECONDS", 0.005)


async def test_of_two_hosts_only_the_active_one_exports_and_the_other_goes_on_from_there() -> None:
    ledger, collector = Ledger(5), Collector()
    one, other = Host(ledger, collector), Host(ledger, collector)
    one.held = True
    async with exporting_on(one), exporting_on(other):
        await eventually(lambda: ledger.cursor == 5)
        one.held = False
        await eventually(lambda: not one.export._running)
        ledger.rows += [(seq, a_record(f"call{seq}")) for seq in (6, 7)]
        other.held = True
        await eventually(lambda: ledger.cursor == 7)
        other.held = False
        await eventually(lambda: not other.export._running)
        ledger.rows.append((8, a_record("call8")))
        one.held = True
        await eventually(lambda: ledger.cursor == 8)
    assert collector.calls == [f"call{seq}" for seq in range(1, 9)]


async def test_the_export_follows_the_policy() -> None:
    host = Host(Ledger(0), Collector())
    async with exporting_on(host):
        await eventually(lambda: host.export._join == "parent")
        host.policy = a_policy("link")
        await eventually(lambda: host.export._join == "link")


async def test_resting_keeps_the_sender_and_stopping_ends_it() -> None:
    ledger, collector = Ledger(3), Collector()
    host = Host(ledger, collector)
    host.held = True
    async with exporting_on(host):
        await eventually(lambda: ledger.cursor == 3)
        await host.export.rest()
        assert not collector.closed
        await host.export.stop()
        assert collector.closed
