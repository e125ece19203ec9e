"""Twins: what becomes of a call's marks. The memory of duplicate rules in plain Python, and its specification.

`Twins` remembers in this process; the scripts of the store do the same with keys, and a test drives both with the same
steps. A simulation can run on it without a server:

    twins = Twins()
    marks, scopes = duplicates.marks_for(...)
    looked = twins.reserve(call_id, marks)         # call_id: 32 hexadecimal digits that begin with the time (UUIDv7)
    finding = duplicate_refusals.weigh(scopes, marks, looked.seen, caller=caller, now_ms=now_ms)
    ...
    twins.settle(call_id, kept=result == "ok")     # a call that failed, was refused or lost its reader is no twin

What is remembered of a call is its id, which tells its time, the user and task that made it, and fingerprints.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile

import msgspec

from .duplicates import NO_TOKEN, RETRIES_MAX, Mark
from .fingerprint import PERIOD_MAX, ROUNDS_MAX

ITEMS_MAX = 64
"""Calls remembered of one fingerprint: the first, and the newest. Beyond it `repeats` says no more than this."""
STEPS_KEPT = 64
"""Steps remembered of one task at least: a loop of 16 rounds of 4 calls. Where more may pass, as many as it takes."""
SKETCHES_MAX = 64
"""Calls that a new one is compared with for likeness."""
STOP = bytes(7)
"""What stops begin with, and no step does by chance."""
LIKE_BITS_MAX = 5
"""Bits in which the sketches of like texts differ at most: where nine words in ten are the same, three do."""


Row = list[tuple[str, bytes]]


class Item(msgspec.Struct):
    """A remembered call. `tries`: how many of its retries were taken for it."""

    call_id: str
    token: bytes = NO_TOKEN
    tries: int = 0


class Remembered(msgspec.Struct):
    """The calls with one fingerprint, oldest first; user and task of the oldest, "" where that one was forgotten."""

    user: str
    task: str
    items: list[Item]


class Seen(msgspec.Struct, frozen=True):
    """What there was under a mark before this call.

    count   calls with the same fingerprint in the window; of `loop` equal rounds before this one, of `task` other tasks
            that were asked the same before, of `similar` calls that are alike
    twin    the first of them; "" where it is not known: the rounds of a loop may all be in the conversation itself
    user, task   who made that one, and for what; "" where it is not known
    """

    count: int = 0
    twin: str = ""
    user: str = ""
    task: str = ""


class Looked(msgspec.Struct, frozen=True):
    """What became of a call: admitted, refused by the marks at `blocked`, or answered from its twin's stored answer
    (`replays`: the id of that call, `answer`: as it was kept), or to wait for its running twin (`joins`: its id)."""

    admitted: bool
    seen: list[Seen]
    blocked: list[int] = []
    replays: str = ""
    joins: str = ""
    answer: bytes = b""


def exceeded(mark: Mark, seen: Seen) -> bool:
    """Whether the call is the one too many."""
    return seen.count >= mark.frame.limit


def made_at_ms(call_id: str) -> int:
    """When a call was made: its id begins with that."""
    return int(call_id[:12], 16)


def retried(mark: Mark, newest: Item | None) -> bool:
    """Whether a call is a retry of the newest one like it, by what its client says. More than a few are none."""
    if newest is None or mark.frame.kind == "task":
        return False
    if mark.attempt:
        return newest.tries < mark.attempt <= RETRIES_MAX
    return mark.token != NO_TOKEN and mark.token == newest.token and newest.tries < RETRIES_MAX


def rounds_at_end(steps: Sequence[bytes]) -> tuple[int, int]:
    """How often the last cycle of up to PERIOD_MAX steps stands at the end in a row, and how many steps it has. Of the
    cycles that stand there equally often the shortest counts; without steps none does."""
    best, best_period = min(1, len(steps)), 1
    for period in range(1, min(PERIOD_MAX, len(steps)) + 1):
        if (rounds := cycled(steps, period) // period) > best:
            best, best_period = rounds, period
    return min(best, ROUNDS_MAX), best_period


def stop_of(period: int) -> bytes:
    """What stands in the place of a step behind a cycle of so many steps that was refused. Refused steps leave nothing,
    so that the next step of the cycle would seem to break it. It is stopped until a step comes that is none of its own,
    or too few of its steps are left. A cycle of one step needs none: without the refused ones it seems whole. Only the
    cycles of one task are stopped: a user does more than one thing at a time."""
    return STOP + bytes([period])


def split_stop(row: Row) -> tuple[Row, int]:
    """A row without the stop at its end, and how many steps the cycle has that is stopped there; 0: none is."""
    if not row or not row[-1][1].startswith(STOP):
        return row, 0
    return row[:-1], row[-1][1][-1]


def again(mark: Mark, steps: Sequence[bytes]) -> bool:
    """Whether a call is a retry of the one whose step is the last of the row, by what its client says."""
    return bool(mark.attempt and steps and steps[-1] == mark.fingerprint)


def goes_on(mark: Mark, steps: Sequence[bytes], period: int) -> bool:
    """Whether a step is one of the cycle of so many steps that is stopped at the end of these; 0: none is."""
    return period > 0 and mark.fingerprint in steps[-period:]


def row_before(mark: Mark, row: Row) -> Row:
    """What a step is put behind. A stop stays behind its cycle, which it stops again should that step fail; but where
    the cycle itself goes on, since too few of its steps are left to refuse it, its stop would hide it."""
    rest, period = split_stop(row)
    steps, stop = steps_of(rest), row[len(rest) :]
    if goes_on(mark, steps, period):
        stop = []
    return [*(rest[:-1] if again(mark, steps) else rest), *stop]


def steps_of(row: Row) -> list[bytes]:
    """The steps of a row; a stop that others came behind is like no other step."""
    return [b"%d" % place if step.startswith(STOP) else step for place, (_, step) in enumerate(row)]


def cycled(steps: Sequence[bytes], period: int) -> int:
    """How many steps at the end go on as a cycle of so many does."""
    same = min(period, len(steps))
    while same < len(steps) and steps[-1 - same] == steps[-1 - same + period]:
        same += 1
    return same


def kept_in_row(mark: Mark) -> int:
    """How many steps, or sketches, are remembered: of steps enough for one round of the longest cycle too many."""
    if mark.frame.kind == "similar":
        return SKETCHES_MAX
    return PERIOD_MAX * min(max(STEPS_KEPT // PERIOD_MAX, mark.frame.limit + 1), ROUNDS_MAX)


class Twins:
    """The memory of one org. Needs no clock: calls tell their time by their ids, marks from when on it counts."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], dict[bytes, Remembered]] = {}
        self.rows: dict[str, Row] = {}
        """By counter: the steps of a loop rule, or the sketches of a `similar` one, each with its call. Behind a cycle
        that was refused stands a stop (`stop_of`), with the call that was."""
        self.answers: dict[str, tuple[str, int]] = {}
        """By the name of the answer: the call that it is from, and when it was kept."""
        self.leaders: dict[str, str] = {}
        """By the name of the answer: the running call that will give it."""
        self.running: dict[str, list[Mark]] = {}

    # -- before a call ------------------------------------------------------------------------------------------------

    def reserve(
        self, call_id: str, marks: Sequence[Mark], *, user: str = "", task: str = "", waiting_since_ms: int = 0
    ) -> Looked:
        """Looks at all marks and then, where nothing speaks against it, leaves them. All of it is one step.

        waiting_since_ms   since when the call waits for a running twin; 0: it has just come
        """
        now_ms = made_at_ms(call_id)
        seen = [self.look(mark, now_ms) for mark in marks]
        for mark, found in zip(marks, seen, strict=True):
            if mark.frame.lends not in ("replay", "join") or not exceeded(mark, found):
                continue
            since_ms = mark.frame.since_ms(now_ms) if mark.frame.lends == "replay" else waiting_since_ms
            answer = self.answers.get(mark.answer)
            if answer is not None and since_ms and answer[1] >= since_ms:
                return Looked(False, seen, replays=answer[0])
            leader = self.leaders.get(mark.answer)
            if mark.frame.lends == "join" and leader is not None and leader in self.running:
                return Looked(False, seen, joins=leader)
        blocked = [
            place
            for place, (mark, found) in enumerate(zip(marks, seen, strict=True))
            if mark.frame.refuses and exceeded(mark, found)
        ]
        if blocked:
            for place in blocked:
                if marks[place].frame.stops:
                    self._stop(call_id, marks[place])
            return Looked(False, seen, blocked=blocked)
        self.leave(call_id, marks, user=user, task=task)
        return Looked(True, seen)

    def look(self, mark: Mark, now_ms: int) -> Seen:
        """What there is under a mark. Changes nothing."""
        if mark.frame.kind in ("loop", "similar"):
            return self._look_at_row(mark, now_ms)
        remembered = self._remembered(mark, now_ms)
        if remembered is None:
            return Seen()
        items = remembered.items
        if mark.frame.kind == "task":
            count = next((place for place, item in enumerate(items) if item.token == mark.token), len(items))
        else:
            count = len(items) - retried(mark, items[-1])
        if not count:
            return Seen()
        return Seen(count, items[0].call_id, remembered.user, remembered.task)

    def _look_at_row(self, mark: Mark, now_ms: int) -> Seen:
        row = self._row(mark, now_ms)
        if mark.frame.kind == "similar":
            like = [call_id for call_id, sketch in row if differing_bits(sketch, mark.fingerprint) <= LIKE_BITS_MAX]
            return Seen(len(like), like[0]) if like else Seen()
        row, period = split_stop(row)
        rounds = max(self._rounds(mark, row)[0], mark.rounds)
        steps = steps_of(row)
        if mark.frame.stops and goes_on(mark, steps, period) and not again(mark, steps):
            rounds = max(rounds, min((cycled(steps, period) + 1) // period, ROUNDS_MAX))
        before = [call_id for call_id, step in row if step == mark.fingerprint]
        return Seen(rounds - 1, before[0] if rounds > 1 and before else "")

    def _rounds(self, mark: Mark, row: Row) -> tuple[int, int]:
        """Of the task, with this call: rounds, and how many steps a round has."""
        steps = steps_of(row)
        if not again(mark, steps):
            steps.append(mark.fingerprint)
        return rounds_at_end(steps)

    def _stop(self, call_id: str, mark: Mark) -> None:
        """A step of a cycle is refused."""
        row, stopped = split_stop(self._row(mark, made_at_ms(call_id)))
        rounds, period = self._rounds(mark, row)
        if not stopped and period > 1 and rounds > mark.frame.limit:
            self.rows[mark.frame.counter] = [*row, (call_id, stop_of(period))]

    def _row(self, mark: Mark, now_ms: int) -> Row:
        since_ms = mark.frame.since_ms(now_ms)
        return [each for each in self.rows.get(mark.frame.counter, ()) if made_at_ms(each[0]) >= since_ms]

    def _remembered(self, mark: Mark, now_ms: int) -> Remembered | None:
        """Those of the window; None where there is none."""
        since_ms = mark.frame.since_ms(now_ms)
        for place in mark.frame.places:
            found = self.places.get((mark.frame.counter, place), {}).get(mark.fingerprint)
            if found is None:
                continue
            items = list(dropwhile(lambda item: made_at_ms(item.call_id) < since_ms, found.items))
            if not items:
                return None
            first = items[0] is found.items[0]
            return Remembered(found.user if first else "", found.task if first else "", items)
        return None

    def leave(self, call_id: str, marks: Sequence[Mark], *, user: str = "", task: str = "") -> None:
        """Leaves the marks of a call that goes upstream, and makes it the one that its twins wait for."""
        now_ms = made_at_ms(call_id)
        for mark in marks:
            if mark.frame.kind in ("loop", "similar"):
                row = self._row(mark, now_ms)
                if mark.frame.kind == "loop":
                    row = row_before(mark, row)
                row.append((call_id, mark.fingerprint))
                self.rows[mark.frame.counter] = row[-kept_in_row(mark) :]
            else:
                self._leave(call_id, mark, user, task)
            if mark.answer and self.leaders.get(mark.answer) not in self.running:
                self.leaders[mark.answer] = call_id
        self.running[call_id] = list(marks)

    def _leave(self, call_id: str, mark: Mark, user: str, task: str) -> None:
        remembered = self._remembered(mark, made_at_ms(call_id)) or Remembered(user, task, [])
        items = remembered.items
        if mark.frame.kind == "task" and any(item.token == mark.token for item in items):
            pass
        elif items and retried(mark, items[-1]):
            items[-1] = Item(call_id, mark.token, mark.attempt or items[-1].tries + 1)
            if len(items) == 1:
                remembered.user, remembered.task = user, task
        else:
            if len(items) >= ITEMS_MAX:
                del items[1]
            items.append(Item(call_id, mark.token, min(mark.attempt, RETRIES_MAX)))
        for place in mark.frame.places:
            self.places.get((mark.frame.counter, place), {}).pop(mark.fingerprint, None)
        self.places.setdefault((mark.frame.counter, mark.frame.places[0]), {})[mark.fingerprint] = remembered

    # -- after it -----------------------------------------------------------------------------------------------------

    def forget(self, call_id: str) -> None:
        """The caller of a running call is gone: nobody waits for it, and a repeat of it is no duplicate."""
        if call_id in self.running:
            self.settle(call_id, kept=False)
            self.running[call_id] = []

    def settle(self, call_id: str, *, kept: bool, answered_ms: int = 0) -> None:
        """Ends a call. Not `kept`: it failed, was lost, or its caller is gone: a repeat of it is no duplicate.
        `answered_ms`: when its answer was kept for its twins; 0: it was not."""
        marks = self.running.pop(call_id, [])
        for mark in marks:
            if mark.answer and answered_ms and kept:
                self.answers[mark.answer] = (call_id, answered_ms)
            if mark.answer and self.leaders.get(mark.answer) == call_id:
                del self.leaders[mark.answer]
            if not kept:
                self._forget(call_id, mark)

    def _forget(self, call_id: str, mark: Mark) -> None:
        if mark.frame.kind in ("loop", "similar"):
            row = self.rows.get(mark.frame.counter, [])
            self.rows[mark.frame.counter] = [each for each in row if each[0] != call_id]
            return
        for (counter, _), prints in self.places.items():
            found = prints.get(mark.fingerprint) if counter == mark.frame.counter else None
            if found is None:
                continue
            if found.items[0].call_id == call_id:
                found.user = found.task = ""
            found.items = [item for item in found.items if item.call_id != call_id]
            if not found.items:
                del prints[mark.fingerprint]


def differing_bits(one: bytes, other: bytes) -> int:
    """In how many bits two sketches differ."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
