"""Ingest: every call once, roll-ups that always equal their rows, and a position that only its owner moves."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.money import NUSD_MAX
from proxy.core.record import Record
from proxy.core.usage import Usage
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.entry import Entry, Position
from proxy.ledger.errors import PositionMoved
from proxy.ledger.queries import Filters
from proxy.ledger.writer import Ingested
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused
from tests.support.postgresql import Postgresql

FOREVER_MS = AT_MS * 2


def counts(ingested: Ingested) -> tuple[int, int, int]:
    return ingested.inserted, ingested.replaced, ingested.ignored


def total_cost(ledger: Ledger) -> int:
    return ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total.cost_nusd


def test_a_batch_becomes_rows_roll_ups_and_a_position(ledger: Ledger) -> None:
    assert counts(ledger.ingest(entries(made(1), made(2), refused(3)))) == (3, 0, 0)
    assert [record.call_id for record in ledger.calls(Filters()).records] == ["call000001", "call000002", "call000003"]
    assert ledger.positions() == {0: Position("first", "3-0")}
    [row] = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).rows
    assert (row.values, row.calls, row.refused, row.cost_nusd, row.tokens) == (("PAY-7",), 3, 1, 2_400_000, 2200)


def test_a_record_is_read_back_as_it_was_written(ledger: Ledger) -> None:
    record = made(
        1, labels={"a": "b"}, usage=Usage(input=3, requests={"web_search": 2}, seconds=1.5), ms_first_byte=1.25
    )
    ledger.ingest(entries(record))
    assert ledger.call("call000001") == record


def test_a_call_that_comes_again_counts_once(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2)))
    assert counts(ledger.ingest(entries(made(1), made(3), made(3), first=2))) == (1, 0, 2)
    assert total_cost(ledger) == 3 * 1_200_000


def test_a_higher_revision_replaces_the_row_and_moves_roll_ups_by_the_difference(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, result="lost", cost_nusd=5_000_000, usage_source="estimated"), made(2)))
    assert counts(ledger.ingest(entries(made(1, revision=2), first=3))) == (0, 1, 0)
    report = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS)
    assert (report.total.calls, report.total.lost, report.total.cost_nusd) == (2, 0, 2_400_000)
    [totals] = ledger.task("PAY-7")
    assert (totals.calls, totals.cost_nusd) == (2, 2_400_000)


def test_a_replaced_row_is_seen_again_by_who_follows_the_ledger(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, result="lost"), made(2)))
    seq = ledger.last_seq()
    ledger.ingest(entries(made(1, revision=2), first=3))
    [(newer, record)] = ledger.after(seq, 10)
    assert newer > seq
    assert (record.call_id, record.revision) == ("call000001", 2)
    # The newest row of all replaced: its number must not be given a second time either.
    ledger.ingest(entries(made(1, revision=3), first=4))
    assert [seq for seq, _ in ledger.after(newer, 10)] != [newer]
    assert len(ledger.after(newer, 10)) == 1


def test_an_older_revision_that_comes_late_changes_nothing(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, revision=2)))
    assert counts(ledger.ingest(entries(made(1, result="lost", cost_nusd=9), first=2))) == (0, 0, 1)
    assert total_cost(ledger) == 1_200_000


def test_a_call_that_moves_to_another_task_leaves_nothing_behind(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, at_ms=AT_MS + HOUR_MS)))
    ledger.ingest(entries(made(2, at_ms=AT_MS + HOUR_MS, task="PAY-8", revision=2), first=3))
    [left], [moved] = ledger.task("PAY-7"), ledger.task("PAY-8")
    assert (left.calls, left.first_at_ms, left.last_at_ms) == (1, AT_MS + 1, AT_MS + 1)
    assert (moved.calls, moved.first_at_ms, moved.last_at_ms) == (1, AT_MS + HOUR_MS, AT_MS + HOUR_MS)
    ledger.ingest(entries(made(1, task=None, revision=2), first=4))
    assert ledger.task("PAY-7") == []


def test_what_a_task_repeated_is_summed_and_stays_right_when_rows_are_replaced(ledger: Ledger) -> None:
    again: dict[str, Any] = {"moved_on": False, "repeats": 1, "twin_of": "call000001"}
    ledger.ingest(
        entries(
            made(1),
            made(2, result="lost", cost_nusd=5_000_000, **again),
            made(3, twin_of="call000001", cost_nusd=7),  # the work of another task: its conversation moves on
            made(4, moved_on=False, loop=6, cost_nusd=11),
            made(5, moved_on=True, loop=1, twin_of="call000001", twin_kind="similar"),
            refused(6, refusal="loop", moved_on=False, loop=9, count=3),
        )
    )
    [totals] = ledger.task("PAY-7")
    assert (totals.calls, totals.repeat_calls, totals.still_calls, totals.longest_loop) == (8, 6, 5, 9)
    assert totals.repeat_nusd == 5_000_018
    ledger.ingest(entries(made(2, revision=2, cost_nusd=4_000_000, **again), first=7))
    assert ledger.task("PAY-7")[0].repeat_nusd == 4_000_018
    # Its longest loops leave the task: the next one is found again.
    moved = [
        refused(6, refusal="loop", moved_on=False, loop=9, count=3, task="PAY-8", revision=2),
        made(4, revision=2),
    ]
    ledger.ingest(entries(*moved, first=8))
    [left], [other] = ledger.task("PAY-7"), ledger.task("PAY-8")
    assert (left.longest_loop, other.longest_loop) == (1, 9)
    assert (left.repeat_calls, left.repeat_nusd, left.still_calls) == (2, 4_000_007, 1)
    report = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS)
    assert [(row.repeat_calls, row.repeat_nusd) for row in report.rows] == [(2, 4_000_007), (3, 0)]


def test_folded_refusals_count_as_the_calls_they_stand_for(ledger: Ledger) -> None:
    ledger.ingest(entries(refused(1, count=41), made(2)))
    total = ledger.report(["user"], since_ms=0, until_ms=FOREVER_MS).total
    assert (total.calls, total.refused) == (42, 41)
    assert ledger.task("PAY-7")[0].refused == 41


def test_what_the_fence_raises_undoes_the_whole_batch(ledger: Ledger) -> None:
    def lease_lost() -> None:
        raise RuntimeError("the lease went to another bookkeeper")

    with pytest.raises(RuntimeError, match="lease"):
        ledger.ingest(entries(made(1)), fence=lease_lost)
    assert (ledger.last_seq(), ledger.positions(), total_cost(ledger)) == (0, {}, 0)
    assert counts(ledger.ingest(entries(made(1)))) == (1, 0, 0)


def test_a_position_that_another_bookkeeper_moved_stops_the_batch(ledger: Ledger, ledger_url: str) -> None:
    ledger.ingest(entries(made(1)))
    other = open_ledger(ledger_url)
    other.ingest(entries(made(2), first=2))
    with pytest.raises(PositionMoved):
        ledger.ingest(entries(made(3), first=2))
    assert ledger.call("call000003") is None
    # Having read where things stand, it may go on.
    assert ledger.positions() == {0: Position("first", "2-0")}
    assert counts(ledger.ingest(entries(made(3), first=3))) == (1, 0, 0)
    other.close()


def test_looking_at_positions_does_not_hide_that_another_bookkeeper_writes(ledger: Ledger, ledger_url: str) -> None:
    ledger.ingest(entries(made(1)))
    other = open_ledger(ledger_url)
    other.ingest(entries(made(2), first=2))
    assert ledger.positions() == {0: Position("first", "2-0")}
    with pytest.raises(PositionMoved):
        ledger.ingest(entries(made(3), first=2))
    other.close()


def test_what_was_written_is_told_with_what_it_replaced(ledger: Ledger) -> None:
    lost, settled = made(1, result="lost"), made(1, revision=2)
    assert ledger.ingest(entries(lost)).applied == [(lost, None)]
    assert ledger.ingest(entries(settled, made(2), first=2)).applied == [(made(2), None), (settled, lost)]
    assert ledger.ingest(entries(settled, first=2)).applied == []


def test_shards_have_positions_of_their_own(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), shard=3, first=9) + entries(made(2), shard=60, first=4))
    ledger.ingest(entries(made(3), shard=60, first=5))
    assert ledger.positions() == {3: Position("first", "9-0"), 60: Position("first", "5-0")}


def test_a_position_never_goes_back_within_an_epoch_and_follows_a_new_one(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), first=10))
    ledger.ingest(entries(made(2), first=9))
    assert ledger.positions()[0] == Position("first", "10-0")
    ledger.ingest(entries(made(3), epoch="second", first=1))
    assert ledger.positions()[0] == Position("second", "1-0")


def test_a_record_from_no_stream_moves_no_position(ledger: Ledger) -> None:
    ledger.ingest([Entry(shard=0, epoch="", id="", record=made(1))])
    assert (ledger.positions(), ledger.last_seq()) == ({}, 1)


@pytest.mark.parametrize("text", ["\0", "x" * 100_000, "Zoë \U0001f600", "'; DROP TABLE calls; --"])
def test_no_name_that_a_caller_invents_can_stop_the_ledger(ledger: Ledger, text: str) -> None:
    ledger.ingest(entries(made(1, task=text, model=text, model_asked=text, user_agent=text, upstream_call_id=text)))
    assert ledger.call("call000001") is not None
    assert ledger.task(text)[0].calls == 1
    assert len(ledger.calls(Filters(task=text, model=text)).records) == 1
    assert ledger.by_upstream_call_id("default", "openai", text) is not None


def test_no_number_that_a_provider_reports_can_stop_the_ledger(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, usage=Usage(input=10**30, seconds=1e308), cost_nusd=10**30, list_nusd=10**30)))
    assert total_cost(ledger) == NUSD_MAX


def test_a_batch_may_be_larger_than_the_variables_of_a_statement(ledger: Ledger) -> None:
    batch = entries(*(made(number, task=f"T-{number}") for number in range(1200)))
    assert counts(ledger.ingest(batch)) == (1200, 0, 0)
    assert counts(ledger.ingest(batch)) == (0, 0, 1200)
    replaced = entries(*(made(number, task=f"T-{number}", revision=2) for number in range(1200)))
    assert counts(ledger.ingest(replaced)) == (0, 1200, 0)
    assert total_cost(ledger) == 1200 * 1_200_000


# Hours, names and revisions from small sets, so that records meet: the same call again, replaced, moved elsewhere.
records = st.builds(
    made,
    st.integers(0, 12),
    at_ms=st.sampled_from([AT_MS, AT_MS + HOUR_MS - 1, AT_MS + HOUR_MS]),
    revision=st.integers(1, 3),
    user=st.sampled_from(["ada", "bob"]),
    team=st.sampled_from(["payments", "search"]),
    task=st.sampled_from([None, "PAY-7", "PAY-8"]),
    model=st.sampled_from([None, "gpt-5-mini", "gpt-5"]),
    result=st.sampled_from(["ok", "failed", "refused", "lost"]),
    count=st.integers(1, 3),
    cost_nusd=st.none() | st.integers(0, 10**12),
    list_nusd=st.none() | st.integers(0, 10**12),
    cost_source=st.sampled_from(["book", "assumed", "none"]),
    usage=st.builds(
        Usage,
        input=st.integers(0, 10**6),
        cached_input=st.integers(0, 10**6),
        output=st.integers(0, 10**6),
        reasoning=st.integers(0, 100),
        requests=st.dictionaries(st.sampled_from(["web_search", "maps"]), st.integers(0, 3)),
        seconds=st.integers(0, 100),
    ),
)
batches = st.lists(st.lists(records, max_size=12), max_size=6)


def assert_roll_ups_equal_rows(ledger: Ledger) -> None:
    """Sums the rows by hand and compares them with what reports and tasks say."""
    rows = [record for _, record in ledger.after(0, 10_000)]
    assert len({record.call_id for record in rows}) == len(rows)
    for by in (["task"], ["team", "user"], ["model"]):
        read: dict[str, Callable[[Record], str | None]] = {
            "task": lambda record: record.task,
            "team": lambda record: record.team,
            "user": lambda record: record.user,
            "model": lambda record: record.model or record.model_asked,
        }
        expected: dict[tuple[str | None, ...], Counter[str]] = {}
        for record in rows:
            sums = expected.setdefault(tuple(read[name](record) for name in by), Counter())
            sums["calls"] += record.count
            sums["cost_nusd"] += record.cost_nusd or 0
            sums["list_nusd"] += record.list_nusd or 0
            sums["unpriced_calls"] += record.count if record.cost_nusd is None else 0
            sums["assumed_calls"] += record.count if record.cost_source == "assumed" else 0
            sums["tokens"] += record.usage.tokens
            sums["reasoning"] += record.usage.reasoning
            sums["requests"] += sum(record.usage.requests.values())
            sums["audio_ms"] += round(record.usage.seconds * 1000)
            sums[record.result] += record.count
        report = ledger.report(by, since_ms=0, until_ms=FOREVER_MS)
        assert {row.values for row in report.rows} == set(expected)
        for row in report.rows:
            sums = expected[row.values]
            for name in ("calls", "cost_nusd", "list_nusd", "unpriced_calls", "assumed_calls", "tokens"):
                assert getattr(row, name) == sums[name]
            for name in ("reasoning", "requests", "audio_ms"):
                assert row.usage[name] == sums[name]
            for name in ("refused", "failed", "lost", "client_gone"):
                assert getattr(row, name) == sums[name]
        assert report.total.cost_nusd == sum(row.cost_nusd for row in report.rows)
    assert_tasks_equal_rows(ledger, rows)


def assert_tasks_equal_rows(ledger: Ledger, rows: list[Record]) -> None:
    for task in ("PAY-7", "PAY-8"):
        found = ledger.task(task)
        assert [totals.user for totals in found] == sorted({record.user for record in rows if record.task == task})
        for totals in found:
            mine = [record for record in rows if record.task == task and record.user == totals.user]
            assert totals.calls == sum(record.count for record in mine)
            assert totals.cost_nusd == sum(record.cost_nusd or 0 for record in mine)
            assert totals.tokens == sum(record.usage.tokens for record in mine)
            assert totals.first_at_ms == min(record.at_ms for record in mine)
            assert totals.last_at_ms == max(record.at_ms for record in mine)


def ingest_with_crashes(ledger: Ledger, batches: list[list[Record]], crashes: set[int]) -> None:
    """Every batch; those in `crashes` fail at their end once and come again, together with the one before."""

    def crash() -> None:
        raise RuntimeError("crash")

    number = 1
    before: list[Entry] = []
    for place, records in enumerate(batches):
        batch = entries(*records, first=number)
        number += len(records)
        if place in crashes:
            with pytest.raises(RuntimeError, match="crash"):
                ledger.ingest(batch, fence=crash)
            ledger.ingest(before)
        ledger.ingest(batch)
        before = batch


@settings(max_examples=40, deadline=None)
@given(batches, st.sets(st.integers(0, 5)))
def test_roll_ups_equal_the_sums_of_rows_whatever_comes_in_whatever_order(
    batches: list[list[Record]], crashes: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledger = open_ledger(f"sqlite:///{Path(directory) / 'ledger.db'}")
        ingest_with_crashes(ledger, batches, crashes)
        assert_roll_ups_equal_rows(ledger)
        ledger.close()


@settings(max_examples=6, deadline=None)
@given(batches=batches, crashes=st.sets(st.integers(0, 5)))
def test_roll_ups_equal_the_sums_of_rows_on_postgresql_too(
    postgresql: Postgresql, batches: list[list[Record]], crashes: set[int]
) -> None:
    ledger = open_ledger(postgresql.fresh_url())
    ingest_with_crashes(ledger, batches, crashes)
    assert_roll_ups_equal_rows(ledger)
    ledger.close()


def test_a_late_settle_replaces_a_lost_call_also_when_the_emptied_store_numbers_it_anew(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, result="lost", cost_nusd=9)))
    settled = ledger.ingest(entries(made(1, result="ok", cost_nusd=4), first=2))
    again = ledger.ingest(entries(made(1, result="lost", cost_nusd=9), first=3))
    assert (settled.replaced, again.ignored) == (1, 1)
    row = ledger.call(made(1).call_id)
    assert row is not None
    assert (row.result, row.cost_nusd) == ("ok", 4)
