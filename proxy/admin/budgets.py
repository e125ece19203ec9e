"""Budgets: `/api/budgets`, `/api/budgets/raises`, `/api/explain` and `/api/alerts`."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..core.amounts import parse_limit
from ..core.budgets import Budget
from ..core.call import Call
from ..core.caller import Caller, TaskSource
from ..core.keys import expiry_ms
from ..core.matching import Upstream
from ..core.policy import Policy
from ..core.raises import GivenRaise
from ..core.record import public, rfc3339
from ..core.recorded import Seen, seen_in
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import body_of, known_only
from .threads import Threads

REASON_CHARACTERS_MAX = 500
WHO = ("user", "team", "org", "task", "model", "upstream", "api", "agent")


class NewRaise(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`for` names each field of the budget's `per`; `by` is an amount in its unit; `until` a time, or how long."""

    budget: str
    scope: dict[str, str] = msgspec.field(default={}, name="for")
    by: str
    until: str
    reason: str


class Budgets:
    """Handlers that show what budgets allow, and raise them for a while."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._ledger = context.ledger
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/budgets", self.counters),
            web.get("/api/budgets/raises", self.raises),
            web.post("/api/budgets/raises", self.add_raise),
            web.get("/api/explain", self.explain),
            web.get("/api/alerts", self.alerts),
        ]

    async def counters(self, request: web.Request) -> web.Response:
        """`{"budgets": [...]}`: the counters of the open windows, by name and scope. No parameter can sort them by what
        people spent."""
        known_only(request.query, ())
        return json_answer({"budgets": await self._context.budgets.counters()})

    async def raises(self, request: web.Request) -> web.Response:
        """`{"raises": [...]}`: all that were ever given, in that order."""
        known_only(request.query, ())
        given = await self._threads.run(self._ledger.raises.list)
        now_ms = self._context.clock_ms()
        return json_answer({"raises": [raise_fields(each, now_ms) for each in given]})

    async def add_raise(self, request: web.Request) -> web.Response:
        body = await body_of(request, NewRaise)
        given = self._given(body)
        made = await self._threads.run(lambda: self._ledger.raises.add(given))
        return json_answer(raise_fields(made, self._context.clock_ms()), 201)

    async def explain(self, request: web.Request) -> web.Response:
        """`{"call", "scope", "access", "duplicates", "budgets"}`: the rules that apply, in order, and what they stand
        at now."""
        query = request.query
        known_only(query, ("call_id", *WHO))
        policy = self._context.rules()
        call_id = query.get("call_id")
        shown = None
        if call_id:
            record = await self._threads.run(lambda: self._ledger.call(call_id))
            if record is None:
                raise Problem(404, f"no call `{call_id}` is in the ledger", parameter="call_id")
            seen, shown = seen_in(record, policy.upstreams), public(record)
        elif query.get("user"):
            seen = await self._seen({name: query.get(name) or None for name in WHO}, policy)
        else:
            raise Problem(400, "name a call by `call_id`, or whom to explain for by `user`", parameter="user")
        return json_answer(
            {
                "call": shown,
                "scope": scope_fields(seen),
                "policy_version": policy.version,
                "access": access_fields(policy, seen),
                "duplicates": duplicate_fields(policy, seen),
                "budgets": await self._context.budgets.met_by(seen),
            }
        )

    async def alerts(self, request: web.Request) -> web.Response:
        """Which alerts there are, without where they go, and the secret that their signatures are checked with."""
        known_only(request.query, ())
        rules = [{"name": rule.name, "on": rule.on} for rule in self._context.rules().alerts]
        return json_answer({"alerts": rules, "signing_secret": self._context.alert_secret})

    def _given(self, body: NewRaise) -> GivenRaise:
        """Raises Problem with a sentence for whatever does not fit the budget."""
        budget = next((each for each in self._context.rules().counted if each.name == body.budget), None)
        if budget is None:
            names = ", ".join(f"`{each.name}`" for each in self._context.rules().counted) or "none"
            raise Problem(404, f"the policy has no budget `{body.budget}`; there are {names}", parameter="budget")
        now_ms = self._context.clock_ms()
        try:
            unit, amount = parse_limit(body.by)
        except ValueError as error:
            raise Problem(400, f"`by`: {error}", parameter="by") from None
        if unit != budget.unit:
            raise Problem(
                400, f"`by` is `{body.by}`; budget `{budget.name}` is {budget.told(budget.limit)}", parameter="by"
            )
        try:
            until_ms = expiry_ms(body.until, now_ms)
        except ValueError as error:
            raise Problem(400, f"`until`: {error}", parameter="until") from None
        reason = body.reason.strip()
        if not reason or len(reason) > REASON_CHARACTERS_MAX or not reason.isprintable():
            detail = f"`reason` needs 1 to {REASON_CHARACTERS_MAX} printable characters: it is what people read later"
            raise Problem(400, detail, parameter="reason")
        return GivenRaise(
            budget=budget.name,
            scope=scope_of(body.scope, budget),
            amount=amount,
            unit=unit,
            until_ms=until_ms,
            reason=reason,
            at_ms=now_ms,
        )

    async def _seen(self, asked: dict[str, str | None], policy: Policy) -> Seen:
        """The call that somebody would make. Org, team and labels are those of a key of theirs, where there is one."""
        user = asked["user"] or ""
        keys = await self._threads.run(self._ledger.keys.list)
        theirs = [info for info in keys if info.user == user and info.revoked_at_ms is None]
        info = theirs[0] if theirs else None
        source: TaskSource = "header" if asked["task"] else "none"
        caller = Caller(
            org=asked["org"] or (info.org if info else "default"),
            team=asked["team"] or (info.team if info else "default"),
            user=user,
            key_id=info.key_id if info else "",
            labels=info.labels if info else {},
            task=asked["task"],
            task_source=source,
            agent=asked["agent"],
        )
        name = asked["upstream"]
        if name is None and len(policy.upstreams) == 1:
            name = next(iter(policy.upstreams))
        if name is not None and name not in policy.upstreams:
            there = ", ".join(f"`{each}`" for each in policy.upstreams)
            raise Problem(400, f"the policy has no upstream `{name}`; there are {there}", parameter="upstream")
        upstream = policy.upstreams[name] if name is not None else Upstream(name="", url="")
        return caller, Call(api=asked["api"] or "", model=asked["model"], dialect=upstream.dialect), upstream


def scope_of(asked: dict[str, str], budget: Budget) -> dict[str, str]:
    """The values of the budget's `per`, in its order. Raises Problem where they do not fit it."""
    if set(asked) != set(budget.per):
        wanted = " ".join(f"--for {field}=..." for field in budget.per)
        raise Problem(400, f"budget `{budget.name}` counts per {', '.join(budget.per)}; name {wanted}", parameter="for")
    return {field: asked[field] for field in budget.per}


def raise_fields(given: GivenRaise, now_ms: int) -> dict[str, Any]:
    """A raise as the API shows it."""
    fields: dict[str, Any] = {"id": given.id, "budget": given.budget, "for": given.scope, "unit": given.unit}
    fields["by_nusd" if given.unit == "nusd" else "by"] = given.amount
    return fields | {
        "until": rfc3339(given.until_ms),
        "reason": given.reason,
        "made_by": given.made_by,
        "at": rfc3339(given.at_ms),
        "open": now_ms < given.until_ms,
    }


def scope_fields(seen: Seen) -> dict[str, Any]:
    """Who is explained for, and which call."""
    caller, call, upstream = seen
    return {
        "org": caller.org,
        "team": caller.team,
        "user": caller.user,
        "task": caller.task,
        "task_source": caller.task_source,
        "agent": caller.agent,
        "upstream": upstream.name or None,
        "model": call.model,
    }


def duplicate_fields(policy: Policy, seen: Seen) -> list[dict[str, Any]]:
    """The duplicate rules that are about such calls, in the order of the policy."""
    return [
        {
            "name": scope.rule.name,
            "kind": scope.rule.kind,
            "scope": dict(zip(scope.rule.per, scope.values, strict=True)),
            "limit": scope.rule.limit,
            "window": scope.rule.every.text,
            "then": scope.rule.then,
            "mode": scope.rule.mode,
        }
        for scope in policy.duplicates_for(*seen)
    ]


def access_fields(policy: Policy, seen: Seen) -> list[dict[str, Any]]:
    """The access rules that match, in the order of the policy, with what they say."""
    fields = []
    for rule in policy.access:
        if rule.match.matches(*seen):
            refusal = rule.refusal(*seen)
            fields.append(
                {
                    "name": rule.name,
                    "then": rule.then,
                    "mode": rule.mode,
                    "sentence": refusal.sentence if rule.then == "refuse" else rule.warning(*seen),
                }
            )
    return fields
