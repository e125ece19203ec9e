from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from proxy.core.admission import NoRoom, Reserved, State, Take, WindowMoved
from proxy.core.money import NUSD_MAX
from proxy.core.record import decode
from proxy.core.usage import Usage
from proxy.store.calls import CallStore, StoreUnavailable
from proxy.store.client import Client
from proxy.store.counters import Spent, charge_late, read_counters, set_counters
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.spool import Spool
from proxy.store.sweeper import Sweeper
from proxy.store.takes import COUNTER_LIFE_MS
from tests.support.store import (
    a_record,
    begin_epochs,
    entries,
    eventually,
    hold_of,
    now_ms,
    open_calls,
    open_client,
    written,
)
from tests.support.takes import HOUR_MS, a_rolling_take, a_take, an_endless_take, hours
from tests.support.valkey import RunningServer

ACME = KEYS[shard_of("acme")]


async def state(client: Client, take: Take, org: str = "acme") -> tuple[int, int]:
    (found,) = await read_counters(client, org, [take])
    return found.spent, found.held


async def counter_keys(client: Client) -> dict[str, int]:
    """Every key of a counter, with how long it still lives; -1: for ever."""
    names = [name for name in await client.call("KEYS", "*") if b":spent:" in name or b":held:" in name]
    return {name.decode(): await client.call("PTTL", name) for name in names}


async def test_what_a_call_holds_becomes_what_it_spent(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    takes = [
        a_take(amount=7),
        a_take("tokens", unit="tokens", limit=100, amount=50),
        an_endless_take("calls", unit="calls"),
        an_endless_take("running", unit="concurrent"),
        a_rolling_take(amount=7),
    ]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        first = await store.reserve(a_record("c1"), [takes])
        assert (first.admitted, first.choice, first.states, first.blocked) == (True, 0, [State(0, 0)] * 5, [])
        assert abs(first.now_ms - store.now_ms()) < HOUR_MS
        assert [await state(client, take) for take in takes] == [(0, 7), (0, 50), (0, 1), (0, 1), (0, 7)]
        await store.settle(a_record("c1", cost_nusd=4, usage=Usage(input=20, output=3)))
        assert [await state(client, take) for take in takes] == [(4, 0), (23, 0), (1, 0), (0, 0), (4, 0)]
        second = await store.reserve(a_record("c2"), [takes])
        assert second.admitted is False
        assert second.blocked == [0, 4]
        assert second.states == [State(4, 0), State(23, 0), State(1, 0), State(0, 0), State(4, 0)]
        assert (store.running(), await hold_of(client, "c2")) == (0, None)
        assert [await state(client, take) for take in takes] == [(4, 0), (23, 0), (1, 0), (0, 0), (4, 0)]


async def test_200_calls_at_once_against_a_limit_of_100_admit_exactly_100(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    take = a_take(limit=100)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        outcomes = await asyncio.gather(*[store.reserve(a_record(f"c{n}"), [[take]]) for n in range(200)])
        admitted = [number for number, outcome in enumerate(outcomes) if outcome.admitted]
        assert len(admitted) == 100
        assert await state(client, take) == (0, 100)
        await asyncio.gather(*[store.settle(a_record(f"c{number}", cost_nusd=1)) for number in admitted])
        assert await state(client, take) == (100, 0)


async def test_the_other_candidate_is_taken_when_the_first_does_not_fit(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    dear, cheap = [a_take(amount=9), a_take("b", amount=9)], [a_take(amount=2), a_take("b", amount=2)]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        assert (await store.reserve(a_record("c1"), [dear, cheap])).choice == 0
        with_other = await store.reserve(a_record("c2"), [dear, [a_take(amount=1), a_take("c", amount=2)]])
        assert (with_other.admitted, with_other.choice, with_other.states) == (True, 1, [State(0, 9), State(0, 0)])
        neither = await store.reserve(a_record("c3"), [dear, cheap])
        assert neither == Reserved(False, 0, [State(0, 10), State(0, 9)], [0, 1], neither.now_ms)
        assert [await state(client, take) for take in (a_take(), a_take("b"), a_take("c"))] == [(0, 10), (0, 9), (0, 2)]


async def test_a_shadow_take_is_counted_and_never_refuses(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    take = a_take(limit=1, amount=5, enforce=False)
    async with open_calls(store_url, tmp_path) as store:
        for held in (0, 5):
            outcome = await store.reserve(a_record(f"c{held}"), [[take]])
            assert (outcome.admitted, outcome.states, outcome.blocked) == (True, [State(0, held)], [])


async def test_a_window_that_turned_takes_nothing_and_tells_the_time_of_the_store(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    start_ms, end_ms = hours(-3, -1)
    over = msgspec.structs.replace(a_take("b"), window_start_ms=start_ms, window_end_ms=end_ms)
    late = msgspec.structs.replace(a_rolling_take(ago_h=1))
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        for candidate in ([a_take(), over], [late]):
            with pytest.raises(WindowMoved) as moved:
                await store.reserve(a_record("c1"), [candidate])
            assert abs(moved.value.now_ms - now_ms()) < HOUR_MS
        assert (await state(client, a_take()), await hold_of(client, "c1"), store.running()) == ((0, 0), None, 0)


async def test_a_worker_whose_clock_is_wrong_learns_the_clock_of_the_store(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    slow = CallStore(Client(store_url), Spool(tmp_path), clock_ms=lambda: now_ms() - 7 * HOUR_MS)
    await slow.open()
    assert abs(slow.now_ms() - now_ms()) > 6 * HOUR_MS
    await slow.reserve(a_record("c1"))
    assert abs(slow.now_ms() - now_ms()) < HOUR_MS
    await slow.close()


async def test_a_late_settle_is_charged_to_the_window_of_its_admission(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    start_ms, end_ms = hours(-8, -5)
    over = msgspec.structs.replace(a_take(), window_start_ms=start_ms, window_end_ms=end_ms)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        store.keep(a_record("c1"), [over, a_rolling_take(ago_h=3)])
        await store._renew()
        assert await state(client, over) == (0, 1)
        await store.settle(a_record("c1", cost_nusd=5))
        assert (await state(client, over), await state(client, a_take())) == ((5, 0), (0, 0))
        assert await state(client, a_rolling_take()) == (5, 0)


async def test_a_rolling_window_forgets_what_is_older_than_its_length_and_one_sub_bucket(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        for ago_h in range(9):
            await store.settle(a_record(f"c{ago_h}", cost_nusd=10**ago_h), [a_rolling_take(ago_h=ago_h)])
        take = a_rolling_take(limit=NUSD_MAX, amount=0)
        assert await state(client, take) == (1_111_111, 0)
        for number in range(2):
            assert (await store.reserve(a_record(f"d{number}"), [[take]])).states == [State(1_111_111, 0)]
        fields = await client.call("HKEYS", ACME.spent("acme", "rolling", "rolling"))
        assert len(fields) == 2 + 7  # its cache, and what counts


async def test_counters_outlive_their_window_and_endless_ones_do_not_expire(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    takes = [a_take(), an_endless_take("ever"), an_endless_take("running", unit="concurrent"), a_rolling_take()]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"), [takes])
        await store.settle(a_record("c1", cost_nusd=1))
        lives = await counter_keys(client)
    end_ms = hours(5, 5)[1]
    fixed = f"a:{hours(-5, 5)[0]}:acme"
    expected = {
        f"held:{fixed}": end_ms + COUNTER_LIFE_MS - now_ms(),
        f"spent:{fixed}": end_ms + COUNTER_LIFE_MS - now_ms(),
        "spent:ever:0:acme": -1,
        "spent:rolling:rolling:acme": 7 * HOUR_MS + COUNTER_LIFE_MS,
    }
    assert lives.keys() == {ACME.prefix + name for name in expected}
    for name, life_ms in expected.items():
        assert abs(lives[ACME.prefix + name] - life_ms) < HOUR_MS


async def test_two_orgs_of_one_shard_do_not_share_a_counter(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    other = next(org for org in (f"org-{n}" for n in range(10_000)) if shard_of(org) == shard_of("acme"))
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"), [[a_take(amount=3)]])
        await store.reserve(a_record("c2", org=other), [[a_take(amount=4)]])
        assert (await state(client, a_take()), await state(client, a_take(), other)) == ((0, 3), (0, 4))


async def test_an_amount_that_the_store_cannot_count_exactly_is_refused(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store:
        for take in (a_take(amount=NUSD_MAX + 1), a_take(limit=NUSD_MAX + 1), a_take(amount=-1)):
            with pytest.raises(ValueError, match="at most 9007199254740991 is counted"):
                await store.reserve(a_record("c1"), [[take]])
        whole = a_take(limit=NUSD_MAX, amount=NUSD_MAX - 1)
        assert (await store.reserve(a_record("c1"), [[whole]])).admitted
        assert (await store.reserve(a_record("c2"), [[a_take(limit=NUSD_MAX)]])).admitted
        assert (await store.reserve(a_record("c3"), [[a_take(limit=NUSD_MAX)]])).states == [State(0, NUSD_MAX)]


async def test_a_stream_that_outgrows_its_hold_takes_more_of_all_its_counters_or_of_none(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    takes = [a_take(amount=4), a_take("b", amount=1, limit=6), an_endless_take("calls", unit="calls")]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1", hold_nusd=4), [takes])
        assert await store.extend("c1", "acme", nusd=5, within={"a", "b"}) is None
        assert [await state(client, take) for take in takes] == [(0, 9), (0, 6), (0, 1)]
        assert await store.extend("c1", "acme", nusd=1, within={"a", "b"}) == NoRoom("b", State(0, 6))
        assert [await state(client, take) for take in takes] == [(0, 9), (0, 6), (0, 1)]
        assert await store.extend("c1", "acme", nusd=2) is None
        assert await store.extend("c1", "acme", tokens=2, within={"a", "b"}) is None
        assert [await state(client, take) for take in takes] == [(0, 11), (0, 8), (0, 1)]
        assert decode(await client.call("HGET", ACME.drafts, "c1")).hold_nusd == 11
        assert await store.extend("unknown", "acme", nusd=1, within={"a"}) is None
        await store.settle(a_record("c1", cost_nusd=3))
        assert [await state(client, take) for take in takes] == [(3, 0), (3, 0), (1, 0)]


async def test_an_extension_whose_reply_was_lost_is_ended_with_the_call(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"), [[a_take()]])
        before = store._running["c1"]
        assert await store.extend("c1", "acme", nusd=3) is None
        store._running["c1"] = before
        assert await store.extend("c1", "acme", nusd=2) is None
        assert await state(client, a_take()) == (0, 6)
        store._running["c1"] = before
        await store.settle(a_record("c1", cost_nusd=1))
        assert await state(client, a_take()) == (1, 0)


async def test_a_lost_call_is_charged_its_estimate_and_a_late_settle_the_difference(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    takes = [a_take(amount=7), an_endless_take("calls", unit="calls"), an_endless_take("running", unit="concurrent")]
    async with open_calls(store_url, tmp_path, hold_life_ms=0, probe_s=60) as store, open_client(store_url) as client:
        await store._probe()  # once, and not again: a renewal would register the swept hold anew
        await store.reserve(a_record("c1", hold_nusd=6), [takes])
        assert await Sweeper(client, hold_life_ms=0).sweep() == 1
        assert [await state(client, take) for take in takes] == [(6, 0), (1, 0), (0, 0)]
        await store.settle(a_record("c1", cost_nusd=2))
        assert [await state(client, take) for take in takes] == [(2, 0), (1, 0), (0, 0)]
        await store.settle(a_record("c1", cost_nusd=2), takes)
        assert [await state(client, take) for take in takes] == [(2, 0), (1, 0), (0, 0)]
        assert await written(client) == {("c1", 1): 1, ("c1", 2): 1}
        assert await client.call("HLEN", ACME.drafts) == 0


async def test_a_background_call_is_counted_once_and_charged_when_its_usage_is_known(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    takes = [a_take(amount=7), an_endless_take("calls", unit="calls")]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"), [takes])
        await store.settle(a_record("c1", cost_nusd=None))
        await store.remember_later("acme", "openai", "resp_1", a_record("c1", cost_nusd=None), takes)
        assert [await state(client, take) for take in takes] == [(0, 0), (1, 0)]
        await client.call("DEL", ACME.settled("c1"))  # the store remembers for a quarter of an hour
        assert await store.recall_later("acme", "openai", "resp_1") is not None
        taken = await store.recall_takes("acme", "openai", "resp_1")
        for _ in range(2):
            await store.settle(a_record("c1", revision=2, cost_nusd=5), taken)
        assert [await state(client, take) for take in takes] == [(5, 0), (1, 0)]
        assert await store.recall_takes("acme", "openai", "resp_2") == ()


async def test_a_server_killed_keeps_its_counters_and_what_was_owed_is_charged_once(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    take = a_take(limit=10_000, amount=10)
    async with open_calls(own_valkey.url, tmp_path, command_timeout_s=0.25) as store:
        names = [f"c{number}" for number in range(100)]
        await asyncio.gather(*[store.reserve(a_record(name), [[take]]) for name in names])
        await asyncio.gather(*[store.settle(a_record(name, cost_nusd=3)) for name in names[:50]])
        settling = [asyncio.create_task(store.settle(a_record(name, cost_nusd=3))) for name in names[50:]]
        await asyncio.sleep(0)
        await own_valkey.kill()
        await asyncio.gather(*settling)
        with pytest.raises(StoreUnavailable):
            await store.reserve(a_record("degraded"), [[take]])
        store.keep(a_record("degraded"), [take])
        await store.settle(a_record("degraded", cost_nusd=7))
        await own_valkey.start()
        await eventually(lambda: store.healthy and store.spooled == 0)
        async with open_client(own_valkey.url) as client:
            assert await state(client, take) == (307, 0)


async def test_an_emptied_store_gets_its_counters_from_the_ledger_and_its_holds_from_the_workers(
    store_url: str, tmp_path: Path
) -> None:
    await begin_epochs(store_url)
    take = a_take(limit=1000, amount=10)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("running"), [[take]])
        await store.reserve(a_record("ends"), [[take]])
        await client.call("FLUSHALL")
        with pytest.raises(StoreUnavailable, match="rebuilt"):
            await store.reserve(a_record("refused"), [[take]])
        await store.settle(a_record("ends", cost_nusd=4))
        assert store.spooled == 1
        for shard in range(len(KEYS)):
            assert await set_counters(client, shard, [spent_of(take, 100)] if shard == shard_of("acme") else [])
        await eventually(lambda: store.healthy and store.spooled == 0)
        await eventually(lambda: hold_of(client, "running"))
        await store._renew()
        assert await state(client, take) == (104, 10)
        await store.settle(a_record("running", cost_nusd=1))
        assert await state(client, take) == (105, 0)


def spent_of(take: Take, amount: int) -> Spent:
    return Spent(
        org="acme",
        counter=take.counter,
        amount=amount,
        window_start_ms=take.window_start_ms,
        window_end_ms=take.window_end_ms,
        bucket_ms=take.bucket_ms,
    )


async def test_a_record_older_than_the_stores_memory_is_charged_by_way_of_the_ledger(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    takes = [a_take(limit=1000), a_rolling_take(), an_endless_take("calls", unit="calls")]
    async with open_calls(own_valkey.url, tmp_path, settled_memory_ms=1) as store:
        async with open_client(own_valkey.url) as client:
            await store.reserve(a_record("c1"), [takes])
            await store.settle(a_record("c1", cost_nusd=4))
            await eventually(lambda: is_forgotten(client, "c1"))
        await own_valkey.kill()
        await store.settle(a_record("c1", cost_nusd=4), takes)  # the reply to the first one was lost, say
        await store.settle(a_record("c2", cost_nusd=5), takes)
        await asyncio.sleep(0.005)
        await own_valkey.start()
        await eventually(lambda: store.healthy and store.spooled == 0)
        async with open_client(own_valkey.url) as client:
            assert [await state(client, take) for take in takes] == [(4, 0), (4, 0), (1, 0)]
            found = {decode(entry.data).call_id: entry for entry in await entries(client) if entry.uncharged}
            assert found.keys() == {"c1", "c2"}
            for _ in range(2):  # only the second was new to the ledger
                await charge_late(client, decode(found["c2"].data), found["c2"].uncharged)
            assert [await state(client, take) for take in takes] == [(9, 0), (9, 0), (2, 0)]


async def is_forgotten(client: Client, call_id: str) -> bool:
    return await client.call("EXISTS", ACME.settled(call_id)) == 0


async def test_a_settle_that_was_cancelled_still_knows_what_was_taken(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store, open_client(own_valkey.url) as client:
        await store.reserve(a_record("c1"), [[a_take()]])
        settling = asyncio.create_task(store.settle(a_record("c1", cost_nusd=2)))
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])
        assert store._running["c1"].holding.takes == (a_take(),)
        await store.settle(a_record("c1", cost_nusd=2))
        assert (await state(client, a_take()), store.running()) == ((2, 0), 0)


async def test_a_call_that_comes_twice_takes_once(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"), [[a_take(amount=20)], [a_take(amount=2)]])
        again = await store.reserve(a_record("c1"), [[a_take(amount=20)], [a_take(amount=2)]])
        assert again == Reserved(True, 1, [], [], again.now_ms)
        store.keep(a_record("c1"), [a_take(amount=20)])  # a worker that never got the reply
        await client.call("ZREM", ACME.holds, "c1")
        await store._renew()
        assert store._running["c1"].holding.takes[0].amount == 2
        assert await state(client, a_take()) == (0, 2)
        await store.release("c1", "acme")
        assert await state(client, a_take()) == (0, 0)
