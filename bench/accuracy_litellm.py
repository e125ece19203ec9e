"""The accuracy test's loads against LiteLLM's proxy, to set beside ours: `python -m bench.accuracy_litellm`.

It needs `litellm[proxy]` in an environment of its own (`--litellm PROGRAM`, or `litellm` on PATH) and says so where it
is not there. Budgets of keys and users need LiteLLM's database, whose client downloads programs; here each load's model
is a deployment with a `max_budget`, which LiteLLM keeps in Redis (an embedded Valkey) without one. What was let pass is
counted at the provider, and costs what LiteLLM was told that it costs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from proxy.store.embedded import EmbeddedServer

from .accuracy import CALLS, FITS, usd
from .accuracy_house import INPUT_NUSD, NUSD_PER_USD, OUTPUT_NUSD
from .accuracy_load import ANSWER_S_MAX, PIECES, TRIES_MAX, WAIT_S_MAX, Plan, open_session
from .accuracy_provider import WISH_HEADER, Wish
from .processes import STOP_S_MAX, helper, stats_of

KEY = "sk-bench"
READY_S_MAX = 180.0
SETTLE_S = 5.0
"""LiteLLM writes what was spent into Redis from time to time; so long we wait between loads."""


class Told(msgspec.Struct):
    """What callers saw: calls that were answered, refused by the budget, and that failed otherwise."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    words: set[str] = msgspec.field(default_factory=set)


def config(plans: Sequence[Plan], provider_port: int, redis_socket: Path) -> str:
    """LiteLLM's configuration (JSON is YAML)."""
    models = [
        {
            "model_name": plan.model,
            "litellm_params": {
                "model": f"openai/{plan.model}",
                "api_base": f"http://127.0.0.1:{provider_port}/v1",
                "api_key": "bench",
                "input_cost_per_token": INPUT_NUSD / NUSD_PER_USD,
                "output_cost_per_token": OUTPUT_NUSD / NUSD_PER_USD,
                "max_budget": plan.limit_nusd / NUSD_PER_USD,
                "budget_duration": "1d",
            },
        }
        for plan in plans
    ]
    return json.dumps(
        {
            "model_list": models,
            "router_settings": {"redis_url": f"unix://{redis_socket}", "num_retries": 0},
            "litellm_settings": {"num_retries": 0},
            "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": True},
        }
    )


@contextmanager
def litellm(program: str, directory: Path, text: str) -> Iterator[int]:
    """LiteLLM's proxy with one process, until the block ends; its port."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
    path = directory / "litellm.yaml"
    path.write_text(text)
    arguments = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    with (directory / "litellm.log").open("a") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port, process, directory / "litellm.log")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + READY_S_MAX
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"LiteLLM did not start:\n{log.read_text()[-3000:]}")


class Load:
    """One plan. Callers ask again as SDKs do, but take a spent budget at its word."""

    def __init__(self, plan: Plan, session: aiohttp.ClientSession, port: int) -> None:
        self.plan = plan
        self.told = Told()
        self._session = session
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def run(self) -> Told:
        numbers = iter(range(self.plan.calls))
        await asyncio.gather(*(self._caller(numbers) for _ in range(self.plan.concurrency)))
        return self.told

    async def _caller(self, numbers: Any) -> None:
        for _ in numbers:
            for attempt in itertools.count(1):
                if await self._ask() or attempt >= TRIES_MAX:
                    break
                await asyncio.sleep(WAIT_S_MAX)

    async def _ask(self) -> bool:
        """One request; whether that was the end of it."""
        plan, told = self.plan, self.told
        wish = Wish(load=plan.user, tokens=plan.output, pieces=PIECES, pause_ms=plan.pause_ms)
        body = {
            "model": plan.model,
            "messages": [{"role": "user", "content": "How long is a piece of string?"}],
            "max_completion_tokens": plan.output_max,
            "stream": plan.shape != "plain",
        }
        headers = {"authorization": f"Bearer {KEY}", WISH_HEADER: msgspec.json.encode(wish).decode()}
        try:
            async with (
                asyncio.timeout(ANSWER_S_MAX),
                self._session.post(self._url, json=body, headers=headers) as answer,
            ):
                text = (await answer.read()).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError) as error:
            told.failed += 1
            told.words.add(type(error).__name__)
            return False
        if answer.status == 200:
            told.answered += 1
            return True
        if "budget" in text.lower():
            told.refused += 1
            return True
        told.failed += 1
        told.words.add(f"{answer.status} {text[:200]}")
        return answer.status < 500 and answer.status != 429


async def run_all(port: int, plans: Sequence[Plan]) -> list[Told]:
    async with open_session() as session:
        found = []
        for shape, concurrency in dict.fromkeys((plan.shape, plan.concurrency) for plan in plans):
            batch = [plan for plan in plans if (plan.shape, plan.concurrency) == (shape, concurrency)]
            found += await asyncio.gather(*(Load(plan, session, port).run() for plan in batch))
            await asyncio.sleep(SETTLE_S)
    return found


def compared(program: str, plans: Sequence[Plan]) -> list[str]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory(prefix="cm-") as name, helper("accuracy_provider") as (_, provider_port):
        directory = Path(name)
        server = EmbeddedServer(directory / "store")
        (directory / "store").mkdir()

        async def with_store() -> list[Told]:
            await server.open()
            watching = asyncio.create_task(server.watch())
            try:
                with litellm(program, directory, config(plans, provider_port, server.socket)) as port:
                    return await run_all(port, plans)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await server.close()

        told = uvloop.run(with_store())
        seen = stats_of(provider_port)
    return [row(plan, each, seen.get(plan.user, 0)) for plan, each in zip(plans, told, strict=True)]


def row(plan: Plan, told: Told, passed: int) -> str:
    spent_nusd = passed * plan.cost_nusd
    over, unused = max(0, spent_nusd - plan.limit_nusd), max(0, plan.limit_nusd - spent_nusd)
    cells = [
        plan.shape, str(plan.concurrency), f"{plan.fits // 10} %", str(passed), str(told.refused), str(told.failed),
        usd(plan.limit_nusd), usd(spent_nusd), usd(over), usd(unused) if told.refused else "-",
    ]  # fmt: skip
    for words in sorted(told.words):
        print(f"{plan.user}: {words}", file=sys.stderr)
    return "| " + " | ".join(cells) + " |"


HEADS = (
    "calls", "at once", "budget fits", "let pass", "refused", "failed", "limit $", "spent $", "overshoot $", "unused $",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy_litellm", description=__doc__)
    parser.add_argument("--litellm", default="litellm", help="the program  [litellm]")
    parser.add_argument("--quick", action="store_true", help="50 at once alone")
    asked = parser.parse_args()
    program = shutil.which(asked.litellm)
    if program is None:
        print("skipped: there is no `litellm`; install `litellm[proxy]` somewhere and name it with --litellm")
        return 0
    plans = [
        Plan(
            user=f"litellm-{shape}-{concurrency}-{fits}",
            concurrency=concurrency,
            calls=CALLS[concurrency],
            fits=fits,
            shape=shape,
        )
        for concurrency in ((50,) if asked.quick else tuple(CALLS))
        for shape in ("plain", "stream")
        for fits in FITS
    ]
    rows = compared(program, plans)
    for line in ("| " + " | ".join(HEADS) + " |", "| " + " | ".join(["---"] * len(HEADS)) + " |", *rows):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
