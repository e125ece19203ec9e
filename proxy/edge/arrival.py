"""Arrival: steps 1 and 2 of the walk. Which upstream and dialect, whose key, what is asked for, and by whom.

What is wrong with a call is gathered on its flight rather than told at once: only after the caller is known is a
refusal recorded as theirs, and of several the one that goes first in the order of precedence is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from .. import wire
from ..core import identity
from ..core.call import Call
from ..core.caller import Caller
from ..core.policy import Policy
from ..core.refusal import Refusal
from ..core.tags import read_user_agent
from .body import BodyBroken, BodyTooLarge, read_body
from .envelope import Envelope, Envelopes
from .flight import Flight, Refused, stamp
from .keyring import KeyRing, Known
from .paths import Target
from .sentences import body_too_large
from .upstream import origin


class Arrivals:
    """Reads calls as they arrive. `key` and `caller` raise Refused: there is nobody yet to gather a refusal for."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._envelopes = Envelopes()

    def envelope(self, flight: Flight, policy: Policy) -> Envelope:
        """Which upstream (None: unknown) and dialect, and which key; all that the path and headers tell."""
        request, record = flight.request, flight.record
        envelope = self._envelopes.open(policy, request)
        flight.upstream, flight.dialect = envelope.upstream, envelope.dialect
        if envelope.wrong is not None:
            flight.wrong.append(envelope.wrong)
        if envelope.upstream is not None:
            record.upstream, record.provider = envelope.upstream.name, envelope.upstream.provider
            record.server_address = origin(envelope.upstream.url)[1]
        return envelope

    def known_key(self, envelope: Envelope) -> tuple[identity.FoundKey, Known] | None:
        """Whose key it is, where that is known without waiting."""
        found = envelope.found
        if isinstance(found, Refusal) or found.key_text is None:
            return None
        known = self._keys.cached(found.key_text)
        return None if known is None else (found, known)

    async def key(self, envelope: Envelope) -> tuple[identity.FoundKey, Known]:
        found = envelope.found
        if isinstance(found, Refusal):
            raise Refused(found)
        assert found.key_text is not None
        known = await self._keys.find(found.key_text)
        if isinstance(known, Refusal):
            raise Refused(known)
        return found, known

    def whole_body(self, flight: Flight, policy: Policy) -> bytes | None:
        """The body of a request that came in one piece with its head, as most do."""
        body = flight.request.body
        return body.take() if body.complete and body.size <= policy.defaults.max_body_bytes else None

    async def body(self, flight: Flight, policy: Policy) -> bytes:
        begun_s = monotonic()
        try:
            return await read_body(flight.request, policy.defaults.max_body_bytes)
        except BodyTooLarge:
            flight.wrong.append(body_too_large(policy.defaults.max_body_bytes))
        except BodyBroken as broken:
            flight.wrong.append(Refusal(code="body_invalid", sentence=str(broken)))
        finally:
            flight.body_s = monotonic() - begun_s
        return b""

    def call(self, flight: Flight, path: str, target: Target, headers: Mapping[str, str], text: bytes) -> Call:
        request, record = flight.request, flight.record
        call = Call(dialect=flight.dialect, method=request.method)
        if not flight.wrong:
            try:
                call, flight.fields = wire.read_request(
                    method=request.method,
                    path=path,
                    query=target.query,
                    headers=headers,
                    body=text,
                    dialect=flight.dialect,
                    provider=record.provider,
                )
            except wire.BodyInvalid as invalid:
                flight.wrong.append(Refusal(code="body_invalid", sentence=str(invalid)))
        flight.call, flight.dialect = call, call.dialect or flight.dialect
        record.api, record.route, record.stream = call.api, call.route, call.stream
        record.model_asked = record.model = call.model
        record.user_agent, _ = read_user_agent(headers.get("user-agent", ""))
        return call

    def caller(self, flight: Flight, known: Known, envelope: Envelope, call: Call) -> Caller:
        record, remembered = flight.record, envelope.caller
        caller: Caller | Refusal
        if (
            remembered is not None
            and remembered[0] == known  # a pair made for each call, of the same two as long as nothing changes
            and remembered[1] == call.task
            and remembered[2] == call.session
        ):
            caller = identity.unusable(known.info, known.parsed, record.at_ms) or remembered[3]
        else:
            caller = identity.identify(
                info=known.info,
                parsed=known.parsed,
                headers=envelope.headers,
                path_task=envelope.target.task,
                call=call,
                now_ms=record.at_ms,
            )
            if isinstance(caller, Caller):
                envelope.caller = known, call.task, call.session, caller
        if isinstance(caller, Refusal):  # an expired key, say: we still know whose it is
            info = known.info
            record.org, record.team, record.user, record.key_id = info.org, info.team, info.user, info.key_id
            flight.caller_known = True
            raise Refused(caller)
        stamp(record, caller)
        flight.caller_known = True
        return caller


def unpacked(flight: Flight, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body as text, for reading; the packed one is what goes on."""
    try:
        return wire.plain_body(headers, body)
    except wire.BodyInvalid as invalid:
        flight.wrong.append(Refusal(code="body_invalid", sentence=str(invalid)))
        return b""
