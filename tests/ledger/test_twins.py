"""Twins: tasks that are the same work, told by what their calls repeat, in the order of names."""

from __future__ import annotations

from proxy.ledger.database import Ledger
from proxy.ledger.twins import Repeat, TwinGroup
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made

FOREVER_MS = AT_MS * 2


def groups_of(ledger: Ledger, since_ms: int = 0, until_ms: int = FOREVER_MS) -> list[TwinGroup]:
    return ledger.twins(since_ms=since_ms, until_ms=until_ms)


def names(groups: list[TwinGroup]) -> list[list[tuple[str, str]]]:
    return [[(task.task, task.user) for task in group.tasks] for group in groups]


def test_a_task_that_repeats_another_stands_with_it_and_one_of_them_has_its_cost(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, task="PAY-7"),
            made(2, task="PAY-7", cost_nusd=800_000),
            made(3, task="PAY-3", twin_of="call000001", twin_rule="same-work", twin_kind="task", cost_nusd=5),
            made(4, task="PAY-3", twin_of="call000002", cost_nusd=6),
            made(5, task="DOCS-1"),
        )
    )
    [group] = groups_of(ledger)
    assert names([group]) == [[("PAY-3", "ada"), ("PAY-7", "ada")]]
    assert (group.calls, group.cost_nusd, group.one_cost_nusd) == (4, 2_000_011, 2_000_000)
    assert [task.repeat for task in group.tasks] == [
        Repeat("call000003", "call000001", "PAY-7", "ada", "same-work", "task"),
        None,
    ]


def test_twins_of_twins_are_one_group_and_groups_stand_by_name(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, task="Z-1", cost_nusd=10**9),
            made(2, task="Z-2", twin_of="call000001"),
            made(3, task="B-2"),
            made(4, task="C-9", twin_of="call000003"),
            made(5, task="A-5", user="bob", twin_of="call000004"),
        )
    )
    assert names(groups_of(ledger)) == [
        [("A-5", "bob"), ("B-2", "ada"), ("C-9", "ada")],
        [("Z-1", "ada"), ("Z-2", "ada")],
    ]


def test_the_same_task_of_two_people_is_two_pieces_of_work(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, user="bob", task_source="header", twin_of="call000001")))
    assert names(groups_of(ledger)) == [[("PAY-7", "ada"), ("PAY-7", "bob")]]


def test_conversations_of_one_task_are_told_apart_where_sessions_are_told(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, session="one"),
            made(2, session="one", cost_nusd=800_000),
            made(3, session="two", twin_of="call000001"),
            made(4, session="three", twin_of="call000001"),
            made(5, session="four", task="PAY-8", twin_of="call000001"),
            made(6, session="three", twin_of="call000004"),
        )
    )
    [group] = groups_of(ledger)
    assert [(task.task, task.conversations, task.calls) for task in group.tasks] == [("PAY-7", 3, 5), ("PAY-8", 1, 1)]
    assert (group.cost_nusd, group.one_cost_nusd) == (6_800_000, 2_000_000)


def test_a_call_that_repeats_its_own_task_makes_no_group(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, repeats=1, twin_of="call000001"), made(3, repeats=2, twin_of="call000001")))
    assert groups_of(ledger) == []


def test_calls_without_a_task_of_another_org_or_of_an_unknown_twin_make_no_group(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1, task=None),
            made(2, task="A-1", twin_of="call000001"),
            made(3, task="A-2", twin_of="call999999"),
            made(4, task="A-3", org="other", twin_of="call000002"),
        )
    )
    assert groups_of(ledger) == []


def test_only_repeats_of_the_time_asked_for_make_a_group_and_its_cost_is_whole(ledger: Ledger) -> None:
    ledger.ingest(
        entries(made(1), made(2, task="PAY-8", at_ms=AT_MS + 5 * HOUR_MS, twin_of="call000001", revision=1), first=1)
    )
    assert groups_of(ledger, AT_MS + 6 * HOUR_MS) == groups_of(ledger, 0, AT_MS + 5 * HOUR_MS) == []
    [group] = groups_of(ledger, AT_MS + 5 * HOUR_MS)
    assert group.cost_nusd == 2_400_000


def test_a_twin_whose_record_came_later_is_found_all_the_same(ledger: Ledger) -> None:
    ledger.ingest(entries(made(2, task="PAY-8", twin_of="call000001")))
    assert groups_of(ledger) == []
    ledger.ingest(entries(made(1), first=2))
    assert len(groups_of(ledger)) == 1


def test_a_repriced_or_replaced_call_changes_what_its_group_costs(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1), made(2, task="PAY-8", result="lost", cost_nusd=9, twin_of="call000001")))
    ledger.ingest(entries(made(2, task="PAY-8", revision=2, twin_of="call000001"), first=3))
    [group] = groups_of(ledger)
    assert (group.calls, group.cost_nusd, group.one_cost_nusd) == (2, 2_400_000, 1_200_000)
