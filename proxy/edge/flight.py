"""Flight: one call under way, from its first byte in to its settlement."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .. import wire
from ..core.admission import Take
from ..core.call import Call
from ..core.caller import Caller
from ..core.policy import Upstream
from ..core.record import Record
from ..core.refusal import Refusal
from ..wire import UsageRemover
from ..wire.reading import Meter, Reading
from .answers import StreamedAnswer
from .capture import Capture
from .holding import Plan
from .request import Request
from .upstream import Exchange

BYTES_PER_SEEN_TOKEN = 3
RANDOM_BYTES = 4096
"""Taken from the system at a time: enough for about a hundred calls."""


class Refused(Exception):
    """Ends the walk with our no."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Flight(msgspec.Struct, kw_only=True):
    """A call and all that belongs to it while it runs. Times are monotonic, in seconds.

    wrong              refusals found before the caller was known
    caller_known       from then on the call is recorded, also when it is refused
    sent               the provider may have seen the call
    answered           the provider's status, 0 before it sent one
    reading            what the answer told; once it is there usage, cost and times are in the record
    settling           the record is on its way to the store
    waited_s           how long it waited for its running twin
    sent_s, arrived_s  when it went to the provider, and when that had sent what the agent is given first; 0: it did not
    writing_since_s    when the write began that the agent has not taken yet; 0 when none waits
    """

    request: Request
    record: Record
    started_s: float
    dialect: str = ""
    call: Call = msgspec.field(default_factory=Call)
    fields: Mapping[str, Any] | bytes = b""
    """Those of its body, undecoded; the body itself where it is no JSON object."""
    upstream: Upstream | None = None
    wrong: list[Refusal] = []
    caller_known: bool = False
    body_s: float = 0.0
    sent: bool = False
    reading: Reading | None = None
    settling: bool = False
    waited_s: float = 0.0
    sent_s: float = 0.0
    answered: int = 0
    arrived_s: float = 0.0
    first_write_s: float = 0.0
    writing_since_s: float = 0.0
    exchange: Exchange | None = None
    meter: Meter | None = None
    remover: UsageRemover | None = None
    plan: Plan | None = None
    capture: Capture | None = None
    """What leaves of its answer, for its twins."""
    begun: StreamedAnswer | None = None
    """The answer whose head is out: nothing else can be told in its place."""
    kept_alive: int = 0
    """How often its stream has said that it waits, while its twin runs."""
    packed: bool = False
    """The answer goes out compressed, so that nothing can be put into it."""

    @property
    def limits(self) -> list[tuple[str, str]]:
        """The headers that tell what its budgets have left."""
        return self.plan.headers if self.plan is not None else []

    @property
    def takes(self) -> Sequence[Take]:
        return self.plan.way.takes if self.plan is not None else ()

    @property
    def seen_tokens(self) -> int:
        """Output tokens that the agent has seen so far, told from their bytes, rather too many than too few."""
        return self.meter.seen_bytes // BYTES_PER_SEEN_TOKEN if self.meter is not None else 0

    @property
    def had_whole_stream(self) -> bool:
        """The agent took its stream up to the end that its dialect sets; nothing waits to be written."""
        ended = self.call.stream and self.meter is not None and self.meter.complete and self.reading is None
        return ended and self.answered < 400 and not self.writing_since_s

    @property
    def outgrown(self) -> bool:
        """The answer has become so long that its hold must grow."""
        return self.plan is not None and bool(self.plan.way.takes) and self.seen_tokens > self.plan.grows_at

    @property
    def may_be_cut(self) -> bool:
        """A budget ends this stream where it has no more room for it."""
        return self.plan is not None and bool(self.plan.cutting)

    def open_meter(self) -> tuple[str, str]:
        """Begins to read the answer; returns the answer's content type and encoding."""
        exchange = self.exchange
        assert exchange is not None
        self.answered = exchange.status
        content_type, encoding = exchange.field(b"content-type"), exchange.field(b"content-encoding")
        self.meter = wire.open_meter(
            self.call,
            provider=self.record.provider,
            status=self.answered,
            content_type=content_type,
            content_encoding=encoding,
        )
        return content_type, encoding

    def clock_out(self, now_s: float) -> None:
        """Puts the times into the record. Overhead is our own share: neither the agent's body, nor the provider, nor a
        twin that the call waited for."""
        record = self.record
        record.ms_total = ms(now_s - self.started_s)
        if self.first_write_s:
            record.ms_first_byte = ms(self.first_write_s - self.started_s)
        before_s = (self.sent_s or self.first_write_s or now_s) - self.started_s - self.body_s - self.waited_s
        after_s = max(0.0, self.first_write_s - self.arrived_s) if self.arrived_s else 0.0
        record.ms_overhead = ms(before_s + after_s)


class RandomDigits:
    """Random hexadecimal digits for ids, taken from the system many at a time: asking for each id costs more than
    everything else about it."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def take(self, count: int) -> str:
        """So many digits, none of which is ever given again."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._digits):
            self._digits, start, self._at = os.urandom(RANDOM_BYTES).hex(), 0, count
        return self._digits[start : self._at]


_random = RandomDigits()


def new_call_id(now_ms: int) -> str:
    """An id that sorts by time: a UUID of version 7, as 32 hexadecimal digits."""
    random = _random.take(19)
    return f"{now_ms:012x}7{random[:3]}{'89ab'[int(random[3], 16) & 3]}{random[4:]}"


def stamp(record: Record, caller: Caller) -> None:
    """Puts who calls, and the ids of the two spans, into the record."""
    record.org, record.team, record.user, record.key_id = caller.org, caller.team, caller.user, caller.key_id
    record.labels, record.task, record.task_source = caller.labels, caller.task, caller.task_source
    record.agent, record.session = caller.agent, caller.session
    record.max_cost_nusd = caller.max_cost_nusd
    ids = _random.take(64)
    record.trace_id = caller.trace_id or ids[:32]
    record.parent_span_id, record.trace_flags = caller.parent_span_id, caller.trace_flags
    record.span_id, record.client_span_id = ids[32:48], ids[48:]


def ms(seconds: float) -> float:
    """To the microsecond. Not `round`, which writes the number out as text and reads it again."""
    return int(seconds * 1_000_000 + 0.5) / 1000
