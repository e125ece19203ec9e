"""Lending: answers from a twin, step 5 of the walk where a rule says `replay` or `join`. A call waits here for its
running twin, on whatever worker or host that runs, and is then answered from what was kept of it.

To wait is to reserve again every now and then: the store says whether the twin still runs, gives its answer, or admits
the call, which then is the one that runs. So nobody is stranded whose twin failed, lost its caller or died.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from ..core.duplicates import DuplicateRule
from ..core.policy import Policy
from ..core.twins import Looked, exceeded
from ..core.windows import DAY_MS
from ..store.calls import CallStore
from ..store.sealing import Answered, Sealer
from .answers import StreamedAnswer, passed_on
from .capture import ANSWER_BYTES_MAX, Capture
from .comparing import Compared, found, put_finding
from .flight import Flight, Refused
from .holding import Holder

JOIN_LIFE_MS = 60_000
"""An answer is there for those that waited for it: they look every half second."""
REPLAY_LIFE_MS_MAX = DAY_MS
"""The oldest answer that is given again, whatever the window of the rule."""
CLOCKS_MS = 1_000
"""An answer that was kept so shortly before a call came is one that it waited for: hosts' clocks differ."""

POLL_S_MIN = 0.03
POLL_S_MAX = 0.5
"""How often the store is asked about a running twin, at first and at last."""
KEEP_ALIVE_S = 5.0
"""A stream that waits says so this often, from then on: clients and proxies on the way give up silent connections."""
KEEP_ALIVE = b": waiting for the same call that is running\n\n"
BLANK_LINE = b"\r\n"
"""For Google's SDK, which takes a comment for an answer that it cannot read."""


class Lending:
    """One for each process."""

    def __init__(self, *, store: CallStore, holder: Holder, sealer: Sealer) -> None:
        self._store = store
        self._holder = holder
        self._sealer = sealer

    # -- the one that is answered -------------------------------------------------------------------------------------

    async def borrowed(self, flight: Flight, policy: Policy) -> Answered | None:
        """The answer of the call's twin, as soon as there is one; None: the call goes upstream, and has its hold.
        Raises Refused where budgets have no room for that by then."""
        plan, record = flight.plan, flight.record
        assert plan is not None
        assert plan.compared is not None
        compared, pause_s = plan.compared, POLL_S_MIN
        compared.waiting_since_ms = self._store.now_ms() - CLOCKS_MS
        while (looked := plan.looked) is not None:
            if looked.replays:
                lent = self._unsealed(compared, looked)
                if lent is not None:
                    put_finding(record, compared.prints, found(compared, plan.caller, looked, self._store.now_ms()))
                    record.twin_of, record.replayed, record.joined = looked.replays, True, flight.waited_s > 0
                    record.rule = record.twin_rule = lent[0].name
                    record.twin_kind = lent[0].kind
                    return lent[1]
                compared.lend = False  # there is none that can be given: the call goes upstream
            else:
                await self._pause(flight, pause_s)
                pause_s = min(POLL_S_MAX, pause_s * 1.5)
            if refusal := await self._holder.reserve(record, plan, policy):
                raise Refused(refusal)
        return None

    def _unsealed(self, compared: Compared, looked: Looked) -> tuple[DuplicateRule, Answered] | None:
        """The answer, and the rule that lends it."""
        for scope, mark, seen in zip(compared.met, compared.marks, looked.seen, strict=True):
            if mark.frame.lends in ("replay", "join") and exceeded(mark, seen):
                answered = self._sealer.unseal(mark.answer, looked.replays, looked.answer)
                if answered is not None:
                    return scope.rule, answered
        return None

    async def _pause(self, flight: Flight, pause_s: float) -> None:
        """Waits; a stream of events that has waited for long says so meanwhile."""
        begun_s = monotonic()
        try:
            if flight.call.events and flight.waited_s >= KEEP_ALIVE_S * (flight.kept_alive + 1):
                if flight.begun is None:
                    fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
                    flight.begun = StreamedAnswer(status=200, fields=passed_on(fields, flight.record, []))
                    await flight.begun.prepare(flight.request)
                flight.kept_alive += 1
                await flight.begun.write(BLANK_LINE if flight.call.dialect == "gemini" else KEEP_ALIVE)
            await asyncio.sleep(pause_s)
        finally:
            flight.waited_s += monotonic() - begun_s

    # -- the one that lends -------------------------------------------------------------------------------------------

    def capture(self, flight: Flight) -> Capture | None:
        """What is to be kept of an answer; None where no rule asks for it. An answer of another model than the one
        asked for is not what a twin asks for."""
        plan = flight.plan
        if plan is None or plan.compared is None:
            return None
        now_ms = self._store.now_ms()
        lives_ms: dict[str, int] = {}
        for scope, mark in zip(plan.compared.met, plan.compared.marks, strict=True):
            if mark.answer:
                replayed_ms = min(mark.frame.expires_ms - now_ms, REPLAY_LIFE_MS_MAX)
                life_ms = JOIN_LIFE_MS if scope.rule.then == "join" else replayed_ms
                lives_ms[mark.answer] = max(life_ms, lives_ms.get(mark.answer, 1))
        return Capture(lives_ms, lendable=not plan.chosen) if lives_ms else None

    def keep(self, flight: Flight) -> None:
        """Hands the answer of a call that went well to the store, ahead of its settle, by which its twins learn that it
        is there. Of one that nobody else can be given (it is too long, of another model, or ended before its dialect's
        end) an empty one is kept, which tells them not to wait for the next."""
        capture, record, reading = flight.capture, flight.record, flight.reading
        if capture is None or record.result != "ok":
            return
        whole = capture.lendable and capture.size <= ANSWER_BYTES_MAX and not flight.packed
        whole = whole and reading is not None and reading.complete
        # Usage that tells the end may come before the last bytes, for which its agent did not wait.
        whole = whole and flight.exchange is not None and flight.exchange.at_end
        answered = Answered(capture.status, capture.fields, b"".join(capture.parts))
        for name, life_ms in capture.lives_ms.items():
            sealed = self._sealer.seal(name, record.call_id, answered) if whole else b""
            self._store.keep_answer(record.org, name, record.call_id, sealed, life_ms)
