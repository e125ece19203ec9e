"""Do budgets hold, and block nobody who has money left? `python -m bench.accuracy [--quick] [--out FILE]`.

Loads of real calls run through a real `callmeter serve` with an embedded Valkey, which is broken meanwhile. Afterwards
every promise of docs/accuracy.md is checked for every load. Prints a table; ends with status 1 where one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from .accuracy_house import OUTPUT_NUSD, Counter, House, Ledger, serving
from .accuracy_load import PIECES, Load, Plan, Told, open_session
from .processes import helper, stats_of

CALLS = {1: 30, 50: 150, 500: 750}
"""Calls of one load, by its concurrency."""
FITS = (100, 500, 1000)
SHAPES = ("plain", "stream", "broken")
BREAKING = ("worker killed", "store killed", "store frozen 5 s")
FAULTS = ("none", *BREAKING, "client gone", "upstream 500")
SLOW_MS = {1: 200, 50: 200, 500: 1000}
"""Between two pieces of a stream that may be cut, by concurrency: what is cut must not have arrived already, and two
loads of 500 streams with five pieces a second each are more than one worker takes in."""
UNDER_WAY = 10
"""The fault strikes when the provider has seen so many calls of each load that runs (three, of one at a time)."""
FROZEN_S = 5.0
HOLD_LIFE_S = 30.0
SETTLED_S_MAX = 60.0 + HOLD_LIFE_S
"""A hold lives 30 s, and after the store was away the sweeper waits as long again."""
MICRO = 1000


class Row(msgspec.Struct, kw_only=True):
    """What became of one load, and which promises it broke."""

    fault: str
    plan: Plan
    told: Told
    ledger: Ledger
    counter: Counter
    provider_calls: int
    broken: list[str] = []

    @property
    def overshoot_nusd(self) -> int:
        return max(0, self.counter.spent_nusd - self.plan.limit_nusd)

    @property
    def unused_nusd(self) -> int | None:
        """What was left of the budget although calls were refused for good; None where none was."""
        return max(0, self.plan.limit_nusd - self.counter.spent_nusd) if self.told.spent else None


def judge(row: Row) -> None:
    """Holds a load against the promises."""
    plan, told, ledger, counter = row.plan, row.told, row.ledger, row.counter

    def must(holds: bool, what: str) -> None:
        if not holds:
            row.broken.append(what)

    must(counter.held_nusd == 0, f"{counter.held_nusd} nano-USD are still held")
    must(
        counter.spent_nusd == ledger.cost_nusd,
        f"the counter says {counter.spent_nusd} and the ledger {ledger.cost_nusd} nano-USD",
    )
    must(told.ids <= ledger.ids, f"{len(told.ids - ledger.ids)} calls have no record")
    must(
        row.provider_calls <= len(ledger.ids) <= told.attempts,
        f"{len(ledger.ids)} records, {row.provider_calls} calls at the provider, {told.attempts} attempts",
    )
    if row.fault in ("none", "upstream 500"):
        must(not told.outages, f"{told.outages} times the store was said to be away: {sorted(told.outage_words)[:1]}")
        must(row.provider_calls == len(ledger.ids) == len(told.ids), "records and calls are not the same number")
        must(ledger.refusals == told.refusals, f"{told.refusals} refusals, {ledger.refusals} in the ledger")
        must(ledger.lost == 0, f"{ledger.lost} calls are recorded as lost")
    must(row.overshoot_nusd <= allowance_nusd(row), f"it passed the limit by {row.overshoot_nusd} nano-USD")
    must(not told.unjust, f"{len(told.unjust)} refusals although it fitted: {told.unjust[:1]}")
    if plan.user.startswith("worst") and ledger.need_nusd:
        last_micro = (ledger.need_nusd - 1) // MICRO
        must(told.left_micro <= last_micro, f"refused with {told.left_micro} micro-USD left")
        unused = row.unused_nusd
        must(unused is None or unused < ledger.need_nusd, f"{unused} nano-USD were left unused")


def allowance_nusd(row: Row) -> int:
    """By how much the limit may be passed: not at all with the worst case. Else, for each running call, by what it
    comes to beyond its hold; for a stream that is cut, by one step and what was on its way."""
    plan = row.plan
    if plan.user.startswith("worst"):
        return 0
    beyond = max(0, plan.cost_nusd - row.ledger.hold_min_nusd)
    if plan.user.startswith("cut") and plan.shape == "stream":
        step_tokens = max(plan.learned, plan.output // PIECES * 4 // 3) // 4 + 2 * plan.output // PIECES
        beyond = min(beyond, step_tokens * OUTPUT_NUSD)
    return plan.concurrency * beyond


# -- running --------------------------------------------------------------------------------------------------------


async def strike(fault: str, house: House, plans: Sequence[Plan], provider_port: int) -> None:
    """Breaks what the fault says, in the midst of the loads."""
    wanted = sum(min(UNDER_WAY, 2 * plan.concurrency + 1) for plan in plans)
    while True:
        seen = await asyncio.to_thread(stats_of, provider_port)
        if sum(seen.get(plan.user, 0) for plan in plans) >= wanted:
            break
        await asyncio.sleep(0.02)
    if fault == "worker killed":
        house.send_signal("worker", signal.SIGKILL)
    elif fault == "store killed":
        house.send_signal("valkey-server", signal.SIGKILL)
    elif fault == "store frozen 5 s":
        house.send_signal("valkey-server", signal.SIGSTOP)
        try:
            await asyncio.sleep(FROZEN_S)
        finally:
            house.send_signal("valkey-server", signal.SIGCONT)


async def run_together(house: House, plans: Sequence[Plan], fault: str, provider_port: int) -> list[Load]:
    """Loads that run at the same time, each with a budget of its own, and meet the same fault."""
    url = f"http://127.0.0.1:{house.port}"
    async with open_session() as session:
        loads = [Load(plan, session, url, house.key(plan.user)) for plan in plans]
        for plan in plans:
            if plan.learned:
                await Load(plan, session, url, house.key(f"free-{plan.user}")).learn()
        striking = asyncio.create_task(strike(fault, house, plans, provider_port))
        await asyncio.gather(*(load.run() for load in loads))
        striking.cancel()
        await asyncio.gather(striking, return_exceptions=True)
    return loads


def group(
    fault: str, batches: Sequence[Sequence[Plan]], provider_port: int, workers: int, say: Callable[[str], None]
) -> list[Row]:
    """All loads that meet one fault, through one proxy. Batches run one after the other."""
    plans = [plan for batch in batches for plan in batch]
    directory = Path(tempfile.mkdtemp(prefix="cm-"))
    begun_s = time.monotonic()
    try:
        with serving(directory, provider_port, {plan.user: plan.limit_nusd for plan in plans}, workers) as house:
            loads: list[Load] = []
            for batch in batches:
                loads += uvloop.run(run_together(house, batch, fault, provider_port))
                house.settled([plan.user for plan in batch], 10.0)
            waited_s = house.settled([plan.user for plan in plans], SETTLED_S_MAX)
            counters, seen = house.counters(), stats_of(provider_port)
            rows = [
                Row(
                    fault=fault,
                    plan=load.plan,
                    told=load.told,
                    ledger=house.ledger(load.plan.user),
                    counter=counters.get(load.plan.user, Counter()),
                    provider_calls=seen.get(load.plan.user, 0),
                )
                for load in loads
            ]
        log = (directory / "log").read_text()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for row in rows:
        judge(row)
    if "Traceback" in log:
        rows[-1].broken.append("the proxy wrote a traceback: " + log[log.index("Traceback") :][:2000])
    say(f"{fault}: {len(rows)} loads in {time.monotonic() - begun_s:.0f} s, settled {waited_s:.0f} s after the last")
    return rows


def matrix(fault: str, concurrencies: Sequence[int], shapes: Sequence[str]) -> list[list[Plan]]:
    """Budgets that fit a tenth, half and all of the load, side by side; one batch for each concurrency and shape."""
    tag = fault.replace(" ", "")
    return [
        [
            Plan(
                user=f"worst-{tag}-{shape}-{concurrency}-{fits}",
                concurrency=concurrency,
                calls=CALLS[concurrency],
                fits=fits,
                shape=shape,  # type: ignore[arg-type]
                gone=fault == "client gone",
                failing=fault == "upstream 500",
            )
            for fits in FITS
        ]
        for concurrency in concurrencies
        for shape in shapes
    ]


def surprises(concurrencies: Sequence[int]) -> list[list[Plan]]:
    """Holds by what was learned, where calls really come to as much, and to ten times as much."""
    return [
        [
            Plan(
                user=f"{kind}-{shape}-{concurrency}-{times}",
                concurrency=concurrency,
                calls=CALLS[concurrency],
                fits=100,
                shape=shape,
                learned=1000 // times,
                output_max=4000,
                pause_ms=SLOW_MS[concurrency],
            )
            for kind in ("finish", "cut")
        ]
        for times in (1, 10)
        for concurrency in concurrencies
        for shape in ("plain", "stream")
    ]


# -- told -----------------------------------------------------------------------------------------------------------

HEADS = (
    "fault", "holds", "calls", "at once", "budget fits", "let pass", "refused: spent", "told to wait", "store away",
    "limit $", "spent $", "overshoot $", "unused $", "records", "at provider", "lost", "held after",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    plan, told = row.plan, row.told
    unused = row.unused_nusd
    kind = plan.user.partition("-")[0]
    holds = {"worst": "worst case"}.get(kind, f"expected, {kind}")
    if plan.learned:
        holds += f", {plan.output // plan.learned} x learned"
    return [
        row.fault, holds, plan.shape, str(plan.concurrency), f"{plan.fits // 10} %", str(len(row.ledger.ids)),
        str(told.spent), str(told.waits), str(told.outages), usd(plan.limit_nusd), usd(row.counter.spent_nusd),
        usd(row.overshoot_nusd), "-" if unused is None else usd(unused), str(len(row.ledger.ids)),
        str(row.provider_calls), str(row.ledger.lost), usd(row.counter.held_nusd),
    ]  # fmt: skip


def usd(nusd: int) -> str:
    return f"{nusd / 1e9:.6f}" if nusd else "0"


def table(rows: Sequence[Row]) -> str:
    lines = [HEADS, ["---"] * len(HEADS), *(cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a dozen loads, in two minutes")
    parser.add_argument("--fault", action="append", choices=(*FAULTS, "surprises"), help="only these; repeatable")
    parser.add_argument("--out", type=Path, help="write the table there as well, as Markdown")
    asked = parser.parse_args()
    concurrencies, shapes = ((50,), ("stream",)) if asked.quick else (tuple(CALLS), SHAPES)
    wanted = asked.fault or [*FAULTS, "surprises"]
    rows: list[Row] = []

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with helper("accuracy_provider") as (_, port):
        for fault in FAULTS:
            if fault in wanted:
                rows += group(fault, matrix(fault, concurrencies, shapes), port, 2, say)
        if "surprises" in wanted:
            rows += group("none", surprises(concurrencies), port, 1, say)
    told = table(rows)
    print(told)
    if asked.out:
        asked.out.write_text(told + "\n")
    broken = [row for row in rows if row.broken]
    for row in broken:
        print(f"BROKEN {row.fault}, {row.plan.user}: {'; '.join(row.broken)}")
    print(f"{len(rows)} loads, {sum(row.told.attempts for row in rows)} requests, {len(broken)} with a broken promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
