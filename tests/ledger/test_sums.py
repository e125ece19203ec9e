"""Sums: money in is money out, whatever came late, was priced again, claimed, forgotten or undone, and however much of
it lies in days and months that are closed."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.attribution import FATES
from proxy.core.outcomes import Team
from proxy.core.patience import NO_PATIENCE, Patience
from proxy.core.record import Record
from proxy.core.report import Report
from proxy.core.usage import Usage
from proxy.ledger import reports as module
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.reports import BY, COUNTS, ReportInvalid
from proxy.ledger.rollups import DIMENSIONS, dimensions
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made
from tests.support.ledger_model import SPAN_MS, STEPS, TASKS, Model, check_months
from tests.support.outcome_rows import DAY_MS, landed, put

TEAMS = (Team(name="payments", unit="merged", size=8), Team(name="search", unit="deployment", size=3))


def check(shown: Report, expected: list[Record]) -> None:
    """The total is what the calls come to, and every row its part of it."""
    cost = sum(record.cost_nusd or 0 for record in expected)
    assert shown.total.cost_nusd == cost == sum(row.cost_nusd for row in shown.rows)
    assert shown.total.calls == sum(record.count for record in expected) == sum(row.calls for row in shown.rows)
    for name in (*COUNTS, "list_nusd", "tokens"):
        assert getattr(shown.total, name) == sum(getattr(row, name) for row in shown.rows)
    assert shown.total.became is not None
    assert sum(shown.total.became.values()) == cost
    assert shown.total.became["untasked"] == sum(record.cost_nusd or 0 for record in expected if not record.task)
    if "user" not in shown.by:
        for fate in FATES:
            assert shown.total.became[fate] == sum(row.became[fate] for row in shown.rows if row.became is not None)
        assert shown.total.accepted_outcomes == sum(row.accepted_outcomes or 0 for row in shown.rows)
    for row in shown.rows:
        if row.became is not None:
            assert sum(row.became.values()) == row.cost_nusd
            assert min(row.became.values()) >= 0
    if not {"month", "outcome"} & {*shown.by}:
        assert rows_of(shown) == parts_of(expected, shown.by)


def rows_of(shown: Report) -> dict[tuple[str | None, ...], tuple[int, int]]:
    return {row.values: (row.calls, row.cost_nusd) for row in shown.rows if row.calls}


def parts_of(expected: list[Record], by: tuple[str, ...]) -> dict[tuple[str | None, ...], tuple[int, int]]:
    found: dict[tuple[str | None, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for record in expected:
        named = dict(zip(DIMENSIONS, dimensions(record), strict=True))
        values = tuple(named[name] or None for name in by)
        calls, cost = found[values]
        found[values] = calls + record.count, cost + (record.cost_nusd or 0)
    return dict(found)


@settings(max_examples=40, deadline=None)
@given(
    steps=STEPS,
    by=st.lists(st.sampled_from(BY), min_size=1, max_size=3, unique=True),
    since=st.integers(-HOUR_MS, SPAN_MS).map(lambda after: AT_MS + after),
    length=st.integers(0, SPAN_MS + HOUR_MS),
    timezone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    patience=st.sampled_from([NO_PATIENCE, Patience((((), AT_MS + 2 * DAY_MS),)), Patience((((), AT_MS + HOUR_MS),))]),
)
def test_money_in_is_money_out_on_any_ledger(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, Any]],
    by: list[str],
    since: int,
    length: int,
    timezone: str,
    patience: Patience,
) -> None:
    model = Model(open_ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"))
    for kind, value in steps:
        model.step(kind, value)
    times = {"since_ms": since, "until_ms": since + length}
    shown = model.ledger.report(by, **times, timezone=timezone, patience=patience, teams=TEAMS)
    check(shown, model.within(since, since + length))
    model.ledger.close()


def test_months_that_are_closed_follow_whatever_changes_in_them(ledger: Ledger) -> None:
    chance = Random(7)
    model = Model(ledger)

    def call() -> dict[str, Any]:
        return {
            "at_ms": AT_MS + chance.randrange(SPAN_MS),
            "team": chance.choice(["payments", "search"]),
            "user": chance.choice(["ada", "bob"]),
            "task": chance.choice([None, *TASKS]),
            "session": chance.choice([None, "s-1"]),
            "cost_nusd": chance.choice([None, 10**6, chance.randrange(10**9)]),
        }

    def check_all() -> None:
        for by in (["team"], ["task", "team"], ["user", "model"], ["month"], ["outcome"]):
            for since_ms, until_ms in ((0, 2 * AT_MS), (AT_MS + 3 * DAY_MS, AT_MS + 50 * DAY_MS + 7)):
                shown = ledger.report(by, since_ms=since_ms, until_ms=until_ms, timezone="Asia/Kolkata", teams=TEAMS)
                check(shown, model.within(since_ms, until_ms))

    model.step("calls", [call() for _ in range(120)])
    model.step("close", SPAN_MS + 2 * DAY_MS)
    check_all()
    for kind, value in (
        ("outcome", (1, {"state": "accepted"})),
        ("calls", [call() for _ in range(5)]),
        ("revision", (3, call())),
        ("reprice", 77),
        ("claim", ("ada", "PAY-8")),
        ("outcome", (1, {"state": "undone"})),
        ("forget", "bob"),
    ):
        model.step(kind, value)
        check_all()
    model.step("close", SPAN_MS + 2 * DAY_MS)
    check_all()


def test_a_call_that_moves_away_leaves_nothing_of_its_row_in_a_closed_month(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, team="search"), made(2)))
    ledger.close_days(AT_MS + 3 * DAY_MS)
    put(ledger, landed(1))
    ledger.ingest(entries(made(1, revision=2, cost_nusd=0), made(2, revision=2, cost_nusd=0), first=3))
    for _ in range(2):
        [row] = ledger.report(["team"], since_ms=0, until_ms=2 * AT_MS).rows
        assert (row.values, row.calls, row.accepted_outcomes) == (("payments",), 2, 1)
        ledger.close_days(AT_MS + 3 * DAY_MS)
        check_months(ledger)


def test_what_only_a_late_call_has_is_in_closed_days_and_months_too(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1)))
    ledger.close_days(AT_MS + 3 * DAY_MS)
    ledger.ingest(entries(made(2, usage=Usage(images=3), result="failed"), first=2))
    for _ in range(2):
        for since_ms in (0, AT_MS - AT_MS % DAY_MS):
            total = ledger.report(["task"], since_ms=since_ms, until_ms=AT_MS + DAY_MS).total
            assert (total.usage["images"], total.usage["input"], total.failed) == (3, 1000, 1)
        ledger.close_days(AT_MS + 3 * DAY_MS)


def test_a_report_that_breaks_off_leaves_nothing_in_the_way_of_the_next(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.ingest(entries(made(1), made(2, task="S-1")))
    with monkeypatch.context() as patched:
        patched.setattr(module, "ROWS_MAX", 1)
        with pytest.raises(ReportInvalid, match="more than 1 rows"):
            ledger.report(["task"], since_ms=0, until_ms=2 * AT_MS)
    assert len(ledger.report(["task"], since_ms=0, until_ms=2 * AT_MS).rows) == 2


def test_a_task_that_split_its_work_gives_each_outcome_its_share_in_all_reports(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10), made(2, task="S-1", cost_nusd=7)))
    put(ledger, landed(1), landed(2, weight=2), landed(3, task="S-1"))
    [row] = ledger.report(["team"], since_ms=0, until_ms=2 * AT_MS).rows
    spread = row.cost_per_accepted_nusd
    assert spread is not None
    assert (spread.p25, spread.median, spread.p75, spread.mean) == (3, 3, 7, 4)
