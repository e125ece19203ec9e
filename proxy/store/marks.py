"""Marks on their way to the store: the names of their keys, the arguments that reserve.lua wants of them, and what its
replies tell. The memory itself is laid out in scripts/parts/remembered.lua."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from ..core.duplicates import TOKEN_BYTES, Frame, Kind, Mark
from ..core.fingerprint import FINGERPRINT_BYTES, ROUNDS_MAX, SKETCH_BYTES, STEP_BYTES
from ..core.twins import Looked, Seen, exceeded
from .errors import StoreError
from .keyspace import KEYS, shard_of
from .packing import Gaps, Packed, packed, packed_number, packed_text, template

WHO_BYTES_MAX = 60
"""Of a user or a task, what is kept beside a fingerprint; longer names are cut."""

LEADER_LIFE_MS = 4 * 3600 * 1000
"""The longest call. Whether a leader still runs is told by its hold; this only tidies up."""

LAYOUTS_REMEMBERED = 2_048
"""One for each set of rules and callers that calls met together, until the window of one of them moves on."""
WHO_REMEMBERED = 4_096

_IN_A_ROW: frozenset[Kind] = frozenset({"loop", "similar"})
"""The kinds that keep a row of steps or sketches, and no hash of fingerprints."""
_KINDS = {"exact": "e", "normalized": "e", "task": "t", "loop": "l", "similar": "s"}

NO_MARKS = packed((0,))
_ID = Gaps(b"%b", 16)
_TOLD = Gaps(b"%b%b%b", TOKEN_BYTES + 2 + FINGERPRINT_BYTES)
_TOLD_OF_A_STEP = Gaps(b"%b%b%b", TOKEN_BYTES + 2 + STEP_BYTES)
"""Token, attempt with rounds, and fingerprint of a mark; of a step or a sketch, which are as long as each other."""
assert STEP_BYTES == SKETCH_BYTES
_FIRST_ATTEMPT = tuple([bytes((0, rounds)) for rounds in range(ROUNDS_MAX + 1)])
_UNSEEN = Seen()


class Marked:
    """The marks of one call, ready for the store. `waiting_since_ms`: since when the call waits for a running twin, by
    the clock of the store; 0: it has just come."""

    __slots__ = ("marks", "task", "user", "waiting_since_ms")

    def __init__(self, marks: Sequence[Mark], *, user: str, task: str | None, waiting_since_ms: int = 0) -> None:
        self.marks = marks
        self.user = user
        self.task = task or ""
        self.waiting_since_ms = waiting_since_ms

    def packed(self, call_id: str, org: str) -> tuple[Packed, Packed]:
        """The keys and arguments of reserve.lua, from its count of marks on."""
        shard = shard_of(org)
        layout = _layout(shard, tuple([mark.frame for mark in self.marks]))
        keys: list[bytes] = []
        names: list[bytes] = []
        told: list[bytes] = []
        for mark in self.marks:
            attempt, rounds = mark.attempt, mark.rounds
            how = bytes((attempt, rounds)) if attempt else _FIRST_ATTEMPT[rounds]
            told += (mark.token, how, mark.fingerprint)
            if mark.frame.kind not in _IN_A_ROW:
                names.append(hexlify(mark.fingerprint))
            if mark.frame.lends:
                answer, leader = KEYS[shard].answer(mark.answer), KEYS[shard].leader(mark.answer).encode()
                keys += (packed_text(answer.encode()), packed_text(leader))
                names.append(leader)
        lines, waiting = packed_text(layout.lines % tuple(names)), packed_number(self.waiting_since_ms)
        of_call = bytes.fromhex(call_id), _who(self.user, self.task), lines, waiting
        return (
            Packed(layout.keys.number, layout.keys.data % tuple(keys)),
            Packed(layout.arguments.number, layout.arguments.data % (*of_call, *told)),
        )

    def looked(
        self, found: list[list[object]], *, admitted: bool, replays: str = "", answer: bytes = b"", joins: str = ""
    ) -> Looked:
        """What the last part of a reply tells: of each mark how many there were, the first, and whose it was; empty
        where there was none at all."""
        seen = [_seen(each) for each in found] if found else [_UNSEEN] * len(self.marks)
        blocked: list[int] = []
        if not (admitted or replays or joins):
            pairs = enumerate(zip(self.marks, seen, strict=True))
            blocked = [place for place, (mark, was) in pairs if mark.frame.refuses and exceeded(mark, was)]
        return Looked(admitted, seen, blocked, replays, joins, answer)


def kept_answer(now_ms: int, call_id: str, sealed: bytes) -> bytes:
    """An answer as the store keeps it: when that was, the call that it is of, and the answer, encrypted."""
    return f"{now_ms:013d}{call_id}".encode() + sealed


def parse_answer(data: bytes) -> tuple[str, bytes]:
    """Back from `kept_answer`: the call and the answer, still encrypted."""
    return data[13:45].decode("ascii", "replace"), data[45:]


class _Layout(msgspec.Struct, frozen=True):
    """What the marks of a call send, as far as it is the same for all calls with the same frames; `%b` stands for the
    rest.

    keys       under which calls are remembered; of a mark that lends, two more: answer and leader
    lines      by which the store forgets what a call left, whoever ends it, as `forget` in remembered.lua reads them:
               to be filled with fingerprints and leaders
    arguments  from the count of marks on
    """

    keys: Packed
    lines: bytes
    arguments: Packed


@lru_cache(maxsize=LAYOUTS_REMEMBERED)
def _layout(shard: int, frames: tuple[Frame, ...]) -> _Layout:
    """The fingerprint may have moved on to the next stretch of time with a twin, so that is looked at as well."""
    keys = KEYS[shard]
    named: list[str | None] = []
    lines: list[str] = []
    arguments: list[str | int | Gaps | None] = [len(frames), _ID, None, None, None, LEADER_LIFE_MS]
    for frame in frames:
        told = _TOLD
        if frame.kind in _IN_A_ROW:
            told = _TOLD_OF_A_STEP
            names = [keys.row(frame.counter)]
            lines.append(_literal(f"r {names[0]}"))
        else:
            names = [keys.twins(frame.counter, place) for place in frame.places]
            length, dot, turn = frame.places[0].partition(".")
            more = [keys.twins(frame.counter, f"{length}.{int(turn) + 1}")] if dot else []
            lines.append("h %b " + _literal(" ".join([*names, *more])))
        named += names
        if frame.lends:
            named += (None, None)
            lines.append("a %b")
        action = frame.lends or ("stop" if frame.stops else "refuse" if frame.refuses else "")
        since_ms = -frame.length_ms or frame.begins_ms
        arguments += (_KINDS[frame.kind], len(names), frame.limit, since_ms, frame.expires_ms, action, told)
    return _Layout(template(named), "\n".join(lines).encode(), template(arguments))


def _literal(text: str) -> str:
    return text.replace("%", "%%")


@lru_cache(maxsize=WHO_REMEMBERED)
def _who(user: str, task: str) -> bytes:
    """User and task as the memory keeps them, as one argument."""
    return packed_text(_with_length(user) + _with_length(task))


def _with_length(text: str) -> bytes:
    data = text.encode("utf-8", "replace")[:WHO_BYTES_MAX]
    return bytes([len(data)]) + data


def _seen(told: list[object]) -> Seen:
    """Raises StoreError where the store holds something that is none of ours."""
    count, twin, who = told
    if not isinstance(count, int) or not isinstance(twin, bytes) or not isinstance(who, bytes):
        raise StoreError("What the store remembers of a call's twins cannot be read.")
    if not who:
        return Seen(count, twin.hex())
    end = 1 + who[0]
    user, task = who[1:end], who[end + 1 : end + 1 + who[end]]
    return Seen(count, twin.hex(), user.decode("utf-8", "ignore"), task.decode("utf-8", "ignore"))
