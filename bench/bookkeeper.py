"""`python -m bench.bookkeeper`: how many calls a second the bookkeeper takes from the stream into the ledger, and how
many when it exports their traces as well.

The streams are filled first, by the scripts that workers use, while no bookkeeper runs. Then one is started on CPU 0;
store and collector have CPU 1. The rate counts from the moment when it has its CPU to itself; at the end the ledger
must hold every record, and the collector two spans of each.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from proxy.core.record import Record
from proxy.core.usage import Usage
from proxy.edge.flight import new_call_id
from proxy.store.calls import CallStore
from proxy.store.client import Client
from proxy.store.embedded import EmbeddedServer
from proxy.store.spool import Spool

from .callmeter import Callmeter, callmeter
from .exchange import COMPLETION_ID, MODEL, MODEL_ANSWERED
from .processes import OTHER_CPU, PROXY_CPU, cpu_us, helper, pin, rss_mb, stats_of

RECORDS = 60_000
RECORDS_QUICK = 10_000
TRACED_SHARE = 0.4
"""Of the records, in the run with traces: it is that much slower."""
USERS = 40
TASKS_EACH = 10
"""Tasks that a user works on at the same time: what sums are kept apart by."""
AT_ONCE = 500
"""Records on their way into the store at once."""
DONE_S_MAX = 300.0
LOOK_S = 0.02


class Pace(msgspec.Struct):
    """How fast records were taken, and what each of them cost the bookkeeper."""

    records: int
    per_s: float
    cpu_us: float
    rss_mb: float


def record(number: int, chance: random.Random) -> Record:
    """The record of a call like those that a worker settles."""
    now_ms = int(time.time() * 1000)
    usage = Usage(input=352, cached_input=128, output=chance.randrange(20, 900))
    parts = {"input": 88_000, "cached_input": 3_200, "output": usage.output * 2_000}
    ids = chance.randbytes(32).hex()
    return Record(
        call_id=new_call_id(now_ms),
        at_ms=now_ms,
        user=f"user-{number % USERS}",
        key_id="k7f3a9c2e1",
        team=f"team-{number % 5}",
        task=f"task-{number % USERS}-{chance.randrange(TASKS_EACH)}",
        task_source="header",
        agent="openai-python",
        user_agent="OpenAI/Python 2.8.0",
        upstream="openai",
        provider="openai",
        api="openai.chat",
        route="/v1/chat/completions",
        model_asked=MODEL,
        model=MODEL_ANSWERED,
        policy_version="5d41402abc4b",
        status=200,
        usage=usage,
        usage_source="reported",
        cost_nusd=sum(parts.values()),
        cost_parts_nusd=parts,
        list_nusd=sum(parts.values()),
        cost_source="book",
        price_version="genai-prices",
        hold_nusd=1_200_000,
        estimate={"input": 680, "output": 500, "by": "expected"},
        ms_total=412.25,
        ms_first_byte=412.25,
        ms_overhead=0.8,
        trace_id=ids[:32],
        span_id=ids[32:48],
        client_span_id=ids[48:],
        server_address="api.openai.com",
        upstream_call_id=f"{COMPLETION_ID}{number}",
        finish_reasons=["stop"],
        service_tier="default",
    )


async def fill(data: Path, records: int) -> None:
    """Puts records into the streams as workers do: reserve and settle."""
    chance = random.Random(1)
    server = EmbeddedServer(data)
    await server.open()
    client = Client(server.url)
    store = CallStore(client, Spool(data / "spool"), clock_ms=lambda: int(time.time() * 1000))
    await store.open()
    for start in range(0, records, AT_ONCE):
        batch = [record(number, chance) for number in range(start, min(start + AT_ONCE, records))]
        await asyncio.gather(*map(store.reserve, batch))
        await asyncio.gather(*map(store.settle, batch))
    if store.spooled:
        raise SystemExit(f"bench: the store did not take {store.spooled} records")
    await store.close()
    await server.close()


@contextmanager
def filled(records: int, environ: dict[str, str]) -> Iterator[Callmeter]:
    """A bookkeeper that has just been started before streams full of records."""
    with tempfile.TemporaryDirectory(prefix="callmeter-bench-") as directory:
        with callmeter(Path(directory), only="bookkeeper"):
            time.sleep(1.0)  # makes the ledger, and the epochs without which the store takes nothing
        asyncio.run(fill(Path(directory) / "data", records))
        with callmeter(Path(directory), only="bookkeeper", environ=environ) as served:
            pin(served.bookkeeper, PROXY_CPU)
            yield served


def pace(served: Callmeter, records: int, done: Callable[[], int]) -> Pace:
    """Waits until `done` has come to `records`, and tells how fast it went from now on."""
    begun_s, begun_us, begun = time.monotonic(), cpu_us(served.bookkeeper), done()
    while (come := done()) < records:
        if time.monotonic() - begun_s > DONE_S_MAX:
            raise SystemExit(f"bench: only {come} of {records} records were taken in {DONE_S_MAX:.0f} s")
        time.sleep(LOOK_S)
    seconds, spent_us = time.monotonic() - begun_s, cpu_us(served.bookkeeper) - begun_us
    taken = max(1, records - begun)
    return Pace(taken, taken / seconds, spent_us / taken, rss_mb(served.bookkeeper))


def into_the_ledger(records: int) -> Pace:
    with filled(records, {}) as served:
        took = pace(served, records, served.recorded)
        check(served, records)
    return took


def with_traces(records: int) -> Pace:
    with helper("collector") as (_, port):
        with filled(records, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}) as served:

            def traced() -> int:
                return min(served.recorded(), stats_of(port)["spans"] // 2)

            took = pace(served, records, traced)
            check(served, records)
        if (spans := stats_of(port)["spans"]) != 2 * records:
            raise SystemExit(f"bench: the collector has {spans} spans of {records} calls")
    return took


def check(served: Callmeter, records: int) -> None:
    if (calls := served.total()["calls"]) != records:
        raise SystemExit(f"bench: the ledger has {calls} calls of {records}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few records: to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="how often  [3]")
    asked = parser.parse_args()
    pin(os.getpid(), OTHER_CPU)
    records = RECORDS_QUICK if asked.quick else RECORDS
    print("                     records   calls/s   CPU us a call   RSS MB")
    for _ in range(asked.repeats):
        for name, took in (
            ("into the ledger", into_the_ledger(records)),
            ("ledger and traces", with_traces(int(records * TRACED_SHARE))),
        ):
            print(f"{name:20} {took.records:8} {took.per_s:9.0f} {took.cpu_us:15.1f} {took.rss_mb:8.1f}", flush=True)


if __name__ == "__main__":
    main()
