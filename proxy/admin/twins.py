"""Twins: `/api/twins`, groups of tasks that are the same work."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..core.record import rfc3339
from ..ledger.twins import TwinGroup, TwinsInvalid, TwinTask
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import in_order, known_only, moment_ms
from .threads import Threads

TWINS_SINCE = "7d"


class Twins:
    """A handler that reads the ledger, in a thread."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/twins", self.twins)]

    async def twins(self, request: web.Request) -> web.Response:
        """`{"since", "until", "groups": [...]}`, groups and their tasks in the order of names."""
        query = request.query
        known_only(query, ("since", "until"))
        now_ms = self._context.clock_ms()
        asked = {"since": TWINS_SINCE} | {name: text for name, text in query.items() if text}
        since_ms = moment_ms(asked, "since", now_ms) or 0
        until_ms = moment_ms(asked, "until", now_ms)
        in_order(asked, since_ms, until_ms)
        until_ms = now_ms + 1 if until_ms is None else until_ms

        def read() -> dict[str, Any]:
            try:
                groups = self._context.ledger.twins(since_ms=since_ms, until_ms=until_ms)
            except TwinsInvalid as error:
                raise Problem(400, f"`since`: {error}", parameter="since") from None
            shown = [group_fields(group) for group in groups]
            return {"since": rfc3339(since_ms), "until": rfc3339(until_ms), "groups": shown}

        return json_answer(await self._threads.run(read))


def group_fields(group: TwinGroup) -> dict[str, Any]:
    return {
        "tasks": [task_fields(task) for task in group.tasks],
        "calls": group.calls,
        "cost_nusd": group.cost_nusd,
        "one_cost_nusd": group.one_cost_nusd,
    }


def task_fields(task: TwinTask) -> dict[str, Any]:
    return {
        "org": task.org,
        "task": task.task,
        "user": task.user,
        "first_at": rfc3339(task.first_at_ms),
        "last_at": rfc3339(task.last_at_ms),
        "conversations": task.conversations,
        "calls": task.calls,
        "refused": task.refused,
        "cost_nusd": task.cost_nusd,
        "repeats": task.repeat and msgspec.to_builtins(task.repeat),
    }
