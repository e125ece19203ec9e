"""The compiled price book says what genai-prices says: for every model and unit, at every date, tier and variant."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any

import msgspec
import pytest

from proxy.core.price_book import LEFT_OUT, UNITS, compile_book
from proxy.core.price_tables import ALIASES, PriceBook, decode_book, encode_book
from proxy.core.prices import CONTEXTS, Prices
from proxy.core.usage import Usage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from genai_prices import Usage as SourceUsage
    from genai_prices.data import providers as source_providers
    from genai_prices.data_snapshot import find_provider_by_id
    from genai_prices.data_units import unit_data
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MTOK = 1_000_000

EVERY_TOKEN = Usage(
    input=1_234,
    cached_input=567,
    cache_write=89,
    cache_write_1h=45,
    output=678,
    reasoning=123,
    audio_input=77,
    audio_output=33,
    image_input=55,
    image_output=11,
)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return decode_book(encode_book(compile_book()))


@pytest.fixture(scope="module")
def prices(book: PriceBook) -> Prices:
    return Prices(book)


def price_lists(model: ModelInfo) -> list[ModelPrice]:
    standard = [part.prices for part in model.prices] if isinstance(model.prices, list) else [model.prices]
    return standard + [variant.prices for variant in model.price_variants or ()]


def price_keys(model: ModelInfo) -> set[str]:
    return {key for prices in price_lists(model) for key, value in vars(prices).items() if value is not None}


def thresholds(model: ModelInfo) -> list[int]:
    values = [value for prices in price_lists(model) for value in vars(prices).values()]
    return sorted({tier.start for value in values if isinstance(value, TieredPrices) for tier in value.tiers})


def has_noise(model: ModelInfo) -> bool:
    """Whether a token price is finer than a pico-USD a token: a quotient or float noise, which compiling rounds."""
    rates: list[Decimal] = []
    for prices in price_lists(model):
        for key, value in vars(prices).items():
            if value is not None and key.endswith("_mtok"):
                rates += [value.base, *(t.price for t in value.tiers)] if isinstance(value, TieredPrices) else [value]
    return any((rate * MTOK) % 1 for rate in rates)


def moments(model: ModelInfo) -> Iterator[datetime]:
    """Now, and both sides of every date and time of day at which the model's price changes."""
    yield NOW
    dated = [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
    seen = set()
    for part in dated:
        constraint: Any = part.constraint
        if constraint is None or str(constraint) in seen:
            continue
        seen.add(str(constraint))
        if hasattr(constraint, "start_date"):
            turns = [datetime.combine(constraint.start_date, datetime.min.time(), UTC)]
        else:
            times = (constraint.start_time, constraint.end_time)
            turns = [datetime.combine(NOW.date(), time.replace(tzinfo=None), UTC) for time in times]
        for turn in turns:
            yield from (turn, turn - timedelta(milliseconds=1))


def contexts(model: ModelInfo) -> list[str]:
    whens = [variant.when for variant in model.price_variants or ()]
    return ["", *(name for name, context in CONTEXTS.items() if any(when.items() <= context.items() for when in whens))]


def usages(model: ModelInfo, in_force: ModelPrice) -> list[Usage]:
    """Every field that the prices in force know, and sizes on both sides of every tier."""
    keys = {key for key, value in vars(in_force).items() if value is not None}
    requests = {
        unit.removeprefix("requests."): 3
        for key, (unit, _) in UNITS.items()
        if key in keys and unit.startswith("requests.") and unit != "requests.call"
    }
    counted = EVERY_TOKEN if any(key.endswith("_mtok") for key in keys) or not keys else Usage()
    full = msgspec.structs.replace(
        counted,
        requests=requests,
        seconds=123.456 if {"audio_hours", "input_audio_hours"} & keys else 0,
        characters=4_321 if "input_mchars" in keys else 0,
    )
    short = msgspec.structs.replace(Usage(), seconds=0.5) if full.seconds else Usage(input=1, output=1)
    found = [full] if full.seconds == 0 else [full, short]
    for start in thresholds(model):
        found.append(msgspec.structs.replace(EVERY_TOKEN, input=start - (input_total(EVERY_TOKEN) - EVERY_TOKEN.input)))
        found.append(Usage(input=start + 1, output=7))
    return found


def input_total(usage: Usage) -> int:
    cached = usage.cached_input + usage.cache_write + usage.cache_write_1h
    return usage.input + cached + usage.audio_input + usage.image_input


def as_source(usage: Usage) -> SourceUsage:
    """The same usage in the source's terms, where totals contain their parts."""
    pages = usage.requests.get("pages", 0) + usage.requests.get("annotated_pages", 0)
    values: dict[str, Any] = {
        "input_tokens": input_total(usage),
        "cache_read_tokens": usage.cached_input,
        "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "input_audio_tokens": usage.audio_input,
        "input_image_tokens": usage.image_input,
        "cache_audio_read_tokens": 0,
        "cache_image_read_tokens": 0,
        "output_tokens": usage.output + usage.audio_output + usage.image_output,
        "output_reasoning_tokens": usage.reasoning,
        "output_audio_tokens": usage.audio_output,
        "output_image_tokens": usage.image_output,
        "audio_seconds": Decimal(str(usage.seconds)),
        "input_audio_seconds": Decimal(str(usage.seconds)),
        "input_characters": usage.characters,
        "web_searches": usage.requests.get("web_search", 0),
        "storage_searches": usage.requests.get("file_search", 0),
        "social_searches": usage.requests.get("social_search", 0),
        "code_executions": usage.requests.get("code_execution", 0),
        "rerank_searches": usage.requests.get("rerank", 0),
        "input_document_pages": pages,
        "input_annotated_document_pages": usage.requests.get("annotated_pages", 0),
        "input_text_messages": usage.requests.get("text_messages", 0),
    }
    return SourceUsage(**values)


def source_nusd(model: ModelInfo, provider: Provider, usage: Usage, at: datetime, context: dict[str, str]) -> int:
    found = model.calc_price(
        as_source(usage), provider, genai_request_timestamp=at, price_context=context or None
    ).total_price
    return int((found * 10**9).to_integral_value(ROUND_CEILING))


def name_of(model: ModelInfo, provider: Provider) -> str | None:
    """A name by which the model is found; None for one that an earlier model of the provider always hides."""
    for name in (model.id, *clause_texts(model.match)):
        if provider.find_model(name, all_providers=source_providers) is model:
            return name
    return None


def clause_texts(clause: Any) -> Iterator[str]:
    for value in vars(clause).values():
        if isinstance(value, str):
            yield value
        else:
            for part in value:
                yield from clause_texts(part)


def ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize("provider", source_providers, ids=lambda provider: provider.id)
def test_every_model_costs_what_the_source_says(provider: Provider, prices: Prices) -> None:
    hidden = []
    for model in provider.models:
        name = name_of(model, provider)
        if name is None:
            hidden.append(model.id)
            continue
        noisy = has_noise(model)
        for at in moments(model):
            for tier in contexts(model):
                in_force = model.get_prices(at, CONTEXTS[tier])
                for usage in usages(model, in_force):
                    cost = prices.cost(
                        provider=provider.id, model=name, usage=usage, at_ms=ms(at), service_tier=tier or None
                    )
                    expected = source_nusd(model, provider, usage, at, CONTEXTS[tier])
                    where = f"{provider.id} {model.id} at {at} as `{tier}`: {usage}"
                    assert cost.source == "book", where
                    assert cost.cost_nusd == cost.list_nusd == sum(cost.parts_nusd.values()), where
                    if noisy:
                        assert abs(cost.cost_nusd - expected) <= 1 + usage.tokens // 2_000, where
                    else:
                        assert cost.cost_nusd == expected, where
    assert len(hidden) <= len(provider.models) // 20, hidden


@pytest.mark.parametrize("provider", source_providers, ids=lambda provider: provider.id)
def test_every_name_means_the_model_that_the_source_means(provider: Provider, book: PriceBook) -> None:
    names = {model.id for model in provider.models}
    for model in provider.models:
        names.update(list(clause_texts(model.match))[:6])
    sample = sorted(names)
    sample += [f"{name}-20260131" for name in sample[::7]] + [name.upper() for name in sample[::11]]
    sample += ["gpt-5.2-20251211", "claude-sonnet-4-5-20250929", "gemini-2.5-pro-preview-tts", "no-such-model"]
    for name in sample:
        expected = provider.find_model(name, all_providers=source_providers)
        found = book.find(provider.id, name)
        assert (found.model.name if found else None) == (expected.id if expected else None), name
        if found and expected:
            assert found.own == any(model is expected for model in provider.models), name


def test_every_price_key_of_the_source_has_a_unit_or_is_left_out_on_purpose() -> None:
    used = {key for provider in source_providers for model in provider.models for key in price_keys(model)}
    assert used <= set(UNITS) | LEFT_OUT
    for key, (_, per) in UNITS.items():
        source_per = next(unit["per"] for unit in unit_data.values() if unit["price_key"] == key)
        assert source_per == (3_600 if key.endswith("_hours") else per), key


def test_every_variant_of_the_source_can_be_reached_or_is_known_not_to_be() -> None:
    reachable = [set(context.items()) for context in CONTEXTS.values()]
    whens = {
        tuple(sorted(variant.when.items()))
        for provider in source_providers
        for model in provider.models
        for variant in model.price_variants or ()
    }
    unreachable = {when for when in whens if not any(set(when) <= context for context in reachable)}
    # `default` repeats the standard prices; of routes and kinds of search an answer says nothing.
    assert unreachable == {
        (("service_tier", "default"),),
        (("route", "mistral/eu"),),
        (("search_type", "fast"),),
        (("search_type", "web"),),
    }


def test_providers_are_found_as_the_source_finds_them(book: PriceBook) -> None:
    names = [provider.id for provider in source_providers]
    names += [
        "OpenAI",
        "google-vertex",
        "amazon-bedrock",
        "mistralai",
        "together_ai",
        "moonshot-cn",
        "huggingface-novita",
    ]
    for name in [*names, "nobody"]:
        expected = find_provider_by_id(source_providers, name)
        assert book.provider_ids(name) == ((expected.id,) if expected else ()), name


@pytest.mark.parametrize(("name", "provider_id"), sorted(ALIASES.items()))
def test_every_alias_names_a_provider_of_the_book(name: str, provider_id: str, book: PriceBook) -> None:
    assert book.provider_ids(name)
    assert book.provider_ids(name) == book.provider_ids(provider_id)


def test_a_model_routed_by_hugging_face_is_found_at_the_provider_in_its_suffix(book: PriceBook) -> None:
    found = book.find("huggingface", "deepseek-ai/DeepSeek-R1:together")
    assert found is not None
    assert found.provider_id == "huggingface_together"
    anywhere = book.find("huggingface", "deepseek-ai/DeepSeek-R1:fastest")
    assert anywhere is not None


def test_a_name_of_any_length_is_looked_up_without_trouble(book: PriceBook) -> None:
    assert book.find("openai", "x" * 100_000) is None
    assert book.find("openai", "") is None
    assert book.find("openai", None) is None


def test_the_encoded_book_is_small_and_reads_back_the_same(book: PriceBook) -> None:
    data = encode_book(book)
    assert len(data) < 1_000_000
    again = decode_book(data)
    assert again.version == book.version
    assert again.version.startswith("genai-prices ")
    assert encode_book(again) == data
    for provider_id in book.entries:
        assert again.table(provider_id) == book.table(provider_id)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: b"", "no Callmeter price book"),
        (lambda data: b"{}" + data, "no Callmeter price book"),
        (lambda data: data.replace(b"book 1\n", b"book 9\n", 1), "format 9, this version reads format 1"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "damaged"),
        (lambda data: data[:25], "damaged"),
    ],
)
def test_a_book_that_is_damaged_or_of_another_format_is_refused(damage: Any, sentence: str, book: PriceBook) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode_book(damage(encode_book(book)))
