"""The clock of outcomes: what held long enough is accepted, by the bookkeeper that is active and by no other."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.bookkeeping import outcome_clock
from proxy.bookkeeping.outcome_clock import OutcomeClock
from proxy.ledger import outcomes as outcomes_module
from proxy.ledger.database import Ledger
from proxy.store.lease import Lease, LeaseLost
from tests.support.deliveries import AT_MS, DAY, merged
from tests.support.outcome_book import Book
from tests.support.store import open_client


async def directly(work: Any) -> Any:
    return work()


async def test_all_that_is_due_is_accepted_and_counted(
    ledger: Ledger, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (outcome_clock, outcomes_module):
        monkeypatch.setattr(module, "DUE_MAX", 2)
    book, changes = Book(ledger), dict[str, int]()
    for number in range(5):
        book.tell(merged(number, cut_from=str(number), at_ms=AT_MS - number * DAY))

    def count(rule: str, state: str, number: int) -> None:
        changes[state] = changes.get(state, 0) + number

    async with open_client(store_url) as client:
        lease = Lease(client, "me")
        clock = OutcomeClock(ledger.outcomes, lease, directly, count, lambda: AT_MS + 11 * DAY)
        with pytest.raises(LeaseLost):
            await clock.tick()
        assert set(book.states()) == {"pending"}
        assert await lease.renew()
        await clock.tick()
    assert sorted(book.states()) == ["accepted", "accepted", "pending", "pending", "pending"]
    assert changes == {"accepted": 2}
