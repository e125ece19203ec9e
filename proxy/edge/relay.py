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
from ..core.record import Record
from ..core.refusal import Refusal, first_by_precedence
from ..store.sealing import Answered
from .answers import (
    AgentAnswer,
    Fields,
    StreamedAnswer,
    WholeAnswer,
    cost_header,
    passed_on,
    refusal_answer,
    wanted_encodings,
)
from .arrival import Arrivals, unpacked
from .closing import Closing
from .envelope import READABLE_ENCODINGS, Envelope
from .flight import Flight, Refused, new_call_id
from .holding import Holder, begin_stream
from .lending import Lending
from .own_pages import OwnPages
from .paths import Target
from .request import Request
from .sentences import price_unknown, unknown_upstream
from .upstream import Exchange, UpstreamFailure, Upstreams
from .ways_out import WaysOut

GATHER_BYTES_MAX = 256 * 1024
"""A JSON answer up to this size leaves in one write and carries its cost in a header."""
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
        self._ways_out = WaysOut(policy=policy, arrivals=arrivals, closing=closing, clock_ms=clock_ms)
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
            return await self._ways_out.refuse(flight, refused.refusal)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("call %s failed inside the proxy", record.call_id)
            if flight.begun is not None or flight.first_write_s:  # in mid-answer only a broken connection is honest
                raise ConnectionAbortedError from None
            return refusal_answer(self._ways_out.told(flight, BROKEN, sent=flight.sent))
        finally:
            del self._flights[record.call_id]

    async def _walk(self, flight: Flight) -> AgentAnswer:
        record, policy = flight.record, self._policy()
        record.policy_version = policy.version

        # Which upstream and dialect, by path; whose key.
        envelope = self._arrivals.envelope(flight, policy)
        target, headers = envelope.target, envelope.headers
        found, known = self._arrivals.known_key(envelope) or await self._arrivals.key(envelope)

        # 1  What is asked for. What is wrong with it is told after the caller is known, so that it is theirs.
        body = self._arrivals.whole_body(flight, policy)
        if body is None:
            try:
                body = await self._arrivals.body(flight, policy)
            except asyncio.CancelledError:
                self._ways_out.left_uploading(flight, known, envelope)
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
                policy, caller, call, upstream, record.at_ms, envelope=envelope, fields=flight.fields
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
            return await self._ways_out.failed(flight, failure)
        except (asyncio.CancelledError, ConnectionError):
            self._ways_out.left(flight)
            raise
        except Exception:
            self._ways_out.left(flight, result="failed")
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
        flight.arrived_s = monotonic()
        content_type, encoding = flight.open_meter()
        record.status = exchange.status
        flight.packed = encoding not in ("", "identity")
        if flight.packed:
            flight.remover = None  # packed although we asked for plain bytes: pass it on as it is
        passed = passed_on(exchange.headers, record, flight.limits)
        if flight.capture is not None:
            flight.capture.begin(record.status, passed)
        gathered: list[bytes] = []
        if flight.begun is not None and (exchange.status >= 400 or flight.packed):
            await self._gather(flight, gathered)
            sentence = f"the provider answered with status {exchange.status}"
            if exchange.status < 400:
                sentence = (
                    f"the provider packed its answer (`{encoding}`), though asked not to, after the call had waited"
                )
            return await self._ways_out.end_early(flight, flight.begun, b"", "upstream_unreachable", sentence)
        if "json" in content_type and not (flight.call.stream and exchange.status < 400):
            whole = await self._gather(flight, gathered)
            if whole is not None:
                return await self._answer_whole(flight, passed, whole)
        return await self._answer_stream(flight, passed, gathered)

    async def _gather(self, flight: Flight, gathered: list[bytes]) -> bytes | None:
        """The whole body of a small JSON answer; None, with what was read so far in `gathered`, for a larger one."""
        exchange = flight.exchange
        assert exchange is not None
        assert flight.meter is not None
        size = 0
        try:
            while not exchange.at_end and (data := await exchange.read()):
                gathered.append(data)
                size += len(data)
                if size > GATHER_BYTES_MAX:
                    flight.arrived_s = monotonic()
                    flight.meter.feed(b"".join(gathered))
                    return None
        except BaseException:
            flight.meter.feed(b"".join(gathered))  # what was seen of it counts
            raise
        flight.arrived_s = monotonic()
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
        length = flight.exchange.length if flight.exchange is not None and not whole else None
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
        if flight.plan is not None:
            begin_stream(flight.plan)
        for data in gathered:
            await self._write(flight, response, data)
        tail = b""
        may_be_cut, refusal = flight.may_be_cut, None
        try:
            while refusal is None and (data := await exchange.read()):
                if not flight.first_write_s:
                    flight.arrived_s = monotonic()
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
            return await self._ways_out.broken(flight, response, failure, tail)
        if refusal is not None:
            return await self._ways_out.cut(flight, response, refusal, tail)
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

    async def _outgrow(self, flight: Flight, exchange: Exchange) -> Refusal | None:
        """The stream takes more of its budgets. One that must not go on ends at the provider at once, whatever the
        agent has still to take of it; one that the provider has sent in full is paid for, and goes on to its end."""
        assert flight.plan is not None
        refusal = await self._holder.outgrow(flight.record, flight.plan, self._policy(), flight.seen_tokens)
        if refusal is None or exchange.arrived:
            return None
        exchange.close()
        return refusal

    # -- the steps' own work --------------------------------------------------------------------------------------

    async def _own(self, flight: Flight, target: Target, caller: Caller, body: bytes) -> AgentAnswer:
        flight.caller_known = False  # a look at one's own figures is no call
        page = await self._own_pages.answer(flight.request.method, target.rest, caller, body)
        if isinstance(page, Refusal):
            raise Refused(page)
        return page

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
