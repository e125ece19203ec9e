"""What the data port answers itself: health for load balancers, and a caller's own figures for the holder of a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from ..core.caller import Caller
from ..core.record import Record, public, rfc3339
from ..core.refusal import Refusal

LEDGER_S_MAX = 5.0


class OwnPages:
    """`/callmeter/...`, for callers that are known already. `find_call` and `tasks_of` block and run in threads."""

    def __init__(
        self,
        *,
        find_call: Callable[[str], Record | None],
        tasks_of: Callable[[str, str], Sequence[Any]],
    ) -> None:
        self._find_call = find_call
        self._tasks_of = tasks_of

    async def answer(self, method: str, path: str, caller: Caller) -> web.Response | Refusal:
        """The page at `path` (below `/callmeter`), or the refusal that says there is none."""
        try:
            async with asyncio.timeout(LEDGER_S_MAX):
                if method == "GET" and path == "/me":
                    return await self._me(caller)
                if method == "GET" and path.startswith("/calls/"):
                    return await self._call(path.removeprefix("/calls/"), caller)
        except Exception:
            return Refusal(code="store_unavailable", sentence="the ledger cannot be read at the moment; try again")
        return Refusal(
            code="unknown_call", sentence=f"there is no `{method} /callmeter{path}`; see `GET /callmeter/me`"
        )

    async def _me(self, caller: Caller) -> web.Response:
        tasks = await asyncio.to_thread(self._tasks_of, caller.user, caller.org)
        shown = {
            "user": caller.user,
            "team": caller.team,
            "org": caller.org,
            "key_id": caller.key_id,
            "labels": caller.labels,
            "task": caller.task,
            "task_source": caller.task_source,
            "session": caller.session,
            "tasks": [task_totals(totals) for totals in tasks],
        }
        return json_response(shown)

    async def _call(self, call_id: str, caller: Caller) -> web.Response | Refusal:
        record = await asyncio.to_thread(self._find_call, call_id)
        # Another caller's call is not said to exist.
        if record is None or (record.org, record.user) != (caller.org, caller.user):
            sentence = (
                f"there is no call `{call_id[:64]}` of yours in the ledger (a call is there a second after it ends)"
            )
            return Refusal(code="unknown_call", sentence=sentence)
        return json_response(public(record))


def task_totals(totals: Any) -> dict[str, Any]:
    """A task's sums as a caller sees them."""
    shown: dict[str, Any] = msgspec.to_builtins(totals)
    for name in ("first_at", "last_at"):
        shown[name] = rfc3339(shown.pop(f"{name}_ms"))
    return shown


def json_response(shown: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(shown), content_type="application/json")
