"""Takes on their way to the store: the names of their counters, and the arguments that the scripts want of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ..core.admission import Take, Unit, admission_span, bucket_start, outgrown
from ..core.money import NUSD_MAX
from ..core.takes import Taken
from .errors import StoreError
from .keyspace import KEYS, ROLLING, shard_of
from .packing import NO_ARGUMENTS, Argument, Packed, packed, packed_text, template

COUNTER_LIFE_MS = 28 * 3600 * 1000
"""How long a counter outlives its window: the longest call, 4 hours, and a day in which its record may be spooled."""


class HeldTake(msgspec.Struct, frozen=True, array_like=True):
    """What the store keeps of a take: enough to end the hold when the process that made it is gone."""

    counter: str
    unit: Unit
    amount: int
    window_start_ms: int
    window_end_ms: int
    bucket_ms: int

    def take(self) -> Take:
        """As a take that refuses nobody: limit and rule are not kept."""
        return Take(
            counter=self.counter,
            budget="",
            unit=self.unit,
            limit=0,
            amount=self.amount,
            window_start_ms=self.window_start_ms,
            window_end_ms=self.window_end_ms,
            bucket_ms=self.bucket_ms,
            enforce=False,
        )


class Shape(msgspec.Struct, frozen=True):
    """What the holdings of calls alike have in common, worked out once for a frame.

    text           of the takes, with `%b` in the places of the amounts
    packed_keys    the keys as they travel
    reserve        the arguments for reserve.lua likewise, with `%b` in the places of the text and of each amount
    settle         for settle.lua, with `%b` in the places of the amounts
    """

    keys: tuple[str, ...]
    text: bytes
    packed_keys: Packed
    reserve: Packed
    settle: Packed


class Holding(msgspec.Struct, frozen=True):
    """The takes of one call, the keys of their counters (held, spent, held, spent, ...), and both as the text by which
    the store knows them; empty where there are none. `shape` where it was made of a frame, and the amounts as they
    travel."""

    takes: Sequence[Take]
    keys: tuple[str, ...]
    text: bytes
    shape: Shape | None = None
    packed_amounts: tuple[bytes, ...] = ()

    @property
    def packed_keys(self) -> Packed:
        if self.shape is not None:
            return self.shape.packed_keys
        return packed(self.keys) if self.keys else NO_ARGUMENTS


NO_HOLDING = Holding((), (), b"")
_RESERVE_NOTHING = packed((0, b"", 0, 0))

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[tuple[str, list[HeldTake]]] = msgspec.json.Decoder(tuple[str, list[HeldTake]])


def holding(org: str, takes: Sequence[Take]) -> Holding:
    """Raises ValueError for an amount or limit that the store cannot count exactly."""
    if not takes:
        return NO_HOLDING
    if isinstance(takes, Taken):
        shape: Shape | None = takes.frame.remembered.get(("shape", org))
        if shape is None:
            shape = takes.frame.remembered["shape", org] = shape_of(org, takes.frame.templates)
        several, pick = takes.several, takes.frame.pick
        if min(several) >= 0 and max(several) <= NUSD_MAX:
            written = [b"%d" % amount for amount in several]
            travelling = [packed_text(digits) for digits in written]
            return Holding(takes, shape.keys, shape.text % pick(written), shape, pick(travelling))
    kept = []
    names: list[str] = []
    shard = KEYS[shard_of(org)]
    for take in takes:
        if not 0 <= take.amount <= NUSD_MAX or not 0 <= take.limit <= NUSD_MAX:
            raise ValueError(
                f"budget `{take.budget}` takes {take.amount} of {take.limit}; at most {NUSD_MAX} is counted"
            )
        window = window_name(take.window_start_ms, take.bucket_ms)
        names.append(shard.held(org, take.counter, window))
        names.append(shard.spent(org, take.counter, window))
        start_ms, end_ms = take.window_start_ms, take.window_end_ms
        kept.append((take.counter, take.unit, take.amount, start_ms, end_ms, take.bucket_ms))
    return Holding(tuple(takes), tuple(names), _encoder.encode((org, kept)))


def shape_of(org: str, templates: Sequence[Take]) -> Shape:
    """Raises ValueError like `holding`."""
    plain = holding(org, templates)
    told = [
        b'["%b","%b",%%b,%d,%d,%d]'
        % (take.counter.encode(), take.unit.encode(), take.window_start_ms, take.window_end_ms, take.bucket_ms)
        for take in templates
    ]
    text = b"[%b,[%b]]" % (_encoder.encode(org).replace(b"%", b"%%"), b",".join(told))
    reserve: list[Argument | None] = [*reserve_arguments(plain)]
    settle: list[Argument | None] = [*settle_arguments(plain)]
    reserve[1] = None
    for place in range(len(templates)):
        reserve[5 + 4 * place] = settle[4 * place] = None
    return Shape(plain.keys, text, packed(plain.keys), template(reserve), template(settle))


def parse(text: bytes | msgspec.Raw) -> Holding:
    """From the text in the store or the spool. Raises StoreError where it is unreadable."""
    if not bytes(text):
        return NO_HOLDING
    try:
        org, kept = _decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise StoreError(f"What a call takes of its budgets cannot be read: {error}") from None
    found = holding(org, [take.take() for take in kept])
    # The store compares texts byte by byte, so one that another version wrote must stay as it is.
    return Holding(found.takes, found.keys, bytes(text))


def adopted(text: bytes, known: Holding) -> Holding:
    """The hold as the store has it, with the limits and rules that we know of its counters."""
    rules = {(take.counter, take.window_start_ms): take for take in known.takes}
    stored = parse(text)
    takes = []
    for take in stored.takes:
        rule = rules.get((take.counter, take.window_start_ms))
        takes.append(take if rule is None else msgspec.structs.replace(rule, amount=take.amount))
    return Holding(tuple(takes), stored.keys, stored.text)


def window_name(start_ms: int, bucket_ms: int) -> str:
    """The part of a counter's key that says when it counts."""
    return ROLLING if bucket_ms else str(start_ms)


def spent_life(start_ms: int, end_ms: int, bucket_ms: int) -> int:
    """When a `spent` expires: in ms since the epoch; of a rolling window, ms after its last use; 0 never."""
    if not end_ms:
        return 0
    return (end_ms - start_ms if bucket_ms else end_ms) + COUNTER_LIFE_MS


def sub_bucket(take: Take) -> Argument:
    return bucket_start(take) if take.bucket_ms else ""


def reserve_arguments(held: Holding) -> list[Argument]:
    """One candidate, for reserve.lua. Takes whose windows have no instant in common give a span that is empty, so the
    store answers with its time."""
    from_ms, until_ms = 0, 0
    each: list[Argument] = []
    for take in held.takes:
        since_ms, end_ms = admission_span(take)
        if end_ms:
            from_ms = max(from_ms, since_ms)
            until_ms = min(until_ms or end_ms, end_ms)
        each.append(take.limit if take.enforce else "")
        each.append(take.amount)
        if take.bucket_ms:
            # What is held of a rolling window has no end; it goes when nothing is held any more.
            each += (0, take.window_start_ms)
        else:
            each += (spent_life(take.window_start_ms, take.window_end_ms, 0), "")
    return [len(held.takes), held.text, from_ms, until_ms, *each]


def settle_arguments(held: Holding) -> list[Argument]:
    """The takes, for settle.lua."""
    arguments: list[Argument] = []
    for take in held.takes:
        life_ms = spent_life(take.window_start_ms, take.window_end_ms, take.bucket_ms)
        arguments += (take.amount, take.unit, life_ms, sub_bucket(take))
    return arguments


def packed_reserve(held: Holding) -> Packed:
    """`reserve_arguments` as they travel."""
    if held.shape is None:
        return packed(reserve_arguments(held)) if held.takes else _RESERVE_NOTHING
    shape = held.shape.reserve
    return Packed(shape.number, shape.data % (packed_text(held.text), *held.packed_amounts))


def packed_settle(held: Holding) -> Packed:
    """`settle_arguments` as they travel."""
    if held.shape is None:
        return packed(settle_arguments(held)) if held.takes else NO_ARGUMENTS
    shape = held.shape.settle
    return Packed(shape.number, shape.data % held.packed_amounts)


def release_arguments(held: Holding) -> list[Argument]:
    """The takes, for release.lua."""
    arguments: list[Argument] = []
    for take in held.takes:
        endless = take.bucket_ms or not take.window_end_ms
        arguments += (take.amount, 1 if endless else 0)
    return arguments


def grows(held: Holding, *, nusd: int, tokens: int) -> bool:
    """Whether any take holds more when its call outgrew its hold by so much."""
    return any(outgrown(take, nusd, tokens) for take in held.takes)


def grown(org: str, held: Holding, *, nusd: int, tokens: int) -> Holding:
    """What a call holds when it outgrew its hold by so much. Raises ValueError like `holding`."""
    return holding(
        org,
        [msgspec.structs.replace(take, amount=take.amount + outgrown(take, nusd, tokens)) for take in held.takes],
    )


def extend_arguments(
    held: Holding, *, nusd: int, tokens: int, within: Collection[str]
) -> tuple[list[str], list[Argument]]:
    """Keys and arguments of the takes that grow, for extend.lua. Only counters of `within` can refuse."""
    names: list[str] = []
    arguments: list[Argument] = []
    for position, take in enumerate(held.takes):
        if step := outgrown(take, nusd, tokens):
            names += held.keys[2 * position : 2 * position + 2]
            length_ms = take.window_end_ms - take.window_start_ms if take.bucket_ms else 0
            limit: Argument = take.limit if take.enforce and take.counter in within else ""
            arguments += (limit, step, take.bucket_ms, length_ms)
    return names, arguments
