"""Days are closed by the active bookkeeper, and by it alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from proxy.bookkeeping import closing_days
from proxy.bookkeeping.closing_days import close_days_while_active
from proxy.ledger.errors import LedgerUnavailable


async def test_days_are_closed_while_the_lease_is_held_also_after_the_ledger_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closing_days, "LOOK_S", 0.001)
    lease = SimpleNamespace(held=False)
    asked: list[int] = []

    async def close(now_ms: int) -> int:
        asked.append(now_ms)
        if len(asked) == 1:
            raise LedgerUnavailable("away")
        return 1 if len(asked) == 2 else 0

    job = asyncio.create_task(close_days_while_active(lease, close, clock_ms=lambda: 7))  # type: ignore[arg-type]
    await asyncio.sleep(0.02)
    assert asked == []
    lease.held = True
    while len(asked) < 4:
        await asyncio.sleep(0.001)
    assert set(asked) == {7}
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
