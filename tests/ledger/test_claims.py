"""Claims: a session without a task is given one, once, by its own user; roll-ups move and sums stay."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.ledger.claims import ClaimRefused
from proxy.ledger.database import Ledger
from proxy.ledger.reader import open_reader
from tests.support.deliveries import AT_MS, DAY, merged
from tests.support.ledger_calls import entries, made, refused
from tests.support.outcome_book import MERGED, Book

NOW_MS = AT_MS + 60 * DAY
SILENT: dict[str, Any] = {"task": None, "task_source": "none", "session": "s1"}


def costs(ledger: Ledger) -> dict[tuple[str, str], int]:
    """What each task cost, by task and source."""
    names = ("PAY-7", "PAY-8", "s1")
    found = [totals for name in names for totals in ledger.task(name)]
    return {(totals.task, totals.task_source): totals.cost_nusd for totals in found}


def total_nusd(ledger: Ledger) -> int:
    return ledger.report(["team"], since_ms=0, until_ms=2**50).total.cost_nusd


def test_a_session_without_a_task_is_claimed_and_marked_and_the_sums_stay(ledger: Ledger) -> None:
    others = [made(9, session="s1", user="bob", task=None, task_source="none"), made(8, session="s2", task=None)]
    ledger.ingest(entries(made(1, **SILENT), made(2, **SILENT), refused(3, **SILENT), made(4), *others))
    before = total_nusd(ledger)
    claimed = ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    assert (claimed.calls, claimed.cost_nusd) == (3, 2_400_000)
    assert costs(ledger) == {("PAY-7", "key"): 1_200_000, ("PAY-8", "claimed"): 2_400_000}
    assert total_nusd(ledger) == before
    record = ledger.call("call000001")
    assert record is not None
    assert (record.task, record.task_source, record.session, record.revision) == ("PAY-8", "claimed", "s1", 2)
    untouched = [ledger.call(f"call{number:06d}") for number in (8, 9)]
    assert [each.task for each in untouched if each is not None] == [None, None]


def test_a_task_that_is_only_the_agents_name_of_its_session_can_be_claimed(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, task="s1", task_source="agent", session="s1"), made(2, task="s1", user="bob")))
    assert ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS).calls == 1
    assert costs(ledger) == {("PAY-8", "claimed"): 1_200_000, ("s1", "key"): 1_200_000}


def test_what_named_a_task_cannot_be_claimed(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, session="s1"), made(2, session="s1", task="other", task_source="agent")))
    with pytest.raises(ClaimRefused, match="no call of yours in session `s1` ran without a task") as no:
        ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    assert no.value.status == 404


def test_a_session_is_claimed_once_and_the_same_claim_again_is_answered_as_before(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, **SILENT)))
    first = ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    assert ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS + 5) == first
    ledger.ingest(entries(made(2, **SILENT)))
    with pytest.raises(ClaimRefused, match="was claimed for task `PAY-8` already") as no:
        ledger.claims.claim("default", "ada", "s1", "PAY-7", NOW_MS)
    assert no.value.status == 409


@pytest.mark.parametrize(("org", "user"), [("default", "bob"), ("other", "ada")])
def test_nobody_elses_session_can_be_claimed(ledger: Ledger, org: str, user: str) -> None:
    ledger.ingest(entries(made(1, **SILENT)))
    with pytest.raises(ClaimRefused):
        ledger.claims.claim(org, user, "s1", "PAY-8", NOW_MS)


def test_nothing_is_claimed_for_a_task_whose_outcome_is_accepted(ledger: Ledger) -> None:
    book = Book(ledger)
    ledger.ingest(entries(made(1, **SILENT), made(2, **(SILENT | {"session": "s2"}))))
    book.tell(merged(title="PAY-8"), MERGED)
    assert ledger.claims.claim("default", "ada", "s2", "PAY-8", NOW_MS).calls == 1, "it is pending"
    book.wait(14)
    with pytest.raises(ClaimRefused, match="has an accepted outcome") as no:
        ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    assert no.value.status == 409


def test_a_later_revision_of_a_claimed_call_keeps_its_task(ledger: Ledger) -> None:
    lost = made(1, result="lost", **SILENT)
    ledger.ingest(entries(lost))
    ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    ledger.ingest(entries(msgspec.structs.replace(lost, result="ok", revision=2, cost_nusd=5)))
    record = ledger.call("call000001")
    assert record is not None
    assert (record.task, record.task_source, record.cost_nusd, record.result) == ("PAY-8", "claimed", 5, "ok")
    assert costs(ledger) == {("PAY-8", "claimed"): 5}


def test_a_user_sees_what_can_be_claimed_and_what_tasks_came_to(ledger: Ledger, ledger_url: str) -> None:
    Book(ledger).tell(merged())
    ledger.ingest(
        entries(
            made(1, **SILENT), made(2, **(SILENT | {"session": "s2"})), made(3, **SILENT), made(4), made(5, user="bob")
        )
    )
    reader = open_reader(ledger_url)
    sessions = reader.sessions_of("ada", "default")
    assert [(each.session, each.calls, each.cost_nusd) for each in sessions] == [
        ("s1", 2, 2_400_000),
        ("s2", 1, 1_200_000),
    ]
    (outcome,) = reader.outcomes_of("default", ["PAY-7", "PAY-8"])
    assert (outcome.task, outcome.state, outcome.kind, outcome.landed_ms) == ("PAY-7", "pending", "merged", AT_MS)
    assert reader.shared("ada", "default", ["PAY-7", "PAY-8"]) == {"PAY-7"}
    assert reader.outcomes_of("default", []) == []
    assert reader.shared("ada", "default", []) == set()
    ledger.claims.claim("default", "ada", "s1", "PAY-8", NOW_MS)
    assert [each.session for each in reader.sessions_of("ada", "default")] == ["s2"]
    reader.close()
