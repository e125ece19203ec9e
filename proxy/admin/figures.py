"""Figures: `/api/calls`, `/api/report`, `/api/tasks/<task>`, `/api/reconcile` and `/api/reprice`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from aiohttp import web

from ..core.patience import patience_of
from ..core.record import Result, public, rfc3339
from ..core.report import row_fields
from ..ledger.queries import LIMIT_DEFAULT, LIMIT_MAX, Filters
from ..ledger.reports import ReportInvalid
from ..ledger.rollups import TASK_MEASURES, TaskTotals
from ..store.errors import StoreError
from .answers import Problem, json_answer
from .context import AdminContext
from .outcomes import outcome_fields
from .parameters import (
    TIME_FORMS,
    body_of,
    chosen,
    in_order,
    known_only,
    moment_ms,
    number,
    read_moment_ms,
    whole_hour,
    zone_of,
)
from .threads import Threads

NAMES = ("user", "team", "task", "model", "rule", "refusal")
RESULTS: tuple[str, ...] = get_args(Result)
REPORT_SINCE = "30d"
REPORT_BY = "task"


class RepriceBody(msgspec.Struct, forbid_unknown_fields=True):
    """`since` as for calls, default everything; `cursor` is the `next` of the step before."""

    since: str | None = None
    cursor: str | None = None


class Figures:
    """Handlers that read the ledger, in threads."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._ledger = context.ledger
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/calls", self.calls),
            web.get("/api/report", self.report),
            web.get("/api/tasks/{task:.+}", self.task),
            web.get("/api/reconcile", self.reconcile),
            web.post("/api/reprice", self.reprice),
        ]

    async def calls(self, request: web.Request) -> web.Response:
        """`{"calls": [record, ...], "next": cursor or null}`, oldest first. With `follow=true` there is always a
        `next`, also where nothing more is there yet, so that a caller can go on from it."""
        query = request.query
        known_only(query, ("since", "until", "timezone", "result", "limit", "cursor", "follow", *NAMES))
        now_ms, times_of = self._context.clock_ms(), zone_of(query)
        filters = Filters(
            since_ms=moment_ms(query, "since", now_ms, times_of),
            until_ms=moment_ms(query, "until", now_ms, times_of),
            result=chosen(query, "result", RESULTS),
            **{name: query.get(name) or None for name in NAMES},
        )
        in_order(query, filters.since_ms, filters.until_ms)
        limit = number(query, "limit", LIMIT_DEFAULT, LIMIT_MAX)
        follow = chosen(query, "follow", ("true", "false")) == "true"
        cursor = query.get("cursor") or None

        def read() -> bytes:
            try:
                page = self._ledger.calls(filters, limit, cursor)
            except ValueError as error:
                raise Problem(400, f"`cursor`: {error}", parameter="cursor") from None
            shown = [public(record) for record in page.records]
            return msgspec.json.encode({"calls": shown, "next": page.here if follow else page.next})

        return json_answer(await self._threads.run(read))

    async def report(self, request: web.Request) -> web.Response:
        """`{"rows": [...], "total": {...}}`, rows by name. `since` as a duration begins with a whole hour."""
        query = request.query
        known_only(query, ("by", "since", "until", "timezone"))
        timezone, months_of = query.get("timezone") or "UTC", zone_of(query)
        by = [name.strip() for name in (query.get("by") or REPORT_BY).split(",")]
        now_ms = self._context.clock_ms()
        asked = {"since": REPORT_SINCE} | {name: text for name, text in query.items() if text}
        since_ms = moment_ms(asked, "since", now_ms, months_of) or 0
        until_ms = moment_ms(asked, "until", now_ms, months_of)
        in_order(asked, since_ms, until_ms)
        since_ms = whole_hour(asked, "since", since_ms)
        until_ms = now_ms + 1 if until_ms is None else whole_hour(asked, "until", until_ms)
        rules = self._context.rules()

        def read() -> bytes:
            try:
                made = self._ledger.report(
                    by,
                    since_ms=since_ms,
                    until_ms=until_ms,
                    timezone=timezone,
                    teams=rules.teams,
                    patience=patience_of(rules.unproven, now_ms),
                )
            except ReportInvalid as error:
                raise Problem(400, f"`by`: {error}", parameter="by") from None
            return msgspec.json.encode(
                {
                    "by": made.by,
                    "since": rfc3339(since_ms),
                    "until": rfc3339(until_ms),
                    "timezone": timezone,
                    "rows": [row_fields(made.by, row) for row in made.rows],
                    "total": row_fields((), made.total),
                    "outcomes": made.outcomes,
                    "withheld": made.withheld,
                }
            )

        return json_answer(await self._threads.run(read))

    async def task(self, request: web.Request) -> web.Response:
        """What a task cost in all, what each who worked on it did, in the order of names, and what it came to. The
        task of an outcome that no call has is shown too, with cost 0."""
        name = request.match_info["task"]
        found = await self._threads.run(lambda: self._ledger.task(name))
        came_to = await self._threads.run(lambda: self._ledger.outcomes.list(task=name))
        if not found and not came_to:
            raise Problem(404, f"no call and no outcome of task `{name}` is in the ledger")
        return json_answer(task_fields(name, found) | {"outcomes": [outcome_fields(outcome) for outcome in came_to]})

    async def reconcile(self, request: web.Request) -> web.Response:
        """`{"models": [...]}`: what the ledger has of a `provider`, by model, and which calls rest on a guess."""
        query = request.query
        known_only(query, ("provider", "since", "until"))
        now_ms, provider = self._context.clock_ms(), query.get("provider")
        since_ms, until_ms = moment_ms(query, "since", now_ms), moment_ms(query, "until", now_ms)
        if not provider or since_ms is None or until_ms is None:
            raise Problem(400, "say which `provider`, from `since` to `until`")
        made = await self._threads.run(lambda: self._ledger.reconcile(provider, since_ms, until_ms))
        return json_answer({"models": made})

    async def reprice(self, request: web.Request) -> web.Response:
        """One step: `{"looked_at", "changed", "difference_nusd", "next"}`; ask again with `cursor: next` until null."""
        body = await body_of(request, RepriceBody)
        since_ms: int | None = 0
        if body.since:
            since_ms = read_moment_ms(body.since, self._context.clock_ms())
        if since_ms is None:
            raise Problem(400, f"`since` is `{body.since}`; write {TIME_FORMS}", parameter="since")
        start_ms = since_ms

        def step() -> Any:
            try:
                return self._ledger.reprice(start_ms, self._context.price, self._context.charge, body.cursor)
            except StoreError as error:
                raise Problem(503, f"counters cannot be charged, so nothing was priced: {error}") from None
            except ValueError as error:
                raise Problem(400, f"`cursor`: {error}", parameter="cursor") from None

        return json_answer(await self._threads.run(step))


def task_fields(name: str, found: list[TaskTotals]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task": name,
        "first_at": rfc3339(min(totals.first_at_ms for totals in found)) if found else None,
        "last_at": rfc3339(max(totals.last_at_ms for totals in found)) if found else None,
    }
    fields |= {field: sum(getattr(totals, field) for totals in found) for field in TASK_MEASURES}
    fields["longest_loop"] = max((totals.longest_loop for totals in found), default=0)
    fields["by"] = [
        {
            "org": totals.org,
            "user": totals.user,
            "task_source": totals.task_source,
            "first_at": rfc3339(totals.first_at_ms),
            "last_at": rfc3339(totals.last_at_ms),
            **{field: getattr(totals, field) for field in TASK_MEASURES},
            "longest_loop": totals.longest_loop,
        }
        for totals in found
    ]
    return fields
