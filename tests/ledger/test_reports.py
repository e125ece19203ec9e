"""Reports: exact to the nano-USD over any time and time zone, and never a ranking."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.report import row_fields
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.entry import Entry
from proxy.ledger.reports import BY, ReportInvalid, report
from tests.support.ledger_calls import AT_MS, HOUR_MS, MINUTE_MS, entries, made, refused

FOREVER_MS = AT_MS * 2


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_the_total_is_exactly_the_sum_of_the_rows(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, task="S-1", cost_nusd=1), refused(3), made(4, task=None, cost_nusd=None)))
    made_report = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS)
    assert [(row.values, row.cost_nusd) for row in made_report.rows] == [
        (("PAY-7",), 1_200_000),
        (("S-1",), 1),
        ((None,), 0),
    ]
    total = made_report.total
    assert (total.calls, total.refused, total.unpriced_calls, total.cost_nusd) == (4, 1, 1, 1_200_001)


def test_a_call_whose_usage_is_still_to_come_is_not_unpriced(ledger: Ledger) -> None:
    awaited = made(1, cost_nusd=None, cost_source="none", usage_source="none", estimate={"later": True})
    ledger.ingest(entries(awaited, made(2, cost_nusd=None)))
    assert ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total.unpriced_calls == 1
    [task] = ledger.task("PAY-7")
    assert task.unpriced_calls == 1
    ledger.ingest([Entry(shard=0, epoch="", id="", record=made(1, revision=2))])
    total = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total
    assert (total.unpriced_calls, total.cost_nusd) == (1, 1_200_000)


def test_rows_stand_in_the_order_of_names_whatever_people_spent(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, user="cy", cost_nusd=9), made(2, user="ada", cost_nusd=1), made(3, user="bob")))
    rows = ledger.report(["user"], since_ms=0, until_ms=FOREVER_MS).rows
    assert [row.values for row in rows] == [("ada",), ("bob",), ("cy",)]
    assert not {"sort", "order", "top", "limit"} & set(inspect.signature(report).parameters)


def test_several_names_combine(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2), made(3, user="bob"), made(4, model="gpt-5")))
    rows = ledger.report(["user", "model"], since_ms=0, until_ms=FOREVER_MS).rows
    assert [(row.values, row.calls) for row in rows] == [
        (("ada", "gpt-5"), 1),
        (("ada", "gpt-5-mini-2025-08-07"), 2),
        (("bob", "gpt-5-mini-2025-08-07"), 1),
    ]
    assert row_fields(("user", "model"), rows[0])["model"] == "gpt-5"


@pytest.mark.parametrize("name", BY)
def test_every_name_can_be_reported_by(ledger: Ledger, name: str) -> None:
    ledger.ingest(entries(made(1)))
    [row] = ledger.report([name], since_ms=0, until_ms=FOREVER_MS).rows
    assert row.calls == 1


def test_edges_within_an_hour_are_exact(ledger: Ledger) -> None:
    ledger.ingest(entries(*(made(number, at_ms=AT_MS + number * 10 * MINUTE_MS, cost_nusd=1) for number in range(30))))
    for start, end in ((0, 30), (1, 4), (5, 6), (5, 7), (6, 12), (1, 29), (7, 7), (9, 3)):
        found = ledger.report(
            ["task"], since_ms=AT_MS + start * 10 * MINUTE_MS, until_ms=AT_MS + end * 10 * MINUTE_MS
        ).total.calls
        assert found == max(0, end - start)


def test_months_are_those_of_the_time_zone(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, at_ms=at("2026-10-31T18:29:59")),  # 23:59:59 in Kolkata, which is half an hour off the hour
            made(2, at_ms=at("2026-10-31T18:30:00")),
            made(3, at_ms=at("2026-10-31T23:30:00")),  # already November in Berlin
            made(4, at_ms=at("2026-12-31T23:59:59")),
        )
    )

    def months(timezone: str) -> list[tuple[str | None, int]]:
        rows = ledger.report(["month"], since_ms=0, until_ms=FOREVER_MS, timezone=timezone).rows
        return [(row.values[0], row.calls) for row in rows]

    assert months("UTC") == [("2026-10", 3), ("2026-12", 1)]
    assert months("Europe/Berlin") == [("2026-10", 2), ("2026-11", 1), ("2027-01", 1)]
    assert months("Asia/Kolkata") == [("2026-10", 1), ("2026-11", 2), ("2027-01", 1)]


def test_a_month_in_summer_time_begins_when_its_clocks_say_so(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, at_ms=at("2026-06-30T21:59:59")),  # a second before July in Berlin
            made(2, at_ms=at("2026-06-30T22:00:00")),
        )
    )
    rows = ledger.report(["month"], since_ms=0, until_ms=FOREVER_MS, timezone="Europe/Berlin").rows
    assert [(row.values[0], row.calls) for row in rows] == [("2026-06", 1), ("2026-07", 1)]


def test_an_empty_ledger_gives_an_empty_report(ledger: Ledger) -> None:
    made_report = ledger.report(["task", "month"], since_ms=0, until_ms=FOREVER_MS)
    assert made_report.rows == []
    assert made_report.total.calls == 0


@pytest.mark.parametrize("by", [[], ["spend"], ["user", "user"], ["task; DROP TABLE calls"]])
def test_a_report_by_something_unknown_says_what_there_is(ledger: Ledger, by: list[str]) -> None:
    with pytest.raises(ReportInvalid, match="task, team, user"):
        ledger.report(by, since_ms=0, until_ms=FOREVER_MS)


@pytest.mark.parametrize("timezone", ["Europe/Nowhere", "../../etc/passwd", "", "/etc/localtime", "a\0b"])
def test_a_time_zone_that_does_not_exist_is_named(ledger: Ledger, timezone: str) -> None:
    ledger.ingest(entries(made(1)))
    with pytest.raises(ReportInvalid, match="no time zone"):
        ledger.report(["month"], since_ms=0, until_ms=FOREVER_MS, timezone=timezone)


@pytest.fixture(scope="module")
def quarter_hours(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Two months with a call of 1 nano-USD every 13 minutes, which meets every minute of the hour."""
    path: Path = tmp_path_factory.mktemp("reports") / "ledger.db"
    ledger = open_ledger(f"sqlite:///{path}")
    ledger.ingest(entries(*(made(n, at_ms=AT_MS + n * 13 * MINUTE_MS, cost_nusd=1) for n in range(6000))))
    return ledger


@settings(max_examples=60, deadline=None)
@given(
    since=st.integers(-HOUR_MS, 60 * 24 * HOUR_MS),
    length=st.integers(0, 60 * 24 * HOUR_MS),
    timezone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]),
    by=st.sampled_from([["task"], ["month"], ["month", "user"]]),
)
def test_any_time_in_any_zone_counts_each_call_once(
    quarter_hours: Ledger, since: int, length: int, timezone: str, by: list[str]
) -> None:
    start_ms, end_ms = AT_MS + since, AT_MS + since + length
    expected = sum(start_ms <= AT_MS + n * 13 * MINUTE_MS < end_ms for n in range(6000))
    found = quarter_hours.report(by, since_ms=start_ms, until_ms=end_ms, timezone=timezone)
    assert found.total.calls == expected == found.total.cost_nusd
