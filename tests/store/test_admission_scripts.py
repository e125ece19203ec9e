"""The scripts against their specification, `core.admission`: the same steps, and every reply and counter must agree."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.admission import Admission, Charge, Reserved, Take, WindowMoved
from proxy.core.admission import amounts as amounts_held
from proxy.core.money import NUSD_MAX
from proxy.core.record import Record, decode
from proxy.core.usage import Usage
from proxy.store import takes as takes_module
from proxy.store.calls import CallStore
from proxy.store.client import Client
from proxy.store.counters import Spent, read_counters, seed
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.spool import Spool
from proxy.store.sweeper import Sweeper
from tests.support.store import a_record, ensure_epochs, now_ms, open_client
from tests.support.takes import HOUR_MS, a_rolling_take, a_take, an_endless_take, hours
from tests.support.valkey import PATIENT_S, RunningServer, short_folder

SLOTS = ("c1", "c2", "c3")
"""Each runs one call at a time."""
ACME = KEYS[shard_of("acme")]
LIFE_MS = HOUR_MS
FAST_MS = 10
"""Sub-buckets of a rolling window that really moves while the test runs."""

amounts = st.one_of(st.integers(0, 6), st.sampled_from([NUSD_MAX - 1, NUSD_MAX]))
limits = st.one_of(st.integers(0, 14), st.integers(0, 14), st.sampled_from([NUSD_MAX - 1, NUSD_MAX]))
costs = st.one_of(st.integers(0, 9), st.integers(0, 9), st.sampled_from([NUSD_MAX]))


def a_fast_take(limit: int, amount: int) -> Take:
    """Rolling through three sub-buckets of some ms. In shadow: what an extension sees of it depends on the instant."""
    end_ms = now_ms() // FAST_MS * FAST_MS + FAST_MS
    return Take(
        counter="fast",
        budget="fast",
        unit="nusd",
        limit=limit,
        amount=amount,
        window_start_ms=end_ms - 4 * FAST_MS,
        window_end_ms=end_ms,
        bucket_ms=FAST_MS,
        enforce=False,
    )


def moved(take: Take, by_h: int) -> Take:
    start_ms, end_ms = hours(by_h, by_h)
    return Take(
        **{name: getattr(take, name) for name in take.__struct_fields__}
        | {"window_start_ms": start_ms, "window_end_ms": end_ms}
    )


MAKERS: dict[str, Any] = {
    "money": lambda limit, amount: a_take("money", limit=limit, amount=amount),
    "tokens": lambda limit, amount: a_take("tokens", limit=limit, amount=amount, unit="tokens"),
    "shadow": lambda limit, amount: a_take("shadow", limit=limit, amount=amount, enforce=False),
    "calls": lambda limit, amount: an_endless_take("calls", limit=limit, unit="calls"),
    "running": lambda limit, amount: an_endless_take("running", limit=limit, unit="concurrent"),
    "rolling": lambda limit, amount: a_rolling_take(limit=limit, amount=amount),
    "fast": a_fast_take,
    "over": lambda limit, amount: moved(a_take("money", limit=limit, amount=amount), -2),
    "to come": lambda limit, amount: moved(a_take("money", limit=limit, amount=amount), 2),
}
USUAL = ("money", "tokens", "shadow", "calls", "running", "rolling", "fast")


def some_takes(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    one = st.tuples(st.sampled_from(names), limits, amounts)
    return st.lists(one, max_size=5, unique_by=lambda take: MAKERS[take[0]](0, 0).counter)


candidates = st.lists(
    st.one_of(some_takes(USUAL), some_takes(USUAL), some_takes(tuple(MAKERS))), min_size=0, max_size=2
)
slots = st.sampled_from(SLOTS)
counters = st.sampled_from(("money", "tokens", "shadow", "rolling"))
"""Of those that grow; what an extension sees of `fast` depends on the instant."""
steps = st.one_of(
    st.tuples(st.just("reserve"), slots, candidates),
    st.tuples(st.just("reserve"), slots, candidates),
    st.tuples(st.just("settle"), slots, st.integers(1, 3), costs, st.integers(0, 9)),
    st.tuples(st.just("settle"), slots, st.just(1), costs, st.integers(0, 9)),
    st.tuples(st.just("settle without a hold"), slots, st.integers(1, 2), st.integers(0, 4), st.integers(0, 70)),
    st.tuples(st.just("extend"), slots, st.integers(0, 4), st.integers(0, 4), st.sets(counters)),
    st.tuples(
        st.just("seed"), st.sampled_from(("money", "rolling", "calls")), st.integers(0, 4), st.sampled_from("ab")
    ),
    st.tuples(st.just("release"), slots),
    st.tuples(st.just("expire"), slots),
    st.tuples(st.just("expire"), slots),
    st.tuples(st.just("give up"), slots),
    st.tuples(st.just("give up"), slots),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("renew")),
    st.tuples(st.just("renew")),
    st.tuples(st.just("forget"), slots),
    st.tuples(st.just("script flush")),
    st.tuples(st.just("next call"), slots),
    st.tuples(st.just("next call"), slots),
)


small = st.tuples(st.sampled_from(("money", "rolling", "rolling", "fast")), st.integers(0, 9), st.integers(0, 3))
few_takes = st.lists(small, min_size=1, max_size=3, unique_by=lambda take: take[0])
rolling_steps = st.one_of(
    st.tuples(st.just("reserve"), slots, st.lists(few_takes, min_size=1, max_size=1)),
    st.tuples(st.just("reserve"), slots, st.lists(few_takes, min_size=1, max_size=1)),
    st.tuples(st.just("settle"), slots, st.integers(1, 9), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("settle without a hold"), slots, st.integers(1, 9), st.integers(1, 3), st.integers(0, 8)),
    st.tuples(st.just("extend"), slots, st.integers(1, 3), st.just(0), st.just({"money", "rolling"})),
    st.tuples(st.just("release"), slots),
    st.tuples(st.just("next call"), slots),
    st.tuples(st.just("next call"), slots),
    st.tuples(st.just("wait"), st.integers(1, 5)),
)
"""With numbers so small that limits are met exactly, and enough spent in every sub-bucket."""


class Twins:
    """A worker with the store, and the model; each step is done by both."""

    def __init__(self, client: Client, store: CallStore) -> None:
        self.client = client
        self.store = store
        self.model = Admission(life_ms=LIFE_MS)
        self.seen: dict[tuple[str, int], Take] = {}
        self.generations = dict.fromkeys(SLOTS, 0)

    async def do(self, step: str, *arguments: Any) -> None:
        if arguments and arguments[0] in SLOTS and step != "next call":
            arguments = (self.call_id(arguments[0]), *arguments[1:])
        await getattr(self, step.replace(" ", "_"))(*arguments)
        await self.compare()

    def call_id(self, slot: str) -> str:
        return f"{slot}-{self.generations[slot]}"

    async def reserve(self, call_id: str, drawn: list[list[tuple[str, int, int]]]) -> None:
        made = [[MAKERS[name](limit, amount) for name, limit, amount in takes] for takes in drawn]
        for take in (take for takes in made for take in takes if take.counter != "fast"):
            self.seen[take.counter, take.window_start_ms] = take
        draft = a_record(call_id, hold_nusd=sum(take.amount for take in made[0]) % 7 if made else 0)
        draft.usage = Usage(input=draft.hold_nusd)
        was_known = call_id in self.store._running
        found: Reserved | WindowMoved
        try:
            found = await self.store.reserve(draft, made)
        except WindowMoved as moved_on:
            found = moved_on
        expected = self.reserved(draft, made, found.now_ms)
        assert found == expected or (expected is None and isinstance(found, WindowMoved))
        if not was_known and call_id in self.store._running and call_id in self.model.holds:
            # A hold that this worker did not know of: amounts are the store's, limits those of today.
            self.model.holds[call_id].takes = self.store._running[call_id].holding.takes

    def reserved(self, draft: Record, made: list[list[Take]], at_ms: int) -> Reserved | None:
        try:
            return self.model.reserve(draft.call_id, made, at_ms, estimate=estimate_of(draft))
        except WindowMoved:
            return None

    async def settle(self, call_id: str, revision: int, cost_nusd: int, tokens: int) -> None:
        running = self.store._running.get(call_id)
        taken = running.holding.takes if running is not None else ()
        await self.store.settle(a_record(call_id, revision=revision, cost_nusd=cost_nusd, usage=Usage(output=tokens)))
        self.model.settle(call_id, revision, Charge(cost_nusd, tokens, 1), taken)

    async def settle_without_a_hold(self, call_id: str, revision: int, cost_nusd: int, ago_h: int) -> None:
        taken = [
            a_rolling_take(ago_h=ago_h % 9),
            moved(a_take("money"), -ago_h % 3),
            an_endless_take("calls", unit="calls"),
        ]
        for take in taken:
            self.seen[take.counter, take.window_start_ms] = take
        await self.store.settle(a_record(call_id, revision=revision, cost_nusd=cost_nusd), taken)
        self.model.settle(call_id, revision, Charge(cost_nusd, 0, 1), taken)

    async def extend(self, call_id: str, nusd: int, tokens: int, within: set[str]) -> None:
        running = self.store._running.get(call_id)
        grows = running is not None and takes_module.grows(running.holding, nusd=nusd, tokens=tokens)
        try:
            given = await self.store.extend(call_id, "acme", nusd=nusd, tokens=tokens, within=within)
        except ValueError:
            return  # more than is counted: nothing was done
        if running is not None and grows:
            # A worker that extends a call whose hold is gone registers it again first.
            self.model.register(call_id, running.holding.takes, now_ms(), estimate=estimate_of(decode(running.draft)))
        expected = self.model.extend(call_id, now_ms(), nusd=nusd, tokens=tokens, within=within) if grows else None
        assert given == expected

    async def seed(self, kind: str, amount: int, name: str) -> None:
        take = MAKERS[kind](0, 0)
        self.seen[take.counter, take.window_start_ms] = take
        spent = Spent(
            org="acme",
            counter=take.counter,
            amount=amount,
            window_start_ms=take.window_start_ms,
            window_end_ms=take.window_end_ms,
            bucket_ms=take.bucket_ms,
        )
        assert await seed(self.client, spent, name) == self.model.seed(take, amount, name)

    async def release(self, call_id: str) -> None:
        await self.store.release(call_id, "acme")
        self.model.release(call_id)

    async def expire(self, call_id: str) -> None:
        """The time of a hold is up."""
        await self.client.call("ZADD", ACME.holds, "XX", 1, call_id)
        if call_id in self.model.holds:
            self.model.holds[call_id].expires_ms = 1

    async def give_up(self, call_id: str) -> None:
        """The worker was cut off for so long that the sweeper came."""
        await self.expire(call_id)
        await self.sweep()

    async def sweep(self) -> None:
        assert await Sweeper(self.client)._sweep_shard(ACME) == len(self.model.expire(now_ms()))

    async def renew(self) -> None:
        running = dict(self.store._running)
        await self.store._renew()
        for call_id in self.model.renew(running, now_ms()):
            hold = running[call_id]
            self.model.register(call_id, hold.holding.takes, now_ms(), estimate=estimate_of(decode(hold.draft)))

    async def forget(self, call_id: str) -> None:
        """The worker died and its record is settled by another, which knows no takes."""
        self.store._running.pop(call_id, None)

    async def script_flush(self) -> None:
        await self.client.call("SCRIPT", "FLUSH")

    async def wait(self, buckets: int) -> None:
        """Until a window of some ms has moved on."""
        await asyncio.sleep(buckets * FAST_MS / 1000)

    async def next_call(self, slot: str) -> None:
        """What is settled takes nothing any more, so most steps are about calls that are not."""
        self.generations[slot] += 1

    async def compare(self) -> None:
        model, at_ms = self.model, now_ms()
        call_ids = [self.call_id(slot) for slot in SLOTS]
        scores, *found = await self.client.pipeline(
            [("ZRANGE", ACME.holds, "0", "-1", "WITHSCORES")]
            + [("HGET", ACME.drafts, f"{call_id}:takes") for call_id in model.holds]
            + [("GET", ACME.settled(call_id)) for call_id in call_ids]
        )
        holds = {name.decode(): float(score) for name, score in zip(scores[0::2], scores[1::2], strict=True)}
        assert holds.keys() == model.holds.keys()
        for (call_id, hold), text in zip(model.holds.items(), found, strict=False):
            assert (holds[call_id] <= at_ms) == (hold.expires_ms <= at_ms)
            assert amounts_held(takes_module.parse(text).takes) == amounts_held(hold.takes)
        for call_id, marker in zip(call_ids, found[len(model.holds) :], strict=True):
            known = model.settled.get(call_id)
            charged = known and (known.charged.nusd, known.charged.tokens, known.charged.calls)
            assert (marker and marker.decode()) == (known and ":".join(map(str, (known.asked, known.shift, *charged))))
        asked = list(self.seen.values())
        states = await read_counters(self.client, "acme", asked)
        assert states == [model.state(take, at_ms) for take in asked]


def estimate_of(draft: Record) -> Charge:
    return Charge(draft.hold_nusd, draft.usage.tokens, 1)


async def live_through(url: str, happenings: list[tuple[Any, ...]], folder: Path) -> None:
    async with open_client(url) as client:
        await client.call("FLUSHALL")
        await ensure_epochs(client, ledger_position={})
        never = {"probe_s": 3600.0, "renew_s": 3600.0, "orphans_s": 0.0}
        worker = Client(url, command_timeout_s=PATIENT_S)
        store = CallStore(worker, Spool(folder), clock_ms=now_ms, hold_life_ms=LIFE_MS, **never)
        await store.open()
        try:
            twins = Twins(client, store)
            for step, *arguments in happenings:
                await twins.do(step, *arguments)
            assert store.spooled == 0
        finally:
            await store.close()


def both_do(url: str, happenings: list[tuple[Any, ...]]) -> None:
    folder = short_folder()
    try:
        asyncio.run(asyncio.wait_for(live_through(url, happenings, folder), 3 * PATIENT_S))
    finally:
        shutil.rmtree(folder)


@settings(max_examples=80, deadline=None)
@given(happenings=st.lists(steps, min_size=20, max_size=60))
def test_scripts_and_model_agree_at_every_step(valkey_server: RunningServer, happenings: list[tuple[Any, ...]]) -> None:
    both_do(valkey_server.url, happenings)


@settings(max_examples=50, deadline=None)
@given(happenings=st.lists(rolling_steps, min_size=30, max_size=60))
def test_scripts_and_model_agree_on_windows_that_roll(
    valkey_server: RunningServer, happenings: list[tuple[Any, ...]]
) -> None:
    both_do(valkey_server.url, happenings)
