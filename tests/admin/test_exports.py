"""Exports of the admin port: streamed, bounded, and cut where they break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.admin.exports import PARTS_WAITING_MAX
from proxy.core.attribution import FATES
from proxy.core.outcomes import Team
from proxy.core.policy import Policy
from proxy.ledger.exports import HourSums
from tests.support.admin_server import NOW_MS, Admin
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made
from tests.support.outcome_rows import DAY_MS, landed, put

Client = TestClient[web.Request, web.Application]


class Hours:
    """An endless ledger, which counts the hours that were read of it."""

    def __init__(self, one: HourSums, ends_with: Exception | None = None) -> None:
        self.one = one
        self.ends_with = ends_with
        self.read = 0
        self.closed = False

    def __call__(self, *_: object) -> Iterator[HourSums]:
        try:
            while self.ends_with is None or self.read < 3:
                self.read += 1
                yield self.one
            raise self.ends_with
        finally:
            self.closed = True


@pytest.fixture
def one_hour(admin: Admin) -> HourSums:
    """Large enough that a few of them fill the buffers between two programs."""
    admin.ledger.ingest(entries(*(made(number, task=f"T-{number}") for number in range(1000))))
    [hour] = admin.ledger.hours(0, NOW_MS)
    return hour


async def test_a_slow_reader_is_not_run_ahead_of_and_one_that_leaves_ends_it(
    admin: Admin, client: Client, one_hour: HourSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = Hours(one_hour)
    monkeypatch.setattr(admin.ledger, "hours", hours)
    answer = await client.get("/api/export/focus")
    assert (answer.status, answer.content_type) == (200, "text/csv")
    await answer.content.readany()
    last = -1
    while hours.read != last:  # until it waits for us
        last = hours.read
        await asyncio.sleep(0.2)
    assert last < 20 * PARTS_WAITING_MAX
    answer.close()
    for _ in range(100):
        if hours.closed:
            break
        await asyncio.sleep(0.05)
    assert hours.closed
    assert hours.read <= last + 2


async def test_an_export_that_breaks_off_has_no_end(
    admin: Admin, client: Client, one_hour: HourSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.ledger, "hours", Hours(one_hour, ends_with=RuntimeError("gone")))
    answer = await client.get("/api/export/focus")
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await answer.read()


async def test_the_report_is_an_object_with_all_its_figures(admin: Admin, client: Client) -> None:
    admin.policy = Policy(teams=(Team(name="payments", unit="merged change", size=5),))
    admin.ledger.ingest(entries(made(1, cost_nusd=7), made(2, task=None, cost_nusd=3)))
    put(admin.ledger, landed(1, landed_ms=AT_MS - DAY_MS + HOUR_MS // 4))
    report = await (await client.get("/api/report", params={"by": "team"})).json()
    [row] = report["rows"]
    assert {f"{fate}_nusd": row[f"{fate}_nusd"] for fate in FATES if row[f"{fate}_nusd"]} == {
        "accepted_nusd": 7,
        "untasked_nusd": 3,
    }
    assert row["cost_per_accepted_nusd"] == {"median": 7, "p25": 7, "p75": 7, "mean": 7}
    assert (row["accepted_outcomes"], row["undone_share"], row["unproven_share"], row["lead_ms"]) == (
        1,
        0.0,
        0.0,
        HOUR_MS // 4 - 1,
    )
    assert row["delivery"]["unit"] == "merged change"
    assert (row["delivery"]["units"], row["delivery"]["cost_per_unit_nusd"]) == (1, 10)
    assert report["total"]["cost_nusd"] == 10
    by_user = await (await client.get("/api/report", params={"by": "user"})).json()
    assert by_user["rows"][0]["accepted_outcomes"] is None


@pytest.mark.parametrize("name", ["sort", "order", "top"])
async def test_a_report_cannot_be_sorted(client: Client, name: str) -> None:
    assert (await client.get("/api/report", params={"by": "user", name: "cost"})).status == 400


@pytest.mark.parametrize("query", [{}, {"provider": "openai"}, {"provider": "openai", "since": "1d"}])
async def test_a_reconciliation_needs_to_know_of_whom_and_when(client: Client, query: dict[str, str]) -> None:
    assert (await client.get("/api/reconcile", params=query)).status == 400


@pytest.mark.parametrize("body", [{}, {"user": "ada", "calls_before": "400d"}, {"users": "ada"}, {"calls_before": "x"}])
async def test_forgetting_needs_to_know_what(client: Client, body: dict[str, str]) -> None:
    assert (await client.post("/api/forget", json=body)).status == 400
