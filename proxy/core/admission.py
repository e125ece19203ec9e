"""Admission: what a call takes of its counters, and what becomes of that.

The arithmetic of budgets in plain Python, and its specification. `Admission` keeps the counters in memory; the scripts
of the store do the same with keys, and a test drives both with the same steps and compares every reply and counter.

A counter has two numbers: `spent`, what settled calls came to, and `held`, what running calls may still come to. A call
is admitted when `spent + held + amount <= limit` in every take that is enforced. It takes all of them or none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from .twins import Looked

Unit = Literal["nusd", "tokens", "calls", "concurrent"]


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """What one call takes of one counter.

    counter            id of the counter: a digest of the budget's identity and its values of `per`; [a-z0-9]{16}
    budget             the rule's name, for people
    limit              with exceptions and raises applied
    amount             what the call holds: nano-USD, tokens, 1 call, 1 concurrent
    window_start_ms    of the window at the moment of admission, by the clock of the store; 0 for `ever` and concurrent
    window_end_ms      exclusive; 0: never ends
    bucket_ms          above 0: rolling; the window is [start, end), counted in sub-buckets of this size. The last one
                       holds the moment of admission, and with it what the call spends
    enforce            False (`mode: shadow`, `then: warn`): counted and reported, never refuses
    grows              False where the amount is a bound already: no answer outgrows that
    """

    counter: str
    budget: str
    unit: Unit
    limit: int
    amount: int
    window_start_ms: int
    window_end_ms: int
    bucket_ms: int = 0
    enforce: bool = True
    grows: bool = True


class State(msgspec.Struct):
    """What a counter stood at before this call."""

    spent: int
    held: int


class Reserved(msgspec.Struct):
    """What became of an attempt to reserve.

    choice     which of the candidates was admitted: 0 as asked, 1 the other model of `then: use`
    states     of each take of the candidate that was admitted; of candidate 0 where none was. Empty where the call had
               its hold already, or was settled: nothing was taken a second time
    blocked    positions of the enforced takes of candidate 0 that did not fit
    now_ms     by the clock of the store
    looked     what the store made of the call's marks (`twins.py`); None where it has left none
    """

    admitted: bool
    choice: int
    states: list[State]
    blocked: list[int]
    now_ms: int
    looked: Looked | None = None


class NoRoom(msgspec.Struct, frozen=True):
    """The counter that a running call cannot hold more of, and what it stood at."""

    counter: str
    state: State


class WindowMoved(Exception):
    """The store's clock lies outside the window of a take: the window turned, or our clock is wrong. Nothing was
    taken; compute the takes again for `now_ms` and repeat."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(f"A window turned; the store's clock says {now_ms} ms.")
        self.now_ms = now_ms


def fits(take: Take, state: State) -> bool:
    return state.spent + state.held + take.amount <= take.limit


def blocked(takes: Sequence[Take], states: Sequence[State]) -> list[int]:
    """Positions of the enforced takes that do not fit."""
    return [
        position
        for position, (take, state) in enumerate(zip(takes, states, strict=True))
        if take.enforce and not fits(take, state)
    ]


def admission_span(take: Take) -> tuple[int, int]:
    """[from, until) in which the moment of admission must lie: the window, or of a rolling one its last sub-bucket.
    (0, 0): always."""
    start_ms = take.window_end_ms - take.bucket_ms if take.bucket_ms else take.window_start_ms
    return start_ms, take.window_end_ms


def bucket_start(take: Take) -> int:
    """Where a rolling window counts what the call spends: the sub-bucket of its admission."""
    return take.window_end_ms - take.bucket_ms


def oldest_bucket(take: Take, now_ms: int) -> int:
    """The start of the oldest sub-bucket that counts at an instant; at that of admission, the start of the window. The
    window is one sub-bucket longer than its rule says, so the error is on the safe side and at most that."""
    length_ms = take.window_end_ms - take.window_start_ms
    return now_ms - now_ms % take.bucket_ms + take.bucket_ms - length_ms


def outgrown(take: Take, nusd: int, tokens: int) -> int:
    """How much more a take holds when its call outgrew its hold by so much."""
    return {"nusd": nusd, "tokens": tokens}.get(take.unit, 0) if take.grows else 0


class Charge(msgspec.Struct, frozen=True):
    """What a call came to, by unit. Concurrency comes to nothing: it ends with the hold."""

    nusd: int = 0
    tokens: int = 0
    calls: int = 0

    def of(self, unit: Unit) -> int:
        return {"nusd": self.nusd, "tokens": self.tokens, "calls": self.calls, "concurrent": 0}[unit]


NOTHING = Charge()
ROLLING = -1
"""Stands for the window of a rolling counter's `held`, which moves along with the window."""


class Hold(msgspec.Struct):
    """A running call: what it takes, when it is given up as lost, and what it comes to then."""

    takes: Sequence[Take]
    expires_ms: int
    estimate: Charge


class Settled(msgspec.Struct):
    """What is remembered of a call that was settled or lost.

    asked      the highest revision that was settled; 0: none, the call was given up as lost
    shift      by how many the written revisions are higher than those asked for: 1 for calls that were lost
    charged    what its counters were charged so far
    """

    asked: int
    shift: int
    charged: Charge


class Admission:
    """The counters, holds and settled calls of one org. `life_ms`: how long a hold lives that is not renewed."""

    def __init__(self, *, life_ms: int) -> None:
        self._life_ms = life_ms
        self.holds: dict[str, Hold] = {}
        self.settled: dict[str, Settled] = {}
        self.seeded: set[tuple[str, str, int]] = set()
        self.spent: dict[tuple[str, int], int] = defaultdict(int)
        """By counter and start of the window, or of the sub-bucket of a rolling one."""
        self.held: dict[tuple[str, int], int] = defaultdict(int)
        """By counter and start of the window, or ROLLING."""

    def state(self, take: Take, now_ms: int) -> State:
        if not take.bucket_ms:
            place = take.counter, take.window_start_ms
            return State(self.spent[place], self.held[place])
        oldest_ms = oldest_bucket(take, now_ms)
        buckets = ((start_ms, spent) for (counter, start_ms), spent in self.spent.items() if counter == take.counter)
        return State(sum(spent for start, spent in buckets if start >= oldest_ms), self.held[take.counter, ROLLING])

    # -- before a call -----------------------------------------------------------------------------------------------

    def reserve(
        self, call_id: str, candidates: Sequence[Sequence[Take]], now_ms: int, *, estimate: Charge = NOTHING
    ) -> Reserved:
        """Takes all of the first candidate that fits. Raises WindowMoved, and then nothing was taken.

        A call that has its hold, or was settled, takes nothing again. One that was given up as lost may hold again."""
        known = self.settled.get(call_id)
        if call_id in self.holds:
            self.renew([call_id], now_ms)
            held = amounts(self.holds[call_id].takes)
            choice = next((number for number, candidate in enumerate(candidates) if amounts(candidate) == held), 0)
            return Reserved(True, choice, [], [], now_ms)
        if known is not None and known.asked > 0:
            return Reserved(True, 0, [], [], now_ms)
        first: Reserved | None = None
        for choice, takes in enumerate(candidates or [()]):
            if not all(within(admission_span(take), now_ms) for take in takes):
                raise WindowMoved(now_ms)
            states = [self.state(take, now_ms) for take in takes]
            in_the_way = blocked(takes, states)
            if not in_the_way:
                self._hold(call_id, takes, now_ms, estimate)
                return Reserved(True, choice, states, [], now_ms)
            first = first or Reserved(False, 0, states, in_the_way, now_ms)
        assert first is not None
        return first

    def register(self, call_id: str, takes: Sequence[Take], now_ms: int, *, estimate: Charge = NOTHING) -> None:
        """For a call that runs already: its hold was lost with the store, or never arrived. Limits do not matter."""
        known = self.settled.get(call_id)
        if call_id not in self.holds and (known is None or known.asked == 0):
            self._hold(call_id, takes, now_ms, estimate)

    def _hold(self, call_id: str, takes: Sequence[Take], now_ms: int, estimate: Charge) -> None:
        self._add_held(takes, 1)
        self.holds[call_id] = Hold(takes, now_ms + self._life_ms, estimate)

    # -- while it runs -----------------------------------------------------------------------------------------------

    def extend(
        self, call_id: str, now_ms: int, *, nusd: int = 0, tokens: int = 0, within: Collection[str] = ()
    ) -> NoRoom | None:
        """Holds more for a call that outgrows its hold: of all its counters, or of none where one of `within` has not
        so much left. The others grow whether it fits or not, since what was seen is owed."""
        hold = self.holds.get(call_id)
        if hold is None:
            return None
        steps = [msgspec.structs.replace(take, amount=outgrown(take, nusd, tokens)) for take in hold.takes]
        growing = [step for step in steps if step.amount]
        for step in growing:
            state = self.state(step, now_ms)
            if step.enforce and step.counter in within and not fits(step, state):
                return NoRoom(step.counter, state)
        self._add_held(growing, 1)
        hold.takes = [
            msgspec.structs.replace(take, amount=take.amount + step.amount)
            for take, step in zip(hold.takes, steps, strict=True)
        ]
        if growing:
            hold.estimate = Charge(hold.estimate.nusd + nusd, hold.estimate.tokens + tokens, hold.estimate.calls)
        return None

    def renew(self, call_ids: Iterable[str], now_ms: int) -> list[str]:
        """Lengthens holds. Returns the calls that have none any more."""
        gone = []
        for call_id in call_ids:
            if call_id in self.holds:
                self.holds[call_id].expires_ms = now_ms + self._life_ms
            else:
                gone.append(call_id)
        return gone

    # -- after it ----------------------------------------------------------------------------------------------------

    def settle(self, call_id: str, revision: int, charge: Charge, takes: Sequence[Take] = ()) -> int:
        """Ends the hold and charges what the call came to, to the counters and windows that the hold names (`takes`
        where the hold is gone). Never refuses. A revision that was settled before changes nothing; a later one charges
        the difference. Returns the revision that was written, 0 where none was."""
        hold = self.holds.get(call_id)
        charged_to = hold.takes if hold is not None else takes
        self.release(call_id)
        known = self.settled.get(call_id)
        if known is None:
            # The first revision of a call counted it; its money and tokens were not known then.
            known = Settled(-1, 0, NOTHING if revision <= 1 else Charge(calls=charge.calls))
        if revision <= known.asked:
            return 0
        self._charge(charged_to, charge, known.charged)
        self.settled[call_id] = Settled(revision, known.shift, charge)
        return revision + known.shift

    def release(self, call_id: str) -> None:
        """Ends a hold and charges nothing."""
        hold = self.holds.pop(call_id, None)
        if hold is not None:
            self._add_held(hold.takes, -1)

    def expire(self, now_ms: int) -> list[str]:
        """Gives up calls whose holds were not renewed: each is charged its estimate and is `lost`, until a settle that
        comes after all charges the difference. Returns those that became lost now."""
        lost = []
        for call_id in [call_id for call_id, hold in self.holds.items() if hold.expires_ms <= now_ms]:
            hold = self.holds[call_id]
            self.release(call_id)
            if call_id not in self.settled:
                self._charge(hold.takes, hold.estimate, NOTHING)
                self.settled[call_id] = Settled(0, 1, hold.estimate)
                lost.append(call_id)
        return lost

    # -- beside calls ------------------------------------------------------------------------------------------------

    def seed(self, take: Take, amount: int, name: str) -> bool:
        """Adds to what a counter has spent, once for each name, counter and window. False where that was done."""
        place = take.counter, bucket_start(take) if take.bucket_ms else take.window_start_ms
        if (name, *place) in self.seeded:
            return False
        self.seeded.add((name, *place))
        self.spent[place] += amount
        return True

    # -- the counters ------------------------------------------------------------------------------------------------

    def _add_held(self, takes: Iterable[Take], sign: int) -> None:
        for take in takes:
            self.held[take.counter, ROLLING if take.bucket_ms else take.window_start_ms] += sign * take.amount

    def _charge(self, takes: Iterable[Take], now: Charge, before: Charge) -> None:
        for take in takes:
            start_ms = bucket_start(take) if take.bucket_ms else take.window_start_ms
            self.spent[take.counter, start_ms] += now.of(take.unit) - before.of(take.unit)


def amounts(takes: Iterable[Take]) -> list[tuple[str, int, int, int]]:
    """What is held of which counters, whatever their limits are by now."""
    return [(take.counter, take.window_start_ms, take.window_end_ms, take.amount) for take in takes]


def within(span: tuple[int, int], now_ms: int) -> bool:
    start_ms, end_ms = span
    return end_ms == 0 or start_ms <= now_ms < end_ms
