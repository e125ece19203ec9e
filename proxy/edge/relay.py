"""The walk of one call, from the agent to the provider and back. Read it from top to bottom.

Nothing else orchestrates: each step calls inwards and returns. After `reserve` the call must be settled, whatever
happens: an error, the agent gone, a shutdown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic  # the loop's own clock has steps of a millisecond under uvloop

from .. import wire
from ..core import identity
from ..core.caller import Caller
from ..core.policy import Policy
from ..core.prices import Prices
from ..core.record import Record, Result
from ..core.refusal import Answer, Refusal, answer, first_by_precedence
from ..core.usage import NO_USAGE
from ..store.sealing import Answered
from .answers import (
    AgentAnswer,
    Fields,
    StreamedAnswer,
    WholeAnswer,
    add_own,
    cost_header,
    passed_on,
    refusal_answer,
    wanted_encodings,
)
from .arrival import Arrivals, unpacked
from .closing import Closing
from .envelope import READABLE_ENCODINGS, Envelope
from .flight import Flight, Refused, new_call_id
from .holding import Holder
from .keyring import Known
from .lending import Lending
from .own_pages import OwnPages
from .paths import Target
from .request import Request
from .sentences import price_unknown, unknown_upstream, upstream_broken
from .upstream import Exchange, UpstreamFailure, Upstreams

GATHER_BYTES_MAX = 256 * 1024
"""A JSON answer up to this size leaves in one write and carries its cost in a header."""
DRAIN_S_MAX = 300.0
"""How long an answer is read on for its usage after its agent went away."""
TAIL_S_MAX = 1.0
"""The same where it had its stream whole: what is left is the `[DONE]` that some do not wait for, and the framing."""
WRITE_S_MAX = 300.0
"""How long an agent may take no byte of its answer before the connection is given up."""
CALL_S_MAX = 4 * 3600.0
"""The longest call. Longer than any that was seen; a bound so that no hold is renewed for ever."""
WATCH_S = 5.0
"""How often the two limits above are looked at: one look for all calls, rather than a timer for each write."""
OWN_SEGMENT = "callmeter"

BROKEN = Refusal(
    code="policy_broken",
    sentence="Callmeter failed on this call and has logged why; try again, and tell your admin its id if it stays so",
)

log = logging.getLogger("callmeter.edge")


class Relay:
    """Takes calls through the walk. One object a process; every collaborator is given to it."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        prices: Callable[[], Prices],
        arrivals: Arrivals,
        holder: Holder,
        upstreams: Upstreams,
        closing: Closing,
        lending: Lending,
        own_pages: OwnPages,
        clock_ms: Callable[[], int],
    ) -> None:
        self._policy = policy
        self._prices = prices
        self._arrivals = arrivals
        self._holder = holder
        self._upstreams = upstreams
        self._closing = closing
        self._lending = lending
        self._own_pages = own_pages
        self._clock_ms = clock_ms
        self._flights: dict[str, Flight] = {}

    # -- the walk -------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> AgentAnswer:
        """Takes one request of the data port to its answer."""
        now_ms = self._clock_ms()
        record = Record(call_id=new_call_id(now_ms), at_ms=now_ms, user="", key_id="", http_method=request.method)
        flight = Flight(request=request, record=record, started_s=monotonic())
        self._flights[record.call_id] = flight
        try:
            return await self._walk(flight)
        except Refused as refused:
            return await self._refuse(flight, refused.refusal)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("call %s failed inside the proxy", record.call_id)
            if flight.begun is not None or flight.first_write_s:  # in mid-answer only a broken connection is honest
                raise ConnectionAbortedError from None
            return refusal_answer(self._told(flight, BROKEN, sent=flight.sent))
        finally:
            del self._flights[record.call_id]

    async def _walk(self, flight: Flight) -> AgentAnswer:
        record, policy = flight.record, self._policy()
        record.policy_version = policy.version

        # Which upstream and dialect, by path; whose key.
        envelope = self._arrivals.envelope(flight, policy)
        target, headers = envelope.target, envelope.headers
        found, known = await self._arrivals.key(envelope)

        # 1  What is asked for. What is wrong with it is told after the caller is known, so that it is theirs.
        try:
            body = await self._arrivals.body(flight, policy)
        except asyncio.CancelledError:
            self._left_uploading(flight, known, envelope)
            raise
        text = unpacked(flight, body, headers)
        call = self._arrivals.call(flight, envelope.path, target, headers, text)

        # 2  Who asks, and for which task.
        caller = self._arrivals.caller(flight, known, envelope, call)
        if target.segment == OWN_SEGMENT:
            return await self._own(flight, target, caller, text)
        upstream = flight.upstream
        if upstream is None:
            short_form = wire.short_form_dialect(target.whole, headers) or ""
            flight.wrong.append(unknown_upstream(target, policy, short_form))
            raise Refused(first_by_precedence(flight.wrong))
        if missing := identity.missing_credential(found, upstream.key, upstream.name):
            flight.wrong.append(missing)

        # 3  Whether the policy lets it.
        decision = policy.decide(caller, call, upstream)
        record.shadow, record.warnings, record.rule = decision.shadow, decision.warnings, decision.rule
        if decision.refusal is not None:
            flight.wrong.append(decision.refusal)
        prices = self._prices()
        if policy.defaults.unknown_price == "refuse" and not call.free:
            if call.model and not prices.known(upstream.provider, call.model):
                flight.wrong.append(price_unknown(upstream, call))
        if flight.wrong:
            raise Refused(first_by_precedence(flight.wrong))

        # 4  What it will cost, and of which budgets that is taken.
        if not call.free:
            flight.plan = self._holder.plan(
                policy, caller, call, upstream, record.at_ms, headers=headers, fields=flight.fields
            )
        try:
            # 5  The hold. After this point the call must be settled.
            if flight.plan is not None:
                if refusal := await self._holder.reserve(record, flight.plan, policy):
                    raise Refused(refusal)
                if flight.plan.looked is not None:
                    lent = await self._lending.borrowed(flight, policy)
                    if lent is not None:
                        return await self._answer_lent(flight, lent)
                flight.call = flight.plan.way.call
                flight.capture = self._lending.capture(flight)
            # 6  To the provider.
            flight.sent_s = monotonic()
            await self._send(flight, envelope, body, text)
            # 7  The answer: the agent first, our reading second.  8 and 9  Usage, cost, settlement: at its end.
            return await self._answer(flight)
        except Refused:
            raise
        except UpstreamFailure as failure:
            return await self._failed(flight, failure)
        except (asyncio.CancelledError, ConnectionError):
            self._left(flight)
            raise
        except Exception:
            self._left(flight, result="failed")
            raise

    async def _send(self, flight: Flight, envelope: Envelope, body: bytes, text: bytes) -> None:
        upstream = flight.upstream
        assert upstream is not None
        path, changed = self._changed(flight, envelope.path, text)
        accepted = ""
        if flight.call.stream and (asked := wire.ask_for_usage(flight.call, changed, upstream.provider)) is not None:
            changed, accepted, flight.remover = asked, "identity", wire.UsageRemover()
        if flight.capture is not None or flight.begun is not None:
            accepted = "identity"  # a twin may not take what this agent takes; a head that is out told of no packing
        if changed is text and not accepted:
            lines = envelope.lines(flight.dialect)
        else:
            packed = changed is text  # what we changed goes on unpacked
            body = body if packed else changed
            accepted = accepted or wanted_encodings(envelope.headers.get("accept-encoding", ""), READABLE_ENCODINGS)
            lines = envelope.other_lines(flight.dialect, accepted=accepted, packed=packed)
        flight.exchange = await self._upstreams.send(
            method=flight.request.method,
            base_url=upstream.url,
            target=f"{path}?{envelope.query}" if envelope.query else path,
            lines=lines,
            body=body,
        )
        flight.sent = True
        await flight.exchange.head()

    def _changed(self, flight: Flight, path: str, text: bytes) -> tuple[str, bytes]:
        """Path and body as a budget wants them: another model, a limit on the output; else as they were."""
        plan = flight.plan
        if plan is None or flight.upstream is None:
            return path, text
        if plan.other_model is not None:
            turned = wire.with_other_model(plan.ways[0].call, path, text, plan.other_model)
            if turned is None:
                raise RuntimeError("a call that takes another model has no place for it")
            path, text = turned
        if plan.output_limit is not None:
            text = wire.with_output_limit(flight.call, text, plan.output_limit, flight.upstream.provider) or text
        return path, text

    async def _answer(self, flight: Flight) -> AgentAnswer:
        exchange, record = flight.exchange, flight.record
        assert exchange is not None
        flight.head_s = monotonic()
        content_type, encoding = flight.open_meter()
        record.status = exchange.status
        flight.packed = encoding not in ("", "identity")
        if flight.packed:
            flight.remover = None  # packed although we asked for plain bytes: pass it on as it is
        passed = passed_on(exchange.headers, record, flight.limits)
        if flight.capture is not None:
            flight.capture.begin(record.status, passed)
        gathered: list[bytes] = []
        if flight.begun is not None and exchange.status >= 400:
            await self._gather(flight, gathered)
            sentence = f"the provider answered with status {exchange.status}"
            return await self._end_early(flight, flight.begun, b"", "upstream_unreachable", sentence)
        if "json" in content_type and not (flight.call.stream and exchange.status < 400):
            whole = await self._gather(flight, gathered)
            if whole is not None:
                return await self._answer_whole(flight, passed, whole)
        return await self._answer_stream(flight, passed, gathered)

    async def _gather(self, flight: Flight, gathered: list[bytes]) -> bytes | None:
        """The whole body of a small JSON answer; None, with what was read so far in `gathered`, for a larger one."""
        assert flight.exchange is not None
        assert flight.meter is not None
        size = 0
        try:
            while data := await flight.exchange.read():
                gathered.append(data)
                size += len(data)
                if size > GATHER_BYTES_MAX:
                    flight.meter.feed(b"".join(gathered))
                    return None
        except BaseException:
            flight.meter.feed(b"".join(gathered))  # what was seen of it counts
            raise
        whole = b"".join(gathered)
        flight.meter.read_whole(whole)
        return whole

    async def _answer_whole(self, flight: Flight, passed: Fields, whole: bytes) -> AgentAnswer:
        record, request = flight.record, flight.request
        if flight.capture is not None:
            flight.capture.add(whole)
        reading = self._closing.complete(flight, result="ok" if record.status < 400 else "failed", cut=False)
        cost = cost_header(record)
        if cost is not None:
            passed.append((b"x-callmeter-cost-usd", cost))
        length = flight.exchange.length if flight.exchange is not None else None
        response = WholeAnswer(status=record.status, fields=passed, body=whole, length=length)
        record.ms_first_byte = record.ms_total
        flight.writing_since_s = monotonic()
        if flight.exchange is not None:
            flight.exchange.close()  # the provider's connection need not wait for a slow agent
        try:
            await response.prepare(request)
            flight.first_write_s = flight.writing_since_s
        except (ConnectionError, asyncio.CancelledError) as gone:
            record.result = "client_gone" if record.result == "ok" else record.result
            if isinstance(gone, asyncio.CancelledError):
                raise
        await self._closing.settle(flight, reading)
        return response

    async def _answer_stream(self, flight: Flight, passed: Fields, gathered: list[bytes]) -> AgentAnswer:
        exchange, request, record, remover = flight.exchange, flight.request, flight.record, flight.remover
        meter = flight.meter
        assert exchange is not None
        assert meter is not None
        length = None if remover is not None else exchange.length
        response = flight.begun
        if response is None:
            response = StreamedAnswer(status=record.status, fields=passed, length=length)
            await response.prepare(request)
            flight.begun = response
        for data in gathered:
            await self._write(flight, response, data)
        tail = b""
        may_be_cut, refusal = flight.may_be_cut, None
        try:
            while refusal is None and (data := await exchange.read()):
                if may_be_cut or remover is not None:
                    meter.feed(data)
                    if may_be_cut and flight.outgrown:
                        flight.writing_since_s = monotonic()  # what is in hand still waits to be written
                        refusal = await self._outgrow(flight, exchange)
                        flight.writing_since_s = 0.0
                    if remover is not None:
                        data = remover.feed(data)
                    if data:
                        await self._write(flight, response, data)
                else:
                    await self._write(flight, response, data)
                    meter.feed(data)
                tail = data[-4:] if len(data) >= 4 else (tail + data)[-4:]
                if flight.outgrown and not may_be_cut:
                    await self._outgrow(flight, exchange)
        except UpstreamFailure as failure:
            return await self._broken(flight, response, failure, tail)
        if refusal is not None:
            return await self._cut(flight, response, refusal, tail)
        if remover is not None and (data := remover.close()):
            await self._write(flight, response, data)
        reading = self._closing.complete(flight, result="ok" if record.status < 400 else "failed", cut=False)
        try:
            await response.write_eof()
        except ConnectionError:
            pass  # everything was written; the agent need not stay for the end of the framing
        await self._closing.settle(flight, reading)
        return response

    async def _write(self, flight: Flight, response: StreamedAnswer, data: bytes) -> None:
        now_s = monotonic()
        if flight.capture is not None:
            flight.capture.add(data)
        if not flight.first_write_s:
            flight.first_write_s = now_s
        flight.writing_since_s = now_s
        await response.write(data)
        flight.writing_since_s = 0.0

    async def _answer_lent(self, flight: Flight, lent: Answered) -> AgentAnswer:
        """The answer of the call's twin once more, byte by byte: nothing was bought."""
        record, request = flight.record, flight.request
        record.status, record.hold_nusd, record.estimate = lent.status, 0, {}
        fields = passed_on(lent.fields, record, [])
        fields.append((b"x-callmeter-replay", (record.twin_of or "").encode()))
        if not flight.call.stream:
            fields.append((b"x-callmeter-cost-usd", b"0"))
        response: AgentAnswer
        if flight.begun is not None:
            response = flight.begun
            await self._write(flight, response, lent.body)
        else:
            response = WholeAnswer(status=lent.status, fields=fields, body=lent.body)
            flight.first_write_s = flight.writing_since_s = monotonic()
            await response.prepare(request)
        reading = self._closing.complete(flight, result="ok", cut=False)
        try:
            await response.write_eof()
        except ConnectionError:
            pass  # everything was written
        await self._closing.settle(flight, reading)
        return response

    # -- the ways out ---------------------------------------------------------------------------------------------

    async def _refuse(self, flight: Flight, refusal: Refusal) -> AgentAnswer:
        """Our no, in the caller's dialect; recorded where the caller is known."""
        record, request = flight.record, flight.request
        told = self._told(flight, refusal)
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

    async def _failed(self, flight: Flight, failure: UpstreamFailure) -> AgentAnswer:
        """The provider could not be reached, or broke before its answer began: a refusal says so."""
        refusal = upstream_broken(flight.record.upstream, failure.sentence, timeout=failure.is_timeout)
        told = self._told(flight, refusal, sent=failure.sent)
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

    async def _broken(
        self, flight: Flight, response: StreamedAnswer, failure: UpstreamFailure, tail: bytes
    ) -> AgentAnswer:
        """The provider broke in mid-answer: what was seen is metered, and the agent is told in its own dialect where
        the stream stands between two events; in the midst of one, only a broken connection is honest."""
        flight.record.error = failure.reason
        code = "upstream_timeout" if failure.is_timeout else "upstream_unreachable"
        return await self._end_early(flight, response, tail, code, failure.sentence)

    async def _cut(self, flight: Flight, response: StreamedAnswer, refusal: Refusal, tail: bytes) -> AgentAnswer:
        """A stream that a budget with `when_outgrown: cut` has nothing left for ends here, too."""
        flight.record.refusal, flight.record.error = refusal.code, "budget_cut"
        return await self._end_early(flight, response, tail, refusal.code, refusal.sentence)

    async def _end_early(
        self, flight: Flight, response: StreamedAnswer, tail: bytes, code: str, sentence: str
    ) -> AgentAnswer:
        reading = self._closing.complete(flight, result="failed", cut=True)
        between_events = not tail or tail.endswith((b"\n\n", b"\r\n\r\n"))
        ending = b""
        if flight.call.stream and not flight.packed and reading.error is None:  # else the provider has said it itself
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

    async def _outgrow(self, flight: Flight, exchange: Exchange) -> Refusal | None:
        """The stream takes more of its budgets. One that must not go on ends at the provider at once, whatever the
        agent has still to take of it; one that the provider has sent in full is paid for, and goes on to its end."""
        assert flight.plan is not None
        refusal = await self._holder.outgrow(flight.record, flight.plan, self._policy(), flight.seen_tokens)
        if refusal is None or exchange.arrived:
            return None
        exchange.close()
        return refusal

    def _left(self, flight: Flight, result: Result = "client_gone") -> None:
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

    def _left_uploading(self, flight: Flight, known: Known, envelope: Envelope) -> None:
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

    # -- the steps' own work --------------------------------------------------------------------------------------

    async def _own(self, flight: Flight, target: Target, caller: Caller, body: bytes) -> AgentAnswer:
        flight.caller_known = False  # a look at one's own figures is no call
        page = await self._own_pages.answer(flight.request.method, target.rest, caller, body)
        if isinstance(page, Refusal):
            raise Refused(page)
        return page

    def _told(self, flight: Flight, refusal: Refusal, *, sent: bool = False) -> Answer:
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

    # -- the process ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Calls that an agent waits for, and those that are read or settled behind one that left."""
        return len(self._flights) + self._closing.busy

    async def watch(self) -> None:
        """Gives up agents that take nothing any more, and calls beyond the longest. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            now_s = monotonic()
            for flight in list(self._flights.values()):
                stuck = flight.writing_since_s and now_s - flight.writing_since_s > WRITE_S_MAX
                if stuck or now_s - flight.started_s > CALL_S_MAX:
                    flight.request.abort()

    async def close(self, within_s: float) -> None:
        """Waits for what runs behind agents that left, settles what takes too long with what was seen of it, then
        writes the refusals that were folded."""
        await self._closing.close(within_s)
