"""Compiles the price book from genai-prices: the only module that imports it, and only while compiling.

The import alone takes about half a second and 60 MB, so one process compiles and the workers load the encoded book.
Rates become integers in pico-USD per unit (`price_rates.py` lists the units). A few prices in the source are quotients
or float noise (`0.0833333333333333`, `0.18000000000000002`); they are rounded to the nearest pico-USD per token.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from .price_match import AllOf, AnyOf, Clause, Contains, EndsWith, Equals, Pattern, StartsWith, exact_names
from .price_tables import ModelPrices, Price, PriceBook, ProviderEntry, ProviderTable, Rate, pack_table

if TYPE_CHECKING:
    from genai_prices import types

PUSD_PER_USD = 10**12

UNITS: dict[str, tuple[str, int]] = {
    "input_mtok": ("input", 1_000_000),
    "cache_read_mtok": ("cached_input", 1_000_000),
    "cache_write_mtok": ("cache_write", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h", 1_000_000),
    "output_mtok": ("output", 1_000_000),
    "output_reasoning_mtok": ("reasoning", 1_000_000),
    "input_audio_mtok": ("audio_input", 1_000_000),
    "output_audio_mtok": ("audio_output", 1_000_000),
    "input_image_mtok": ("image_input", 1_000_000),
    "output_image_mtok": ("image_output", 1_000_000),
    "input_mchars": ("characters", 1_000_000),
    "audio_hours": ("audio_hour", 1),
    "input_audio_hours": ("input_audio_hour", 1),
    "web_searches_kcount": ("requests.web_search", 1_000),
    "social_searches_kcount": ("requests.social_search", 1_000),
    "storage_searches_kcount": ("requests.file_search", 1_000),
    "code_executions_kcount": ("requests.code_execution", 1_000),
    "rerank_searches_kcount": ("requests.rerank", 1_000),
    "input_document_kpages": ("requests.pages", 1_000),
    "input_annotated_document_kpages": ("requests.annotated_pages", 1_000),
    "input_text_messages_kcount": ("requests.text_messages", 1_000),
    "requests_kcount": ("requests.call", 1_000),
}
"""Price key of the source -> our unit, and how many units its price is for."""

LEFT_OUT = frozenset(
    {"cache_audio_read_mtok", "cache_image_read_mtok", "input_video_mtok", "output_video_mtok", "output_citation_mtok"}
)
"""Price keys for which usage has no field of its own: cached tokens of any modality are one field, paid at the text's
cached rate; video and citations lie in `input` and `output`."""

SECONDS_MIN = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""Models that bill a least length of audio. The source has these in code, not in its data."""


def compile_book() -> PriceBook:
    """Every provider and model of the installed genai-prices. Takes about a second; raises ValueError for a price
    that the units above cannot express."""
    from importlib.metadata import version

    from genai_prices.data import providers

    return PriceBook(f"genai-prices {version('genai-prices')}", [_entry(provider) for provider in providers])


def _entry(provider: types.Provider) -> ProviderEntry:
    exact: dict[str, int] = {}
    patterns: list[tuple[int, Clause]] = []
    for position, model in enumerate(provider.models):
        names, rest = exact_names(_clause(model.match))
        for name in names:
            exact.setdefault(name, position)
        if rest is not None:
            patterns.append((position, rest))
    models = tuple(_model(provider.id, model) for model in provider.models)
    table = ProviderTable(models, exact, tuple(patterns), tuple(provider.fallback_model_providers or ()))
    return ProviderEntry(
        provider.id,
        pack_table(table),
        names=None if provider.provider_match is None else _clause(provider.provider_match),
        model_names=None if provider.model_match is None else _clause(provider.model_match),
    )


def _model(provider_id: str, model: types.ModelInfo) -> ModelPrices:
    standard = (
        tuple(_price(part.prices, part.constraint, {}) for part in model.prices)
        if isinstance(model.prices, list)
        else (_price(model.prices, None, {}),)
    )
    return ModelPrices(
        model.id,
        standard,
        tuple(_price(part.prices, part.constraint, part.when) for part in model.price_variants or ()),
        deprecated=bool(model.deprecated),
        seconds_min=SECONDS_MIN.get((provider_id, model.id), 0),
    )


def _price(
    prices: types.ModelPrice,
    constraint: types.StartDateConstraint | types.TimeOfDateConstraint | None,
    when: dict[str, str],
) -> Price:
    rates = {
        UNITS[key][0]: _rate(key, value) for key, value in vars(prices).items() if value is not None and key in UNITS
    }
    if constraint is None:
        return Price(rates, when=when)
    if hasattr(constraint, "start_date"):
        start = datetime.combine(constraint.start_date, time(), UTC)
        return Price(rates, from_ms=int(start.timestamp()) * 1000, when=when)
    return Price(rates, daily_ms=(_time_ms(constraint.start_time), _time_ms(constraint.end_time)), when=when)


def _time_ms(moment: time) -> int:
    """A time of day -> ms after midnight UTC. Times without a zone are UTC."""
    offset = moment.utcoffset()
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second - (int(offset.total_seconds()) if offset else 0)
    return seconds % 86_400 * 1000 + moment.microsecond // 1000


def _rate(key: str, value: Decimal | types.TieredPrices) -> Rate:
    per = UNITS[key][1]
    if isinstance(value, Decimal):
        return (_pusd(value, per),)
    if not key.endswith("_mtok"):
        raise ValueError(f"the price book has tiers for `{key}`; only prices of tokens may have them")
    tiers = [number for tier in value.tiers for number in (tier.start, _pusd(tier.price, per))]
    return (_pusd(value.base, per), *tiers)


def _pusd(price: Decimal, per: int) -> int:
    return int((price * PUSD_PER_USD / per).to_integral_value(ROUND_HALF_UP))


def _clause(clause: types.MatchLogic) -> Clause:
    """The source ignores case except in regular expressions, which it applies to the name in lower case."""
    ((kind, value),) = vars(clause).items()
    match kind:
        case "equals":
            return Equals(value.lower())
        case "starts_with":
            return StartsWith(value.lower())
        case "ends_with":
            return EndsWith(value.lower())
        case "contains":
            return Contains(value.lower())
        case "regex":
            return Pattern(value)
        case "or_":
            return AnyOf(tuple(_clause(part) for part in value))
        case "and_":
            return AllOf(tuple(_clause(part) for part in value))
    raise ValueError(f"the price book matches names by `{kind}`, which is not known here")
