"""Fingerprints: what two calls have in common, as keyed hashes. Nobody without the server's secret can test a guess of
a prompt against one, and no text can be had back from them.

* exact       the call that the provider would answer alike, whatever the order of keys, spacing, streaming flag or SDK
* normalized  the same conversation but for ids, times and the like in system text and last turn, in any dialect
* opening     what a task was asked to do: its first turn, normalized
* step        the tools that were called last, with arguments and results, normalized; and how often they repeat
* sketch      64 bits of what a conversation is begun with: of the files, functions and the like that it names, which
              stay in whatever words a task is told, else of its words; texts with nine in ten alike differ in few bits
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from binascii import hexlify
from itertools import chain
from typing import Any

import msgspec

from .conversation import Conversation, Turn
from .normal_text import is_ticket, normal_text

FINGERPRINT_BYTES = 12
"""Two of a thousand million calls meet by chance once in a hundred million such stores."""
STEP_BYTES = 8
SKETCH_BYTES = 8
SKETCH_WORDS_MAX = 256
SKETCH_NAMES_MIN = 2
"""One name alone, unless it is a path, may be chance: `and/or`, `v2`."""
SKETCH_NAMES_MAX = 32
SKETCHED_CHARACTERS_MAX = 128 * 1024
"""So much of an opening turn is sketched: some 40 ms of work. A task is told in less; the rest came along with it."""

CANONICAL_BYTES_MAX = 1024 * 1024
"""A larger field is compared as it was sent: to bring it in order would take longer than it is worth."""
RECURRING_BYTES_MIN = 512
"""Tools and system texts from this length on are recognised from call to call: shorter ones are as soon read."""
RECURRING_REMEMBERED = 512

OPENING_WORDS_MIN = 8
"""`fix the tests` is said of many tasks, and makes none of them the same work."""

PROBE_TOKENS_MAX = 16
PROBE_CHARACTERS_MAX = 64
"""A call that asks for a word about a few (`quota`, `ping`) looks whether anybody is there; agents send one first."""

PERIOD_MAX = 4
"""The longest cycle of steps that counts as a loop."""
ROUNDS_MAX = 64
"""Rounds are counted so far back."""

SAFE_INTEGER_MAX = 1 << 53
"""Beyond it not every whole number is one of JSON's in every reader."""

_ADDED_BY_AGENTS = re.compile(
    r"<(system-reminder|environment_context|environment_details|user_instructions|session_context|INSTRUCTIONS)\b"
)
_SETS_UP = re.compile(r"\s*(?:This is the (?:Gemini CLI|Qwen Code)|# AGENTS\.md instructions for )")
"""What agents put in front of what their user says: the same in every task on one repository."""

_NAME = re.compile(rb"[^._/:#-][_/.:][^._/:#-]|[a-z][0-9]|[0-9][a-z]")
"""`loan/rates.py`, `settle_all`, `v2`: in no language a word."""
_PATH = re.compile(rb"/[^/]*[/.][^/]")

_BLOCK_BYTES = 64
_PADS = (0x36, 0x5C)
"""HMAC (RFC 2104) with SHA-256. Its first block, the key, is hashed once for all; `hmac` hashes it with every call."""
_KINDS = (b"exact", b"normalized", b"opening", b"step", b"sample")

_encode = msgspec.json.Encoder(order="sorted").encode
Digest = bytes


class Fingerprinter:
    """Makes the fingerprints of one installation. `secret`: bytes that only its servers have. Never raises.

    What recurs from call to call (tools, system texts, opening turns) is remembered by a hash, never as text.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"callmeter fingerprint 1", "sha256")
        block = self._key.ljust(_BLOCK_BYTES, b"\0")
        inner, outer = [bytes([byte ^ pad for byte in block]) for pad in _PADS]
        self._inner = {kind: hashlib.sha256(b"%b%b\0" % (inner, kind)) for kind in _KINDS}
        self._outer = hashlib.sha256(outer)
        self._remembered: dict[tuple[str, bytes], bytes] = {}

    # -- the whole call -----------------------------------------------------------------------------------------------

    def exact(self, conversation: Conversation, *, api: str, upstream: str, model: str | None) -> Digest | None:
        """Of everything that shapes the answer, with where it goes to. None where that cannot be written: it is
        nested too deeply."""
        try:
            asked = {
                name: self._in_order(value) if isinstance(value, msgspec.Raw) else value
                for name, value in conversation.asked.items()
            }
            return self._digest(b"exact", _encode((api, upstream, model, conversation.beside, asked)))
        except (RecursionError, UnicodeEncodeError):
            return None

    def normalized(self, conversation: Conversation) -> Digest | None:
        """Of the conversation alone. None where the call is no turn of one: nothing was said last, or only a probe."""
        last = conversation.last_turn
        if last is None or is_probe(conversation):
            return None
        system = self._recurring("text", "\n".join(conversation.system))
        asked = [_normal(conversation, text) for text in ("\n".join(last.texts), *last.results)]
        shape, said = _as_said(conversation.turns[:-1])
        lengths = len(system), *map(len, asked)
        told = _encode((conversation.tools, conversation.omitted, conversation.kept_by, lengths, shape))
        return self._digest(b"normalized", told, system, *asked, said)

    def opening(self, conversation: Conversation) -> Digest | None:
        """Of what the task was asked to do. None where that is too little to be told from any other work."""
        text = self._opening_text(conversation)
        if text is None:
            return None
        words = self._recurring("opening", text)
        return self._digest(b"opening", words) if words else None

    def _opening_text(self, conversation: Conversation) -> str | None:
        if conversation.kept_by or is_probe(conversation):
            return None
        for turn in conversation.turns[:3]:
            if turn.by_model:
                continue
            said = map(_said_by_user, turn.texts)
            text = "\n".join([text for text in said if not _SETS_UP.match(text)]).strip()
            if text:
                return text
        return None

    def varied(self, fingerprint: Digest, *, seed: int | None, choices: int) -> Digest:
        """The fingerprint of a call that asks for another sample of the same, or for so many at once."""
        return self._digest(b"sample", fingerprint, _encode((seed, choices)))

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self, conversation: Conversation) -> Digest:
        """Of the step that the conversation ends in; b"" where it ends in none."""
        newest = next(conversation.steps_backwards(), None)
        if newest is None:
            return b""
        called = [(name, _normal(conversation, arguments)) for name, arguments in newest[0].calls]
        results = [_normal(conversation, result) for result in newest[1].results]
        words = _normal(conversation, _words_beside(newest[1]))
        return self._digest(b"step", _encode((called, results, words)))[:STEP_BYTES]

    # -- likeness -----------------------------------------------------------------------------------------------------

    def sketch(self, conversation: Conversation) -> bytes:
        """64 bits of the opening turn, for the call that it is the last turn of; b"" for every other, and where it is
        too little. Two texts with all words in common differ in no bit, two with none in half of them.

        What is said later in a conversation is no sign: people say the same of different work, agents even more so.
        """
        text = self._opening_text(conversation) if begins(conversation) else None
        if text is None:
            return b""
        words = set(normal_text(text[:SKETCHED_CHARACTERS_MAX]).split())
        if len(words) < OPENING_WORDS_MIN:
            return b""
        names = sorted(word for word in words if _NAME.search(word) and not is_ticket(word))[:SKETCH_NAMES_MAX]
        if len(names) >= SKETCH_NAMES_MIN or any(_PATH.search(name) for name in names):
            return self._sketch_of_names(names)
        return self._sketch_of_words(words)

    def _sketch_of_names(self, names: list[bytes]) -> bytes:
        """Each slot takes a bit of the least of the names, by an order of its own."""
        orders = [hashlib.blake2b(name, digest_size=64, key=self._key).digest() for name in names]
        bits = 0
        for place, least in enumerate(map(min, zip(*orders, strict=True))):
            bits |= (least & 1) << place
        return bits.to_bytes(SKETCH_BYTES)

    def _sketch_of_words(self, words: set[bytes]) -> bytes:
        """With another ticket every word is another: a saved prompt is called with many."""
        salt = b" ".join(sorted(word for word in words if is_ticket(word)))
        salt = hashlib.blake2b(salt, digest_size=16, key=self._key).digest() if salt else b""
        least = [(1 << 64) - 1] * 64
        for word in sorted(words)[:SKETCH_WORDS_MAX]:
            value = int.from_bytes(hashlib.blake2b(word, digest_size=8, key=self._key, salt=salt).digest())
            place = value & 63
            least[place] = min(least[place], value >> 6)
        # A slot that no word fell into takes its neighbour's, so that short texts can be compared as well.
        bits, filled = 0, next(value for value in least if value >> 63 == 0)
        for place in range(64):
            if least[place] >> 63 == 0:
                filled = least[place]
            bits |= (filled & 1) << place
        return bits.to_bytes(SKETCH_BYTES)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _digest(self, kind: bytes, *parts: bytes) -> Digest:
        """Of one part, or of several whose lengths the first one tells: none can be taken for a piece of another."""
        inner, outer = self._inner[kind].copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()[:FINGERPRINT_BYTES]

    def _in_order(self, value: msgspec.Raw) -> Any:
        """A field with its keys in order, or what stands for it. Of a long one, which recurs, that is a hash, in a form
        that no field has: `<` begins no JSON."""
        if len(memoryview(value)) > CANONICAL_BYTES_MAX:
            return value
        raw = bytes(value)
        if len(raw) < RECURRING_BYTES_MIN:
            return _decoded(raw)
        mark = ("json", hashlib.sha256(raw).digest())
        known = self._remembered.get(mark)
        if known is None:
            ordered = _encode(_decoded(raw))
            if len(ordered) < RECURRING_BYTES_MIN:  # it was long by its spacing alone
                return msgspec.Raw(ordered)
            known = self._remember(mark, hashlib.sha256(ordered).digest())
        return msgspec.Raw(b"<%b>" % hexlify(known))

    def _recurring(self, kind: str, text: str) -> bytes:
        """A text, normalized; a hash of it where it is long. b"" of an opening with too few words."""
        if kind == "text" and len(text) < RECURRING_BYTES_MIN:
            return normal_text(text)
        mark = (kind, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        known = self._remembered.get(mark)
        if known is not None:
            return known
        normal = normal_text(text)
        if kind == "opening" and normal.count(b" ") + 1 < OPENING_WORDS_MIN:
            return self._remember(mark, b"")
        return self._remember(mark, hashlib.sha256(normal).digest())

    def _remember(self, mark: tuple[str, bytes], digest: bytes) -> bytes:
        if len(self._remembered) >= RECURRING_REMEMBERED:
            self._remembered.clear()
        self._remembered[mark] = digest
        return digest


def _words_beside(turn: Turn) -> str:
    """What the user says behind the results of tools: who tells an agent to do otherwise has broken its loop."""
    return "\n".join(map(_said_by_user, turn.texts)).strip()


def _said_by_user(text: str) -> str:
    """Without the pieces that agents put in. Anybody may have written the text, so no end is looked for twice: the time
    is linear in its length, however many pieces begin in it."""
    if "</" not in text:
        return text
    kept: list[str] = []
    start = at = 0
    endless: set[str] = set()
    while (found := _ADDED_BY_AGENTS.search(text, at)) is not None:
        at, name = found.end(), found[1]
        if name in endless:
            continue
        head_end = text.find(">", at)
        end = text.find(f"</{name}>", head_end + 1) if head_end >= 0 else -1
        if end < 0:
            endless.add(name)
            continue
        kept += (text[start : found.start()], " ")
        start = at = end + len(f"</{name}>")
    kept.append(text[start:])
    return "".join(kept)


def _number(text: str) -> float | int:
    """`1.0` is asked as often as `1`, and is the same. Raises ValueError for one that no float can be."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text[:20])
    return int(value) if value.is_integer() and abs(value) < SAFE_INTEGER_MAX else value


_decode = msgspec.json.Decoder(float_hook=_number).decode


def _decoded(raw: bytes) -> Any:
    """As it was sent where it cannot be read."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.Raw(raw)


def _as_said(turns: list[Turn]) -> tuple[list[int], bytes]:
    """Turns as they are, since what came before the last turn is not asked anew: how many pieces each has and how long
    they are, and the pieces."""
    shape: list[int] = []
    pieces: list[str] = []
    for turn in turns:
        said = [*turn.texts, *chain.from_iterable(turn.calls), *turn.results]
        shape += (len(turn.texts), len(turn.calls), len(turn.results), *map(len, said))
        pieces += said
    return shape, "".join(pieces).encode("utf-8", "surrogatepass")


def begins(conversation: Conversation) -> bool:
    """Whether a call asks what its conversation was begun for: nothing was said before but what agents set up with."""
    turns = conversation.turns
    if len(turns) == 1:
        return not turns[0].by_model
    return len(turns) == 3 and not turns[1].calls and all(_SETS_UP.match(text) for text in turns[0].texts)


def is_probe(conversation: Conversation) -> bool:
    """Whether a call only looks whether anybody is there."""
    limit = conversation.max_output_tokens
    if limit is None or limit > PROBE_TOKENS_MAX or len(conversation.turns) != 1:
        return False
    return sum(len(text) for text in conversation.turns[0].texts) <= PROBE_CHARACTERS_MAX


def rounds(conversation: Conversation) -> int:
    """How often the last step, or the last cycle of up to 4 steps, stands at the end of the conversation in a row.

    0 where it does not end in the result of a tool, 1 where the last step is a new one. Steps are compared like
    normalized text: the same tools with the same arguments and results, but for times and ids.
    """
    steps: list[tuple[Turn, Turn]] = []
    best = 0
    source = conversation.steps_backwards()
    alive = list(range(1, PERIOD_MAX + 1))
    for step in source:
        steps.append(step)
        count = len(steps)
        best = best or 1
        alive = [
            period for period in alive if count <= period or _same_step(conversation, step, steps[count - 1 - period])
        ]
        for period in alive:
            best = max(best, count // period)
        if not alive or count >= ROUNDS_MAX * PERIOD_MAX:
            break
    return min(best, ROUNDS_MAX)


def _same_step(conversation: Conversation, one: tuple[Turn, Turn], other: tuple[Turn, Turn]) -> bool:
    if not _same_text(conversation, _words_beside(one[1]), _words_beside(other[1])):
        return False
    called, others_called = one[0].calls, other[0].calls
    results, others_results = one[1].results, other[1].results
    if len(called) != len(others_called) or len(results) != len(others_results):
        return False
    if any(mine[0] != theirs[0] for mine, theirs in zip(called, others_called, strict=True)):
        return False
    return all(
        _same_text(conversation, mine[1], theirs[1]) for mine, theirs in zip(called, others_called, strict=True)
    ) and all(_same_text(conversation, mine, theirs) for mine, theirs in zip(results, others_results, strict=True))


def _same_text(conversation: Conversation, one: str, other: str) -> bool:
    return one == other or _normal(conversation, one) == _normal(conversation, other)


def _normal(conversation: Conversation, text: str) -> bytes:
    known = conversation.normal.get(text)
    if known is None:
        known = conversation.normal[text] = normal_text(text)
    return known
