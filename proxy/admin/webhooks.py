"""Webhooks: `/webhooks/<outcome rule>`. Deliveries of sources that sign, into the ledger, each once.

A delivery is answered when it is in the ledger: a source that hears no 2xx sends again, or lets a person do so. Those
that come together are written together, so that a burst costs a few transactions. Any bookkeeper takes them, also one
that stands by: their exactly-once is the ledger's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..core.happenings import told_by
from ..core.outcomes import OutcomeRule
from ..ledger.outcomes import Delivery, OutcomeBook, Taken
from ..wire.webhooks import PayloadInvalid, SignatureInvalid, check, read
from .answers import Problem, json_answer, problem_answer
from .context import AdminContext
from .threads import Threads

PREFIX = "/webhooks/"
BODY_BYTES_MAX = 2 * 1024 * 1024
"""A push of two thousand commits has half of that; other deliveries have some 30 KB."""
WAITING_MAX = 10_000
"""Deliveries that wait for the ledger: ten seconds of the greatest burst. What is kept of one is small."""
BATCH_MAX = 500
"""Deliveries of one transaction: enough to share its cost, and over in a moment."""
BODY_S_MAX = 10.0
"""How long a delivery may take to arrive: senders are servers, and a slow one must not hold memory."""
WRITE_S = 9.0
"""GitHub gives up after ten seconds."""


class Webhooks:
    """The handler of all outcome rules."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._intake = Intake(context.ledger.outcomes, threads, context.clock_ms, context.outcome_metrics.changed)

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PREFIX + "{rule}", self.take)]

    async def take(self, request: web.Request) -> web.Response:
        """200 `{"taken", "repeated", "outcomes"}`; 401, 404, 413, 400 where a delivery is not to be taken, 503 where it
        cannot be taken now."""
        name = request.match_info["rule"]
        rule = next((rule for rule in self._context.rules().outcomes if rule.name == name and rule.secret), None)
        if rule is None:
            raise Problem(404, f"no rule of `outcomes` is called `{name[:64]}` and has a secret; see the policy files")
        try:
            answer, shown = await self._taken(request, rule)
        except Problem as problem:
            self._context.outcome_metrics.delivered(rule.name, "refused" if problem.status < 500 else "failed")
            return problem_answer(problem, {"retry-after": "5"} if problem.status == 503 else None)
        self._context.outcome_metrics.delivered(rule.name, answer)
        return json_answer(shown)

    async def _taken(self, request: web.Request, rule: OutcomeRule) -> tuple[str, dict[str, Any]]:
        body = await body_of(request)
        now_ms = self._context.clock_ms()
        try:
            identity = check(rule, request.headers, body, now_ms)
            told = told_by(rule, read(rule, request.headers, body, now_ms), now_ms)
        except SignatureInvalid as error:
            raise Problem(401, str(error)) from None
        except PayloadInvalid as error:
            raise Problem(400, str(error)) from None
        if not told:
            why = f"rule `{rule.name}` is about `{rule.event}`, and this is something else or does not match"
            return "ignored", {"taken": False, "repeated": False, "outcomes": [], "why": why}
        taken = await self._intake.take(Delivery(rule=rule, identity=identity, told=told))
        shown = {"taken": not taken.repeated, "repeated": taken.repeated, "outcomes": taken.outcomes}
        return "repeated" if taken.repeated else "taken", shown


class Intake:
    """Deliveries on their way into the ledger, those that wait together in one transaction."""

    def __init__(
        self,
        book: OutcomeBook,
        threads: Threads,
        clock_ms: Callable[[], int],
        changed: Callable[[str, str, int], None],
    ) -> None:
        self._book = book
        self._threads = threads
        self._clock_ms = clock_ms
        self._changed = changed
        self._waiting: list[tuple[Delivery, asyncio.Future[Taken]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def take(self, delivery: Delivery) -> Taken:
        """Returns when it is in the ledger. Raises Problem, LedgerUnavailable."""
        if len(self._waiting) >= WAITING_MAX:
            raise Problem(503, f"{WAITING_MAX} deliveries wait for the ledger already; send this one again later")
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(WRITE_S):
                return await done
        except TimeoutError:
            raise Problem(503, "the ledger does not answer in time; send this delivery again") from None

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            deliveries, now_ms = [delivery for delivery, _ in batch], self._clock_ms()
            try:
                taken, changes = await self._threads.run(lambda: self._book.take(deliveries, now_ms))  # noqa: B023
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), each in zip(batch, taken, strict=True):
                if not done.done():
                    done.set_result(each)
            for (rule, state), count in changes.items():
                self._changed(rule, state, count)


async def body_of(request: web.Request) -> bytes:
    """The body, refused as soon as it is known to be too large or too slow. Raises Problem."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {BODY_S_MAX:g} s; send this delivery again") from None
    return bytes(body)


def _too_large() -> Problem:
    return Problem(413, f"a delivery has at most {BODY_BYTES_MAX // 2**20} MiB here; let the webhook send fewer events")
