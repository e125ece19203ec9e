"""OpenAI usage: the `usage` object of everyone who speaks this dialect -> Usage, each token in exactly one field.

OpenAI counts cached, audio and image tokens inside the prompt, and reasoning inside the completion. Others count some
of them beside, or name them only in the total. Which it is, the totals tell: a total that is larger than prompt and
completion together by exactly one of the details, or several, says that these lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from itertools import combinations
from typing import Annotated, Any

import msgspec

from ..core.usage import Usage
from .providers import Provider
from .values import COUNT_MAX, count, mapping, whole

USD_PER_TICK = Decimal("1e-10")
"""xAI's `cost_in_usd_ticks`."""

COST_USD_MAX = 10**6
COST_PLACES_MAX = 40
"""A cost beyond a million dollars, or with more places than any float has, is no cost."""

SECONDS_MAX = 10**7
"""Audio longer than a hundred days is a fault of the answer, not a length."""

_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details")
_OUTPUT_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
    "completion_token_details",
)

_exact = msgspec.json.Decoder(float_hook=Decimal)
"""Numbers with a point become Decimal: money is never a float."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class _UsualInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cached_tokens: _Count = 0
    audio_tokens: _Count = 0


class _UsualOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class _UsualUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The usage of a chat as OpenAI writes it, without a field that it does not write."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _UsualInput = _UsualInput()
    completion_tokens_details: _UsualOutput = _UsualOutput()


_usual = msgspec.json.Decoder(_UsualUsage)


def usual_usage(raw: bytes) -> Usage | None:
    """The same as `usage_of`, ten times as fast, of a `usage` that has OpenAI's own shape and adds up; None of any
    other, which has to be looked at field by field."""
    try:
        reported = _usual.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return None
    read, made = reported.prompt_tokens_details, reported.completion_tokens_details
    text_input = reported.prompt_tokens - read.cached_tokens - read.audio_tokens
    text_output = reported.completion_tokens - made.audio_tokens
    adds_up = reported.total_tokens == reported.prompt_tokens + reported.completion_tokens
    if not adds_up or text_input < 0 or made.reasoning_tokens > text_output:
        return None
    return Usage(
        input=text_input,
        cached_input=read.cached_tokens,
        audio_input=read.audio_tokens,
        output=text_output,
        reasoning=made.reasoning_tokens,
        audio_output=made.audio_tokens,
    )


def usage_of(reported: Mapping[str, Any], provider: Provider, *, generates: bool = True) -> Usage | None:
    """A decoded `usage` object -> Usage; None where it names no unit at all.

    `generates`: the endpoint writes text, so that tokens which only the total shows are reasoning unseen.
    """
    requests = requests_of(reported)
    seconds = _seconds(reported)
    prompt = _first(reported, "prompt_tokens", "input_tokens")
    completion = _first(reported, "completion_tokens", "output_tokens")
    total = whole(reported.get("total_tokens"))
    if prompt is None and completion is None and total is None:
        return Usage(requests=requests, seconds=seconds) if requests or seconds else None
    output_details = _details(reported, _OUTPUT_DETAILS)
    if prompt is None:
        prompt = max(0, (total or 0) - (completion or 0))
    parts = _Parts(
        prompt=prompt + count(reported, "citation_tokens"),
        completion=completion or 0,
        reasoning=_first(output_details, "reasoning_tokens") or count(reported, "reasoning_tokens"),
        audio_output=count(output_details, "audio_tokens"),
        image_output=count(output_details, "image_tokens"),
        **_input_parts(reported),
    )
    gap = 0 if total is None else total - prompt - parts.completion
    if gap > 0:
        parts.explain(gap, generates=generates, has_audio=seconds > 0)
    elif parts.reasoning > parts.completion and (total is None or provider.reasoning_beside):
        parts.completion += parts.reasoning
    return parts.usage(requests=requests, seconds=seconds)


class _Parts(msgspec.Struct, kw_only=True):
    """The counts as reported, on the way to being disjoint."""

    prompt: int
    completion: int
    cached: int
    cache_write: int
    cached_audio: int
    cached_image: int
    audio_input: int
    image_input: int
    reasoning: int
    audio_output: int
    image_output: int

    def explain(self, gap: int, *, generates: bool, has_audio: bool) -> None:
        """Put the tokens that only the total shows where they belong."""
        if self._lie_beside(gap):
            return
        if has_audio and not self.audio_input:
            self.audio_input = gap
            self.prompt += gap
        elif generates:
            self.completion += gap
            self.reasoning += gap

    def _lie_beside(self, gap: int) -> bool:
        """Whether the gap is just as large as some of the details together, which then are put into their wholes."""
        beside = [
            (whole, number)
            for whole, number in (
                ("completion", self.reasoning),
                ("prompt", self.audio_input),
                ("prompt", self.cached),
                ("prompt", self.cache_write),
            )
            if number
        ]
        for size in range(1, len(beside) + 1):
            for some in combinations(beside, size):
                if sum(number for _, number in some) == gap:
                    for whole, number in some:
                        setattr(self, whole, getattr(self, whole) + number)
                    return True
        return False

    def usage(self, *, requests: dict[str, int], seconds: float) -> Usage:
        """Disjoint fields. A detail larger than what is left of its whole is cut to it, so that nothing is negative."""
        cached, rest = _take(self.cached, self.prompt)
        if cached == self.cached:
            self.audio_input = max(0, self.audio_input - self.cached_audio)
            self.image_input = max(0, self.image_input - self.cached_image)
        cache_write, rest = _take(self.cache_write, rest)
        audio_input, rest = _take(self.audio_input, rest)
        image_input, input_left = _take(self.image_input, rest)
        audio_output, rest = _take(self.audio_output, self.completion)
        image_output, output_left = _take(self.image_output, rest)
        return Usage(
            input=input_left,
            cached_input=cached,
            cache_write=cache_write,
            audio_input=audio_input,
            image_input=image_input,
            output=output_left,
            reasoning=min(self.reasoning, output_left),
            audio_output=audio_output,
            image_output=image_output,
            requests=requests,
            seconds=seconds,
        )


def _take(part: int, whole_count: int) -> tuple[int, int]:
    taken = min(part, whole_count)
    return taken, whole_count - taken


def _input_parts(reported: Mapping[str, Any]) -> dict[str, int]:
    """The details of the prompt. Some providers write the cache counts beside `usage`'s other fields, or in both
    places, or zero in one of them: they are names of one count, whose largest is the truth."""
    details = _details(reported, _INPUT_DETAILS)
    of_cached = mapping(details.get("cached_tokens_details"))
    beside = [count(reported, name) for name in ("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")]
    written = [
        count(details, name) for name in ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
    ]
    written += [count(reported, name) for name in ("cache_creation_input_tokens", "cache_write_tokens")]
    return {
        "cached": max(count(details, "cached_tokens"), *beside),
        "cached_audio": count(of_cached, "audio_tokens"),
        "cached_image": count(of_cached, "image_tokens"),
        "cache_write": max(written),
        "audio_input": count(details, "audio_tokens"),
        "image_input": count(details, "image_tokens"),
    }


def requests_of(reported: Mapping[str, Any]) -> dict[str, int]:
    """What `usage` says was done by the piece: `{"web_search": 3}`."""
    found: dict[str, int] = {}
    for name, value in mapping(reported.get("server_side_tool_usage_details")).items():
        if number := whole(value):
            found[name.removesuffix("_calls")] = number
    for name in ("server_tool_use", "server_tool_use_details"):
        if searches := count(mapping(reported.get(name)), "web_search_requests"):
            found["web_search"] = searches
    if searches := count(reported, "num_search_queries"):
        found["web_search"] = searches
    if sources := count(reported, "num_sources_used"):
        found["search_sources"] = sources
    if units := count(reported, "search_units"):
        found["search_units"] = units
    return found


def provider_cost(raw: bytes) -> str | None:
    """What a raw `usage` object says the call cost, as plain decimal text in USD; None where it says nothing.

    Of a call on the caller's own key at the provider behind (`is_byok`) the cost is the gateway's fee alone; the
    price of the provider behind is added, since both are paid.
    """
    if b"cost" not in raw:
        return None
    try:
        reported = _exact.decode(raw)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
        return None
    if not isinstance(reported, dict):
        return None
    cost = reported.get("cost")
    if cost is None:
        cost = reported.get("estimated_cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    amount = _amount(cost)
    if amount is not None:
        if reported.get("is_byok") is True:
            amount += _amount(mapping(reported.get("cost_details")).get("upstream_inference_cost")) or 0
        return f"{amount:f}"
    ticks = whole(reported.get("cost_in_usd_ticks"))
    # Resellers of xAI's models pass the field on with 0 in it, which is no price.
    return f"{ticks * USD_PER_TICK:f}" if ticks else None


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    places = amount.as_tuple().exponent
    if not isinstance(places, int) or places < -COST_PLACES_MAX or not 0 <= amount < COST_USD_MAX:
        return None
    return amount


def _seconds(reported: Mapping[str, Any]) -> float:
    for name in ("seconds", "prompt_audio_seconds"):
        value = reported.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= SECONDS_MAX:
            return value
    return 0


def _details(reported: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    for name in names:
        if details := mapping(reported.get(name)):
            return details
    return {}


def _first(fields: Mapping[str, Any], *names: str) -> int | None:
    """The first of the counts that is there."""
    for name in names:
        found = whole(fields.get(name))
        if found is not None:
            return found
    return None
