"""Duplicates: rules about calls that were made before, which of them a call meets, and what it leaves under each.

A `Mark` is to these rules what a `Take` is to budgets: worked out before the store is asked, and handed to it in the
same step. `twins.py` says what the store makes of it, `duplicate_refusals.py` what is told to the caller.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from .budgets import counter_of
from .call import Call
from .caller import Caller
from .conversation import Conversation
from .fingerprint import Fingerprinter, is_probe, rounds
from .globs import ABSENT
from .matching import Match, Mode, Read, Upstream, reader_of
from .windows import Every

Kind = Literal["exact", "normalized", "loop", "similar", "task"]
Then = Literal["warn", "refuse", "replay", "join"]
Lends = Literal["", "replay", "join", "lead"]

LENDS_ONLY = ("exact",)
"""The kinds whose twins may be answered from one another: any other would answer something that was not asked."""
CONVERSATION_ONLY = ("normalized", "loop", "similar", "task")

SCOPES_REMEMBERED = 2_000
"""Callers whose rules are remembered; emptied when full."""

RETRIES_MAX = 10
"""More repeats than this of one call are no SDK's retries, whatever they say."""
TOKEN_BYTES = 7
NO_TOKEN = bytes(TOKEN_BYTES)

_TURN_ID = re.compile(r'"turn_id"\s*:\s*"([^"]{1,100})"')


class DuplicateRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the policy's `duplicates`.

    limit     how many calls with one fingerprint may pass in the window; of `loop`, equal rounds; of `task`, tasks
    share     whose answers `replay` and `join` may give: the user's own, or any of the org
    samples   calls with a temperature above 0 are no twins, nor are those with another seed
    """

    name: str
    kind: Kind
    match: Match = Match()
    per: tuple[str, ...] = ("user",)
    limit: int = 1
    every: Every
    then: Then = "warn"
    mode: Mode = "enforce"
    share: Literal["user", "org"] = "user"
    samples: bool = False
    help: str = ""
    identity: str = ""
    """What makes its memory its own; worked out. Limit and match are not among it, as with budgets."""
    lends: bool = False
    """Whether it gives calls the answers of their twins; worked out."""

    def __post_init__(self) -> None:
        identity = _encode(("duplicates", self.name, self.kind, self.per, self.every.identity)).decode()
        msgspec.structs.force_setattr(self, "identity", identity)
        msgspec.structs.force_setattr(self, "lends", self.enforced and self.then in ("replay", "join"))

    @property
    def enforced(self) -> bool:
        return self.mode == "enforce"


_encode = msgspec.json.Encoder().encode


class Frame(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What all marks of one scope have in common, until its window moves on.

    counter       id of the rule's memory for this caller, [a-f0-9]{16}
    limit         how many may pass
    places        where calls of the window are remembered by fingerprint: first the place of now, then the one before
    begins_ms, ends_ms   of what instants it is the frame
    length_ms     of a rolling window, else 0
    expires_ms    when the place of now is over
    refuses       a call beyond the limit is refused
    stops         of a loop rule that refuses: what it compares is one task, so that a cycle stays refused
    lends         how a call beyond the limit is answered from its twin: "" not at all, `replay`, `join`; `lead`: it
                  goes upstream all the same, and lends its own answer
    """

    kind: Kind
    counter: str
    limit: int
    places: tuple[str, ...]
    begins_ms: int
    ends_ms: int
    length_ms: int = 0
    expires_ms: int
    refuses: bool = False
    stops: bool = False
    lends: Lends = ""

    def since_ms(self, now_ms: int) -> int:
        """Calls made earlier do not count."""
        return now_ms - self.length_ms if self.length_ms else self.begins_ms


class DuplicateScope(msgspec.Struct, frozen=True):
    """A rule that a call meets, and whose calls it is compared with: the id of its memory, the values of `per`, and
    whether these are the calls of one task."""

    rule: DuplicateRule
    counter: str
    values: tuple[str, ...]
    of_a_task: bool = False
    _frames: dict[Lends, Frame] = {}

    def frame(self, now_ms: int, lends: Lends = "") -> Frame:
        """The frame of an instant, by the clock of the store."""
        frame = self._frames.get(lends)
        if frame is None or not frame.begins_ms <= now_ms < frame.ends_ms:
            frame = self._frames[lends] = _frame(self, now_ms, lends)
        return frame


def _frame(scope: DuplicateScope, now_ms: int, lends: Lends) -> Frame:
    rule = scope.rule
    begins_ms, expires_ms, bucket_ms = rule.every.window(now_ms)
    length_ms = 0
    places: tuple[str, ...] = (str(begins_ms),)
    ends_ms = expires_ms
    if bucket_ms:
        length_ms = rule.every.length_ms
        turn = now_ms // length_ms
        places = (f"{length_ms}.{turn}", f"{length_ms}.{turn - 1}")
        begins_ms, ends_ms, expires_ms = turn * length_ms, (turn + 1) * length_ms, (turn + 2) * length_ms
    refuses = rule.enforced and rule.then == "refuse"
    return Frame(
        kind=rule.kind,
        counter=scope.counter,
        limit=rule.limit,
        places=places,
        begins_ms=begins_ms,
        ends_ms=ends_ms,
        length_ms=length_ms,
        expires_ms=expires_ms,
        refuses=refuses,
        stops=refuses and rule.kind == "loop" and scope.of_a_task,
        lends=lends,
    )


class DuplicateIndex:
    """The duplicate rules of a policy, found by what a call is, and remembered for the next call like it."""

    def __init__(self, rules: Sequence[DuplicateRule]) -> None:
        self._rules = tuple(rules)
        fields: dict[str, None] = {"org": None, "user": None}
        for rule in self._rules:
            fields |= dict.fromkeys((*rule.match.fields, *rule.per))
        self._reads: tuple[Read, ...] = tuple(reader_of(field) for field in fields)
        self._remembered: dict[tuple[str | None, ...], tuple[DuplicateScope, ...]] = {}

    def scopes(self, caller: Caller, call: Call, upstream: Upstream) -> tuple[DuplicateScope, ...]:
        """The rules that a call meets, in the order of the policy. Empty, and at no cost, without any."""
        if not self._rules:
            return ()
        key = tuple([read(caller, call, upstream) for read in self._reads])
        scopes = self._remembered.get(key)
        if scopes is None:
            met = [rule for rule in self._rules if rule.match.matches(caller, call, upstream)]
            scopes = tuple([_scope(rule, caller, call, upstream) for rule in met])
            if len(self._remembered) >= SCOPES_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = scopes
        return scopes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DuplicateIndex) and other._rules == self._rules

    def __hash__(self) -> int:
        return hash(tuple(rule.name for rule in self._rules))


def _scope(rule: DuplicateRule, caller: Caller, call: Call, upstream: Upstream) -> DuplicateScope:
    counter, values = counter_of(rule.identity, rule.per, caller, call, upstream)
    of_a_task = "task" in rule.per and bool(caller.task)
    return DuplicateScope(rule, counter, tuple([value or ABSENT for value in values]), of_a_task)


class Mark(msgspec.Struct, frozen=True):
    """What one call leaves with the store under one rule.

    fingerprint   what is compared: 12 bytes; of `loop` the 8 of the step, of `similar` the 8 of the sketch
    token         what the retries of one call have in common; of `task` the task; NO_TOKEN: nothing
    attempt       which retry of its SDK the call says it is; 0: the first attempt
    rounds        of `loop`: equal rounds at the end of the conversation itself
    answer        name of the stored answer; "" where none is asked for
    """

    frame: Frame
    fingerprint: bytes
    token: bytes = NO_TOKEN
    attempt: int = 0
    rounds: int = 0
    answer: str = ""


class Prints(msgspec.Struct, kw_only=True):
    """What was found in a call: its fingerprints, as far as some rule asked for them. For the record."""

    exact: bytes | None = None
    normalized: bytes | None = None
    opening: bytes | None = None
    step: bytes | None = None
    sketch: bytes | None = None
    rounds: int = 0


def marks_for(
    scopes: Sequence[DuplicateScope],
    conversation: Conversation,
    maker: Fingerprinter,
    *,
    caller: Caller,
    call: Call,
    upstream: Upstream,
    now_ms: int,
    prints: Prints,
    token: bytes = NO_TOKEN,
    attempt: int = 0,
    form: str = "",
    lend: bool = True,
) -> tuple[list[Mark], list[DuplicateScope]]:
    """What a call leaves under each rule that has something to compare in it, the rules themselves place by place.

    The fingerprints are put into `prints`, and taken from there where they are known. `now_ms` by the clock of the
    store; `token` and `attempt` as `retry_of` tells them; `form`: how the answer is sent (plain, as events), since only
    an answer of the same form can be given again. Not `lend`: the call goes upstream, whatever its twins have."""
    marks: list[Mark] = []
    met: list[DuplicateScope] = []
    if is_probe(conversation):
        return marks, met
    for scope in scopes:
        rule = scope.rule
        if rule.samples and (conversation.temperature or 0) > 0:
            continue
        found = _print(rule, conversation, maker, call, upstream, prints)
        if found is None:
            continue
        own = token
        if rule.kind == "task":
            work = caller.task or caller.session
            if not work:
                continue
            own = hashlib.blake2b(_encode((caller.user, work)), digest_size=TOKEN_BYTES).digest()
        lends: Lends = ""
        answer = ""
        if rule.lends and not call.later and call.method == "POST":
            lends = "lead" if not lend else "replay" if rule.then == "replay" else "join"
            answer = _answer_name(found, rule, caller, form)
        frame = scope.frame(now_ms, lends)
        met.append(scope)
        marks.append(Mark(frame, found, own, attempt, prints.rounds if rule.kind == "loop" else 0, answer))
    return marks, met


def _print(
    rule: DuplicateRule,
    conversation: Conversation,
    maker: Fingerprinter,
    call: Call,
    upstream: Upstream,
    prints: Prints,
) -> bytes | None:
    """The fingerprint that a rule compares; None where the call has none of its kind."""
    kind = rule.kind
    if kind == "exact":
        if prints.exact is None:
            prints.exact = maker.exact(conversation, api=call.api, upstream=upstream.name, model=call.model)
        return prints.exact
    if not conversation.turns:
        return None
    if kind == "normalized":
        prints.normalized = prints.normalized or maker.normalized(conversation)
        seed = conversation.seed if rule.samples else None
        if prints.normalized is not None and (seed is not None or call.choices > 1):
            return maker.varied(prints.normalized, seed=seed, choices=call.choices)
        return prints.normalized
    if kind == "task":
        prints.opening = prints.opening or maker.opening(conversation)
        return prints.opening
    if kind == "similar":
        prints.sketch = maker.sketch(conversation) if prints.sketch is None else prints.sketch
        return prints.sketch or None
    if prints.step is None:
        prints.step = maker.step(conversation)
        if prints.step:
            prints.rounds = rounds(conversation)
    return prints.step or None


def _answer_name(fingerprint: bytes, rule: DuplicateRule, caller: Caller, form: str) -> str:
    """Whose answer it is, and in which form: never another org's, and another user's only where the rule shares."""
    place = _encode((caller.org, caller.user if rule.share == "user" else None, form, fingerprint.hex()))
    return hashlib.blake2b(place, digest_size=16).hexdigest()


def retry_of(headers: Mapping[str, str]) -> tuple[bytes, int]:
    """What a client says of its own retries: a token that stays the same for all attempts (NO_TOKEN: none), and which
    attempt after the first this is. `headers` with names in lower case."""
    attempt = _number(headers.get("x-stainless-retry-count", ""))
    told = headers.get("amz-sdk-request", "")  # `attempt=2; max=3`, counted from 1
    if told.startswith("attempt="):
        attempt = max(attempt, _number(told.removeprefix("attempt=").partition(";")[0]) - 1)
    turn = _TURN_ID.search(headers.get("x-codex-turn-metadata", ""))
    named = turn[1] if turn is not None else headers.get("x-client-request-id", "")
    if not named:
        return NO_TOKEN, attempt
    return hashlib.blake2b(named.encode("utf-8", "surrogatepass"), digest_size=TOKEN_BYTES).digest(), attempt


def _number(text: str) -> int:
    return min(int(text), 255) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
