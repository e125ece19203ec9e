"""`python -m bench.webhooks`: what a burst of webhooks meets: how long each delivery waits for its answer, and what it
costs the bookkeeper.

A real `callmeter serve --only bookkeeper` on CPU 0 takes signed deliveries of merged pull requests, each a change of
its own, at an even pace. At the end every answer must be 200, and the ledger must have every outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import aiohttp

from .callmeter import Callmeter, callmeter
from .processes import OTHER_CPU, PROXY_CPU, cpu_us, pin

SECRET = "the-secret-of-the-benchmark"
RULE = f"""\
outcomes:
  - {{name: merged, from: github, secret: {SECRET}, task: "[A-Z]+-[0-9]+", match: {{repo: "acme/*", base: main}}}}
"""
BODY_CHARACTERS = 20_000
"""GitHub tells a lot of a pull request: its payload has some 20 to 30 KB."""
CONNECTIONS_MAX = 200

Sent = tuple[bytes, dict[str, str]]


def delivery(number: int) -> Sent:
    """A merged pull request, as GitHub tells of it."""
    commit = hashlib.sha1(str(number).encode()).hexdigest()
    request = {
        "number": number,
        "title": f"PAY-{number} mend",
        "body": "x" * BODY_CHARACTERS,
        "merged": True,
        "merge_commit_sha": commit,
        "user": {"login": "ada"},
        "merged_by": {"login": "bob"},
        "labels": [],
        "head": {"ref": "mend"},
        "base": {"ref": "main", "sha": commit[::-1]},
    }
    repository = {"full_name": "acme/pay", "default_branch": "main"}
    body = json.dumps({"action": "closed", "pull_request": request, "repository": repository}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "content-type": "application/json",
        "x-github-event": "pull_request",
        "x-github-delivery": f"bench-{number}",
        "x-hub-signature-256": f"sha256={signature}",
    }


async def burst(url: str, deliveries: list[Sent], per_s: float) -> list[float]:
    """Sends all of them, one every `1 / per_s` seconds; how long each waited for its answer, in seconds."""
    waited: list[float] = []

    async def send(session: aiohttp.ClientSession, body: bytes, headers: dict[str, str], due_s: float) -> None:
        async with session.post(url, data=body, headers=headers) as answer:
            if answer.status != 200:
                raise SystemExit(f"bench: a delivery was answered {answer.status}: {await answer.text()}")
        waited.append(time.perf_counter() - due_s)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX)) as session:
        begun_s, sending = time.perf_counter(), []
        for number, (body, headers) in enumerate(deliveries):
            due_s = begun_s + number / per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            sending.append(asyncio.create_task(send(session, body, headers, due_s)))
        await asyncio.gather(*sending)
    return sorted(waited)


def check(served: Callmeter, deliveries: int) -> None:
    with closing(sqlite3.connect(f"file:{served.data / 'ledger.db'}?mode=ro", uri=True)) as connection:
        (outcomes,) = connection.execute("select count(*) from outcomes").fetchone()
    if outcomes != deliveries:
        raise SystemExit(f"bench: the ledger has {outcomes} outcomes of {deliveries} deliveries")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=1_000, help="how many  [1000]")
    parser.add_argument("--per-second", type=float, default=1_000, help="how fast  [1000]")
    parser.add_argument("--repeats", type=int, default=3, help="how often  [3]")
    asked = parser.parse_args()
    pin(os.getpid(), OTHER_CPU)
    print("deliveries   median ms   p99 ms   longest ms   CPU us a delivery")
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "policies").mkdir()
            (Path(directory) / "policies" / "outcomes.yaml").write_text(RULE)
            with callmeter(Path(directory), only="bookkeeper") as served:
                pin(served.bookkeeper, PROXY_CPU)
                deliveries = [delivery(number) for number in range(asked.deliveries)]
                begun_us = cpu_us(served.bookkeeper)
                waited = asyncio.run(burst(f"{served.admin_url}/webhooks/merged", deliveries, asked.per_second))
                spent_us = (cpu_us(served.bookkeeper) - begun_us) / len(deliveries)
                check(served, len(deliveries))
        told = [1000 * waited[int(share * (len(waited) - 1))] for share in (0.5, 0.99, 1)]
        print(f"{len(waited):10} {told[0]:11.0f} {told[1]:8.0f} {told[2]:12.0f} {spent_us:19.0f}", flush=True)


if __name__ == "__main__":
    main()
