"""Figures of budgets: what counters stand at now, for the admin port. What was spent and held is the store's to say;
while it is away, the ledger knows what was spent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..core import record as records
from ..core.admission import State
from ..core.budgets import Raises, Scope
from ..core.counter_fields import counter_fields, take_of
from ..core.policy import Policy
from ..core.proven import reach_ms, with_proven
from ..core.raises import by_counter
from ..core.recorded import Seen, seen_in
from ..core.tally import Counter, Tally, counter_of
from ..ledger.database import Ledger
from ..store.client import Client
from ..store.counters import read_counters
from ..store.errors import StoreError
from ..store.keyspace import KEYS
from .spent import spent_now

TAKES = b":takes"
"""Ends the fields of a shard's drafts that hold what a call takes, not its record."""

log = logging.getLogger("callmeter.bookkeeper")


class BudgetFigures:
    """What the admin port shows of budgets. Raises LedgerUnavailable."""

    def __init__(
        self, client: Client, ledger: Ledger, *, policy: Callable[[], Policy], clock_ms: Callable[[], int]
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._policy = policy
        self._clock_ms = clock_ms

    async def counters(self) -> list[dict[str, Any]]:
        """Every counter with anything spent or held in its open window, by the name of its budget, then by scope:
        never in the order of what people spent."""
        policy, now_ms = self._policy(), self._clock_ms()
        found = await asyncio.to_thread(spent_now, self._ledger.spending, policy.counted, policy.upstreams, now_ms)
        known = {counter.scope.counter: counter for counter in found}
        running = Tally(policy.counted, now_ms, policy.upstreams, of_keys=True)
        for seen in await self._running(policy):
            running.meet(seen)
        for name, counter in running.counters.items():
            known.setdefault(name, counter)
        shown = await self._shown(list(known.values()), now_ms)
        return sorted(shown, key=lambda fields: (fields["name"], list(fields["scope"].items())))

    async def met_by(self, seen: Seen) -> list[dict[str, Any]]:
        """The counters that a call meets, in the order of the policy."""
        policy, now_ms = self._policy(), self._clock_ms()
        scopes: Sequence[Scope] = policy.scopes_for(*seen)
        return await self._shown([counter_of(seen[0], scope, now_ms) for scope in scopes], now_ms)

    async def _shown(self, found: Sequence[Counter], now_ms: int) -> list[dict[str, Any]]:
        raises = await asyncio.to_thread(self._raises, now_ms)
        states = await self._states(found)
        return [counter_fields(counter, state, raises, now_ms) for counter, state in zip(found, states, strict=True)]

    def _raises(self, now_ms: int) -> Raises:
        """Those that were given, and those that outcomes are."""
        given, rules = by_counter(self._ledger.raises.open(now_ms)), self._policy().unproven
        return with_proven(given, rules, self._ledger.outcomes.proven(0, reach_ms(rules, now_ms))) if rules else given

    async def _states(self, found: Sequence[Counter]) -> list[State]:
        by_org: dict[str, list[int]] = {}
        for place, counter in enumerate(found):
            by_org.setdefault(counter.org, []).append(place)
        states = [State(counter.total, 0) for counter in found]
        try:
            for org, places in by_org.items():
                read = await read_counters(self._client, org, [take_of(found[place]) for place in places])
                for place, state in zip(places, read, strict=True):
                    states[place] = state
        except StoreError as away:
            log.debug("budgets are shown as the ledger knows them: %s", away)
        return states

    async def _running(self, policy: Policy) -> list[Seen]:
        """Who has calls that run now."""
        try:
            replies = await self._client.pipeline(("HGETALL", keys.drafts) for keys in KEYS)
        except StoreError:
            return []
        seen = []
        for fields in replies:
            for field, data in zip(fields[0::2], fields[1::2], strict=True):
                if not field.endswith(TAKES):
                    try:
                        seen.append(seen_in(records.decode(data), policy.upstreams))
                    except msgspec.MsgspecError:
                        pass  # of a newer version; the sweeper says so when it matters
        return seen
