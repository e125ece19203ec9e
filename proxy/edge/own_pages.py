"""What the data port answers itself: health for load balancers, and a caller's own figures for the holder of a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..core.caller import Caller
from ..core.record import Record, public
from ..core.refusal import Refusal
from .answers import WholeAnswer, json_answer

LEDGER_S_MAX = 5.0


class OwnPages:
    """`/callmeter/...`, for callers that are known already.

    find_call   blocks, and runs in a thread
    mine        -> the caller's own tasks, sessions and budgets
    claim       takes the claim of a session, from a caller and the body of their request
    """

    def __init__(
        self,
        *,
        find_call: Callable[[str], Record | None],
        mine: Callable[[Caller], Awaitable[dict[str, Any]]],
        claim: Callable[[Caller, bytes], Awaitable[WholeAnswer | Refusal]],
    ) -> None:
        self._find_call = find_call
        self._mine = mine
        self._claim = claim

    async def answer(self, method: str, path: str, caller: Caller, body: bytes = b"") -> WholeAnswer | Refusal:
        """The page at `path` (below `/callmeter`), or the refusal that says there is none."""
        try:
            async with asyncio.timeout(LEDGER_S_MAX):
                if method == "GET" and path == "/me":
                    return await self._me(caller)
                if method == "GET" and path.startswith("/calls/"):
                    return await self._call(path.removeprefix("/calls/"), caller)
                if method == "POST" and path == "/claims":
                    return await self._claim(caller, body)
        except Exception:
            return Refusal(code="store_unavailable", sentence="the ledger cannot be read at the moment; try again")
        return Refusal(
            code="unknown_call", sentence=f"there is no `{method} /callmeter{path}`; see `GET /callmeter/me`"
        )

    async def _me(self, caller: Caller) -> WholeAnswer:
        shown = {
            "user": caller.user,
            "team": caller.team,
            "org": caller.org,
            "key_id": caller.key_id,
            "labels": caller.labels,
            "task": caller.task,
            "task_source": caller.task_source,
            "session": caller.session,
        } | await self._mine(caller)
        return json_answer(shown)

    async def _call(self, call_id: str, caller: Caller) -> WholeAnswer | Refusal:
        record = await asyncio.to_thread(self._find_call, call_id)
        # Another caller's call is not said to exist.
        if record is None or (record.org, record.user) != (caller.org, caller.user):
            sentence = (
                f"there is no call `{call_id[:64]}` of yours in the ledger (a call is there a second after it ends)"
            )
            return Refusal(code="unknown_call", sentence=sentence)
        return json_answer(public(record))
