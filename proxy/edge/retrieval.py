"""Retrievals: calls whose cost comes later. The first retrieval that shows usage settles them, once for each item,
charged to the one who made them; the retrieval itself is a free call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ..core import settlement
from ..core.admission import Take
from ..core.call import Call
from ..core.later import ENDED_UNSEEN, item_call_id, takes_of
from ..core.policy import Policy
from ..core.prices import Prices
from ..core.record import Record
from ..core.usage import Usage
from ..store.calls import CallStore, StoreUnavailable
from ..wire.reading import Item, Reading

RETRY_S_FIRST = 0.25
RETRY_S_MAX = 60.0
"""Pauses double up to this; about two minutes in all, then the next retrieval has to do it."""

log = logging.getLogger("callmeter.edge")

FindCall = Callable[[str, str, str], Awaitable[Record | None]]
"""(org, upstream, id at the provider) -> the record in the ledger, for answers older than the store's memory."""


class Retrievals:
    def __init__(
        self,
        *,
        store: CallStore,
        find_call: FindCall,
        prices: Callable[[], Prices],
        policy: Callable[[], Policy],
    ) -> None:
        self._store = store
        self._find_call = find_call
        self._prices = prices
        self._policy = policy

    async def wait_for(self, record: Record, later_id: str, taken: Sequence[Take]) -> None:
        """Remembers who made a call whose usage comes later, and holds what it took until then. Raises nothing but
        CancelledError."""
        await self._store.remember_later(record.org, record.upstream, later_id, record, taken, holds=True)

    async def follow(self, record: Record, call: Call, reading: Reading) -> None:
        """Does what `_follow` does, again and again while store or ledger are away: an agent may retrieve its answer
        only once. Never raises."""
        pause_s = RETRY_S_FIRST
        while True:
            try:
                return await self._follow(record, call, reading)
            except Exception as error:
                if pause_s > RETRY_S_MAX:
                    log.error("what call %s retrieved is not settled: %s", record.call_id, error)
                    return None
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _follow(self, record: Record, call: Call, reading: Reading) -> None:
        """Settles calls whose usage an answer shows, and ends what was held for it."""
        about = reading.outcome_of or call.retrieves
        unseen = ENDED_UNSEEN.intersection(reading.finish_reasons) if reading.usage is None else None
        if about is None or not (reading.outcome_of or reading.items or reading.files or unseen):
            return
        made = await self._store.recall_later(record.org, record.upstream, about)
        made = made or await self._find_call(record.org, record.upstream, about)
        if made is None:
            if not self._store.healthy:
                raise StoreUnavailable("nobody can say who made it")
            return  # made elsewhere: somebody else's proxy, or none, has it on its books
        known = await self._store.recall_takes(record.org, record.upstream, about)
        taken = takes_of(made, known, self._policy())
        for file_id in reading.files:
            await self._store.remember_later(record.org, record.upstream, file_id, made, taken)
        late = bool(reading.items) and await self._store.shown_long_ago(made)
        for item in reading.items:
            await self._settle_item(made, item, taken, late=late)
        if unseen or all_shown(record, call, reading):
            await self._settle_unseen(made, reading, taken)
        elif reading.usage is not None and made.usage_source != "reported":
            await self._settle_answer(made, reading, taken)

    async def _settle_answer(self, made: Record, reading: Reading, taken: Sequence[Take]) -> None:
        """A background answer: its record's next revision has the usage. Repeats are the same revision, so no-ops."""
        assert reading.usage is not None
        settled = msgspec.structs.replace(
            made,
            revision=made.revision + 1,
            usage=reading.usage,
            usage_source="reported",
            model=reading.model or made.model,
            finish_reasons=reading.finish_reasons,
            service_tier=reading.service_tier or made.service_tier,
            estimate={name: value for name, value in made.estimate.items() if name != "later"},
        )
        settlement.price(settled, told=reading, prices=self._prices(), billing=self._billing(made))
        await self._store.settle(settled, taken)
        await self._store.end_later(made, taken)

    async def _settle_unseen(self, made: Record, reading: Reading, taken: Sequence[Take]) -> None:
        """A batch whose items are settled, or a call that ended and will never show what it used. One that was
        cancelled has worked until then, so it counts as it was expected to; others cost nothing."""
        settled = msgspec.structs.replace(
            made,
            revision=made.revision + 1,
            finish_reasons=reading.finish_reasons,
            cost_nusd=0,
            list_nusd=0,
            estimate={name: value for name, value in made.estimate.items() if name != "later"},
        )
        if "cancelled" in reading.finish_reasons and not settlement.settled_by_item(made):
            settled.usage = Usage(input=made.estimate.get("input", 0), output=made.estimate.get("output", 0))
            settled.usage_source = "estimated"
            settlement.price(settled, told=None, prices=self._prices(), billing=self._billing(made))
        elif not reading.items:
            settled.result, settled.error = "failed", reading.error or reading.finish_reasons[0]
        await self._store.settle(settled, taken)
        await self._store.end_later(made, taken)

    async def _settle_item(self, made: Record, item: Item, taken: Sequence[Take], *, late: bool) -> None:
        """One item of a batch: a record of its own, whose id follows from batch and item, so that it exists once.
        `late`: the results were fetched before, long ago, and may be charged."""
        usage = item.usage or Usage()
        settled = msgspec.structs.replace(
            made,
            call_id=item_call_id(made.call_id, item.item_id),
            revision=1,
            usage=usage,
            usage_source="reported" if item.usage is not None else "none",
            model=item.model or made.model,
            model_asked=made.model_asked or item.model,
            upstream_call_id=item.upstream_call_id,
            service_tier="batch",
            finish_reasons=[],
            span_id="",  # its spans get ids that follow from its call_id, below the span that made the batch
            client_span_id="",
            parent_span_id=made.span_id,
            ms_total=0,
            ms_first_byte=None,
            ms_overhead=0,
            estimate={},
            result="failed" if item.error else "ok",
            error=item.error,
            cost_nusd=0,
            list_nusd=0,
            hold_nusd=0,
        )
        if item.usage is not None:
            settlement.price(settled, told=None, prices=self._prices(), billing=self._billing(made), batch=True)
        await self._store.settle(settled, taken, late=late)

    def _billing(self, made: Record) -> str:
        upstream = self._policy().upstream_for(made.upstream)
        return upstream.billing if upstream is not None else "metered"


def all_shown(record: Record, call: Call, reading: Reading) -> bool:
    """Whether every item of a batch was read, so that nothing of it waits any more. The file with a batch's errors
    shows none that has cost anything, and there may be another with those that have."""
    has_cost = any(item.usage is not None for item in reading.items)
    return record.result == "ok" and (has_cost or (bool(reading.items) and call.api != "openai.batches"))
