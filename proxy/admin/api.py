"""The admin port: one token opens everything but health and the page that says what is where."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .answers import Problem, json_answer, problems
from .budgets import Budgets
from .context import AdminContext
from .exports import Exports
from .figures import Figures
from .forgetting import Forgetting
from .keys import Keys
from .outcomes import Outcomes
from .pages import front
from .parameters import known_only
from .rehearsal import Rehearsals
from .threads import Threads
from .twins import Twins
from .webhooks import PREFIX as WEBHOOKS
from .webhooks import Webhooks

__all__ = ["AdminContext", "admin_app"]

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
BODY_BYTES_MAX = 16 * 1024 * 1024
"""An import of 10,000 keys with long labels."""


def admin_app(context: AdminContext) -> web.Application:
    """The application of the admin port. Its threads end with it; the ledger stays open, it belongs to the caller."""
    threads = Threads()

    async def threads_of_the_app(_app: web.Application) -> AsyncIterator[None]:
        yield
        threads.close()

    app = web.Application(middlewares=[problems, token_check(context.admin_token)], client_max_size=BODY_BYTES_MAX)
    app.cleanup_ctx.append(threads_of_the_app)
    app.add_routes([web.get("/", front), *House(context).routes()])
    app.add_routes(Figures(context, threads).routes())
    app.add_routes(Exports(context, threads).routes())
    app.add_routes(Twins(context, threads).routes())
    app.add_routes(Forgetting(context, threads).routes())
    app.add_routes(Keys(context, threads).routes())
    app.add_routes(Budgets(context, threads).routes())
    app.add_routes(Rehearsals(context, threads).routes())
    app.add_routes(Outcomes(context, threads).routes())
    app.add_routes(Webhooks(context, threads).routes())
    return app


def token_check(admin_token: str) -> Middleware:
    """A middleware that asks for the token before it tells even whether a path exists."""
    expected = admin_token.encode()
    if not expected:
        raise ValueError("the admin port needs an admin token; set CALLMETER_ADMIN_TOKEN")

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not request.path.startswith(WEBHOOKS):  # those have their signature
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            # Compared also where the scheme is wrong, and always in the same time.
            right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
            if scheme.lower() != "bearer" or not right:
                raise Problem(
                    401,
                    "this needs the admin token as `Authorization: Bearer ...`; it is CALLMETER_ADMIN_TOKEN, "
                    "or the file `admin.token` in the data directory",
                )
        return await handler(request)

    return check


class House:
    """Handlers about the proxy itself."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/api/policy", self.policy),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        return json_answer({"alive": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200, or 503 with a sentence for each part that is not ready."""
        faults = dict(await self._context.readiness())
        return json_answer({"ready": not faults, "faults": faults}, 503 if faults else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        body, content_type = self._context.metrics()
        return web.Response(body=body, headers={"content-type": content_type})

    async def policy(self, request: web.Request) -> web.Response:
        known_only(request.query, ())
        return json_answer(dict(self._context.policy()))
