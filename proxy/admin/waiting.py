"""The admin port of a bookkeeper that cannot begin yet: it says that it is alive, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from .answers import Problem, json_answer, problem_answer

RETRY_AFTER_S = "5"


def waiting_app(missing: Callable[[], Mapping[str, str]]) -> web.Application:
    """`missing`: what is waited for, a sentence for each part. Anyone may read them: they must hold no password."""

    async def healthz(_request: web.Request) -> web.Response:
        return json_answer({"alive": True})

    async def readyz(_request: web.Request) -> web.Response:
        return json_answer({"ready": False, "faults": dict(missing())}, 503)

    async def anything(_request: web.Request) -> web.Response:
        return problem_answer(Problem(503, "; ".join(missing().values())), {"retry-after": RETRY_AFTER_S})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.route("*", "/{path:.*}", anything)])
    return app
