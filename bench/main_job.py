"""`python -m bench.main_job`: what a call costs through Callmeter, beside the floor, in turn on the same load.

Callmeter runs as it is served, with one worker. Its worker and the floor have CPU 0, one after the other; everything
else has CPU 1. The figure to compare is the CPU time of a call, and of the two the ratio: it hardly depends on what
else the machine does. Every answer is compared byte for byte, and at the end the ledger must hold every call.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .callmeter import Callmeter, callmeter
from .exchange import Kind
from .load import Order, Result
from .processes import OTHER_CPU, PROXY_CPU, cpu_us, helper, pin, rss_mb, stand_back, stats_of

RECORDED_S_MAX = 120.0
SAMPLE_S = 0.2
"""How often memory is looked at while a load runs."""


class Mode(msgspec.Struct, frozen=True):
    """One kind of load. `seconds` and `rate` as in load.Order."""

    name: str
    kind: Kind
    connections: int
    seconds: float
    rate: float = 0
    says: str = ""
    varied: bool = False


class Measured(msgspec.Struct, kw_only=True):
    """One run of one mode against one target. CPU in microseconds a call, times in ms, memory in MB."""

    calls: int
    per_s: float
    proxy_us: float = 0.0
    bookkeeper_us: float = 0.0
    store_us: float = 0.0
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    rss_before_mb: float = 0.0
    rss_peak_mb: float = 0.0
    at_once: int = 0


def modes(*, quick: bool) -> list[Mode]:
    seconds = 2.0 if quick else 8.0
    return [
        Mode("chat", "chat", 64, seconds, says="2 KB chat, 64 connections"),
        Mode("agent", "agent", 64, seconds, says="64 KB agent turn, 64 connections"),
        Mode("stream", "stream", 64, seconds, says="SSE, 50 chunks, one every 5 ms, 64 at once"),
        Mode("paced", "chat", 64, seconds, 100, says="2 KB chat, 100 a second by the clock"),
        Mode("slow", "slow", 200 if quick else 1000, 0, says="slow streams at once, 50 chunks, one every 200 ms"),
    ]


class Bench:
    """The targets of one benchmark, and what was measured of them."""

    def __init__(self, provider_port: int, floor: int, floor_port: int, served: Callmeter) -> None:
        self._provider_port = provider_port
        self._served = served
        self._ports = {"direct": provider_port, "floor": floor_port, "callmeter": served.port}
        self._proxies = {"floor": floor, "callmeter": served.worker}
        self.made = 0
        self.bad: list[str] = []

    def run(self, mode: Mode, target: str) -> Measured:
        """One load on one target. Of Callmeter it waits until every call is in the ledger."""
        proxy, served = self._proxies.get(target), self._served
        weighed = [proxy] if proxy else []
        if target == "callmeter":
            weighed += [served.bookkeeper, served.store]
        stats_of(self._provider_port)  # begins counting anew how many are under way at once
        before = [cpu_us(process) for process in weighed]
        rss_before = rss_mb(proxy) if proxy else 0.0
        result, rss_peak = self._load(mode, target, proxy)
        worker_after = cpu_us(proxy) if proxy else 0.0
        if target == "callmeter":
            self.made += result.good
            if not served.until_recorded(self.made, RECORDED_S_MAX):
                self.bad.append(f"{mode.name}: the ledger has {served.recorded()} calls of {self.made}")
        if result.bad:
            self.bad.append(f"{mode.name} {target}: {result.bad} answers were not good: {result.complaint}")
        spent = [cpu_us(process) - at_first for process, at_first in zip(weighed, before, strict=True)]
        if spent:
            spent[0] = worker_after - before[0]
        each = [round(us / max(1, result.good), 1) for us in spent] + [0.0, 0.0, 0.0]
        return Measured(
            calls=result.good,
            per_s=result.good / result.seconds,
            proxy_us=each[0],
            bookkeeper_us=each[1],
            store_us=each[2],
            p50_ms=quantile(result.ms_total, 0.5),
            p99_ms=quantile(result.ms_total, 0.99),
            first_p50_ms=quantile(result.ms_first, 0.5),
            first_p99_ms=quantile(result.ms_first, 0.99),
            rss_before_mb=rss_before,
            rss_peak_mb=rss_peak,
            at_once=stats_of(self._provider_port)["peak"],
        )

    def _load(self, mode: Mode, target: str, proxy: int | None) -> tuple[Result, float]:
        order = Order(
            port=self._ports[target],
            key=self._served.key,
            kind=mode.kind,
            connections=mode.connections,
            seconds=mode.seconds,
            rate=mode.rate,
            varied=mode.varied,
        )
        command = [sys.executable, "-m", "bench.load", msgspec.json.encode(order).decode()]
        peak = 0.0
        with tempfile.TemporaryFile() as out:
            load = subprocess.Popen(command, stdout=out)
            while load.poll() is None:
                peak = max(peak, rss_mb(proxy) if proxy else 0.0)
                time.sleep(SAMPLE_S)
            if load.returncode:
                raise SystemExit("bench: the load failed; why stands above")
            out.seek(0)
            return msgspec.json.decode(out.read(), type=Result), peak


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


# -- what is printed --------------------------------------------------------------------------------------------------

Runs = dict[tuple[str, str], list[Measured]]


def table(chosen: Sequence[Mode], runs: Runs) -> str:
    """One row a mode and target: medians over the repeats."""
    lines = [
        "mode      target     calls/s  proxy us  book. us  store us   p50 ms   p99 ms  1st p50  1st p99  RSS MB at once"
    ]
    for mode in chosen:
        for target in ("direct", "floor", "callmeter"):
            got = runs.get((mode.name, target))
            if not got:
                continue

            def middle(name: str, got: list[Measured] = got) -> float:
                return float(statistics.median(getattr(run, name) for run in got))

            lines.append(
                f"{mode.name:9} {target:9} {middle('per_s'):8.0f} {middle('proxy_us'):9.1f} "
                f"{middle('bookkeeper_us'):9.1f} {middle('store_us'):9.1f} {middle('p50_ms'):8.2f} "
                f"{middle('p99_ms'):8.2f} {middle('first_p50_ms'):8.2f} {middle('first_p99_ms'):8.2f} "
                f"{middle('rss_peak_mb'):7.1f} {middle('at_once'):8.0f}"
            )
    return "\n".join(lines)


def conclusions(chosen: Sequence[Mode], runs: Runs) -> str:
    """The ratios, each of two runs that stood next to each other, and what the proxy adds."""
    lines = []
    for mode in chosen:
        pairs = list(zip(runs[mode.name, "floor"], runs[mode.name, "callmeter"], strict=True))
        ratios = sorted(ours.proxy_us / floor.proxy_us for floor, ours in pairs)
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"{mode.name:9} worker / floor {statistics.median(ratios):.2f}   ({shown})   {mode.says}")
    for name in ("p50_ms", "p99_ms"):
        direct, floor, ours = (
            statistics.median(getattr(run, name) for run in runs["paced", target])
            for target in ("direct", "floor", "callmeter")
        )
        lines.append(
            f"{name[:3]} added at 100 calls a second: {ours - direct:.2f} ms by Callmeter, "
            f"{floor - direct:.2f} ms by the floor"
        )
    pairs = list(zip(runs["slow", "floor"], runs["slow", "callmeter"], strict=True))
    more = statistics.median(ours.rss_peak_mb - floor.rss_peak_mb for floor, ours in pairs)
    lines.append(f"slow streams: the worker's memory is {more:.1f} MB above the floor's")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs and 200 slow streams: to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="how often each pair of runs is made  [3]")
    parser.add_argument("--modes", default="", help="only these, by name, with commas between")
    chosen_by = parser.parse_args()
    names = [name for name in chosen_by.modes.split(",") if name]
    chosen = [mode for mode in modes(quick=chosen_by.quick) if not names or mode.name in names]
    pin(os.getpid(), OTHER_CPU)
    runs: Runs = {}
    with (
        tempfile.TemporaryDirectory(prefix="callmeter-bench-") as directory,
        helper("provider") as (_, provider_port),
        helper("floor", f"http://127.0.0.1:{provider_port}") as (floor, floor_port),
        callmeter(Path(directory), upstream_port=provider_port) as served,
    ):
        pin(floor.pid, PROXY_CPU)
        pin(served.worker, PROXY_CPU)
        stand_back(served.bookkeeper)
        bench = Bench(provider_port, floor.pid, floor_port, served)
        warm_up(bench)
        for repeat in range(chosen_by.repeats):
            order = ("direct", "floor", "callmeter") if repeat % 2 == 0 else ("callmeter", "floor", "direct")
            for mode in chosen:
                for target in order:
                    got = bench.run(mode, target)
                    runs.setdefault((mode.name, target), []).append(got)
                    print(f"{mode.name} {target}: {got.calls} calls, {got.proxy_us:.1f} us", file=sys.stderr)
        total = served.total()
        print(table(chosen, runs))
        print()
        if not names:
            print(conclusions(chosen, runs))
        print(f"the ledger has {total['calls']} calls of {bench.made} made, {total['cost_nusd'] / 1e9:.2f} USD")
        for complaint in bench.bad:
            print(f"NOT GOOD: {complaint}")
        if bench.bad or total["calls"] != bench.made:
            raise SystemExit(1)


def warm_up(bench: Bench) -> None:
    """Connections, caches and the memory that a process takes once are none of what a call costs."""
    for target in ("floor", "callmeter"):
        for mode in modes(quick=True)[:3]:
            bench.run(msgspec.structs.replace(mode, seconds=1.0), target)


if __name__ == "__main__":
    main()
