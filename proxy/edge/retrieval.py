"""Retrievals: calls whose cost comes later. The first retrieval that shows usage settles them, once for each item,
charged to the one who made them; the retrieval itself is a free call."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ..core import settlement
from ..core.admission import Take
from ..core.call import Call
from ..core.policy import Policy
from ..core.prices import Prices
from ..core.record import Record
from ..core.usage import Usage
from ..store.calls import CallStore
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

    async def follow(self, record: Record, call: Call, reading: Reading, taken: Sequence[Take] = ()) -> None:
        """Does what `_follow` does, again and again while store or ledger are away: an agent may retrieve its answer
        only once. Never raises."""
        pause_s = RETRY_S_FIRST
        while True:
            try:
                return await self._follow(record, call, reading, taken)
            except Exception as error:
                if pause_s > RETRY_S_MAX:
                    log.error("what call %s retrieved is not settled: %s", record.call_id, error)
                    return None
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _follow(self, record: Record, call: Call, reading: Reading, taken: Sequence[Take]) -> None:
        """Remembers who made a call whose usage comes later, and settles such calls when an answer shows theirs."""
        if reading.later is not None:
            await self._store.remember_later(record.org, record.upstream, reading.later, record, taken)
        about = reading.outcome_of or call.retrieves
        if about is None or not (reading.outcome_of or reading.items or reading.files):
            return
        made = await self._store.recall_later(record.org, record.upstream, about)
        made = made or await self._find_call(record.org, record.upstream, about)
        if made is None:
            return  # made elsewhere: somebody else's proxy, or none, has it on its books
        taken = await self._store.recall_takes(record.org, record.upstream, about)
        for file_id in reading.files:
            await self._store.remember_later(record.org, record.upstream, file_id, made, taken)
        if reading.items:
            for item in reading.items:
                await self._settle_item(made, item, taken)
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

    async def _settle_item(self, made: Record, item: Item, taken: Sequence[Take]) -> None:
        """One item of a batch: a record of its own, whose id follows from batch and item, so that it exists once."""
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
        await self._store.settle(settled, taken)

    def _billing(self, made: Record) -> str:
        upstream = self._policy().upstream_for(made.upstream)
        return upstream.billing if upstream is not None else "metered"


def item_call_id(batch_call_id: str, item_id: str) -> str:
    """The id of an item's record: always the same for the same item of the same batch."""
    return hashlib.sha256(f"{batch_call_id}/{item_id}".encode()).hexdigest()[:32]
