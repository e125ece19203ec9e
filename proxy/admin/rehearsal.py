"""Rehearsal: `/api/rehearse`. Replays recorded calls against policy files that are not in force."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from aiohttp import web

from ..core.policy import Policy
from ..core.policy_file import load
from ..core.record import decode, rfc3339
from ..core.rehearsal import Effect, Rehearsal
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import TIME_FORMS, body_of, read_moment_ms
from .threads import Threads

TASKS_SHOWN_MAX = 100
"""Tasks named for one rule: what a person reads. `tasks_stopped` counts them all."""


class RehearseBody(msgspec.Struct, forbid_unknown_fields=True):
    """`files`: name of each policy file -> its text; `since` as for calls."""

    files: dict[str, str]
    since: str = "7d"


class Rehearsals:
    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/rehearse", self.rehearse)]

    async def rehearse(self, request: web.Request) -> web.Response:
        """`{"since", "faults", "total", "rules"}`. With faults nothing is replayed."""
        body = await body_of(request, RehearseBody)
        since_ms = read_moment_ms(body.since, self._context.clock_ms())
        if since_ms is None:
            raise Problem(400, f"`since` is `{body.since}`; write {TIME_FORMS}", parameter="since")
        # The environment is the server's: what is to be rehearsed is what would be in force there.
        loaded = load(body.files, os.environ)
        if loaded.policy is None:
            return json_answer({"faults": [str(fault) for fault in loaded.faults]})
        policy = loaded.policy
        return json_answer(await self._threads.run(lambda: self._replayed(policy, since_ms)))

    def _replayed(self, policy: Policy, since_ms: int) -> dict[str, Any]:
        proven = self._context.ledger.outcomes.proven(0, 0) if policy.unproven else ()
        rehearsal = Rehearsal(policy, since_ms, proven)
        for data in self._context.ledger.spending.records(rehearsal.begins_ms, in_time=True):
            rehearsal.add(decode(data))
        return {
            "since": rfc3339(since_ms),
            "policy_version": policy.version,
            "faults": [],
            "total": rehearsal.total,
            "rules": [effect_fields(effect) for effect in rehearsal.effects()],
        }


def effect_fields(effect: Effect) -> dict[str, Any]:
    """One rule's effect; tasks by name, "" standing for calls without one."""
    return {
        "rule": effect.rule,
        "kind": effect.kind,
        "mode": effect.mode,
        "calls": effect.calls,
        "cost_nusd": effect.cost_nusd,
        "tasks_stopped": len(effect.tasks),
        "tasks": sorted(effect.tasks)[:TASKS_SHOWN_MAX],
    }
