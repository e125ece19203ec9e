"""Marks on their way to the store: the names of their keys, the arguments that reserve.lua wants of them, and what its
replies tell. The memory itself is laid out in scripts/parts/remembered.lua."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from ..core.duplicates import Kind, Mark
from ..core.twins import Looked, Seen, exceeded
from .errors import StoreError
from .keyspace import KEYS, shard_of
from .packing import PACKED_SMALL, Packed, joined, packed, packed_number, packed_text, template

WHO_BYTES_MAX = 60
"""Of a user or a task, what is kept beside a fingerprint; longer names are cut."""

LEADER_LIFE_MS = 4 * 3600 * 1000
"""The longest call. Whether a leader still runs is told by its hold; this only tidies up."""

MEMORIES_REMEMBERED = 4_096
"""Of the rules that the calls of the last minutes met."""

_IN_A_ROW: frozenset[Kind] = frozenset({"loop", "similar"})
"""The kinds that keep a row of steps or sketches, and no hash of fingerprints."""
_KINDS = {"exact": "e", "normalized": "e", "task": "t", "loop": "l", "similar": "s"}


NO_MARKS = packed((0,))
_PACKED_LEADER_LIFE = packed_number(LEADER_LIFE_MS)


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
        number = shard_of(org)
        keys: list[Packed] = []
        lines: list[bytes] = []
        each: list[Packed] = []
        for mark in self.marks:
            action = mark.lends or ("refuse" if mark.refuses else "")
            memory = _memory(number, mark.kind, mark.counter, mark.places, mark.limit, mark.expires_ms, action)
            keys.append(memory.keys)
            lines.append(memory.line % mark.fingerprint.hex().encode() if mark.kind not in _IN_A_ROW else memory.line)
            if mark.answer:
                answer, leader = KEYS[number].answer(mark.answer), KEYS[number].leader(mark.answer)
                keys.append(packed((answer, leader)))
                lines.append(f"a {leader}".encode())
            texts = packed_text(mark.fingerprint), packed_number(mark.since_ms), packed_text(mark.token)
            filled = memory.arguments.data % (*texts, PACKED_SMALL[mark.attempt], PACKED_SMALL[mark.rounds])
            each.append(Packed(memory.arguments.number, filled))
        of_call = (
            packed_number(len(self.marks)),
            packed_text(bytes.fromhex(call_id)),
            _who(self.user, self.task),
            packed_text(b"\n".join(lines)),
            packed_number(self.waiting_since_ms),
            _PACKED_LEADER_LIFE,
        )
        return joined(*keys), joined(Packed(len(of_call), b"".join(of_call)), *each)

    def looked(
        self, found: list[list[object]], *, admitted: bool, replays: str = "", answer: bytes = b"", joins: str = ""
    ) -> Looked:
        """What the last part of a reply tells: of each mark how many there were, the first, and whose it was."""
        seen = [_seen(each) for each in found]
        pairs = enumerate(zip(self.marks, seen, strict=True))
        blocked = [place for place, (mark, was) in pairs if mark.refuses and exceeded(mark, was)]
        if admitted or replays or joins:
            blocked = []
        return Looked(admitted, seen, blocked, replays, joins, answer)


def kept_answer(now_ms: int, call_id: str, sealed: bytes) -> bytes:
    """An answer as the store keeps it: when that was, the call that it is of, and the answer, encrypted."""
    return f"{now_ms:013d}{call_id}".encode() + sealed


def parse_answer(data: bytes) -> tuple[str, bytes]:
    """Back from `kept_answer`: the call and the answer, still encrypted."""
    return data[13:45].decode("ascii", "replace"), data[45:]


class _Memory(msgspec.Struct, frozen=True):
    """Where the calls of one rule are remembered, as far as it is the same for all marks there.

    keys       under which calls are remembered
    line       by which the store forgets what one left, whoever ends it, as `forget` in remembered.lua reads it; `%b`
               stands for the fingerprint
    arguments  of a mark, with `%b` for fingerprint, since when calls count, token, attempt and rounds
    """

    keys: Packed
    line: bytes
    arguments: Packed


@lru_cache(maxsize=MEMORIES_REMEMBERED)
def _memory(
    shard: int, kind: Kind, counter: str, places: tuple[str, ...], limit: int, expires_ms: int, action: str
) -> _Memory:
    """The fingerprint may have moved on to the next stretch of time with a twin, so that is looked at as well."""
    keys = KEYS[shard]
    names: tuple[str, ...] = (keys.row(counter),)
    line = f"r {keys.row(counter)}"
    if kind not in _IN_A_ROW:
        names = tuple([keys.twins(counter, place) for place in places])
        length, dot, turn = places[0].partition(".")
        more = (keys.twins(counter, f"{length}.{int(turn) + 1}"),) if dot else ()
        line = f"h %b {' '.join([name.replace('%', '%%') for name in (*names, *more)])}"
    arguments = template((_KINDS[kind], len(names), None, limit, None, expires_ms, None, None, None, action))
    return _Memory(packed(names), line.encode(), arguments)


@lru_cache(maxsize=MEMORIES_REMEMBERED)
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
