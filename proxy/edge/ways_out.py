"""The ways out of the walk: a call is refused, fails, breaks or is cut in mid-answer, or its agent leaves. Each tells
the agent what can still be told, in its own dialect, and has the call settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from .. import wire
from ..core.policy import Policy
from ..core.record import Result
from ..core.refusal import Answer, Refusal, answer
from ..core.usage import NO_USAGE
from .answers import AgentAnswer, StreamedAnswer, add_own, refusal_answer
from .arrival import Arrivals
from .closing import Closing
from .envelope import Envelope
from .flight import Flight, Refused
from .keyring import Known
from .sentences import upstream_broken
from .upstream import Exchange, UpstreamFailure

DRAIN_S_MAX = 300.0
"""How long an answer is read on for its usage after its agent went away."""
TAIL_S_MAX = 1.0
"""The same where it had its stream whole: what is left is the `[DONE]` that some do not wait for, and the framing."""


class WaysOut:
    """One for each process."""

    def __init__(
        self, *, policy: Callable[[], Policy], arrivals: Arrivals, closing: Closing, clock_ms: Callable[[], int]
    ) -> None:
        self._policy = policy
        self._arrivals = arrivals
        self._closing = closing
        self._clock_ms = clock_ms

    async def refuse(self, flight: Flight, refusal: Refusal) -> AgentAnswer:
        """Our no, in the caller's dialect; recorded where the caller is known."""
        record, request = flight.record, flight.request
        told = self.told(flight, refusal)
        response = refusal_answer(told)
        add_own(response.fields, record, flight.limits)
        if not request.body.complete:
            response.force_close()  # the rest of the body is not read, so the connection cannot serve another call
        if flight.caller_known:
            record.result, record.refusal, record.status = "refused", refusal.code, told.status
            record.rule = refusal.rule or record.rule
            record.usage, record.usage_source = NO_USAGE, "none"
            record.cost_nusd, record.cost_parts_nusd, record.list_nusd, record.cost_source = 0, {}, 0, "none"
            record.hold_nusd, record.estimate = 0, {}
            flight.clock_out(monotonic())
            await self._closing.refused(record)
        return await self._in_stream(flight, refusal, response)

    async def failed(self, flight: Flight, failure: UpstreamFailure) -> AgentAnswer:
        """The provider could not be reached, or broke before its answer began: a refusal says so."""
        refusal = upstream_broken(flight.record.upstream, failure.sentence, timeout=failure.is_timeout)
        told = self.told(flight, refusal, sent=failure.sent)
        record = flight.record
        record.status, record.refusal, record.error = told.status, refusal.code, failure.reason
        flight.sent = failure.sent
        # A provider that was too slow for us has worked, and may bill; one that broke before it answered has not.
        reading = self._closing.complete(flight, result="failed", cut=failure.is_timeout or flight.answered > 0)
        response = refusal_answer(told)
        add_own(response.fields, record, flight.limits)
        await self._closing.settle(flight, reading)
        return await self._in_stream(flight, refusal, response)

    async def _in_stream(self, flight: Flight, refusal: Refusal, response: AgentAnswer) -> AgentAnswer:
        """Our no as it is; to a call whose stream has begun, since it waited for its twin, an event says it there."""
        begun = flight.begun
        if begun is None:
            return response
        try:
            await begun.write(wire.end_of_stream(flight.call, refusal.code, refusal.told))
            await begun.write_eof()
        except ConnectionError:
            pass  # the agent is gone
        return begun

    async def broken(
        self, flight: Flight, response: StreamedAnswer, failure: UpstreamFailure, tail: bytes
    ) -> AgentAnswer:
        """The provider broke in mid-answer: what was seen is metered, and the agent is told in its own dialect where
        the stream stands between two events; in the midst of one, only a broken connection is honest."""
        flight.record.error = failure.reason
        code = "upstream_timeout" if failure.is_timeout else "upstream_unreachable"
        return await self.end_early(flight, response, tail, code, failure.sentence)

    async def cut(self, flight: Flight, response: StreamedAnswer, refusal: Refusal, tail: bytes) -> AgentAnswer:
        """A stream that a budget with `when_outgrown: cut` has nothing left for ends here, too."""
        flight.record.refusal, flight.record.error = refusal.code, "budget_cut"
        return await self.end_early(flight, response, tail, refusal.code, refusal.sentence)

    async def end_early(
        self, flight: Flight, response: StreamedAnswer, tail: bytes, code: str, sentence: str
    ) -> AgentAnswer:
        """Ends an answer that is under way; `tail` is what left of it last."""
        reading = self._closing.complete(flight, result="failed", cut=True)
        between_events = not tail or tail.endswith((b"\n\n", b"\r\n\r\n"))
        ending = b""
        # Where all that went out is our own waiting, the provider has told the agent nothing, whatever it told us.
        unsaid = flight.kept_alive > 0 and not flight.first_write_s
        if flight.call.stream and (unsaid or (not flight.packed and reading.error is None)):
            ending = wire.end_of_stream(flight.call, code, sentence)
        try:
            if between_events and (ending or reading.error):
                if ending:
                    await response.write(ending)
                await response.write_eof()
            else:
                flight.request.abort()
        except ConnectionError:
            pass  # the agent is gone as well
        await self._closing.settle(flight, reading)
        return response

    def left(self, flight: Flight, result: Result = "client_gone") -> None:
        """The agent went away. Streams are cancelled at the provider, unless the policy drains them; other calls are
        always read to their end, since the provider makes and bills them all the same.

        An agent that has its stream whole need not stay for the end of the connection: most SDKs leave at `[DONE]`."""
        exchange = flight.exchange
        if flight.settling:
            return
        drains = self._policy().defaults.client_gone == "drain"
        if exchange is not None and result == "client_gone" and flight.had_whole_stream:
            # Read on: usage may still be counted up, and twins are given all of it.
            within_s = DRAIN_S_MAX if drains else TAIL_S_MAX
            self._closing.in_background(self._drain(flight, exchange, "ok", within_s))
            return
        if flight.plan is not None and flight.plan.compared is not None:
            self._closing.in_background(self._closing.forget(flight.record))
        if flight.reading is not None:  # in the last bytes of an answer that was complete here already
            self._closing.in_background(self._closing.settle(flight, flight.reading))
        elif exchange is not None and (not flight.call.stream or drains):
            self._closing.in_background(self._drain(flight, exchange, result, DRAIN_S_MAX))
        else:
            self._closing.in_background(self._closing.settle_left(flight, result))

    def left_uploading(self, flight: Flight, known: Known, envelope: Envelope) -> None:
        """The agent went away before its call was whole: nothing went to the provider, and the record says whose it
        was."""
        try:
            self._arrivals.caller(flight, known, envelope, flight.call)
        except Refused:
            return
        flight.record.result = "client_gone"
        flight.clock_out(monotonic())
        self._closing.in_background(self._closing.write(flight.record))

    async def _drain(self, flight: Flight, exchange: Exchange, result: Result, within_s: float) -> None:
        remover, capture = flight.remover, flight.capture
        try:
            async with asyncio.timeout(within_s):
                await exchange.head()
                if flight.meter is None:
                    flight.open_meter()
                assert flight.meter is not None
                while data := await exchange.read():
                    flight.meter.feed(data)
                    if capture is not None:
                        capture.add(remover.feed(data) if remover is not None else data)
                if capture is not None and remover is not None:
                    capture.add(remover.close())
        except (TimeoutError, UpstreamFailure, asyncio.CancelledError):
            pass  # what was seen until here is what is known
        finally:
            await self._closing.settle_left(flight, result)

    def told(self, flight: Flight, refusal: Refusal, *, sent: bool = False) -> Answer:
        """A refusal in the words of the call's dialect. `sent`: the provider may have seen the call."""
        headers = flight.request.headers
        return answer(
            refusal,
            dialect=flight.dialect,
            call_id=flight.record.call_id,
            now_ms=self._clock_ms(),
            user_agent=headers.get("user-agent", ""),
            originator=headers.get("originator", ""),
            sent=sent,
        )
