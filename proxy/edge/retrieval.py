"""Retrievals: calls whose cost comes later. The first retrieval that shows usage settles them, once for each item,
charged to the one who made them; the retrieval itself is a free call."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from ..core import settlement
from ..core.call import Call
from ..core.policy import Policy
from ..core.prices import Prices
from ..core.record import Record
from ..core.usage import Usage
from ..store.calls import CallStore
from ..wire.reading import Item, Reading

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

    async def follow(self, record: Record, call: Call, reading: Reading) -> None:
        """Remembers who made a call whose usage comes later, and settles such calls when an answer shows theirs."""
        if reading.later is not None:
            await self._store.remember_later(record.org, record.upstream, reading.later, record)
        about = reading.outcome_of or call.retrieves
        if about is None or not (reading.outcome_of or reading.items or reading.files):
            return
        made = await self._store.recall_later(record.org, record.upstream, about)
        made = made or await self._find_call(record.org, record.upstream, about)
        if made is None:
            return  # made elsewhere: somebody else's proxy, or none, has it on its books
        for file_id in reading.files:
            await self._store.remember_later(record.org, record.upstream, file_id, made)
        if reading.items:
            for item in reading.items:
                await self._settle_item(made, item)
        elif reading.usage is not None and made.usage_source == "none":
            await self._settle_answer(made, reading)

    async def _settle_answer(self, made: Record, reading: Reading) -> None:
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
        )
        settlement.price(settled, told=reading, prices=self._prices(), billing=self._billing(made))
        await self._store.settle(settled)

    async def _settle_item(self, made: Record, item: Item) -> None:
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
            result="failed" if item.error else "ok",
            error=item.error,
            cost_nusd=0,
            list_nusd=0,
            hold_nusd=0,
        )
        if item.usage is not None:
            settlement.price(settled, told=None, prices=self._prices(), billing=self._billing(made), batch=True)
        await self._store.settle(settled)

    def _billing(self, made: Record) -> str:
        upstream = self._policy().upstream_for(made.upstream)
        return upstream.billing if upstream is not None else "metered"


def item_call_id(batch_call_id: str, item_id: str) -> str:
    """The id of an item's record: always the same for the same item of the same batch."""
    return hashlib.sha256(f"{batch_call_id}/{item_id}".encode()).hexdigest()[:32]
