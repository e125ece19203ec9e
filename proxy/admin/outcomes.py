"""Outcomes: `/api/outcomes` shows what tasks came to, and takes what people declare themselves, marked so."""

from __future__ import annotations

import secrets
from typing import Any, get_args

import msgspec
from aiohttp import web

from ..core.happenings import Landing, Told, clean
from ..core.outcomes import DECLARED, Outcome, OutcomeRule, State
from ..core.record import rfc3339
from ..ledger.outcomes import Delivery
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import body_of, chosen, known_only, moment_ms
from .threads import Threads

TIMES = ("landed", "due", "accepted", "undone", "seen", "changed")


class NewOutcome(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What somebody declares. `rule`: one of `outcomes` with `from: declared`; without, the only such rule. Where the
    policy has none, the outcome is shown and never accepted."""

    task: str
    rule: str | None = None
    change: str | None = None


class Outcomes:
    """Handlers that show outcomes and take declared ones, in threads."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/outcomes", self.list), web.post("/api/outcomes", self.declare)]

    async def list(self, request: web.Request) -> web.Response:
        """`{"outcomes": [...]}`: the latest first; `?task=&state=&since=`."""
        query = request.query
        known_only(query, ("task", "state", "since"))
        state = chosen(query, "state", get_args(State))
        since_ms = moment_ms(query, "since", self._context.clock_ms()) or 0
        task = query.get("task")
        book = self._context.ledger.outcomes
        found = await self._threads.run(lambda: book.list(task=task, state=state, since_ms=since_ms))
        return json_answer({"outcomes": [outcome_fields(outcome) for outcome in found]})

    async def declare(self, request: web.Request) -> web.Response:
        body = await body_of(request, NewOutcome)
        task = clean(body.task)
        if not task:
            raise Problem(400, "`task` needs 1 to 128 printable characters", parameter="task")
        rule, now_ms = self._rule(body.rule), self._context.clock_ms()
        change = clean(body.change or "") or secrets.token_hex(8)
        landing = Landing(
            task=task,
            kind=DECLARED,
            repo="",
            base="",
            change=change,
            refs=(f"declared/{rule.name}:{task}:{change}",),
            told=(),
            reviewed=None,
            at_ms=now_ms,
        )
        told = Told(landings=(landing,))
        delivery = Delivery(rule=rule, identity=f"declared {task} {change}", told=told, source="self_declared")
        book = self._context.ledger.outcomes
        (taken,), changes = await self._threads.run(lambda: book.take([delivery], now_ms))
        for (name, state), count in changes.items():
            self._context.outcome_metrics.changed(name, state, count)
        found = await self._threads.run(lambda: book.list(task=task))
        keys = set(taken.outcomes)
        made = next((outcome for outcome in found if outcome.key in keys or outcome.change == change), None)
        if made is None:
            raise Problem(409, f"`{change}` was declared for another task already", parameter="change")
        return json_answer(outcome_fields(made), 200 if taken.repeated else 201)

    def _rule(self, name: str | None) -> OutcomeRule:
        declared = [rule for rule in self._context.rules().outcomes if rule.origin == "declared"]
        if name is None:
            return (
                declared[0] if len(declared) == 1 else OutcomeRule(name="", origin="declared", accepted_after_ms=None)
            )
        for rule in declared:
            if rule.name == name:
                return rule
        there = ", ".join(f"`{rule.name}`" for rule in declared) or "none"
        raise Problem(400, f"no rule `{name}` has `from: declared`; there is {there}", parameter="rule")


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the API shows it: times in RFC 3339, the length that it must hold in seconds."""
    fields: dict[str, Any] = msgspec.to_builtins(outcome)
    for name in TIMES:
        at_ms = fields.pop(f"{name}_ms")
        fields[f"{name}_at"] = None if at_ms is None else rfc3339(at_ms)
    after_ms = fields.pop("accepted_after_ms")
    fields["accepted_after_seconds"] = None if after_ms is None else after_ms // 1000
    return fields
