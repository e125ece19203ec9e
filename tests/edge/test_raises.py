"""A worker knows of a raise within a second, and keeps those it knows while the database is away."""

from __future__ import annotations

import asyncio

from proxy.core.budgets import Budget
from proxy.core.raises import GivenRaise
from proxy.core.windows import Every
from proxy.edge.raises import RaiseFollower


def raised(until_ms: int, amount: int = 20) -> GivenRaise:
    return GivenRaise(
        budget="person-day",
        scope={"user": "ada"},
        amount=amount,
        unit="nusd",
        until_ms=until_ms,
        reason="launch",
        at_ms=0,
    )


def limit(follower: RaiseFollower, user: str, now_ms: int) -> int:
    budget = Budget(name="person-day", per=("user",), limit=100, every=Every.parse("day"))
    return budget.limit_for((user,), follower.current, now_ms)


async def test_raises_are_followed_and_add_up_until_they_end() -> None:
    given: list[GivenRaise] = []
    follower = RaiseFollower(lambda now_ms: list(given), clock_ms=lambda: 0, poll_s=0.001)
    await follower.start()
    assert follower.current == {}
    given += [raised(100), raised(200, amount=5)]
    async with asyncio.timeout(5):
        while not follower.current:
            await asyncio.sleep(0.001)
    assert [limit(follower, "ada", now_ms) for now_ms in (0, 99, 100, 200)] == [125, 125, 105, 100]
    assert limit(follower, "bob", 0) == 100
    await follower.close()


async def test_known_raises_stay_while_the_database_is_away() -> None:
    away = False
    asked = 0

    def read(now_ms: int) -> list[GivenRaise]:
        nonlocal asked
        asked += 1
        if away:
            raise RuntimeError("away")
        return [raised(100)]

    follower = RaiseFollower(read, clock_ms=lambda: 0, poll_s=0.001)
    await follower.start()
    away, seen = True, asked
    async with asyncio.timeout(5):
        while asked < seen + 3:
            await asyncio.sleep(0.001)
    assert limit(follower, "ada", 0) == 120
    await follower.close()
