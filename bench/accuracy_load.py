"""One load of the accuracy test: callers that ask, wait and ask again as an SDK does, and count what they are told."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from typing import Any, Literal

import aiohttp
import msgspec

from .accuracy_house import INPUT_NUSD, OUTPUT_NUSD
from .accuracy_provider import INPUT_TOKENS, WISH_HEADER, Wish

Shape = Literal["plain", "stream", "broken"]

TRIES_MAX = 12
"""How often a caller asks that was told to wait, or whose connection broke."""
WAIT_S_MAX = 1.0
"""Callers wait as `Retry-After` says, and no longer than this, to keep the test short."""
GONE_STEPS = 10
GONE_STEP_S = 0.04
"""Callers that go away do so at different moments after their call was sent: before, in and after the answer."""
ANSWER_S_MAX = 60.0
PIECES = 5
_LEFT = re.compile(r'"[a-z]+";r=(\d+)')
_NEEDED = re.compile(r"\$([0-9.,]+) needed")


async def sent(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
    """Tells a caller that its call is on its way; for `open_session`."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.set()


def open_session() -> aiohttp.ClientSession:
    """For all the loads that run at the same time."""
    traced = aiohttp.TraceConfig()
    traced.on_request_headers_sent.append(sent)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trace_configs=[traced])


class Plan(msgspec.Struct, kw_only=True):
    """One load.

    user        whose budget it meets; begins with the kind of the budget
    calls       calls in all, each tried again where that is invited
    fits        so many thousandths of the load the budget has room for
    output      tokens that each answer really has;  output_max: as the call limits it
    learned     tokens that calls of this model had before; 0: none were made
    gone        every third caller goes away in mid-answer;  failing: every third answer is a 500
    """

    user: str
    concurrency: int
    calls: int
    fits: int
    shape: Shape
    output: int = 1000
    output_max: int = 1000
    learned: int = 0
    pause_ms: int = 30
    gone: bool = False
    failing: bool = False

    @property
    def model(self) -> str:
        """Its own, so that nothing is learned from other loads."""
        return f"bench-{self.user}"

    @property
    def cost_nusd(self) -> int:
        """What a call costs that is answered in full."""
        return INPUT_TOKENS * INPUT_NUSD + self.output * OUTPUT_NUSD

    @property
    def limit_nusd(self) -> int:
        return self.calls * self.cost_nusd * self.fits // 1000


class Told(msgspec.Struct):
    """What callers saw. `ids` are those of calls that were let pass; `unjust` are refusals although it would have fit.

    attempts    requests that were sent, whatever became of them
    broken      those that got no answer to the end
    """

    ids: set[str] = msgspec.field(default_factory=set)
    attempts: int = 0
    broken: int = 0
    spent: int = 0
    waits: int = 0
    outages: int = 0
    errors: int = 0
    unjust: list[str] = []
    outage_words: set[str] = msgspec.field(default_factory=set)
    left_micro: int = -1
    """The most that was left when a call was refused, in micro-USD, as the header told."""

    @property
    def refusals(self) -> int:
        return self.spent + self.waits + self.outages


class Load:
    """Runs one plan over a session that other loads share."""

    def __init__(self, plan: Plan, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.plan = plan
        self.told = Told()
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"}

    async def learn(self) -> None:
        """Calls before the load, as short as calls of this model usually are. They go to a user without a budget."""
        for _ in range(12):
            await self._ask(self.plan.learned, fault_free=True)
        self.told = Told()

    async def run(self) -> Told:
        numbers = iter(range(self.plan.calls))
        await asyncio.gather(*(self._caller(numbers) for _ in range(self.plan.concurrency)))
        return self.told

    async def _caller(self, numbers: Any) -> None:
        for number in numbers:
            third = number % 3 == 1
            for attempt in itertools.count(1):
                failing = self.plan.failing and third
                if self.plan.gone and third:
                    await self._leave(number % GONE_STEPS * GONE_STEP_S)
                    break
                wait_s = await self._ask(self.plan.output, failing=failing)
                if wait_s is None or attempt >= TRIES_MAX:
                    break
                await asyncio.sleep(min(wait_s, WAIT_S_MAX))

    async def _leave(self, after_s: float) -> None:
        """Asks, and goes away so long after the call was sent."""
        is_sent = asyncio.Event()
        asking = asyncio.create_task(self._ask(self.plan.output, is_sent=is_sent))
        sending = asyncio.create_task(is_sent.wait())
        await asyncio.wait([asking, sending], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([asking], timeout=after_s)
        asking.cancel()
        sending.cancel()
        await asyncio.gather(asking, sending, return_exceptions=True)

    async def _ask(
        self, tokens: int, *, failing: bool = False, fault_free: bool = False, is_sent: asyncio.Event | None = None
    ) -> float | None:
        """One request. Seconds to wait before it is sent again, None where that makes no sense."""
        plan, told = self.plan, self.told
        broken = plan.shape == "broken" and not fault_free
        wish = Wish(
            load=plan.user if not fault_free else "",
            tokens=tokens,
            pieces=PIECES,
            pause_ms=plan.pause_ms if not fault_free else 1,
            cut_after=PIECES // 2 if broken else -1,
            status=500 if failing else 0,
        )
        body: dict[str, Any] = {
            "model": plan.model,
            "messages": [{"role": "user", "content": "How long is a piece of string?"}],
            "max_completion_tokens": plan.output_max,
        }
        if plan.shape != "plain":
            body["stream"] = True
        headers = {**self._headers, WISH_HEADER: msgspec.json.encode(wish).decode()}
        told.attempts += 1
        try:
            async with (
                asyncio.timeout(ANSWER_S_MAX),
                self._session.post(self._url, json=body, headers=headers, trace_request_ctx=is_sent) as answer,
            ):
                if answer.headers.get("x-callmeter-reason"):
                    return self._refused(answer, await answer.read())
                told.ids.add(answer.headers["x-callmeter-call"])
                await answer.read()
                told.errors += answer.status >= 500
                return None
        except aiohttp.ClientError as error:
            told.broken += 1
            # A stream that the provider broke is an answer; a connection without one may be tried again.
            return None if isinstance(error, aiohttp.ClientPayloadError) else 0.3

    def _refused(self, answer: aiohttp.ClientResponse, body: bytes) -> float | None:
        told, reason = self.told, answer.headers["x-callmeter-reason"]
        if reason == "store_unavailable":
            told.outages += 1
            told.outage_words.add(json.loads(body)["error"]["message"])
            return 0.5
        if reason not in ("budget_spent", "budget_held"):
            told.ids.add(answer.headers["x-callmeter-call"])  # the provider's own trouble: the call was let pass
            told.errors += 1
            return None
        sentence: str = json.loads(body)["error"]["message"]
        left, needed = _LEFT.search(answer.headers.get("ratelimit", "")), _NEEDED.search(sentence)
        if left is None or needed is None:
            told.unjust.append(f"no figures: {sentence}")
        told.left_micro = max(told.left_micro, int(left[1]) if left else -1)
        if (
            left and needed and int(left[1]) / 1e6 > float(needed[1].replace(",", "")) * 1.05
        ):  # a sentence rounds to two digits
            told.unjust.append(f"{left[1]} micro-USD were left: {sentence}")
        if reason == "budget_spent":
            told.spent += 1
            return None
        told.waits += 1
        return float(answer.headers["retry-after"])
