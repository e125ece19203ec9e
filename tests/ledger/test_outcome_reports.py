"""Reports with outcomes: where money went, which changes held, and that all of it adds up to the ledger."""

from __future__ import annotations

from typing import Any

from proxy.core.matching import Condition, Match
from proxy.core.outcomes import Team
from proxy.core.patience import NO_PATIENCE, patience_of
from proxy.core.report import Report, Row
from proxy.ledger.database import Ledger
from tests.support.ledger_calls import AT_MS, HOUR_MS, MINUTE_MS, entries, made
from tests.support.outcome_rows import DAY_MS, landed, put

FOREVER_MS = AT_MS * 2
TEAMS = (Team(name="payments", unit="merged", size=8), Team(name="search", unit="deployment", size=3))


def report(ledger: Ledger, *by: str, since_ms: int = 0, until_ms: int = FOREVER_MS, **more: Any) -> Report:
    return ledger.report(by, since_ms=since_ms, until_ms=until_ms, **more)


def became(row: Row) -> dict[str, int]:
    assert row.became is not None
    return {fate: amount for fate, amount in row.became.items() if amount}


def test_a_tasks_cost_goes_to_its_outcomes_by_weight(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10), made(2, task="S-1", cost_nusd=5), made(3, task=None, cost_nusd=3)))
    put(ledger, landed(1), landed(2, weight=2, state="pending"))
    total = report(ledger, "team").total
    assert became(total) == {"accepted": 3, "pending": 7, "unproven": 5, "untasked": 3}
    rows = report(ledger, "outcome").rows
    assert [(row.values[0], row.cost_nusd, row.accepted_outcomes) for row in rows] == [
        ("outcome0001", 3, 1),
        ("outcome0002", 7, 0),
        (None, 8, 0),
    ]
    assert report(ledger, "outcome").outcomes["outcome0002"]["state"] == "pending"


def test_what_somebody_declares_takes_no_cost_unless_a_rule_says_when_it_is_accepted(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10)))
    put(ledger, landed(1, source="self_declared", state="pending", accepted_after_ms=None))
    assert became(report(ledger, "team").total) == {"unproven": 10}
    put(ledger, landed(1, source="self_declared", state="pending"))
    assert became(report(ledger, "team").total) == {"pending": 10}


def test_an_outcome_that_comes_late_or_is_undone_moves_the_money_of_days_that_are_closed(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10)))
    assert ledger.close_days(AT_MS + 3 * DAY_MS) == 1
    assert became(report(ledger, "task").total) == {"unproven": 10}
    put(ledger, landed(1))
    assert became(report(ledger, "task").total) == {"accepted": 10}
    put(ledger, landed(1, state="undone"))
    found = report(ledger, "task").total
    assert became(found) == {"undone": 10}
    assert (found.accepted_outcomes, found.undone_outcomes, found.undone_share) == (0, 1, 1.0)


def test_a_record_that_comes_late_opens_its_day_again(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10)))
    ledger.close_days(AT_MS + 3 * DAY_MS)
    ledger.ingest(entries(made(2, cost_nusd=5), made(1, cost_nusd=11, revision=2), first=2))
    assert report(ledger, "task").total.cost_nusd == 16
    assert ledger.close_days(AT_MS + 3 * DAY_MS) == 1
    assert report(ledger, "task").total.cost_nusd == 16
    assert ledger.close_days(AT_MS + 3 * DAY_MS) == 0


def test_a_day_is_not_closed_while_its_calls_still_come(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1)))
    assert ledger.close_days(AT_MS + 2 * HOUR_MS) == 0


def test_what_was_spent_before_the_window_of_the_unproven_rule_is_spent_for_nothing_yet(ledger: Ledger) -> None:
    from proxy.core.budgets import Budget
    from proxy.core.globs import Globs
    from proxy.core.matching import reader_of
    from proxy.core.windows import Every

    ledger.ingest(
        entries(
            made(1, cost_nusd=10),
            made(2, cost_nusd=5, at_ms=AT_MS + 2 * DAY_MS),
            made(3, cost_nusd=7, team="search"),
            made(4, cost_nusd=1, task=None),
        )
    )
    condition = Condition(field="team", read=reader_of("team"), globs=Globs(["pay*"]))
    rule = Budget(
        name="nothing-shipped",
        match=Match(conditions=(condition,)),
        per=("task",),
        limit=1,
        every=Every.parse("rolling 1d"),
    )
    patience = patience_of([rule], AT_MS + 2 * DAY_MS + HOUR_MS)
    total = report(ledger, "team", patience=patience).total
    assert became(total) == {"for_nothing": 10, "unproven": 12, "untasked": 1}
    assert total.unproven_share == round(22 / 23, 4)
    assert became(report(ledger, "team", patience=NO_PATIENCE).total) == {"unproven": 22, "untasked": 1}


def test_cost_per_accepted_change_is_what_its_task_cost_in_all_time(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, cost_nusd=10, at_ms=AT_MS - 40 * DAY_MS),
            made(2, cost_nusd=20),
            made(3, task="S-1", cost_nusd=100),
            made(4, task="S-2", cost_nusd=1000),
        )
    )
    put(ledger, landed(1), landed(2, task="S-1"), landed(3, task="S-2", state="pending"))
    for close in (False, True):
        if close:
            ledger.close_days(AT_MS + 9 * DAY_MS)
        [row] = report(ledger, "team", since_ms=AT_MS).rows
        assert row.cost_per_accepted_nusd is not None
        assert (row.accepted_outcomes, row.cost_per_accepted_nusd.median, row.cost_per_accepted_nusd.p75) == (
            2,
            65,
            100,
        )
        # 41 days and an hour after the first call of PAY-7, one day and an hour after that of S-1
        assert row.lead_ms == (40 * DAY_MS + 2 * (DAY_MS + HOUR_MS) - 3) // 2


def test_a_change_belongs_to_the_row_that_bore_most_of_its_cost_and_to_no_other(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10), made(2, cost_nusd=1, team="search"), made(3, cost_nusd=5, user="bob")))
    put(ledger, landed(1))
    rows = {row.values[0]: row for row in report(ledger, "team", teams=TEAMS).rows}
    assert [(name, row.accepted_outcomes) for name, row in rows.items()] == [("payments", 1), ("search", 0)]
    assert became(rows["search"]) == {"accepted": 1}
    assert report(ledger, "team").total.accepted_outcomes == 1


def test_a_team_is_shown_with_what_it_delivers_and_a_small_one_is_not(ledger: Ledger) -> None:
    ledger.ingest(
        entries(made(1, cost_nusd=10), made(2, cost_nusd=90, task="PAY-8"), made(3, team="search", task="S-1"))
    )
    put(ledger, landed(1), landed(2, task="S-1", rule="live", kind="deployed"))
    shown = report(ledger, "team", since_ms=AT_MS, until_ms=AT_MS + 14 * DAY_MS, teams=TEAMS)
    payments, search = shown.rows
    assert payments.delivery is not None
    assert (payments.delivery.units, payments.delivery.cost_per_unit_nusd) == (1, 100)
    assert payments.delivery.units_per_person_week == round(1 / (8 * 2), 4)
    assert payments.unproven_share == 0.9
    assert (search.delivery, shown.withheld) == (None, ["search"])
    assert report(ledger, "team", "model", teams=TEAMS).rows[0].delivery is None


def test_delivery_can_be_followed_month_by_month(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10), made(2, cost_nusd=30, at_ms=AT_MS + 12 * DAY_MS)))
    put(ledger, landed(1), landed(2, landed_ms=AT_MS + 12 * DAY_MS))
    until_ms = AT_MS + 20 * DAY_MS
    rows = report(ledger, "team", "month", since_ms=AT_MS, until_ms=until_ms, teams=TEAMS).rows
    assert [(row.values, row.delivery.units) for row in rows if row.delivery is not None] == [
        (("payments", "2026-09"), 1),
        (("payments", "2026-10"), 1),
    ]
    assert rows[0].before is None


def test_rows_of_people_say_nothing_of_how_they_work(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10), made(2, user="bob", cost_nusd=30, repeats=1, twin_of="call000001")))
    put(ledger, landed(1))
    shown = report(ledger, "user", since_ms=AT_MS)
    for row in shown.rows:
        assert row.became is row.accepted_outcomes is row.cost_per_accepted_nusd is row.lead_ms is None
        assert row.undone_share is row.repeated_share is row.unproven_share is row.before is row.delivery is None
    assert shown.total.accepted_outcomes == 1
    assert [row.values for row in shown.rows] == [("ada",), ("bob",)]


def test_an_outcome_of_a_task_that_nobody_knows_is_shown(ledger: Ledger) -> None:
    put(ledger, landed(1, task="NEVER-1"), landed(2, task=""))
    assert [row.values for row in report(ledger, "task").rows] == [("NEVER-1",), (None,)]
    assert [row.values for row in report(ledger, "outcome").rows] == [("outcome0001",), ("outcome0002",)]
    total = report(ledger, "team").total
    assert (total.accepted_outcomes, total.cost_nusd, total.lead_ms) == (2, 0, None)


def test_the_window_before_is_beside_the_window(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=10, at_ms=AT_MS - DAY_MS, task="OLD-1"), made(2, cost_nusd=30)))
    put(ledger, landed(1, task="OLD-1", landed_ms=AT_MS - 2 * DAY_MS), landed(2))
    [row] = report(ledger, "team", since_ms=AT_MS, until_ms=AT_MS + 2 * DAY_MS).rows
    assert row.before is not None
    assert (row.before.cost_nusd, row.before.accepted_outcomes, row.before.cost_per_accepted_nusd) == (10, 1, 10)
    [task] = report(ledger, "task", since_ms=AT_MS, until_ms=AT_MS + 2 * DAY_MS).rows
    assert task.values == ("PAY-7",)
    assert report(ledger, "task", since_ms=AT_MS, until_ms=AT_MS + 2 * DAY_MS).total.before == row.before


def test_calls_that_the_shadow_would_have_refused_are_counted(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, shadow=["same-call"]), made(2)))
    assert report(ledger, "team").total.shadow_refused == 1


def test_edges_within_an_hour_see_outcomes_too(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=3, at_ms=AT_MS + 10 * MINUTE_MS), made(2, at_ms=AT_MS + 50 * MINUTE_MS)))
    put(ledger, landed(1))
    total = report(ledger, "task", until_ms=AT_MS + 30 * MINUTE_MS).total
    assert became(total) == {"accepted": 3}
