"""Forgetting: `/api/forget` takes a person out of the ledger, or old calls, step by step."""

from __future__ import annotations

import msgspec
from aiohttp import web

from ..ledger.forget import ForgetInvalid, ForgetStep
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import TIME_FORMS, body_of, read_moment_ms
from .threads import Threads


class ForgetBody(msgspec.Struct, forbid_unknown_fields=True):
    """One of the two. `calls_before` is a time, or how long ago."""

    user: str | None = None
    calls_before: str | None = None


class Forgetting:
    """The handler, which works in a thread."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/forget", self.forget)]

    async def forget(self, request: web.Request) -> web.Response:
        """One step: `{"calls", "more", "keys", "raises", "alerts", "claims"}`; ask again while there is `more`."""
        body = await body_of(request, ForgetBody)
        if (body.user is None) == (body.calls_before is None):
            raise Problem(400, "say either `user` or `calls_before`")
        ledger, now_ms = self._context.ledger, self._context.clock_ms()
        before_ms = 0
        if body.calls_before is not None:
            found_ms = read_moment_ms(body.calls_before, now_ms)
            if found_ms is None:
                raise Problem(400, f"`calls_before` is `{body.calls_before}`; write {TIME_FORMS}")
            before_ms = found_ms
        user = body.user

        def step() -> ForgetStep:
            try:
                return ledger.drop_calls(before_ms, now_ms) if user is None else ledger.forget(user, now_ms)
            except ForgetInvalid as error:
                raise Problem(400, str(error)) from None

        return json_answer(await self._threads.run(step))
