"""Answers of the admin port: JSON, and problem details (RFC 9457) for everything that went wrong."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ..ledger.errors import LedgerUnavailable

log = logging.getLogger(__name__)


class Problem(Exception):
    """An answer that is no success. `detail` is a sentence that says what, where and what to do."""

    def __init__(self, status: int, detail: str, *, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.parameter = parameter


def json_answer(data: Any, status: int = 200) -> web.Response:
    """Figures and keys belong into no cache on the way."""
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"cache-control": "no-store"}
    )


def problem_answer(problem: Problem, headers: dict[str, str] | None = None) -> web.Response:
    fields: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.parameter is not None:
        fields["parameter"] = problem.parameter
    return web.Response(
        body=msgspec.json.encode(fields),
        status=problem.status,
        content_type="application/problem+json",
        headers={"cache-control": "no-store", **(headers or {})},
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into problem details."""
    try:
        return await handler(request)
    except Problem as problem:
        headers = {"www-authenticate": 'Bearer realm="callmeter admin"'} if problem.status == 401 else None
        return problem_answer(problem, headers)
    except LedgerUnavailable as error:
        return problem_answer(Problem(503, str(error)), {"retry-after": "5"})
    except web.HTTPNotFound:
        return problem_answer(Problem(404, f"there is nothing at `{request.path}`; `/` says what is where"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"`{request.path}` does not take {request.method}; it takes {allowed}"
        return problem_answer(Problem(405, detail), {"allow": allowed})
    except web.HTTPRequestEntityTooLarge:
        return problem_answer(Problem(413, "the body is too large; send the keys in several parts"))
    except web.HTTPException as error:
        return problem_answer(Problem(error.status, f"`{request.path}` cannot be answered: {error.reason}"))
    except Exception:
        log.exception("admin port: %s %s failed", request.method, request.path)
        return problem_answer(Problem(500, "this is a fault of Callmeter; its log says more"))
