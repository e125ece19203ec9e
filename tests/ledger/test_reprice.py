"""Repricing: rows and roll-ups move together, and nothing that comes later is lost by it."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.record import Record
from proxy.ledger import reprice as module
from proxy.ledger.database import Ledger
from proxy.ledger.queries import Filters
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused

FOREVER_MS = AT_MS * 2


def at_seven(record: Record) -> Record:
    return msgspec.structs.replace(
        record, cost_nusd=7, list_nusd=7, cost_parts_nusd={"input": 7}, cost_source="policy", price_version="p2"
    )


def nobody(pairs: list[tuple[Record, Record]]) -> None:
    """No counters to charge."""
    assert all(before.call_id == after.call_id for before, after in pairs)


def cost(ledger: Ledger) -> int:
    return ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total.cost_nusd


def test_only_guessed_and_missing_prices_are_looked_at(ledger: Ledger) -> None:
    ledger.ingest(
        entries(
            made(1),
            made(2, cost_nusd=100, cost_source="assumed"),
            made(3, cost_nusd=None, list_nusd=None, cost_source="none"),
            refused(4),
        )
    )
    done = ledger.reprice(0, at_seven, nobody)
    assert (done.looked_at, done.changed, done.difference_nusd, done.next) == (2, 2, -86, None)
    assert cost(ledger) == 1_200_000 + 14
    total = ledger.report(["task"], since_ms=0, until_ms=FOREVER_MS).total
    assert (total.calls, total.unpriced_calls, total.assumed_calls) == (4, 0, 0)
    assert ledger.task("PAY-7")[0].cost_nusd == 1_200_014
    repriced = ledger.call("call000002")
    assert repriced is not None
    assert (repriced.revision, repriced.cost_source, repriced.price_version) == (2, "policy", "p2")
    assert ledger.reprice(0, at_seven, nobody).looked_at == 0


def test_what_has_no_better_price_stays_as_it_is(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_source="assumed"), made(2, cost_source="assumed")))
    seq = ledger.last_seq()
    done = ledger.reprice(0, lambda record: None if record.call_id == "call000001" else record, nobody)
    assert (done.looked_at, done.changed, ledger.last_seq()) == (2, 0, seq)


def test_calls_before_the_time_are_left_alone(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_source="assumed"), made(2, cost_source="assumed", at_ms=AT_MS + HOUR_MS)))
    assert ledger.reprice(AT_MS + HOUR_MS, at_seven, nobody).changed == 1


def test_a_long_repricing_goes_in_steps_and_meets_no_call_twice(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_CALLS", 2)
    monkeypatch.setattr(module, "STEP_CALLS_MAX", 4)
    ledger.ingest(entries(*(made(number, cost_nusd=100, cost_source="assumed") for number in range(9))))

    def dearer(record: Record) -> Record:
        """Still assumed, so that a row met again would be priced again."""
        return msgspec.structs.replace(record, cost_nusd=(record.cost_nusd or 0) + 1)

    looked_at, steps, cursor = 0, 0, None
    while True:
        done = ledger.reprice(0, dearer, nobody, cursor)
        looked_at, steps, cursor = looked_at + done.looked_at, steps + 1, done.next
        if cursor is None:
            break
    assert (looked_at, steps) == (9, 3)
    assert cost(ledger) == 9 * 101


def test_a_settle_that_comes_after_a_repricing_still_replaces_the_row(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, result="lost", cost_nusd=100, cost_source="assumed")))
    ledger.reprice(0, at_seven, nobody)
    ledger.ingest(entries(made(1, revision=2), first=2))
    [record] = ledger.calls(Filters()).records
    assert (record.revision, record.result, record.cost_nusd) == (3, "ok", 1_200_000)
    assert cost(ledger) == 1_200_000
    # The same settle once more, as after a crash, is known by the revision that the store gave.
    assert ledger.ingest(entries(made(1, revision=2), first=2)).ignored == 1


def test_a_fault_of_the_prices_leaves_the_batch_as_it_was(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_source="assumed")))

    def broken(_record: Record) -> Record:
        raise RuntimeError("no book")

    with pytest.raises(RuntimeError, match="no book"):
        ledger.reprice(0, broken, nobody)
    assert cost(ledger) == 1_200_000


@pytest.mark.parametrize("cursor", ["", "5", "a-b", "1-", "-1-2"])
def test_a_text_that_is_no_cursor_is_refused(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        ledger.reprice(0, at_seven, nobody, cursor)


def test_a_batch_whose_difference_cannot_be_charged_is_not_priced(ledger: Ledger) -> None:
    ledger.ingest(entries(made(1, cost_nusd=100, cost_source="assumed")))
    charged: list[tuple[Record, Record]] = []

    def fails(pairs: list[tuple[Record, Record]]) -> None:
        charged.extend(pairs)
        raise RuntimeError("the store is away")

    with pytest.raises(RuntimeError, match="away"):
        ledger.reprice(0, at_seven, fails)
    [(before, after)] = charged
    assert (before.cost_nusd, after.cost_nusd, after.revision) == (100, 7, 2)
    assert cost(ledger) == 100
