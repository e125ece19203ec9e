"""Arrears: spend that counters lack when the ledger learns of it. Paid before it does, once for each name, so that a
process that dies in between pays again without harm.

* Records that came so late that the store could not tell whether their counters were charged.
* Calls that another policy admitted while a budget was new: the counters of the new one were seeded without them.
* Calls that are priced again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from ..core.budgets import Budget
from ..core.matching import Upstream
from ..core.policy import Policy
from ..core.record import Record, encode
from ..core.recorded import decode_counted
from ..core.tally import Tally
from ..ledger.database import Ledger
from ..ledger.entry import Entry
from ..store.client import Client
from ..store.counters import Spent, charge_late, seed
from ..store.errors import StoreRebuilding
from .spent import TURN_MS, amounts

YOUNG_MS = 5 * 3600 * 1000
"""How long after a budget came calls may end that were admitted without it: the longest takes 4 hours."""


class Young(msgspec.Struct, frozen=True):
    """A budget that came a short time ago, and the versions of the policy that are known to hold it."""

    budget: Budget
    since_ms: int
    versions: frozenset[str]


class Arrears(msgspec.Struct):
    """What has to be paid for some records."""

    late: list[Entry] = []
    spent: list[tuple[Spent, str]] = []
    """What to add, each with the name under which it is added once."""

    def __bool__(self) -> bool:
        return bool(self.late or self.spent)

    async def pay(self, client: Client) -> None:
        """Repeatable. Counters that are about to be set from the ledger get it from there. Raises StoreError."""
        outcomes = await asyncio.gather(
            *[charge_late(client, entry.record, entry.uncharged) for entry in self.late],
            *[seed(client, spent, name) for spent, name in self.spent],
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreRebuilding):
                raise outcome


def arrears_of(
    entries: Sequence[Entry], ledger: Ledger, young: Sequence[Young], upstreams: Mapping[str, Upstream], now_ms: int
) -> Arrears:
    """Of records that the ledger is about to take. Blocking; raises LedgerUnavailable."""
    found = Arrears()
    newest_ms = max((each.since_ms for each in young), default=0) + TURN_MS
    suspects = [entry for entry in entries if entry.uncharged or entry.record.at_ms < newest_ms]
    if not suspects:
        return found
    known = ledger.known({entry.record.call_id for entry in suspects})
    for entry in suspects:
        record, before = entry.record, known.get(entry.record.call_id)
        if before is not None and before.revision >= record.revision:
            continue
        if entry.uncharged and before is None:
            found.late.append(entry)
        for each in young:
            if admitted_before(each, record):
                name = f"young{each.since_ms}:{record.call_id}:{record.revision}"
                owed = difference((each.budget,), before, record, upstreams, now_ms)
                found.spent += [(spent, name) for spent in owed]
    return found


def admitted_before(young: Young, record: Record) -> bool:
    """Whether a call was admitted by a policy that did not have the budget yet."""
    return record.at_ms < young.since_ms + TURN_MS and record.policy_version not in young.versions


def repriced(pairs: Sequence[tuple[Record, Record]], policy: Policy, now_ms: int) -> Arrears:
    """Of calls that are priced again: (as it was, as it is)."""
    return Arrears(
        spent=[
            (spent, f"priced:{after.call_id}:{after.revision}")
            for before, after in pairs
            for spent in difference(policy.counted, before, after, policy.upstreams, now_ms, of_keys=True)
        ]
    )


def difference(
    budgets: Sequence[Budget],
    before: Record | None,
    after: Record,
    upstreams: Mapping[str, Upstream],
    now_ms: int,
    *,
    of_keys: bool = False,
) -> list[Spent]:
    """By how much one record spends more than another of the same call, in the open windows of these budgets."""
    found: dict[tuple[str, int], Spent] = {}
    for record, sign in ((after, 1), (before, -1)):
        if record is None:
            continue
        tally = Tally(budgets, now_ms, upstreams, of_keys=of_keys)
        tally.add(decode_counted(encode(record)))
        for spent in amounts(tally.counters.values()):
            place = spent.counter, spent.window_end_ms
            so_far = found[place].amount if place in found else 0
            found[place] = msgspec.structs.replace(spent, amount=so_far + sign * spent.amount)
    return [spent for spent in found.values() if spent.amount]
