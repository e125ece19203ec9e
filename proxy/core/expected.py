"""Expected: what a call will use and cost, before it is made, and how that is known.

The input is told from the last call of the same task: what it really read, and a bound on the bytes that were added
since. The output is a high quantile of what calls like it really made. So a hold is a little too large and seldom too
small; it corrects itself at settle, seconds later. Learned in the memory of one process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from .call import Call
from .matching import Upstream
from .money import NUSD_MAX
from .prices import Cost, Prices
from .usage import NO_USAGE, Usage

ACTUAL_MARGIN = 1.02
"""On what the last call of the task read: tokenizers cut the same text a little differently in another place."""
NEW_BYTES_PER_TOKEN = 1.4
"""Of the bytes added since: base64 and hexadecimal digits, the densest that was seen, take 1.4 bytes a token."""
FIRST_BYTES_PER_TOKEN = 2.0
"""Of a first call: covers everything but base64 and hexadecimal digits (1.4) and emoji, and prose by twice."""

INLINE_BYTES_PER_TOKEN = 750
"""Images and files in base64: 1 MB comes to about 1,400 tokens at the providers that were seen."""
INLINE_TOKENS_MIN = 1_500
"""What an image costs however small its file is."""
INLINE_TOKENS_WORST_MIN = 50_000
"""The dearest that any image was seen to be, in the finest detail, at the provider that counts them highest."""
INPUT_TOKENS_BESIDE = 1_000
"""What providers put before the input themselves: instructions for tools, marks around messages."""

QUANTILE_PERMILLE = 950
SAMPLES_MIN = 5
"""Fewer calls say nothing of a quantile."""
SAMPLES_KEPT = 64
REMEMBERED_MAX = 20_000
"""Tasks, and groups of calls, remembered: some 20 MB. The ones that were used longest ago are forgotten first."""

SUBJECTS_REMEMBERED = 4_096
"""Of the calls of the last minutes. Callers choose task names, so the memory is bounded."""

TOOL_USES_EXPECTED = 3
"""How often a server tool runs in a call that does not say how often it may."""

RUN_S = 10.0
"""How long a call runs of which nothing is known."""

WITHOUT_OUTPUT = frozenset({"openai.embeddings", "gemini.embed", "cohere.embed", "openai.moderations", "cohere.rerank"})
IN_TOKENS = WITHOUT_OUTPUT | {
    "openai.chat",
    "openai.responses",
    "openai.completions",
    "anthropic.messages",
    "anthropic.batches",
    "gemini.generate",
    "cohere.chat",
    "ollama.chat",
    "ollama.generate",
    "bedrock.converse",
    "bedrock.invoke",
}
"""Endpoints whose cost follows from tokens of input and output. Of the others nothing in a request tells a bound."""

NO_COST = Cost(0, {}, 0, "none", "")
"""Of a free call."""

DEAREST_CANDIDATES = ("input", "cache_write", "cache_write_1h")
INLINE_CANDIDATES = (*DEAREST_CANDIDATES, "audio_input", "image_input")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whose calls a call is like: those of its task, of its agent, of its model."""

    org: str = ""
    user: str = ""
    task: str | None = None
    agent: str | None = None
    session: str | None = None
    provider: str = ""
    model: str | None = None
    levels: tuple[tuple[str, Hashable], ...] = ()
    """Groups of calls from the most alike to the least, each with the word that explains it; worked out."""
    conversation: Hashable = None
    """Where the last call said much of what this one says: the task's, else the session's, else the user's; worked
    out."""

    def __post_init__(self) -> None:
        model = (self.provider, self.model)
        named = (("task", (self.org, self.task, self.agent, model)),) if self.task else ()
        levels = (*named, ("agent", (self.org, self.agent, model)), ("model", model))
        conversation = self.org, self.task or self.session or "", self.user, self.provider, self.model
        msgspec.structs.force_setattr(self, "levels", levels)
        msgspec.structs.force_setattr(self, "conversation", conversation)


class Known(Protocol):
    """Who made a call: a caller, or the record of the call."""

    @property
    def org(self) -> str: ...

    @property
    def user(self) -> str: ...

    @property
    def task(self) -> str | None: ...

    @property
    def agent(self) -> str | None: ...

    @property
    def session(self) -> str | None: ...


def subject_of(known: Known, provider: str, model: str | None) -> Subject:
    """The subject of a call. `model` is the one that was asked of the provider, not the one it answered with."""
    return _subject(known.org, known.user, known.task, known.agent, known.session, provider, model)


@lru_cache(maxsize=SUBJECTS_REMEMBERED)
def _subject(
    org: str, user: str, task: str | None, agent: str | None, session: str | None, provider: str, model: str | None
) -> Subject:
    return Subject(org=org, user=user, task=task, agent=agent, session=session, provider=provider, model=model)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may use and cost. Amounts in nano-USD, at most NUSD_MAX.

    usage          as expected
    cost           of that usage, in full: what stands in the books of a call that is lost
    worst_*        a bound, where the call has one; 0 where nobody asked for it
    unbounded      why there is no bound; empty where there is
    output_tokens  the limit on the output that the bound holds for
    limit_missing  the call must be given that limit, else it has no bound
    input_by       task (its last call) | bytes
    output_by      task | agent | model (a quantile of their calls) | max_tokens | default | none (no output)
    run_s          how long calls like this one usually run
    """

    usage: Usage
    cost: Cost = NO_COST
    expected_nusd: int
    expected_tokens: int
    worst_nusd: int = 0
    worst_tokens: int = 0
    unbounded: tuple[str, ...] = ()
    output_tokens: int = 0
    limit_missing: bool = False
    input_by: str = "bytes"
    output_by: str = "default"
    run_s: float = RUN_S

    def explained(self) -> dict[str, Any]:
        """How it came about, for the record's `estimate{}` and for `callmeter explain`."""
        told: dict[str, Any] = {
            "input": self.expected_tokens - self.usage.output,
            "input_by": self.input_by,
            "output": self.usage.output,
            "output_by": self.output_by,
            "expected_nusd": self.expected_nusd,
        }
        if self.worst_tokens:
            told |= {"worst_nusd": self.worst_nusd, "worst_tokens": self.worst_tokens}
        if self.unbounded:
            told["unbounded"] = list(self.unbounded)
        return told


class _Read(msgspec.Struct):
    """What the last call of a conversation carried and what the provider counted of it."""

    text_bytes: int
    inline_bytes: int
    tokens: int


class _Group(msgspec.Struct):
    """What calls alike made lately: output tokens for each answer, their quantile once somebody asked for it, and a
    typical running time."""

    outputs: deque[int]
    quantile: int | None = None
    run_s: float = RUN_S

    def high(self) -> int:
        """The quantile of the outputs that an estimate takes."""
        if self.quantile is None:
            ordered = sorted(self.outputs)
            self.quantile = ordered[(len(ordered) * QUANTILE_PERMILLE - 1) // 1000]
        return self.quantile


class Learned:
    """What calls really used. One for each process; loses the oldest beyond REMEMBERED_MAX."""

    def __init__(self) -> None:
        self._read: dict[Hashable, _Read] = {}
        self._groups: dict[Hashable, _Group] = {}
        self._dearest: dict[Hashable, str] = {}

    def learn(self, subject: Subject, call: Call, usage: Usage, *, answer_s: float) -> None:
        """Takes in one call whose usage was reported in full."""
        if call.later or call.free:
            return
        tokens = usage.tokens - usage.output - usage.audio_output - usage.image_output
        if tokens:
            text_bytes = max(0, call.body_bytes - call.inline_bytes)
            _remember(self._read, subject.conversation, _Read(text_bytes, call.inline_bytes, tokens))
        made = -(-(usage.output + usage.audio_output + usage.image_output) // max(1, call.choices))
        if not made:
            return
        for _, key in subject.levels:
            group = self._groups.get(key) or _Group(deque(maxlen=SAMPLES_KEPT), run_s=answer_s)
            group.outputs.append(made)
            group.quantile = None
            group.run_s += 0.2 * (answer_s - group.run_s)
            _remember(self._groups, key, group)

    def input_tokens(self, subject: Subject, call: Call) -> tuple[int, str]:
        """How much the call will read, and by what that is told."""
        text_bytes = max(0, call.body_bytes - call.inline_bytes)
        last = self._read.get(subject.conversation)
        if last is None or text_bytes < last.text_bytes or call.inline_bytes < last.inline_bytes:
            # A first call, or one that goes on from somewhere else.
            return _whole(text_bytes / FIRST_BYTES_PER_TOKEN) + inline_tokens(call.inline_bytes), "bytes"
        added = (text_bytes - last.text_bytes) / NEW_BYTES_PER_TOKEN
        inline_added = inline_tokens(call.inline_bytes - last.inline_bytes)
        return _whole(last.tokens * ACTUAL_MARGIN + added) + inline_added, "task"

    def output_tokens(self, subject: Subject, call: Call, default: int) -> tuple[int, str]:
        """How much each of the call's answers will hold, and by what that is told. `default` where nothing is."""
        if call.api in WITHOUT_OUTPUT:
            return 0, "none"
        limit = call.max_output_tokens
        for word, key in subject.levels:
            group = self._groups.get(key)
            if group is not None and len(group.outputs) >= SAMPLES_MIN:
                high = group.high()
                return (high if limit is None else min(high, limit)), word
        return (default, "default") if limit is None else (limit, "max_tokens")

    def run_s(self, subject: Subject) -> float:
        """How long calls like this one usually run, in seconds."""
        for _, key in subject.levels:
            group = self._groups.get(key)
            if group is not None:
                return group.run_s
        return RUN_S

    def dearest_input(self, call: Call, prices: Prices, upstream: Upstream, tokens: int, at_ms: int) -> str:
        """The usage field by which this many tokens of input are dearest: written to a cache, heard, seen, or plain."""
        candidates = INLINE_CANDIDATES if call.inline_bytes else DEAREST_CANDIDATES
        size = tokens.bit_length()  # prices have thresholds in tokens
        key = (prices.version, upstream.provider, upstream.name, call.model, call.service_tier, candidates, size)
        field = self._dearest.get(key)
        if field is None:
            field = max(candidates, key=lambda name: _cost(call, _used(name, tokens), prices, upstream, at_ms))
            _remember(self._dearest, key, field)
        return field


def foresee(
    call: Call,
    subject: Subject,
    *,
    learned: Learned,
    prices: Prices,
    upstream: Upstream,
    max_output_tokens: int,
    at_ms: int,
    worst: bool,
) -> Estimate:
    """What a call will use and cost.

    max_output_tokens   what is assumed of, and put into, a call that does not limit its output (`defaults`)
    worst               whether some budget asks for a bound, which takes a little longer to tell
    """
    if call.free:
        return Estimate(usage=Usage(), expected_nusd=0, expected_tokens=0, output_by="none")
    requests = {name: min(uses or TOOL_USES_EXPECTED, TOOL_USES_EXPECTED) for name, uses in call.tool_fees.items()}
    choices = max(1, call.choices)
    if call.api not in IN_TOKENS:
        usage = Usage(images=choices if call.api == "openai.images" else 0, characters=call.characters)
        cost = priced(call, usage, prices, upstream, at_ms)
        return Estimate(
            usage=usage,
            cost=cost,
            expected_nusd=_held(cost),
            expected_tokens=0,
            unbounded=(*call.unbounded, "not_in_tokens"),
            output_by="none",
        )
    read, input_by = learned.input_tokens(subject, call)
    made, output_by = learned.output_tokens(subject, call, max_output_tokens)
    usage = Usage(input=read, output=made * choices, requests=requests)
    bounds_output = call.api not in WITHOUT_OUTPUT
    output_tokens = max_output_tokens if call.max_output_tokens is None else call.max_output_tokens
    cost = priced(call, usage, prices, upstream, at_ms)
    estimate = Estimate(
        usage=usage,
        cost=cost,
        expected_nusd=_held(cost),
        expected_tokens=usage.tokens,
        unbounded=call.unbounded,
        output_tokens=output_tokens if bounds_output else 0,
        limit_missing=bounds_output and call.max_output_tokens is None,
        input_by=input_by,
        output_by=output_by,
        run_s=learned.run_s(subject),
    )
    if not worst:
        return estimate
    bound = worst_usage(call, estimate.output_tokens, learned, prices, upstream, at_ms)
    worst_nusd = _cost(call, bound, prices, upstream, at_ms)
    return msgspec.structs.replace(estimate, worst_nusd=worst_nusd, worst_tokens=min(bound.tokens, NUSD_MAX))


def worst_usage(
    call: Call, output_tokens: int, learned: Learned, prices: Prices, upstream: Upstream, at_ms: int
) -> Usage:
    """The most that a bounded call can use, in the field of input that is dearest: no token is shorter than a byte."""
    read = worst_input_tokens(call)
    field = learned.dearest_input(call, prices, upstream, read, at_ms)
    return _used(field, read, output=output_tokens * max(1, call.choices))


def worst_input_tokens(call: Call) -> int:
    """A bound on what a call reads, where it has one."""
    text_bytes = max(0, call.body_bytes - call.inline_bytes)
    inline = max(call.inline_bytes, INLINE_TOKENS_WORST_MIN) if call.inline_bytes else 0
    return text_bytes + INPUT_TOKENS_BESIDE * max(1, call.choices if call.later else 1) + inline


def inline_tokens(inline_bytes: int) -> int:
    """What images and files in base64 are expected to come to."""
    return max(INLINE_TOKENS_MIN, inline_bytes // INLINE_BYTES_PER_TOKEN) if inline_bytes > 0 else 0


def _cost(call: Call, usage: Usage, prices: Prices, upstream: Upstream, at_ms: int) -> int:
    return _held(priced(call, usage, prices, upstream, at_ms))


def _held(cost: Cost) -> int:
    """What can be held of a cost: nothing where it is not known, and no more than the store counts exactly."""
    return min(cost.cost_nusd or 0, NUSD_MAX)


def priced(call: Call, usage: Usage, prices: Prices, upstream: Upstream, at_ms: int) -> Cost:
    """What a usage would cost in this call."""
    return prices.cost(
        provider=upstream.provider,
        model=call.model,
        upstream=upstream.name,
        usage=usage,
        at_ms=at_ms,
        service_tier=call.service_tier,
        region=call.region,
        billing=upstream.billing,
        api=call.api,
        batch=call.api.endswith(".batches"),
    )


def _used(field: str, tokens: int, *, output: int = 0) -> Usage:
    """So many tokens of input in one field of the usage, and so many of output."""
    return msgspec.structs.replace(NO_USAGE, output=output, **{field: tokens})


def _whole(tokens: float) -> int:
    return max(1, -int(-tokens // 1))


def _remember(memory: dict[Hashable, Any], key: Hashable, value: Any) -> None:
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBERED_MAX:
        del memory[next(iter(memory))]
