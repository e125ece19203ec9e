"""CallStore: what a worker does with its calls. Reserve before, settle after; each call is recorded exactly once and
charged exactly once, also when the store was away, emptied or killed in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec

from ..core import record as records
from ..core.admission import NoRoom, Reserved, State, Take, WindowMoved, blocked, outgrown
from ..core.record import Record
from ..core.twins import Looked
from . import holds, later, owed, takes
from .client import Client
from .clock import StoreClock
from .debts import Debts
from .epoch import read_epochs
from .errors import StoreError, StoreRebuilding, StoreRefused, StoreUnavailable
from .holds import HOLD_LIFE_MS, RENEW_MS, SETTLED_MEMORY_MS
from .keyspace import KEYS, SHARDS, shard_of
from .marks import NO_MARKS, Marked, kept_answer, parse_answer
from .owed import Owed, OwedLater, OwedRecord, OwedRelease
from .packing import Packed, packed, packed_text
from .spool import Spool
from .takes import NO_HOLDING, Holding

__all__ = ["CallStore", "StoreUnavailable", "WindowMoved"]

PROBE_S = 0.2
"""How often a store that was away is looked at, and the spool after it is back."""

ORPHANS_S = 1.0
"""How often the spool directory is searched for files of dead processes."""

RENEW_BATCH = 500
"""call_ids in one script: about half a millisecond of the store's time."""

EXTEND_TRIES = 3
"""A hold that is another than we think is looked at again: once where it was lost, once where a reply was."""

_integers = msgspec.json.Decoder(list[int])

log = logging.getLogger("callmeter.store")


class Hold(msgspec.Struct, frozen=True):
    """A running call of this process: its org, the draft of its record (JSON) and what it takes of its counters."""

    org: str
    draft: bytes
    holding: Holding


def holds_of(draft: Record, candidates: Sequence[Sequence[Take]]) -> list[Hold]:
    """One for each candidate, at least one. Raises ValueError like `takes.holding`."""
    data = records.encode(draft)
    return [Hold(draft.org, data, takes.holding(draft.org, taken)) for taken in candidates or ((),)]


def adopt(hold: Hold, text: bytes) -> Hold:
    """The hold with the takes that the store has of it."""
    if hold.holding.text == text:
        return hold
    return msgspec.structs.replace(hold, holding=takes.adopted(text, hold.holding))


def grow(hold: Hold, *, nusd: int, tokens: int) -> Hold:
    """The hold as it is after an extension, with the draft that says what the call costs if it is lost."""
    draft = records.decode(hold.draft)
    draft.hold_nusd += nusd
    draft.usage = msgspec.structs.replace(draft.usage, output=draft.usage.output + tokens)
    return Hold(hold.org, records.encode(draft), takes.grown(hold.org, hold.holding, nusd=nusd, tokens=tokens))


def states_of(numbers: bytes) -> list[State]:
    """`spent,held,spent,held`... They are read at once, since each alone takes ten times as long."""
    values = _integers.decode(b"[%b]" % numbers)
    assert not len(values) % 2, "half a state"
    each = iter(values)
    return list(map(State, each, each))


class CallStore:
    """One for each worker process. `clock_ms` gives ms since the epoch."""

    def __init__(
        self,
        client: Client,
        spool: Spool,
        *,
        clock_ms: Callable[[], int],
        hold_life_ms: int = HOLD_LIFE_MS,
        renew_s: float = RENEW_MS / 1000,
        probe_s: float = PROBE_S,
        orphans_s: float = ORPHANS_S,
        settled_memory_ms: int = SETTLED_MEMORY_MS,
    ) -> None:
        self._client = client
        self._clock_ms = clock_ms
        self._clock = StoreClock(clock_ms)
        self._hold_life_ms = hold_life_ms
        self._packed_must, self._packed_may = packed((hold_life_ms, 1)).data, packed((hold_life_ms, 0)).data
        self._renew_s = renew_s
        self._probe_s = probe_s
        self._settled_memory_ms = settled_memory_ms
        self._running: dict[str, Hold] = {}
        self._rebuilding = set(range(SHARDS))
        """Shards without an epoch, as far as we know; at first we know of none."""
        self._fault = ""
        """What the store said when it answered but took nothing: out of memory, its disk full, too much under way."""
        self._debts = Debts(spool, pay=self._do, note=lambda error: self._note(None, error), orphans_s=orphans_s)
        self._renew_at_s = 0.0
        self._renewed_connection_s = 0.0
        self._loops: list[asyncio.Task[None]] = []
        self.degraded_since_ms: int | None = clock_ms()

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises StoreRefused (a password, the wrong store) and SpoolFailed. A store that is away is no fault: calls
        are refused or let pass, as policy says, until it is there."""
        await self._debts.open()
        try:
            await self._client.open()
            await self._probe()
        except StoreRefused:
            raise
        except StoreError as error:
            log.warning(str(error))
        for step in (self._probe, self._renew_when_due, self._drain):
            self._loops.append(asyncio.create_task(self._repeat(step)))

    async def close(self) -> None:
        """Ends the loops, writes what waits for the spool and closes the connection. The spool's files stay."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._debts.close()
        await self._client.close()

    @property
    def healthy(self) -> bool:
        """Calls can be reserved and settled, as far as we know."""
        return self._client.up and not self._rebuilding and not self._fault

    @property
    def trouble(self) -> str:
        """Why the store is not healthy, as a sentence for a person; empty while it is."""
        if not self._client.up:
            return self._client.trouble
        if self._rebuilding:
            return "The store is being rebuilt: its epoch is not set."
        return self._fault

    @property
    def spooled(self) -> int:
        """Owed to the store: lines in the spool, and what waits in memory because the disk took nothing either."""
        return self._debts.waiting

    @property
    def drained(self) -> int:
        """What was taken from there into the store since the start."""
        return self._debts.drained

    def running(self) -> int:
        """Calls of this process that have a hold, or will have one as soon as the store is back."""
        return len(self._running)

    def now_ms(self) -> int:
        """The clock of the store, as far as its replies have told: windows are those of this clock."""
        return self._clock.now_ms()

    # -- before the call ------------------------------------------------------------------------------------------

    async def reserve(
        self, draft: Record, candidates: Sequence[Sequence[Take]] = (), marked: Marked | None = None
    ) -> Reserved:
        """Takes all of the first candidate that fits, in one step, and registers the hold of the call, with the draft
        that becomes its record if this process dies. No candidates: only the hold. `marked`: what the call leaves with
        duplicate rules, looked at and left in the same step. One round trip.

        After this, a call that was admitted must be settled or released; of one that was not, nothing is held.
        Raises StoreUnavailable, within 0.3 s: the hold may or may not be there then, and expires unless `keep` is
        called. Raises WindowMoved where the store's clock is outside a window: nothing was taken. Raises ValueError
        for amounts and limits above 2^53 - 1.
        """
        choices = holds_of(draft, candidates)
        try:
            reply = await self._register(draft.call_id, choices, must=False, marked=marked)
            looked = self._looked(reply, marked) if marked is not None else None
        except StoreError as error:
            self._note(shard_of(draft.org), error)
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(str(error)) from None
        status, now_ms = reply[0], int(reply[1])
        if status == b"WINDOW":
            raise WindowMoved(now_ms)
        if status == b"REFUSED":
            states = states_of(reply[2])
            return Reserved(False, 0, states, blocked(candidates[0] if candidates else (), states), now_ms, looked)
        if status in (b"REPLAY", b"JOIN"):
            return Reserved(False, 0, [], [], now_ms, looked)
        if status == b"SETTLED":
            return Reserved(True, 0, [], [], now_ms)
        if status == b"HELD":
            choice = next((number for number, hold in enumerate(choices) if hold.holding.text == reply[2]), 0)
            known = self._running.get(draft.call_id, choices[choice])
            self._running[draft.call_id] = adopt(known, reply[2])
            return Reserved(True, choice, [], [], now_ms)
        choice = int(reply[2])
        self._running[draft.call_id] = choices[choice]
        return Reserved(True, choice, states_of(reply[3]), [], now_ms, looked)

    def _looked(self, reply: list[Any], marked: Marked) -> Looked | None:
        """What the store made of the marks; taken out of its reply where it stands behind the states. Raises
        StoreError."""
        status = reply[0]
        if status == b"REPLAY":
            replays, answer = parse_answer(reply[2])
            return marked.looked(reply[3], admitted=False, replays=replays, answer=answer)
        if status == b"JOIN":
            return marked.looked(reply[3], admitted=False, joins=reply[2].decode())
        if status in (b"ADMITTED", b"REFUSED"):
            return marked.looked(reply.pop(), admitted=status == b"ADMITTED")
        return None

    def keep(self, draft: Record, taken: Sequence[Take] = ()) -> None:
        """For a call that runs although `reserve` failed: its hold, and what it takes, is registered as soon as the
        store is back, whatever the limits say then."""
        (self._running[draft.call_id],) = holds_of(draft, [taken])

    # -- while it runs --------------------------------------------------------------------------------------------

    async def extend(
        self, call_id: str, org: str, *, nusd: int = 0, tokens: int = 0, within: Collection[str] = ()
    ) -> NoRoom | None:
        """Holds more for a running call, of all its counters in money and tokens, or of none where one of `within` has
        not so much left; that one is returned. The others grow whether it fits or not.

        Raises StoreUnavailable: the hold may or may not have grown; the settle ends it either way."""
        for _ in range(EXTEND_TRIES):
            hold = self._running.get(call_id)
            if hold is None or not takes.grows(hold.holding, nusd=nusd, tokens=tokens):
                return None  # nothing counts what has grown
            more = grow(hold, nusd=nusd, tokens=tokens)
            try:
                reply = await self._extend(call_id, hold, more, nusd=nusd, tokens=tokens, within=within)
                if reply[0] == b"MORE":
                    self._correct(call_id, more)
                    return None
                if reply[0] == b"FULL":
                    growing = [take for take in hold.holding.takes if outgrown(take, nusd, tokens)]
                    return NoRoom(growing[int(reply[1])].counter, *states_of(b",".join(reply[2:])))
                if reply[1]:
                    self._correct(call_id, adopt(hold, reply[1]))
                else:
                    await self._register_again(call_id, hold)
            except StoreError as error:
                self._note(shard_of(org), error)
                if isinstance(error, StoreUnavailable):
                    raise
                raise StoreUnavailable(str(error)) from None
        return None

    async def _extend(
        self, call_id: str, hold: Hold, more: Hold, *, nusd: int, tokens: int, within: Collection[str]
    ) -> list[bytes]:
        names, arguments = takes.extend_arguments(hold.holding, nusd=nusd, tokens=tokens, within=within)
        keys = KEYS[shard_of(hold.org)]
        texts = (hold.holding.text, more.holding.text, more.draft)
        reply: list[bytes] = await self._client.script(
            "extend", (keys.epoch, keys.drafts, *names), (call_id, *texts, *arguments)
        )
        return reply

    # -- after it -------------------------------------------------------------------------------------------------

    async def settle(
        self, record: Record, taken: Sequence[Take] | None = None, *, late: bool = False, whole: bool = True
    ) -> None:
        """Ends the call's hold, charges the counters that it took of, and records it, once for each revision; what the
        store cannot take goes to the spool. Raises nothing but CancelledError, and may be repeated.

        taken   for a later revision, whose hold is gone: what the call took (`recall_takes`)
        late    it may have been settled so long ago that the store has forgotten it: the ledger knows
        whole   its answer came to its end; where it did not, a repeat of the call is no duplicate
        """
        data = records.encode(record)
        hold = self._running.get(record.call_id)
        holding = hold.holding if hold is not None else NO_HOLDING
        if taken is not None:
            holding = takes.holding(record.org, taken)
        try:
            await holds.end(
                self._client,
                KEYS[shard_of(record.org)],
                call_id=record.call_id,
                revision=record.revision,
                record=data,
                charge=holds.charge_of(record.cost_nusd, record.usage),
                holding=holding,
                memory_ms=self._settled_memory_ms,
                late=late,
                kept=record.result == "ok" and whole,
            )
            self._fault = ""
        except StoreError as error:
            self._note(shard_of(record.org), error)
            line = OwedRecord(msgspec.Raw(data), owed.raw_takes(holding.text), 0 if late else self._clock_ms())
            await self._debts.add(line)
        # Only now: if we were cancelled on the way, the settle that repeats this one still knows what was taken. A
        # renewal in between registers nothing, since the store has the marker.
        self._running.pop(record.call_id, None)

    async def release(self, call_id: str, org: str) -> None:
        """Ends a hold that leaves no record and charges nothing. Raises nothing but CancelledError."""
        hold = self._running.pop(call_id, None)
        text = hold.holding.text if hold is not None else b""
        await self._do_or_owe(shard_of(org), OwedRelease(org, call_id, owed.raw_takes(text)))

    def keep_answer(self, org: str, name: str, call_id: str, sealed: bytes, life_ms: int) -> None:
        """Keeps a call's answer, encrypted, for its twins. Sent ahead of whatever is sent next, and waited for by
        nobody: where the store does not take it, the twins go upstream."""
        data = kept_answer(self.now_ms(), call_id, sealed)
        try:
            sent = self._client.send("SET", KEYS[shard_of(org)].answer(name), data, "PX", life_ms)
        except StoreError:
            return
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def forget(self, call_id: str, org: str) -> None:
        """The caller of a running call is gone: its marks are forgotten, so that a repeat of it is no duplicate, and
        another call goes upstream for those that wait for it. Raises nothing but CancelledError: where the store is
        away, its settle does that."""
        keys = KEYS[shard_of(org)]
        try:
            await self._client.script("forget", (keys.epoch, keys.drafts), (call_id,))
        except StoreError as error:
            self._note(shard_of(org), error)

    async def remember_later(
        self,
        org: str,
        upstream: str,
        later_id: str,
        record: Record,
        taken: Sequence[Take] = (),
        *,
        holds: bool = False,
    ) -> None:
        """Keeps who made a call whose usage a later retrieval of `later_id` (an answer, a batch, a file with a batch's
        results) will show, and what it took, for 32 days. `holds`: until then that stays held. Raises nothing but
        CancelledError."""
        data = later.with_takes(records.encode(record), takes.holding(org, taken).text)
        await self._do_or_owe(shard_of(org), OwedLater(org, upstream, later_id, msgspec.Raw(data), holds))

    async def shown_long_ago(self, batch: Record) -> bool:
        """Whether items of a batch were shown before, so long ago that the store has forgotten which of them are
        settled. Raises StoreError."""
        now_ms = self.now_ms()
        first_ms = await later.first_shown(self._client, batch.org, batch.call_id, now_ms)
        return now_ms - first_ms > self._settled_memory_ms

    async def end_later(self, record: Record, taken: Sequence[Take]) -> None:
        """The cost of a call that `holds` is settled now: what is held of it ends. Raises StoreError."""
        await later.end(self._client, record, taken)

    async def recall_later(self, org: str, upstream: str, later_id: str) -> Record | None:
        """The record that was kept, None where it is not known or the store is away: the ledger may know it then."""
        try:
            return await later.recall(self._client, org, upstream, later_id)
        except StoreError as error:
            self._note(shard_of(org), error)
            return None

    async def recall_takes(self, org: str, upstream: str, later_id: str) -> Sequence[Take]:
        """What that call took, for the settle of its next revision; empty where it is not known."""
        try:
            return (await later.recall_takes(self._client, org, upstream, later_id)).takes
        except StoreError as error:
            self._note(shard_of(org), error)
            return ()

    # -- the store ------------------------------------------------------------------------------------------------

    async def _register(
        self, call_id: str, choices: Sequence[Hold], *, must: bool, marked: Marked | None = None
    ) -> list[Any]:
        """Runs reserve.lua with these candidates and returns its reply. `must`: whatever the limits say."""
        org = choices[0].org
        keys, arguments = [KEYS[shard_of(org)].to_reserve(call_id)], [self._to_hold(call_id, choices[0].draft, must)]
        if marked is None:
            arguments.append(NO_MARKS)
        else:
            marked_keys, marked_arguments = marked.packed(call_id, org)
            keys.append(marked_keys)
            arguments.append(marked_arguments)
        for hold in choices:
            keys.append(hold.holding.packed_keys)
            arguments.append(takes.packed_reserve(hold.holding))
        sent_ms = self._clock_ms()
        reply: list[Any] = await self._client.run("reserve", keys, arguments)
        self._clock.learn(int(reply[1]), sent_ms=sent_ms)
        return reply

    def _to_hold(self, call_id: str, draft: bytes, must: bool) -> Packed:
        """The first arguments of reserve.lua."""
        how = self._packed_must if must else self._packed_may
        return Packed(4, packed_text(call_id.encode()) + packed_text(draft) + how)

    async def _do(self, item: Owed) -> None:
        """Gives the store what it is owed. Raises StoreError."""
        if isinstance(item, OwedRecord):
            head = owed.head(item.record)
            await holds.end(
                self._client,
                KEYS[shard_of(head.org)],
                call_id=head.call_id,
                revision=head.revision,
                record=bytes(item.record),
                charge=holds.charge_of(head.cost_nusd, head.usage),
                holding=takes.parse(owed.takes_text(item.takes)),
                memory_ms=self._settled_memory_ms,
                late=self._clock_ms() - item.at_ms > self._settled_memory_ms,
                kept=head.result == "ok",
            )
            self._fault = ""
        elif isinstance(item, OwedRelease):
            holding = takes.parse(owed.takes_text(item.takes))
            await holds.drop(self._client, KEYS[shard_of(item.org)], call_id=item.call_id, holding=holding)
        else:
            await later.remember(self._client, item.org, item.upstream, item.later_id, bytes(item.record))
            if item.holds:
                await later.hold(self._client, *later.with_what_it_took(bytes(item.record)))

    async def _do_or_owe(self, shard: int, item: Owed) -> None:
        try:
            await self._do(item)
        except StoreError as error:
            self._note(shard, error)
            await self._debts.add(item)

    def _note(self, shard: int | None, error: StoreError) -> None:
        """Remembers what is wrong, so that `healthy` says so and the probe looks when it is over."""
        if self.degraded_since_ms is None:
            self.degraded_since_ms = self._clock_ms()
        if isinstance(error, StoreRebuilding):
            if shard is not None:
                self._rebuilding.add(shard)
        elif self._client.up:
            if not self._fault:
                log.warning(str(error))
            self._fault = str(error)

    # -- the loops ------------------------------------------------------------------------------------------------

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            try:
                await step()
            except StoreError:
                pass  # noted where it happened; the next round tries again
            except Exception:
                log.exception("Work on the store failed and goes on.")

    async def _probe(self) -> None:
        """Sees whether shards that were rebuilding have an epoch again, and since when anything is wrong."""
        if self._client.up and self._rebuilding:
            ready = self._rebuilding & (await read_epochs(self._client)).keys()
            self._rebuilding -= ready
            if ready:
                self._renew_at_s = 0.0
        if self.healthy:
            self.degraded_since_ms = None
        elif self.degraded_since_ms is None:
            self.degraded_since_ms = self._clock_ms()

    async def _drain(self) -> None:
        """Gives the store what it is owed."""
        if not self._client.up:
            return
        await self._debts.drain()
        if not self.spooled:
            self._fault = ""  # nothing waits any more: whatever was wrong is over, or the next call will say so

    async def _renew_when_due(self) -> None:
        """Every `renew_s`, and at once when the store is back: it may have forgotten the holds, or never known them."""
        if not self._client.up:
            return
        now_s, connected_at_s = asyncio.get_running_loop().time(), self._client.connected_at_s
        if now_s < self._renew_at_s and connected_at_s == self._renewed_connection_s:
            return
        self._renew_at_s, self._renewed_connection_s = now_s + self._renew_s, connected_at_s
        await self._renew()

    async def _renew(self) -> None:
        """Lengthens all holds of this process in one write, and registers again those that are gone."""
        by_shard: dict[int, list[str]] = {}
        for call_id, hold in self._running.items():
            by_shard.setdefault(shard_of(hold.org), []).append(call_id)
        outcomes = await asyncio.gather(
            *[
                self._renew_batch(shard, call_ids[start : start + RENEW_BATCH])
                for shard, call_ids in by_shard.items()
                for start in range(0, len(call_ids), RENEW_BATCH)
            ],
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _renew_batch(self, shard: int, call_ids: list[str]) -> None:
        keys = KEYS[shard]
        try:
            gone = await self._client.script("renew", (keys.epoch, keys.holds), (self._hold_life_ms, *call_ids))
            for call_id in [name.decode() for name in gone]:
                # One that was settled meanwhile runs no longer; one that is being settled has its marker.
                if (hold := self._running.get(call_id)) is not None:
                    await self._register_again(call_id, hold)
        except StoreError as error:
            self._note(shard, error)
            raise

    async def _register_again(self, call_id: str, hold: Hold) -> None:
        """With all it takes, exactly once: a reserve whose reply was lost may have left the hold of another candidate,
        and then that one counts."""
        reply = await self._register(call_id, [hold], must=True)
        if reply[0] == b"HELD":
            self._correct(call_id, adopt(hold, reply[2]))

    def _correct(self, call_id: str, hold: Hold) -> None:
        """What we know of a hold, unless its call ended while the store was asked."""
        if call_id in self._running:
            self._running[call_id] = hold
