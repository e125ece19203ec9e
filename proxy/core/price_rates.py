"""Rates: what one call's units cost at one moment, ready to multiply. Integers in pico-USD per unit throughout.

Units are named like the usage fields they are paid for. Besides those: `audio_hour` and `input_audio_hour` (for
`seconds`), `images`, `characters`, `requests.call` (for each call) and `requests.NAME` (for each of `requests`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from .price_tables import Rate
from .usage import TOKEN_FIELDS, Usage

FALLBACK = {
    "input": (),
    "cached_input": ("input",),
    "cache_write": ("input",),
    "cache_write_1h": ("cache_write", "input"),
    "output": (),
    "audio_input": ("input",),
    "audio_output": ("output",),
    "image_input": ("input",),
    "image_output": ("output",),
}
"""Whose rate a token field takes that has none of its own: in the end that of text in its direction."""
INPUT_FIELDS = ("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")
OUTPUT_FIELDS = ("output", "reasoning", "audio_output", "image_output")

CALL = "requests.call"
REQUEST_NAMES = {
    "code_interpreter": "code_execution",
    "rerank_search": "rerank",
    "search_unit": "rerank",
    "search_units": "rerank",
    "storage_search": "file_search",
    "web_search_preview": "web_search",
    "x_search": "social_search",
}
"""Names under which providers count the same thing -> the name that the price book knows."""
FREE_REQUESTS = frozenset({"web_fetch", "tool_search"})
"""Tools that providers count but say they do not bill by the piece; what they read is paid as tokens."""

MS_PER_HOUR = 3_600_000


class Band(msgspec.Struct, frozen=True):
    """Token rates, in the order of TOKEN_FIELDS, for calls with more than `above` input tokens.

    `reasoning` only where it is not paid as output.
    """

    above: int
    tokens: tuple[int, ...]
    reasoning: int | None = None


class Rates(msgspec.Struct, frozen=True):
    """All rates of one model at one moment. `bands` is empty where tokens have no price; None is no price, 0 is free.

    `free` marks an entry of the book without any price: a model that costs nothing, whatever is used of it.
    """

    bands: tuple[Band, ...] = ()
    hour: int | None = None
    seconds_min_ms: int = 0
    images: int | None = None
    characters: int | None = None
    requests: dict[str, int] = {}
    per_call: int = 0
    free: bool = False

    @property
    def base(self) -> int:
        """Input and output rate of text together, in the lowest tier: how dear the model is, roughly."""
        if not self.bands:
            return 0
        rates = dict(zip(TOKEN_FIELDS, self.bands[0].tokens, strict=True))
        return rates["input"] + rates["output"]


def ready(rates: Mapping[str, Rate], *, seconds_min: int = 0) -> Rates:
    """The rates of one price list, every token field filled in from its fallback."""
    flat = {unit: rate[0] for unit, rate in rates.items()}
    token_rates = {unit: rate for unit, rate in rates.items() if unit in FALLBACK or unit == "reasoning"}
    starts = sorted({-1}.union(*(rate[1::2] for rate in token_rates.values()))) if token_rates else []
    return Rates(
        bands=tuple(_band(token_rates, above) for above in starts),
        hour=flat.get("input_audio_hour", flat.get("audio_hour")),
        seconds_min_ms=seconds_min * 1000,
        images=flat.get("images"),
        characters=flat.get("characters"),
        requests={
            unit.removeprefix("requests."): rate
            for unit, rate in flat.items()
            if unit.startswith("requests.") and unit != CALL
        },
        per_call=flat.get(CALL, 0),
        free=not rates,
    )


def _band(token_rates: Mapping[str, Rate], above: int) -> Band:
    at_tier = {unit: _in_tier(rate, above) for unit, rate in token_rates.items()}
    tokens = []
    for field in TOKEN_FIELDS:
        unit = next((name for name in (field, *FALLBACK[field]) if name in at_tier), None)
        # A direction without any rate is one that the model does not bill: embeddings have no output.
        tokens.append(at_tier[unit] if unit is not None else 0)
    return Band(above, tuple(tokens), at_tier.get("reasoning"))


def _in_tier(rate: Rate, above: int) -> int:
    found = rate[0]
    for start, tier_rate in zip(rate[1::2], rate[2::2], strict=True):
        if start <= above:
            found = tier_rate
    return found


def charge(rates: Rates, usage: Usage) -> tuple[dict[str, int], tuple[str, ...]]:
    """What a usage costs: pico-USD by part, and the names of what these rates have no price for.

    Parts are named like the usage fields; `reasoning` stands beside `output` only where it has a rate of its own, and
    pieces are `requests.NAME` (`requests.call` for a fee on the call itself).
    """
    amounts: dict[str, int] = {}
    if rates.free:
        return amounts, ()
    bands = rates.bands
    if bands:
        band = bands[0]
        if len(bands) > 1:
            band = _band_for(bands, usage)
        for place, count in enumerate(usage.token_counts):
            if count:  # two or three of nine
                amounts[TOKEN_FIELDS[place]] = count * band.tokens[place]
        if band.reasoning is not None and usage.reasoning and usage.output:
            reasoning = min(usage.reasoning, usage.output)
            amounts["output"] -= reasoning * (amounts["output"] // usage.output)
            amounts["reasoning"] = reasoning * band.reasoning
    missing: tuple[str, ...] = ()
    if not bands or usage.seconds or usage.images or usage.characters:
        missing = _charge_measures(rates, usage, amounts)
    if usage.requests:
        missing += _charge_pieces(rates, usage.requests, amounts)
    if rates.per_call:
        amounts[CALL] = rates.per_call
    return amounts, missing


def _band_for(bands: tuple[Band, ...], usage: Usage) -> Band:
    """Crossing a threshold puts the whole call at the tier's rates, as all providers do."""
    total = sum(getattr(usage, field) for field in INPUT_FIELDS)
    found = bands[0]
    for band in bands:
        if total > band.above:
            found = band
    return found


def _charge_measures(rates: Rates, usage: Usage, amounts: dict[str, int]) -> tuple[str, ...]:
    """Adds seconds, images and characters. They often measure work that is billed by another measure (the tokens of a
    transcript, whose length is told too), so one without a rate is missing only where nothing else was billed."""
    missing = []
    billed = bool(rates.bands) and usage.tokens > 0
    if not rates.bands and usage.tokens:
        missing.append("tokens")
    if usage.seconds:
        if rates.hour is None:
            missing.append("seconds")
        else:
            ms = max(math.ceil(round(usage.seconds * 1000, 3)), rates.seconds_min_ms)
            amounts["seconds"] = -(-ms * rates.hour // MS_PER_HOUR)
            billed = True
    for name, count, rate in (
        ("images", usage.images, rates.images),
        ("characters", usage.characters, rates.characters),
    ):
        if count and rate is None:
            missing.append(name)
        elif count and rate is not None:
            amounts[name] = count * rate
            billed = True
    return () if billed else tuple(missing)


def _charge_pieces(rates: Rates, requests: Mapping[str, int], amounts: dict[str, int]) -> tuple[str, ...]:
    """Adds what is paid by the piece. A piece without a price is missing, unless it is known to be free."""
    missing = []
    for name, count in requests.items():
        if not count or name in FREE_REQUESTS:
            continue
        rate = piece_rate(rates.requests, name)
        if rate is None:
            missing.append(f"requests.{name}")
        else:
            amounts[f"requests.{name}"] = count * rate
    return tuple(missing)


def piece_rate(rates: Mapping[str, int], name: str) -> int | None:
    """The rate of a piece by the name in the usage, else by the book's name for it. None: no price is known."""
    rate = rates.get(name)
    if rate is None:
        rate = rates.get(REQUEST_NAMES.get(name, name))
    if rate is None and name == "annotated_pages":
        rate = rates.get("pages")
    return rate


def dearest(candidates: Iterable[Rates]) -> Rates:
    """One price list that is as dear as any of these: tokens of the model with the dearest text (input and output
    rate together), everything else by the dearest rate that any of them has for it."""
    top = Rates()
    hours: list[int] = []
    images: list[int] = []
    characters: list[int] = []
    requests: dict[str, int] = {}
    for rates in candidates:
        if rates.bands and (not top.bands or rates.base > top.base):
            top = rates
        hours += [] if rates.hour is None else [rates.hour]
        images += [] if rates.images is None else [rates.images]
        characters += [] if rates.characters is None else [rates.characters]
        for name, rate in rates.requests.items():
            requests[name] = max(rate, requests.get(name, 0))
    return Rates(
        bands=top.bands,
        hour=max(hours, default=None),
        images=max(images, default=None),
        characters=max(characters, default=None),
        requests=requests,
        per_call=top.per_call,
    )
