"""`python -m bench.budgets`: what budgets cost. The load of the main job with 8 matching budgets, one rate limit and
one concurrency limit; then with 10,000 budgets more in the policy and 1,000,000 users more in the store; then with
three rules about duplicates on top; beside the floor.

It also times, inside Valkey, the script that reserves over 8 budgets, with an empty store and with the million users.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from proxy.core.admission import Take
from proxy.core.record import Record, encode
from proxy.store import holds, takes
from proxy.store.client import Client
from proxy.store.counters import Spent, set_counters
from proxy.store.embedded import EmbeddedServer
from proxy.store.keyspace import KEYS, SHARDS, shard_of
from proxy.store.packing import packed

from .callmeter import callmeter
from .main_job import Bench, Measured, modes
from .processes import OTHER_CPU, PROXY_CPU, helper, pin, stand_back

EIGHT = """\
budgets:
  - {name: person-day, per: user, limit: $1000, every: day}
  - {name: person-month, per: user, limit: $20000, every: month}
  - {name: team-day, per: team, limit: $5000, every: day}
  - {name: team-month, per: team, limit: $90000, every: month}
  - {name: org-month, limit: $500000, every: month}
  - {name: model-week, per: [user, model], limit: $9000, every: week}
  - {name: person-roll, per: user, limit: $2000, every: rolling 24h}
  - {name: tokens-day, per: user, limit: 2000M tokens, every: day}
"""
MATCHING = (
    EIGHT
    + """\
  - {name: calls-a-minute, per: user, limit: 1000000 calls, every: minute}
  - {name: at-once, per: user, limit: 1000 concurrent}
"""
)
BUDGETS_MORE = 10_000
USERS_MORE = 1_000_000
SET_AT_ONCE = 1_000
AT_ONCE = 64
BATCHES = 100
DAY_MS = 86_400_000
ORG = "default"


def others(count: int) -> str:
    """Budgets that this load does not meet."""
    return "".join(
        f"  - {{name: other-{number}, match: {{user: user-{number}}}, per: user, limit: $5, every: day}}\n"
        for number in range(count)
    )


def a_take(number: int, now_ms: int, counter: str = "bench") -> Take:
    start_ms = now_ms - now_ms % DAY_MS
    return Take(
        counter=f"{counter}{number:08d}",
        budget=f"budget-{number}",
        unit="nusd",
        limit=10**15,
        amount=1000,
        window_start_ms=start_ms,
        window_end_ms=start_ms + DAY_MS,
    )


async def fill(url: str, users: int) -> None:
    """A counter with something spent for each of so many users, as the store keeps them."""
    client, now_ms = Client(url), int(time.time() * 1000)
    await client.open()
    try:
        for start in range(0, users, SET_AT_ONCE):
            words = ["MSET"]
            for number in range(start, min(start + SET_AT_ONCE, users)):
                take = a_take(number, now_ms, "user")
                spent = Spent(
                    org=ORG,
                    counter=take.counter,
                    amount=number + 1,
                    window_start_ms=take.window_start_ms,
                    window_end_ms=take.window_end_ms,
                )
                words += [spent.key, str(spent.amount)]
            await client.call(*words)
    finally:
        await client.close()


class Scripts:
    """A store of its own, in which reserves are timed as Valkey itself counts the time of a script."""

    def __init__(self, directory: Path, users: int) -> None:
        self._server = EmbeddedServer(directory)
        self._client = Client(self._server.url)
        self._users = users
        self._batches = 0

    async def __aenter__(self) -> Self:
        await self._server.open()
        self._watching = asyncio.create_task(self._server.watch())
        await self._client.open()
        for shard in range(SHARDS):
            await set_counters(self._client, shard, ())
        await fill(self._server.url, self._users)
        await self._until_rewritten()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._server.close()

    async def _until_rewritten(self) -> None:
        """Filling makes the store write its file of commands anew, in a child whose memory it shares: while that runs,
        each first write to a page costs a copy of it."""
        await self._client.call("BGREWRITEAOF")
        while b"aof_rewrite_in_progress:0" not in await self._client.call("INFO", "persistence"):
            await asyncio.sleep(0.1)

    async def reserve_us(self, count: int) -> float:
        """Microseconds of a reserve over so many budgets, of a batch of calls that come at once as in the load."""
        client, keys, now_ms = self._client, KEYS[shard_of(ORG)], int(time.time() * 1000)
        holding = takes.holding(ORG, [a_take(number, now_ms) for number in range(count)])
        self._batches += 1
        ids = [f"{self._batches * AT_ONCE + number:032x}" for number in range(AT_ONCE)]
        reserves = []
        for call_id in ids:
            record = Record(call_id=call_id, at_ms=now_ms, user="ada", key_id="k", model="gpt-5-mini")
            arguments = packed((call_id, encode(record), 30_000, 0, 0)), takes.packed_reserve(holding)
            reserves.append(client.run("reserve", (keys.to_reserve(call_id), holding.packed_keys), arguments))
        await client.call("CONFIG", "RESETSTAT")
        await asyncio.gather(*reserves)
        told = (await client.call("INFO", "commandstats")).decode()
        stats = next(line for line in told.splitlines() if line.startswith("cmdstat_evalsha:"))
        fields = dict(pair.split("=") for pair in stats.partition(":")[2].split(","))
        for call_id in ids:
            await holds.drop(client, keys, call_id=call_id, holding=holding)
        return float(fields["usec"]) / AT_ONCE


async def scripts(directory: Path) -> list[str]:
    """What is to be said of the scripts. Batches in an empty store and in a full one are timed in turn, so that what
    else the machine does counts in both."""
    for name in ("empty", "full"):
        (directory / name).mkdir()
    over_8: list[float] = []
    over_10: list[float] = []
    among_users: list[float] = []
    async with Scripts(directory / "empty", 0) as empty, Scripts(directory / "full", USERS_MORE) as full:
        pair = [(empty, over_8), (full, among_users)]
        for _ in range(BATCHES):
            pair.reverse()
            for store, found in pair:
                found.append(await store.reserve_us(8))
            over_10.append(await empty.reserve_us(10))
    ratio = statistics.median(full_us / empty_us for full_us, empty_us in zip(among_users, over_8, strict=True))
    named = {"8 budgets": over_8, "10 limits": over_10, f"8 budgets, {USERS_MORE:,} users": among_users}
    return [
        f"a reserve inside Valkey, {name}: {statistics.median(found):.1f} us ({min(found):.1f} to {max(found):.1f})"
        for name, found in named.items()
    ] + [f"with the users it takes {ratio:.2f} times as long (median of {BATCHES} pairs of batches)"]


DUPLICATES = """\
duplicates:
  - {name: same-call, kind: exact, per: user, every: rolling 10m, limit: 3 calls, then: refuse}
  - {name: same-prompt, kind: normalized, per: user, every: rolling 10m, limit: 3 calls, then: refuse}
  - {name: in-circles, kind: loop, per: [user, task], every: rolling 10m, limit: 20 calls, then: refuse}
"""


class Variant(msgspec.Struct, frozen=True):
    """A policy. `varied`: no call of the load says what another said."""

    name: str
    budgets: str
    users: int = 0
    varied: bool = False


VARIANTS = (
    Variant("no budgets", ""),
    Variant("10 limits", MATCHING),
    Variant("10 of 10,010 limits, 1,000,000 users", MATCHING + others(BUDGETS_MORE), USERS_MORE),
    Variant("10 limits, 3 rules about duplicates", MATCHING + DUPLICATES, varied=True),
    Variant("8 budgets, 3 rules about duplicates", EIGHT + DUPLICATES, varied=True),
)


def measured(kinds: Sequence[str], repeats: int, quick: bool) -> list[tuple[Variant, str, Measured, Measured]]:
    """(policy, mode, the floor, Callmeter) of runs that stood next to each other. All policies are served at once, each
    by a worker of its own, and loaded in turn, so that what changes on the machine changes for all."""
    found = []
    with contextlib.ExitStack() as house:
        _, provider_port = house.enter_context(helper("provider"))
        floor, floor_port = house.enter_context(helper("floor", f"http://127.0.0.1:{provider_port}"))
        pin(floor.pid, PROXY_CPU)
        benches = []
        for variant in VARIANTS:
            directory = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="cm-")))
            served = house.enter_context(callmeter(directory, upstream_port=provider_port, budgets=variant.budgets))
            if variant.users:
                asyncio.run(fill(EmbeddedServer(served.data).url, variant.users))
            pin(served.worker, PROXY_CPU)
            stand_back(served.bookkeeper)
            benches.append((variant, Bench(provider_port, floor.pid, floor_port, served)))
        chosen = [mode for mode in modes(quick=quick) if mode.name in kinds]
        for repeat in range(repeats + 1):
            for mode in chosen:
                for variant, bench in benches:
                    varied = msgspec.structs.replace(mode, varied=variant.varied)
                    order = ("floor", "callmeter") if repeat % 2 else ("callmeter", "floor")
                    got = {target: bench.run(varied, target) for target in order}
                    if repeat:  # the first run warms up
                        found.append((variant, mode.name, got["floor"], got["callmeter"]))
        for _, bench in benches:
            if bench.bad:
                raise SystemExit(f"bench: {bench.bad}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="how often each pair of runs is made  [3]")
    parser.add_argument("--modes", default="chat,agent,stream", help="loads of the main job, by name")
    asked = parser.parse_args()
    pin(os.getpid(), OTHER_CPU)
    with tempfile.TemporaryDirectory(prefix="cm-") as directory:
        print("\n".join(asyncio.run(scripts(Path(directory)))))
    print("| policy | load | floor, us a call | worker, us a call | worker / floor | Valkey, us a call |")
    print("| --- | --- | --- | --- | --- | --- |")
    runs = measured(asked.modes.split(","), asked.repeats, asked.quick)
    for variant, kind in dict.fromkeys(run[:2] for run in runs):
        mine = [run[2:] for run in runs if run[:2] == (variant, kind)]
        ratios = sorted(ours.proxy_us / floor.proxy_us for floor, ours in mine)
        print(
            f"| {variant.name} | {kind} | {statistics.median(floor.proxy_us for floor, _ in mine):.0f} "
            f"| {statistics.median(ours.proxy_us for _, ours in mine):.0f} "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {statistics.median(ours.store_us for _, ours in mine):.0f} |"
        )


if __name__ == "__main__":
    main()
