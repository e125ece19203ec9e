"""Outcomes in the ledger: from deliveries in any order to rows whose state is right, each change once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count, permutations
from typing import Any

import msgspec
import pytest

from proxy.core.globs import Globs
from proxy.core.happenings import Landing, Told, told_by
from proxy.core.outcomes import OutcomeMatch, OutcomeRule, counts
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.outcomes import DELIVERIES_KEPT_MS, Delivery
from proxy.ledger.reader import open_reader
from proxy.wire.webhooks import read
from tests.support.deliveries import (
    AT_MS,
    DAY,
    MINUTE,
    commit,
    deployed,
    github,
    merged,
    pushed,
    reopened,
    reverting,
)
from tests.support.outcome_book import MERGED, Book

SHIPPED = msgspec.structs.replace(MERGED, name="shipped", event="deployment_status.success")
PUSHED = msgspec.structs.replace(MERGED, name="pushed", event="push")
_orgs = count()


def told_of(payload: Mapping[str, Any], rule: OutcomeRule = MERGED) -> Told:
    body, headers = github(payload)
    return told_by(rule, read(rule, headers, body, AT_MS), AT_MS)


@pytest.fixture
def book(ledger: Ledger) -> Book:
    return Book(ledger)


def test_a_merged_change_is_pending_and_then_accepted(book: Book) -> None:
    book.tell(merged())
    found = book.one()
    assert (found.task, found.repo, found.base, found.kind, found.source) == (
        "PAY-7", "acme/pay", "main", "merged", "signed",
    )  # fmt: skip
    assert (found.state, found.landed_ms, found.due_ms, counts(found)) == ("pending", AT_MS, AT_MS + 14 * DAY, 0)
    assert found.reviewed is True
    book.wait(13.9)
    assert book.one().state == "pending"
    book.wait(14)
    accepted = book.one()
    assert (accepted.state, accepted.accepted_ms, counts(accepted)) == ("accepted", AT_MS + 14 * DAY, 1)
    assert accepted.changed_ms == book.now_ms


def test_a_delivery_that_comes_twice_counts_once(book: Book) -> None:
    book.tell(merged(), identity="same")
    assert book.tell(merged(), identity="same") == []
    assert book.one().deliveries == 1
    book.tell(merged(), identity="sent again by hand")
    assert book.one().deliveries == 2


def test_one_change_cut_into_fifty_pull_requests_counts_once(book: Book) -> None:
    for number in range(50):
        book.tell(merged(number))
    book.wait(15)
    found = book.one()
    assert (found.state, found.deliveries, counts(found)) == ("accepted", 50, 1)


def test_other_merge_bases_and_other_tasks_are_other_changes(book: Book) -> None:
    book.tell(merged(1))
    book.tell(merged(2, cut_from="later"))
    book.tell(merged(3, title="PAY-8 also"))
    assert len(book.all()) == 3


def test_a_rule_per_task_counts_all_changes_of_a_task_once(book: Book) -> None:
    rule = msgspec.structs.replace(MERGED, per="task", weight=3)
    for number in range(5):
        book.tell(merged(number, cut_from=f"base {number}"), rule)
    book.wait(15)
    assert counts(book.one()) == 3


REVERTS = {
    "push": pushed(("revert", reverting(7)), at_ms=AT_MS + 2 * MINUTE),
    "pull request": merged(8, title='Revert "PAY-7"', body="Reverts acme/pay#7", at_ms=AT_MS + 2 * MINUTE),
    "issue": reopened("PAY-7 is back", at_ms=AT_MS + 2 * MINUTE),
}


@pytest.mark.parametrize("how", REVERTS)
def test_what_is_taken_back_is_undone_and_a_change_that_only_undoes_counts_nothing(book: Book, how: str) -> None:
    book.tell(merged())
    book.now_ms += 5 * MINUTE
    book.tell(REVERTS[how])
    book.wait(30)
    found = book.one()
    assert (found.state, found.undone_ms, counts(found)) == ("undone", AT_MS + 2 * MINUTE, 0)
    assert found.reason == ("reopened" if how == "issue" else "reverted")


@pytest.mark.parametrize("how", ["push", "pull request"])
def test_a_revert_that_is_heard_of_before_the_merge(book: Book, how: str) -> None:
    book.now_ms += 5 * MINUTE
    book.tell(REVERTS[how])
    assert book.all() == []
    book.tell(merged())
    assert book.one().state == "undone"


def test_a_revert_whose_clock_is_behind_undoes_all_the_same(book: Book) -> None:
    book.tell(merged())
    book.tell(pushed(("revert", reverting(7)), at_ms=AT_MS - DAY))
    assert (book.one().state, book.one().undone_ms) == ("undone", AT_MS)


def test_a_clock_that_is_ahead_puts_nothing_into_the_future(book: Book) -> None:
    book.tell(merged(at_ms=AT_MS + 300 * DAY))
    assert book.one().landed_ms == book.now_ms


def test_a_revert_on_another_branch_undoes_nothing(book: Book) -> None:
    book.tell(merged())
    book.tell(pushed(("revert", reverting(7)), base="play"))
    book.tell(merged(8, body="Reverts #7", base="play", title="x"))
    assert book.one().state == "pending"


def test_a_revert_after_acceptance_changes_nothing_and_one_heard_of_late_does(book: Book) -> None:
    book.tell(merged(1))
    book.tell(merged(2, cut_from="two"))
    book.wait(20)
    assert book.states() == ["accepted", "accepted"]
    book.tell(pushed(("late", reverting(1)), at_ms=AT_MS + 19 * DAY))
    book.tell(pushed(("in time", reverting(2)), at_ms=AT_MS + 13 * DAY))
    assert sorted(book.states()) == ["accepted", "undone"]


def test_a_revert_of_the_revert_lands_the_change_again_and_its_time_begins_anew(book: Book) -> None:
    again = f'Reapply "x"\n\nThis reverts commit {commit("revert")}.\n'
    book.now_ms = AT_MS + 5 * DAY
    steps = [
        merged(),
        pushed(("revert", reverting(7)), at_ms=AT_MS + DAY),
        pushed(("again", again), at_ms=AT_MS + 3 * DAY),
    ]
    for step in steps:
        book.tell(step)
    assert (book.one().state, book.one().landed_ms) == ("pending", AT_MS + 3 * DAY)
    book.wait(16.9)
    assert book.one().state == "pending"
    book.wait(17)
    assert book.one().state == "accepted"


def test_the_order_of_deliveries_does_not_matter(book: Book) -> None:
    steps = [merged(1), merged(2), pushed(("revert", reverting(1))), deployed("merge 1")]
    seen = set()
    for order in permutations(steps):
        org = str(next(_orgs))
        for step in order:
            for rule in (MERGED, SHIPPED):
                book.tell(step, msgspec.structs.replace(rule, org=org))
        there = sorted(book.ledger.outcomes.list(org=org), key=lambda each: each.rule)
        seen.add(repr([(each.rule, each.task, each.state, each.landed_ms, each.undone_ms) for each in there]))
    assert len(seen) == 1
    assert "shipped" in seen.pop()


def test_a_change_keeps_the_task_that_it_had_when_it_landed(book: Book) -> None:
    book.tell(merged(7, title="PAY-7 refund"))
    book.tell(merged(7, title="PAY-666 mine now"))
    assert (book.one().task, book.one().deliveries) == ("PAY-7", 2)


def test_an_outcome_of_no_known_task_is_kept_and_takes_the_task_that_is_told_later(book: Book) -> None:
    book.tell(merged(title="no ticket"))
    assert (book.one().task, book.one().state) == ("", "pending")
    book.tell(pushed(("merge 7", "Merge pull request #7\n\nTask: PAY-7\n")))
    found = book.one()
    assert (found.task, found.state, found.deliveries) == ("PAY-7", "pending", 1)
    book.tell(pushed(("revert", reverting(7))))
    assert book.one().state == "undone", "it is still known by its commit"


def test_a_task_that_is_told_after_a_revert_lands_nothing_again(book: Book) -> None:
    book.now_ms = AT_MS + DAY
    book.tell(merged(title="no ticket"))
    book.tell(pushed(("revert", reverting(7)), at_ms=AT_MS + MINUTE))
    book.tell(pushed(("merge 7", "Merge\n\nTask: PAY-7\n"), at_ms=AT_MS + 2 * MINUTE))
    assert (book.one().task, book.one().state) == ("PAY-7", "undone")


def test_two_changes_that_turn_out_to_be_one_become_one(book: Book) -> None:
    book.tell(merged(7, title="no ticket"))
    book.tell(merged(8, title="PAY-7"))
    assert len(book.all()) == 2
    book.tell(pushed(("merge 7", "Merge\n\nTask: PAY-7\n")))
    assert (book.one().task, book.one().deliveries) == ("PAY-7", 2)
    book.tell(pushed(("revert", reverting(8))))
    assert book.one().state == "undone"


def test_a_task_that_is_told_before_the_merge(book: Book) -> None:
    book.tell(pushed(("merge 7", "Merge\n\nTask: PAY-7\n")))
    book.tell(merged(title="no ticket"))
    assert book.one().task == "PAY-7"


@pytest.mark.parametrize("merged_first", [True, False])
def test_a_deployment_has_the_task_of_the_change_that_it_ships(book: Book, merged_first: bool) -> None:
    steps = [merged(7, title="PAY-7"), deployed("merge 7")]
    for step in steps if merged_first else reversed(steps):
        book.tell(step, SHIPPED)
    found = book.one()
    assert (found.rule, found.kind, found.task, found.base) == ("shipped", "deployed", "PAY-7", "production")


def test_a_commit_that_is_deployed_again_takes_back_what_came_after_it(book: Book) -> None:
    book.now_ms = AT_MS + DAY
    book.tell(deployed("one", 1, description="PAY-1"), SHIPPED)
    book.tell(deployed("two", 2, description="PAY-2", at_ms=AT_MS + MINUTE), SHIPPED)
    book.tell(deployed("two", 3, description="PAY-2", at_ms=AT_MS + MINUTE, environment="staging"), SHIPPED)
    book.tell(deployed("one", 4, at_ms=AT_MS + 2 * MINUTE), SHIPPED)
    by_place = {(each.task, each.base): (each.state, each.reason) for each in book.all()}
    assert by_place == {
        ("PAY-1", "production"): ("pending", ""),
        ("PAY-2", "production"): ("undone", "rolled_back"),
        ("PAY-2", "staging"): ("pending", ""),
    }
    book.tell(deployed("two", 5, at_ms=AT_MS + 3 * MINUTE), SHIPPED)
    assert {(each.task, each.base): each.state for each in book.all()}["PAY-2", "production"] == "pending"


def test_the_same_commit_deployed_twice_is_one_outcome(book: Book) -> None:
    for number in range(3):
        book.tell(deployed("one", number + 1, description="PAY-1", at_ms=AT_MS + number), SHIPPED)
    assert (len(book.all()), book.one().state) == (1, "pending")


def test_a_deployment_that_fails_after_all_is_undone(book: Book) -> None:
    book.tell(deployed("one", 1, description="PAY-1"), SHIPPED)
    book.tell(deployed("one", 1, state="failure", at_ms=AT_MS + 1), SHIPPED)
    assert (book.one().state, book.one().reason) == ("undone", "failed")


def test_a_revert_of_what_was_deployed_undoes_the_deployment_too(book: Book) -> None:
    book.tell(deployed("merge 7", description="PAY-7"), SHIPPED)
    book.tell(pushed(("revert", reverting(7))), SHIPPED)
    assert book.one().state == "undone"


def test_a_push_of_many_commits_is_one_change_and_a_revert_in_it_undoes_another(book: Book) -> None:
    book.tell(pushed(("a", "PAY-1 begin"), ("b", "PAY-1 end")), PUSHED)
    assert (book.one().kind, book.one().task) == ("pushed", "PAY-1")
    book.tell(pushed(("c", f"x\n\nThis reverts commit {commit('a')}."), before="b"), PUSHED)
    assert (len(book.all()), book.one().state) == (1, "undone")


def test_standard_webhooks_land_and_take_back_by_change_or_by_task(book: Book) -> None:
    book.tell_standard("issue.closed", {"task": "OPS-1", "change": "c1", "repo": "infra"})
    book.tell_standard("issue.closed", {"task": "OPS-2", "change": "c2"})
    book.tell_standard("issue.closed", {"task": "OPS-3"})
    book.tell_standard("deploy.rolled_back", {"change": "c1"}, sent_ms=AT_MS + 2 * MINUTE)
    book.tell_standard("issue.reopened", {"task": "OPS-3"}, sent_ms=AT_MS + 2 * MINUTE)
    found = {each.task: (each.state, each.reason) for each in book.all()}
    assert found == {
        "OPS-1": ("undone", "rolled_back"),
        "OPS-2": ("pending", ""),
        "OPS-3": ("undone", "reopened"),
    }


def test_a_task_that_was_reopened_before_a_change_landed_does_not_undo_it(book: Book) -> None:
    book.tell_standard("issue.reopened", {"task": "OPS-3"}, sent_ms=AT_MS - DAY)
    book.tell_standard("issue.closed", {"task": "OPS-3"})
    assert book.one().state == "pending"


def test_an_outcome_of_one_org_is_not_undone_by_another(book: Book) -> None:
    other = msgspec.structs.replace(MERGED, name="theirs", org="other")
    book.tell(merged())
    book.tell(pushed(("revert", reverting(7))), other)
    assert book.one().state == "pending"


def test_what_nobody_declared_a_rule_for_is_never_accepted(book: Book) -> None:
    book.tell(merged(), msgspec.structs.replace(MERGED, accepted_after_ms=None))
    book.wait(1000)
    assert (book.one().state, book.one().due_ms) == ("pending", None)


def test_a_rule_that_changes_does_not_move_what_landed_before(book: Book) -> None:
    book.tell(merged())
    book.tell(merged(), msgspec.structs.replace(MERGED, accepted_after_ms=0, weight=1000))
    assert (book.one().state, book.one().weight) == ("pending", 1)


def test_old_deliveries_are_forgotten_and_outcomes_are_not(book: Book) -> None:
    book.tell(merged(), identity="old")
    book.ledger.outcomes.forget_old(book.now_ms + DELIVERIES_KEPT_MS + 1)
    assert book.tell(merged(), identity="old") != []
    assert len(book.all()) == 1


def test_acceptance_is_fenced(book: Book) -> None:
    book.tell(merged())

    def lost() -> None:
        raise RuntimeError("the lease is another's")

    with pytest.raises(RuntimeError):
        book.ledger.outcomes.accept_due(AT_MS + 15 * DAY, lost)
    assert book.one().state == "pending"


def test_workers_and_the_bookkeeper_learn_of_proven_tasks_alike(book: Book, ledger_url: str) -> None:
    book.tell(merged())
    book.tell(merged(8, title="PAY-8", cut_from="x", at_ms=AT_MS - DAY))
    reader = open_reader(ledger_url)
    for read_proven in (book.ledger.outcomes.proven, reader.proven_tasks):
        found = sorted(read_proven(0, 0), key=lambda each: each.task)
        assert [(each.task, each.org, each.stands) for each in found] == [
            ("PAY-7", "default", True),
            ("PAY-8", "default", True),
        ]
        assert [each.task for each in read_proven(0, AT_MS)] == ["PAY-7"]
        assert read_proven(book.now_ms + 1, 0) == []
    changed_ms = book.now_ms = book.now_ms + MINUTE
    book.tell(pushed(("revert", reverting(7))))
    (gone,) = reader.proven_tasks(changed_ms, 0)
    assert (gone.task, gone.state, gone.stands) == ("PAY-7", "undone", False)
    reader.close()


def test_two_bookkeepers_of_one_ledger_take_each_delivery_once(book: Book, ledger_url: str) -> None:
    """A webhook may come to the host that stands by, and to both where a load balancer tries again."""
    other = open_ledger(ledger_url)
    told = [
        Delivery(rule=MERGED, identity=str(number), told=told_of(merged(number, cut_from=str(number))))
        for number in range(40)
    ]
    with ThreadPoolExecutor(2) as threads:
        batches = [(ledger, told[start : start + 10]) for start in range(0, 40, 10) for ledger in (book.ledger, other)]
        taken = list(threads.map(lambda batch: batch[0].outcomes.take(batch[1], book.now_ms)[0], batches))
    assert sum(not each.repeated for batch in taken for each in batch) == 40
    assert {outcome.deliveries for outcome in book.all()} == {1}
    assert len(book.all()) == 40
    other.close()


# -- ways to game outcomes --------------------------------------------------------------------------------------------


def test_self_approval_is_no_outcome_where_the_rule_asks_for_a_review(book: Book) -> None:
    rule = msgspec.structs.replace(MERGED, match=OutcomeMatch(reviewed=True))
    book.tell(merged(1, author="ada", merged_by="ada"), rule)
    book.tell(merged(2, author="ada", merged_by=None), rule)
    assert book.all() == []
    book.tell(merged(3, author="ada", merged_by="bob"), rule)
    assert book.one().reviewed is True


def test_agents_that_merge_for_each_other_are_kept_out_by_name(book: Book) -> None:
    match = OutcomeMatch((("merged_by", Globs(["ada", "bob"])),), (("author", Globs("*[bot]")),), True)
    rule = msgspec.structs.replace(MERGED, match=match)
    book.tell(merged(1, author="one[bot]", merged_by="two[bot]"), rule)
    book.tell(merged(2, author="one[bot]", merged_by="ada"), rule)
    book.tell(merged(3, author="two", merged_by="one[bot]"), rule)
    assert book.all() == []
    book.tell(merged(4, author="ada", merged_by="bob"), rule)
    assert book.one().state == "pending"


def test_merge_and_revert_and_merge_again_comes_to_one_outcome_at_most(book: Book) -> None:
    book.now_ms = AT_MS + 10 * DAY
    for turn in range(3):
        at_ms = AT_MS + turn * DAY
        book.tell(merged(7 + turn, at_ms=at_ms))
        book.tell(pushed((f"revert {turn}", reverting(7 + turn)), at_ms=at_ms + 1))
    book.wait(60)
    assert (book.one().state, counts(book.one())) == ("undone", 0)


def test_a_merge_of_somebody_elses_task_is_not_moved_by_a_later_word(book: Book) -> None:
    book.tell(merged(7, title="PAY-7"))
    book.tell(pushed(("merge 7", "Merge\n\nTask: MINE-1\n")))
    assert book.one().task == "PAY-7"


def test_what_a_person_declares_is_no_signed_outcome_whatever_it_is_called(book: Book) -> None:
    landing = Landing(
        task="PAY-7", kind="declared", repo="", base="", change="c", refs=(), told=(), reviewed=None, at_ms=AT_MS
    )
    rule = OutcomeRule(name="", origin="declared", accepted_after_ms=None)
    told = Told(landings=(landing,))
    book.ledger.outcomes.take([Delivery(rule=rule, identity="x", told=told, source="self_declared")], book.now_ms)
    book.wait(365)
    assert (book.one().source, book.one().state, counts(book.one())) == ("self_declared", "pending", 0)
    assert [each.stands for each in book.ledger.outcomes.proven(0, 0)] == [False]
