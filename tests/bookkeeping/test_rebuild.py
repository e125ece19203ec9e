"""Counters that were lost with the store come back from the ledger; those of a new budget are seeded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.bookkeeping.arrears import repriced
from proxy.bookkeeping.figures import BudgetFigures
from proxy.bookkeeping.reading import divide
from proxy.bookkeeping.rebuild import CounterKeeper
from proxy.core.admission import Take
from proxy.core.policy import Policy
from proxy.core.record import Record
from proxy.core.recorded import seen_in
from proxy.core.takes import takes_for
from proxy.ledger.database import Ledger
from proxy.ledger.entry import Entry
from proxy.store.client import Client
from proxy.store.epoch import read_epochs
from proxy.store.keyspace import SHARDS
from proxy.store.ledger_stream import Entry as StreamEntry
from tests.support.ledger_calls import made
from tests.support.policies import policy_of
from tests.support.store import open_calls, open_client

PERSON = "budgets: [{name: person-day, per: user, limit: $25, every: day}]"
ROLLING = PERSON[:-1] + ", {name: roll, per: user, limit: $9, every: rolling 24h}]"


class House:
    """A store, a ledger and a keeper between them, which follows `policy`."""

    def __init__(self, client: Client, ledger: Ledger, policy: Policy) -> None:
        self.client, self.ledger, self.policy = client, ledger, policy
        self.keeper = CounterKeeper(client, ledger, policy=lambda: self.policy, take=self.take)
        self.figures = BudgetFigures(
            client, ledger, policy=lambda: self.policy, clock_ms=lambda: time.time_ns() // 1_000_000
        )

    async def take(self, found: Sequence[StreamEntry]) -> None:
        self.ledger.ingest([Entry(shard=e.shard, epoch="", id="", record=e.record) for e in divide(found)[0]])

    async def shown(self) -> dict[str, tuple[int, int]]:
        return {row["name"]: (row["spent_nusd"], row["held_nusd"]) for row in await self.figures.counters()}


@asynccontextmanager
async def house(store_url: str, ledger: Ledger, text: str) -> Any:
    async with open_client(store_url) as client:
        yield House(client, ledger, policy_of(text))


def call(number: int, **changes: Any) -> Record:
    return made(number, at_ms=time.time_ns() // 1_000_000, estimate={"input": 1}, **changes)


def takes_of(policy: Policy, record: Record) -> list[Take]:
    class Held:
        expected_nusd, worst_nusd, unbounded = 500, 500, ()
        expected_tokens = worst_tokens = 10

    scopes = policy.scopes_for(*seen_in(record, policy.upstreams))
    return takes_for(scopes, Held(), record.at_ms)  # type: ignore[arg-type]


async def test_an_emptied_store_gets_its_counters_from_stream_and_ledger(
    store_url: str, ledger: Ledger, tmp_path: Path
) -> None:
    async with house(store_url, ledger, ROLLING) as home:
        await home.keeper.look({})
        assert len(await read_epochs(home.client)) == SHARDS
        async with open_calls(store_url, tmp_path / "spool") as store:
            for number in (1, 2):
                record = call(number)
                await store.reserve(record, [takes_of(home.policy, record)])
                await store.settle(record)
            running = call(3)
            await store.reserve(running, [takes_of(home.policy, running)])
            assert await home.shown() == {"person-day": (2_400_000, 500), "roll": (2_400_000, 500)}
            # One record is in the ledger already, the other still in the stream.
            ledger.ingest([Entry(shard=0, epoch="", id="", record=call(1))])
            for key in await home.client.call("KEYS", "*"):
                if not key.endswith(b":records"):
                    await home.client.call("DEL", key)
            await home.keeper.look({})
            assert home.keeper.rebuilding == set()
            assert (await home.shown())["roll"][0] == 2_400_000
            assert (await home.shown())["person-day"][0] == 2_400_000
            # Later rounds change nothing, and what is settled now comes on top.
            await home.keeper.look({})
            await store.settle(call(3))
            assert (await home.shown())["person-day"][0] == 3_600_000


async def test_what_waits_for_a_retrieval_is_held_again_after_the_store_was_emptied(
    store_url: str, ledger: Ledger
) -> None:
    async with house(store_url, ledger, PERSON) as home:
        waiting = {"input": 1, "later": True}
        for number, estimate, ago_h in ((1, waiting, 0), (2, waiting, 26), (3, {"input": 1}, 0)):
            record = call(number, cost_nusd=None, usage_source="none", hold_nusd=700)
            record.estimate, record.at_ms = estimate, record.at_ms - ago_h * 3_600_000
            ledger.ingest([Entry(shard=0, epoch="", id="", record=record)])
        await home.keeper.look({})
        assert await home.shown() == {"person-day": (0, 700)}
        await home.keeper.look({})
        assert await home.shown() == {"person-day": (0, 700)}


async def test_a_new_budget_begins_with_what_was_spent_and_a_changed_limit_keeps_it(
    store_url: str, ledger: Ledger, tmp_path: Path
) -> None:
    async with house(store_url, ledger, PERSON) as home:
        await home.keeper.look({})
        spent = call(1, policy_version="old")
        ledger.ingest([Entry(shard=0, epoch="", id="", record=spent)])
        assert await home.shown() == {"person-day": (0, 0)}  # it is in the ledger alone
        home.policy = policy_of(ROLLING.replace("$25", "$99"))
        await home.keeper.look({})
        assert await home.shown() == {"person-day": (0, 0), "roll": (1_200_000, 0)}
        await home.keeper.look({})
        assert (await home.shown())["roll"] == (1_200_000, 0)


async def test_a_budget_that_comes_back_gets_what_was_spent_while_it_was_away(store_url: str, ledger: Ledger) -> None:
    async with house(store_url, ledger, ROLLING) as home:
        await home.keeper.look({})
        home.policy = policy_of(PERSON)
        await home.keeper.look({})
        ledger.ingest([Entry(shard=0, epoch="", id="", record=call(1, policy_version=home.policy.version))])
        home.policy = policy_of(ROLLING)
        await home.keeper.look({})
        assert (await home.shown())["roll"] == (1_200_000, 0)


async def test_counters_of_a_ledger_that_is_away_are_set_when_it_is_back(
    store_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(store_url, ledger, PERSON) as home:

        def away(*_arguments: object) -> Any:
            raise RuntimeError("away")

        with monkeypatch.context() as patched:
            patched.setattr(ledger.spending, "hours", away)
            with pytest.raises(RuntimeError):
                await home.keeper.look({})
        assert await read_epochs(home.client) == {}
        assert len(home.keeper.rebuilding) == SHARDS
        await home.keeper.look({})
        assert home.keeper.rebuilding == set()


async def test_a_call_that_ran_when_a_budget_came_is_counted_there_when_it_ends(store_url: str, ledger: Ledger) -> None:
    async with house(store_url, ledger, PERSON) as home:
        await home.keeper.look({})
        old = home.policy.version
        home.policy = policy_of(ROLLING)
        running = call(1, policy_version=old)
        await home.keeper.look({})
        for _ in range(2):  # a process that dies before the ledger has it pays again
            await home.keeper.pay(home.keeper.arrears([entry(running)]))
        ledger.ingest([entry(running)])
        assert (await home.shown())["roll"] == (1_200_000, 0)
        assert not home.keeper.arrears([entry(running)]), "the ledger knows it"
        admitted = call(2, policy_version=home.policy.version)
        assert not home.keeper.arrears([entry(admitted)]), "its own policy has counted it"
        # The late settle of a call that was given up: only the difference.
        lost = call(3, policy_version=old, result="lost", cost_nusd=500_000)
        await home.keeper.pay(home.keeper.arrears([entry(lost)]))
        ledger.ingest([entry(lost)])
        ended = call(3, policy_version=old, revision=2)
        await home.keeper.pay(home.keeper.arrears([entry(ended)]))
        assert (await home.shown())["roll"] == (2_400_000, 0)


async def test_a_bookkeeper_that_starts_anew_still_knows_of_budgets_that_came_lately(
    store_url: str, ledger: Ledger
) -> None:
    async with house(store_url, ledger, PERSON) as home:
        await home.keeper.look({})
        running = call(1, policy_version=home.policy.version)
        home.policy = policy_of(ROLLING)
        await home.keeper.look({})
        again = CounterKeeper(home.client, ledger, policy=lambda: home.policy, take=home.take)
        await again.look({})
        await again.pay(again.arrears([entry(running)]))
        ledger.ingest([entry(running)])
        assert (await home.shown())["roll"] == (1_200_000, 0)


async def test_calls_that_are_priced_again_charge_their_counters_the_difference_once(
    store_url: str, ledger: Ledger
) -> None:
    async with house(store_url, ledger, ROLLING) as home:
        await home.keeper.look({})
        before = call(1, cost_source="assumed", policy_version=home.policy.version)
        after = msgspec.structs.replace(before, cost_nusd=200_000, revision=2)
        for _ in range(2):
            await repriced([(before, after)], home.policy, before.at_ms).pay(home.client)
        ledger.ingest([entry(before)])
        # Nothing was charged in this test before, so that only the difference is seen.
        assert set((await home.shown()).values()) == {(-1_000_000, 0)}


def entry(record: Record) -> Entry:
    return Entry(shard=0, epoch="", id="", record=record)
