"""Forgetting: nothing in the ledger tells of the person any more, and every sum is what it was."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import select

from proxy.core.caller import KeyInfo
from proxy.core.forgetting import FORGOTTEN, forgotten
from proxy.core.raises import GivenRaise
from proxy.ledger import forget as module
from proxy.ledger.alerts import Message
from proxy.ledger.database import Ledger
from proxy.ledger.forget import KEPT_MS_MIN, ForgetInvalid, ForgetStep
from proxy.ledger.tables import claims, metadata
from tests.support.ledger_calls import AT_MS, HOUR_MS, MINUTE_MS, entries, made
from tests.support.ledger_model import check_months
from tests.support.outcome_rows import DAY_MS

NOW_MS = AT_MS + 100 * DAY_MS
FOREVER_MS = AT_MS * 2


def forget(ledger: Ledger, user: str) -> ForgetStep:
    calls = 0
    while (step := ledger.forget(user, NOW_MS)).more:
        calls += step.calls
    return msgspec.structs.replace(step, calls=calls + step.calls)


def everything(ledger: Ledger) -> str:
    """All that stands in any table."""
    with ledger._database.reading() as connection:
        return "\n".join(str(row) for table in metadata.sorted_tables for row in connection.execute(select(table)))


def sums(ledger: Ledger) -> list[tuple[object, ...]]:
    made_report = ledger.report(["task", "model", "team"], since_ms=0, until_ms=FOREVER_MS)
    return [(row.values, row.calls, row.cost_nusd, row.tokens, row.usage) for row in made_report.rows]


def test_nothing_tells_of_the_person_and_the_sums_stay(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CALLS", 3)
    monkeypatch.setattr(module, "STEP_CALLS_MAX", 6)
    personal = {
        "user": "adele",
        "key_id": "kadele",
        "session": "s-adele",
        "labels": {"mail": "adele@example.org"},
        "user_agent": "adeles-laptop/1",
        "trace_id": "ade1e0" * 5 + "aa",
        "warnings": ["person-day; budget `person-day` for user `adele` is spent to 80%"],
    }
    ledger.ingest(
        entries(*(made(n, **personal) for n in range(8)), made(8, user="bob"), made(9, task="S-1", user="bob"))
    )
    ledger.close_days(AT_MS + 9 * DAY_MS)
    ledger.keys.create(
        KeyInfo(key_id="kadele", user="adele", team="t", org="o", labels={"a": "adele"}, kind="person", created_at_ms=1)
    )
    ledger.raises.add(
        GivenRaise(
            budget="person-day",
            scope={"user": "adele"},
            amount=1,
            unit="nusd",
            until_ms=FOREVER_MS,
            reason="adele asked",
            made_by="boss",
            at_ms=1,
        )
    )
    body = msgspec.json.encode({"data": {"scope": {"user": "adele"}, "sentence": "user `adele`"}}).decode()
    ledger.alerts.put([Message(key="a", alert="ops", body=body, at_ms=1)], None)
    with ledger._database.writing() as connection:
        row = {"key": "c", "org": "default", "user": "adele", "session": "s-adele", "task": "PAY-7", "at_ms": 1}
        connection.execute(claims.insert(), row)
    before, newest = sums(ledger), ledger.last_seq()

    assert forget(ledger, "adele") == ForgetStep(calls=8, more=False, keys=1, raises=1, alerts=1, claims=1)
    assert "adele" not in everything(ledger).replace("kadele", "")  # the id of a key is nobody's name
    assert "ade1e0" not in everything(ledger)
    assert sums(ledger) == before
    check_months(ledger)
    ledger.close_days(NOW_MS)
    assert sums(ledger) == before
    check_months(ledger)
    assert ledger.last_seq() == newest, "what was exported once is no news"
    by_user = ledger.report(["user"], since_ms=0, until_ms=FOREVER_MS).rows
    assert [(row.values, row.calls) for row in by_user] == [(("bob",), 2), ((FORGOTTEN,), 8)]
    assert [(totals.user, totals.calls) for totals in ledger.task("PAY-7")] == [("bob", 1), (FORGOTTEN, 8)]
    [key] = ledger.keys.list()
    assert (key.user, key.revoked_at_ms, key.labels) == (FORGOTTEN, NOW_MS, {})
    assert forget(ledger, "adele").calls == 0


def test_a_forgotten_record_can_be_exported_again_with_the_same_ids() -> None:
    one, other = forgotten(made(1)), forgotten(made(1, user="bob", session="x"))
    assert one == other
    assert (len(one.trace_id), len(one.span_id), len(one.client_span_id)) == (32, 16, 16)


def test_a_late_record_of_a_forgotten_call_still_takes_its_place(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, result="lost")))
    forget(ledger, "ada")
    ledger.ingest(entries(made(1, cost_nusd=5), first=2))
    assert ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total.cost_nusd == 5
    forget(ledger, "ada")
    assert [row.values for row in ledger.report(["user"], since_ms=0, until_ms=FOREVER_MS).rows] == [(FORGOTTEN,)]


@pytest.mark.parametrize("user", ["", FORGOTTEN])
def test_nobody_cannot_be_forgotten(ledger: Ledger, user: str) -> None:
    with pytest.raises(ForgetInvalid):
        ledger.forget(user, NOW_MS)


def test_calls_are_dropped_and_their_sums_stay(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DROPPED_AT_ONCE", 2)
    old = [made(n, at_ms=AT_MS + n * 10 * MINUTE_MS) for n in range(9)]
    ledger.ingest(entries(*old, made(20, at_ms=NOW_MS - DAY_MS)))
    ledger.close_days(NOW_MS)
    before, dropped = sums(ledger), 0
    while (step := ledger.drop_calls(AT_MS + HOUR_MS + MINUTE_MS, NOW_MS)).more:
        dropped += step.calls
    assert dropped + step.calls == 6  # those of the whole hour before
    assert sums(ledger) == before
    assert ledger.call("call000000") is None
    assert ledger.call("call000006") is not None
    forget(ledger, "ada")
    assert sums(ledger) == before
    assert [row.values for row in ledger.report(["user"], since_ms=0, until_ms=FOREVER_MS).rows] == [(FORGOTTEN,)]


def test_reports_over_dropped_calls_count_whole_hours_once(ledger: Ledger) -> None:
    ledger.ingest(entries(*(made(n, at_ms=AT_MS + n * 10 * MINUTE_MS, cost_nusd=1) for n in range(12))))
    ledger.drop_calls(AT_MS + 9 * DAY_MS, NOW_MS)
    middle_ms = AT_MS + 30 * MINUTE_MS
    first = ledger.report(["task"], since_ms=0, until_ms=middle_ms).total.calls
    second = ledger.report(["task"], since_ms=middle_ms, until_ms=FOREVER_MS).total.calls
    assert (first, second) == (0, 12)
    assert sum(len(hour.by) for hour in ledger.hours(middle_ms, FOREVER_MS)) == 2


def test_young_calls_are_kept(ledger: Ledger) -> None:
    with pytest.raises(ForgetInvalid, match="35 days"):
        ledger.drop_calls(NOW_MS - KEPT_MS_MIN + HOUR_MS, NOW_MS)


def test_a_late_record_whose_task_has_no_calls_left_does_no_harm(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, at_ms=NOW_MS - DAY_MS)))
    ledger.drop_calls(AT_MS + DAY_MS, NOW_MS)
    ledger.ingest(entries(made(2, at_ms=NOW_MS - DAY_MS, task="S-1", revision=2), first=3))
    [totals] = ledger.task("PAY-7")
    assert (totals.calls, totals.first_at_ms) == (1, AT_MS + 1)
