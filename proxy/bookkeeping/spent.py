"""What counters have spent, as the ledger knows it. Blocking: call it through threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..core.budgets import Budget
from ..core.matching import Upstream
from ..core.recorded import Counted, decode_counted
from ..core.tally import Counter, Tally, by_start, is_rolled
from ..ledger.budgets import Seeding
from ..ledger.rollups import hour_of
from ..ledger.spending import Spending
from ..store.counters import Spent
from ..store.keyspace import shard_of

HOUR_MS = 3_600_000
SETTLING_MS = HOUR_MS
"""Before a new budget came, all calls of this time are looked at one by one: which policy admitted them matters."""
TURN_MS = 5_000
"""Within this time all workers have turned to a new policy."""


def spent_now(
    spending: Spending, budgets: Sequence[Budget], upstreams: Mapping[str, Upstream], now_ms: int
) -> list[Counter]:
    """Every counter of `budgets` that has spent anything in its open window, and those of the `max_cost` of task keys.

    Where hourly sums can tell, they do; else each call since the beginning of the longest window is looked at.
    """
    rolled = [budget for budget in budgets if is_rolled(budget)]
    tallies: list[Tally] = []
    for start_ms, group in by_start(rolled, now_ms).items():
        tally = Tally(group, now_ms, upstreams)
        first_ms = hour_of(start_ms + HOUR_MS - 1)
        _add_rows(spending, tally, start_ms, min(first_ms, now_ms + HOUR_MS))
        _add_hours(spending, tally, first_ms)
        tallies.append(tally)
    others = [budget for budget in budgets if not is_rolled(budget) and budget.unit != "concurrent"]
    since_ms = min((budget.every.window(now_ms)[0] for budget in others), default=now_ms)
    tally = Tally(others, now_ms, upstreams, of_keys=True)
    _add_rows(spending, tally, since_ms, None)
    tallies.append(tally)
    # The `max_cost` of task keys has no window: the few calls before that were made with one count as well.
    keys = Tally((), now_ms, upstreams, of_keys=True)
    for data in spending.records_with_max_cost(since_ms):
        keys.add(decode_counted(data))
    for name, counter in keys.counters.items():
        known = tally.counters.setdefault(name, counter)
        if known is not counter:
            known.spent = {0: known.total + counter.total}
    return [counter for tally in tallies for counter in tally.counters.values()]


def spent_before(
    spending: Spending,
    budget: Budget,
    seeding: Seeding,
    upstreams: Mapping[str, Upstream],
    *,
    now_ms: int,
    version: str,
) -> list[Counter]:
    """What the counters of a budget that is new would have spent already: calls from `from_ms` until it came, less
    those that its own policy admitted, which its counters have."""
    end_ms = seeding.since_ms + TURN_MS
    start_ms = max(seeding.from_ms, budget.every.window(now_ms)[0])
    tally = Tally((budget,), now_ms, upstreams, from_ms=start_ms, before_ms=end_ms, not_version=version)
    first_ms, last_ms = hour_of(start_ms + HOUR_MS - 1), hour_of(seeding.since_ms - SETTLING_MS)
    if not is_rolled(budget) or first_ms >= last_ms:
        _add_rows(spending, tally, start_ms, end_ms)
    else:
        _add_rows(spending, tally, start_ms, first_ms)
        _add_hours(spending, tally, first_ms, last_ms)
        _add_rows(spending, tally, last_ms, end_ms)
    return list(tally.counters.values())


def amounts(counters: Collection[Counter], *, keep: Callable[[int], bool] = lambda shard: True) -> list[Spent]:
    """As the store takes them: an amount for each window, or sub-bucket of a rolling one, of the shards to keep."""
    found = []
    for counter in counters:
        if not keep(shard_of(counter.org)):
            continue
        start_ms, end_ms, bucket_ms = counter.window
        for place_ms, amount in counter.spent.items():
            if not amount:
                continue
            stop_ms = place_ms + bucket_ms if bucket_ms else end_ms
            found.append(
                Spent(
                    org=counter.org,
                    counter=counter.scope.counter,
                    amount=amount,
                    window_start_ms=stop_ms - (end_ms - start_ms) if bucket_ms else start_ms,
                    window_end_ms=stop_ms,
                    bucket_ms=bucket_ms,
                )
            )
    return found


def _add_rows(spending: Spending, tally: Tally, since_ms: int, until_ms: int | None) -> None:
    if until_ms is None or since_ms < until_ms:
        for data in spending.records(since_ms, until_ms):
            tally.add(decode_counted(data))


def _add_hours(spending: Spending, tally: Tally, since_ms: int, until_ms: int | None = None) -> None:
    for row in spending.hours(since_ms, until_ms):
        told = Counted(
            org=row.org,
            team=row.team,
            user=row.user,
            task=row.task or None,
            agent=row.agent or None,
            upstream=row.upstream,
            provider=row.provider,
            api=row.api,
        )
        tally.add_hours(told, row.nusd, row.tokens)
