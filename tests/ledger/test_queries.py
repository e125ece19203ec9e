"""Calls one by one: in the order in which they became readable, in pages that miss nothing and repeat nothing."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.ledger.database import Ledger
from proxy.ledger.queries import Filters
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused


def ids(ledger: Ledger, **filters: Any) -> list[str]:
    return [record.call_id for record in ledger.calls(Filters(**filters)).records]


def test_pages_cover_every_call_once_and_end_with_no_next(ledger: Ledger) -> None:
    ledger.ingest(entries(*(made(number) for number in range(7))))
    seen, cursor, pages = [], None, 0
    while True:
        page = ledger.calls(Filters(), 3, cursor)
        seen += [record.call_id for record in page.records]
        pages += 1
        if page.next is None:
            break
        cursor = page.next
    assert seen == [f"call{number:06d}" for number in range(7)]
    assert pages == 3


def test_a_page_that_ends_exactly_with_the_ledger_has_no_next(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2)))
    assert ledger.calls(Filters(), 2).next is None


def test_who_follows_goes_on_from_here_and_sees_only_what_is_new(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, user="bob")))
    here = ledger.calls(Filters(user="ada")).here
    assert ledger.calls(Filters(user="ada"), 10, here).records == []
    ledger.ingest(entries(made(3), made(1, revision=2), first=3))
    page = ledger.calls(Filters(user="ada"), 10, here)
    assert [(record.call_id, record.revision) for record in page.records] == [("call000003", 1), ("call000001", 2)]


def test_following_an_empty_ledger_sees_its_first_call(ledger: Ledger) -> None:
    here = ledger.calls(Filters(since_ms=AT_MS)).here
    ledger.ingest(entries(made(1)))
    assert len(ledger.calls(Filters(since_ms=AT_MS), 10, here).records) == 1


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "9" * 30, "²"])
def test_a_text_that_is_no_cursor_is_refused(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        ledger.calls(Filters(), 10, cursor)


def test_filters_restrict_each_on_its_own_and_together(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1),
            made(2, user="bob", team="search", task="S-1", model="gpt-5", model_asked="gpt-5"),
            refused(3),
            made(4, at_ms=AT_MS + HOUR_MS, result="failed"),
        )
    )
    assert ids(ledger, user="bob") == ids(ledger, team="search") == ids(ledger, task="S-1") == ["call000002"]
    assert ids(ledger, model="gpt-5") == ["call000002"]
    # As asked for and as answered are both names of the model.
    assert ids(ledger, model="gpt-5-mini") == ["call000001", "call000003", "call000004"]
    assert ids(ledger, model="gpt-5-mini-2025-08-07") == ["call000001", "call000004"]
    assert ids(ledger, result="refused") == ids(ledger, rule="no-frontier") == ids(ledger, refusal="not_allowed")
    assert ids(ledger, result="refused") == ["call000003"]
    assert ids(ledger, since_ms=AT_MS + HOUR_MS) == ["call000004"]
    assert ids(ledger, until_ms=AT_MS + 2) == ["call000001"]
    assert ids(ledger, since_ms=AT_MS + 2, until_ms=AT_MS + 3) == ["call000002"]
    assert ids(ledger, user="ada", result="failed") == ["call000004"]
    assert ids(ledger, user="nobody") == []
    assert ids(ledger, since_ms=AT_MS * 2) == []


def test_a_call_that_was_written_late_is_found_by_the_time_of_its_admission(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, at_ms=AT_MS + HOUR_MS), made(2, at_ms=AT_MS)))
    assert ids(ledger, since_ms=AT_MS, until_ms=AT_MS + 1) == ["call000002"]
    assert ids(ledger, since_ms=AT_MS + HOUR_MS) == ["call000001"]


def test_a_call_is_found_by_the_id_that_its_provider_gave_it(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, upstream_call_id="resp_1"), made(2, upstream_call_id="resp_1", upstream="azure")))
    found = ledger.by_upstream_call_id("default", "openai", "resp_1")
    assert found is not None
    assert found.call_id == "call000001"
    assert ledger.by_upstream_call_id("default", "openai", "resp_2") is None
    assert ledger.by_upstream_call_id("another", "openai", "resp_1") is None
    ledger.ingest(entries(made(3, upstream_call_id=None), first=3))
    assert ledger.by_upstream_call_id("default", "openai", "") is None


def test_a_task_has_a_row_for_each_who_worked_on_it_in_the_order_of_names(ledger: Ledger) -> None:
    expensive = made(1, user="zoe", cost_nusd=9_000_000)
    ledger.ingest(entries(expensive, made(2, user="bob"), made(3, user="bob", task_source="header")))
    assert [(totals.user, totals.task_source) for totals in ledger.task("PAY-7")] == [
        ("bob", "header"),
        ("bob", "key"),
        ("zoe", "key"),
    ]
    assert ledger.task("PAY-8") == []


def test_a_user_sees_the_own_tasks_the_last_one_first(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, task="B"), made(2, task="A"), made(3, task="C", user="bob"), made(4, task=None)))
    assert [totals.task for totals in ledger.tasks_of("ada")] == ["A", "B"]
    assert ledger.tasks_of("ada", org="another") == []


def test_a_follower_finds_its_cursor_again_and_may_set_it_back(ledger: Ledger) -> None:
    assert ledger.cursor("traces") == 0
    ledger.set_cursor("traces", 41)
    ledger.set_cursor("alerts", 7)
    ledger.set_cursor("traces", 12)
    assert (ledger.cursor("traces"), ledger.cursor("alerts")) == (12, 7)
