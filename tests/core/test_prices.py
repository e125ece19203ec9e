"""Prices: who is asked first for a price, what a call comes to, and that its parts always add up to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.price_book import compile_book
from proxy.core.price_match import Contains, Equals, StartsWith
from proxy.core.price_tables import DAY_MS, ModelPrices, Price, ProviderEntry, ProviderTable, pack_table
from proxy.core.prices import Cost, PriceBook, PriceRule, Prices, UnknownPrice, _Quote, reported_nusd, share, tier_of
from proxy.core.usage import Usage

USD = 10**9


class PartOf(msgspec.Struct):
    """A part of an answer, as the wire tells it."""

    model: str | None
    usage: Usage


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 1000  # type: ignore[arg-type]


NOW = ms(2026, 11, 23, 12)
HOUR_MS = 3_600_000


def entry(provider_id: str, *models: ModelPrices, **more: Any) -> ProviderEntry:
    table = ProviderTable(models, {model.name: place for place, model in enumerate(models)}, ())
    return ProviderEntry(provider_id, pack_table(table), **more)


def flat(name: str, **rates: int) -> ModelPrices:
    return ModelPrices(name, (Price({unit.replace("__", "."): (rate,) for unit, rate in rates.items()}),))


SMALL = PriceBook(
    "test-book 1",
    [
        entry(
            "acme",
            flat("plain", input=1_000, output=4_000),
            flat("cached", input=1_000, cached_input=100, cache_write=1_250, output=4_000, requests__web_search=10**10),
            ModelPrices("tiered", (Price({"input": (1_000, 100, 3_000), "output": (4_000, 100, 6_000)}),)),
            flat("spoken", audio_hour=360 * 10**9),
            flat("free"),
            flat("thinker", input=1_000, output=8_000, reasoning=3_000),
            flat("searcher", input=1_000, output=1_000, requests__call=5 * 10**9),
            ModelPrices("dear-but-old", (Price({"input": (10**9,), "output": (10**9,)}),), deprecated=True),
            ModelPrices(
                "night",
                (
                    Price({"input": (1_000,), "output": (1_000,)}),
                    Price({"input": (2_000,), "output": (2_000,)}, daily_ms=(22 * HOUR_MS, 2 * HOUR_MS)),
                    Price({"input": (9_000,), "output": (9_000,)}, from_ms=ms(2027, 1, 1)),
                ),
            ),
            ModelPrices(
                "batched",
                (Price({"input": (1_000,), "output": (4_000,)}),),
                (Price({"input": (500,)}, when={"processing": "batch"}),),
            ),
            names=Contains("acme"),
            model_names=StartsWith("acme-"),
        ),
        entry("anthropic", flat("opus", input=15_000, output=75_000), names=Equals("anthropic")),
    ],
)


def cost_of(usage: Usage, model: str | None = "plain", **more: Any) -> Cost:
    given: dict[str, Any] = {"provider": "acme", "at_ms": NOW} | more
    rules = given.pop("rules", ())
    unknown: UnknownPrice = given.pop("unknown", "assume")
    return Prices(SMALL, rules, unknown).cost(model=model, usage=usage, **given)


# What a call comes to


def test_a_call_is_rounded_up_once_and_its_parts_add_up() -> None:
    cost = cost_of(
        Usage(input=1, output=1),
        rules=[rule({"model": "plain"}, {"input_per_mtok": "0.0001", "output_per_mtok": "0.0001"})],
    )
    assert (cost.cost_nusd, sum(cost.parts_nusd.values())) == (1, 1)
    assert cost_of(Usage(input=1, cached_input=1), "cached").cost_nusd == 2


def test_cached_and_written_tokens_have_their_own_rates_and_an_hour_of_cache_that_of_five_minutes_if_need_be() -> None:
    cost = cost_of(Usage(input=1_000, cached_input=1_000, cache_write=1_000, cache_write_1h=1_000), "cached")
    assert cost.parts_nusd == {"input": 1_000, "cached_input": 100, "cache_write": 1_250, "cache_write_1h": 1_250}


def test_tokens_without_a_rate_of_their_own_cost_as_text_of_their_direction() -> None:
    usage = Usage(cached_input=1, audio_input=2, image_input=3, audio_output=4, image_output=5)
    cost = cost_of(usage, "plain")
    assert cost.parts_nusd == {
        "cached_input": 1,
        "audio_input": 2,
        "image_input": 3,
        "audio_output": 16,
        "image_output": 20,
    }
    assert cost.source == "book"


def test_reasoning_is_a_part_of_output_unless_the_book_prices_it_apart() -> None:
    usage = Usage(output=10, reasoning=6)
    assert cost_of(usage, "plain").parts_nusd == {"output": 40}
    assert cost_of(usage, "thinker").parts_nusd == {"output": 32, "reasoning": 18}
    assert cost_of(Usage(reasoning=6), "thinker").cost_nusd == 0
    assert cost_of(Usage(output=2, reasoning=6), "thinker").parts_nusd == {"reasoning": 6}


def test_crossing_a_tier_puts_the_whole_call_at_its_rates() -> None:
    at_it = Usage(input=40, cached_input=30, cache_write=10, audio_input=10, image_input=10, output=1)
    assert cost_of(at_it, "tiered").cost_nusd == 104
    assert cost_of(msgspec.structs.replace(at_it, input=41), "tiered").cost_nusd == 309


def test_audio_time_is_billed_by_the_millisecond_without_floats_slipping_in() -> None:
    assert cost_of(Usage(seconds=1.1), "spoken").cost_nusd == 110_000
    assert cost_of(Usage(seconds=0.0001), "spoken").cost_nusd == 100
    assert cost_of(Usage(seconds=1.5), "spoken").parts_nusd == {"seconds": 150_000}


def test_a_measure_without_a_rate_is_no_matter_where_the_work_was_billed_by_another() -> None:
    cost = cost_of(Usage(input=5, seconds=3.2, characters=12, images=1), "plain")
    assert (cost.cost_nusd, cost.source) == (5, "book")


def test_pieces_and_fees_for_the_call_stand_under_their_names() -> None:
    cost = cost_of(Usage(input=1, requests={"web_search": 2, "web_fetch": 9}), "cached")
    assert cost.parts_nusd == {"input": 1, "requests.web_search": 20_000_000}
    assert cost.source == "book"
    assert cost_of(Usage(), "searcher").parts_nusd == {"requests.call": 5_000_000}


def test_a_piece_without_a_price_is_assumed_and_said_to_be() -> None:
    cost = cost_of(Usage(input=1, requests={"web_search": 2}), "plain")
    assert cost.parts_nusd == {"input": 1, "requests.web_search": 20_000_000}
    assert cost.source == "assumed"
    unheard = cost_of(Usage(input=1, requests={"teleport": 2}), "plain")
    assert (unheard.cost_nusd, unheard.source) == (1, "assumed")
    assert cost_of(Usage(requests={"web_search": 2}), "plain", unknown="record").cost_nusd is None


def test_a_model_that_the_book_lists_without_prices_is_free() -> None:
    cost = cost_of(Usage(input=10**6, output=10**6), "free")
    assert cost == Cost(0, {}, 0, "book", "test-book 1")


def test_a_free_endpoint_costs_nothing_whatever_it_counts() -> None:
    assert cost_of(Usage(input=10**6), api="free") == Cost(0, {}, 0, "none", "test-book 1")


def test_a_plan_bills_nothing_and_keeps_the_list_price() -> None:
    assert cost_of(Usage(input=1_000), billing="plan") == Cost(0, {}, 1_000, "book", "test-book 1")
    assert cost_of(Usage(input=1), billing="plan", provider_cost_usd="2") == Cost(
        0, {}, 2 * USD, "provider", "test-book 1"
    )
    unknown = cost_of(Usage(input=1), "what", billing="plan", unknown="record")
    assert (unknown.cost_nusd, unknown.list_nusd) == (0, None)


def test_parts_of_other_models_are_priced_one_by_one() -> None:
    parts = [PartOf("plain", Usage(input=10)), PartOf("tiered", Usage(input=200)), PartOf("plain", Usage(output=1))]
    cost = cost_of(Usage(input=210, output=1), parts=parts)
    assert cost.parts_nusd == {"input": 610, "output": 4}
    assert cost.source == "book"
    with_unknown = cost_of(Usage(input=11), parts=[*parts, PartOf("what", Usage(input=1))])
    assert with_unknown.source == "assumed"
    assert cost_of(Usage(input=1), parts=[PartOf("what", Usage(input=1))], unknown="record").cost_nusd is None


def test_a_part_of_the_answering_model_is_priced_as_the_call_is() -> None:
    parts = [PartOf("deployment-7", Usage(input=1)), PartOf(None, Usage(input=1)), PartOf("tiered", Usage(output=1))]
    cost = cost_of(Usage(input=2, output=1), "deployment-7", model_asked="plain", parts=parts)
    assert (cost.cost_nusd, cost.source) == (6, "book")


# Dates, times of day, tiers


def test_prices_by_the_hour_hold_over_midnight_and_are_taken_anew_when_the_hour_comes() -> None:
    prices = Prices(SMALL)

    def at(moment_ms: int) -> int | None:
        return prices.cost(provider="acme", model="night", usage=Usage(input=1), at_ms=moment_ms).cost_nusd

    midnight = NOW - NOW % DAY_MS
    for hours, expected in ((0, 2), (2, 1), (12, 1), (22, 2), (23, 2), (24, 2), (26, 1), (12, 1), (1, 2)):
        assert at(midnight + hours * HOUR_MS) == expected, hours
    assert at(midnight + 22 * HOUR_MS - 1) == 1
    assert at(ms(2027, 1, 1)) == 9
    assert at(ms(2027, 1, 1) - 1) == 2


def test_a_batch_pays_the_batch_price_where_there_is_one_and_the_standard_price_else() -> None:
    usage = Usage(input=2, output=2)
    assert cost_of(usage, "batched", batch=True).cost_nusd == 9
    assert cost_of(usage, "batched", service_tier="batch").cost_nusd == 9
    assert cost_of(usage, "batched").cost_nusd == 10
    assert cost_of(usage, "plain", batch=True).cost_nusd == 10


@pytest.mark.parametrize(
    ("word", "tier"),
    [
        (None, ""),
        ("default", ""),
        ("auto", ""),
        ("standard", ""),
        ("standard_only", ""),
        ("on_demand", ""),
        ("ON_DEMAND", ""),
        ("PROVISIONED_THROUGHPUT", ""),
        ("flex", "flex"),
        ("ON_DEMAND_FLEX", "flex"),
        ("Priority", "priority"),
        ("batch", "batch"),
        ("fast", "fast"),
        ("no such tier", ""),
    ],
)
def test_the_words_of_providers_for_their_tiers(word: str | None, tier: str) -> None:
    assert tier_of(word) == tier


# Unknown models


def test_an_unknown_model_is_assumed_to_be_the_dearest_that_is_not_deprecated() -> None:
    cost = cost_of(Usage(input=1, output=1), "what")
    assert cost.source == "assumed"
    assert cost.parts_nusd == {"input": 1, "output": 8}
    later = cost_of(Usage(input=1), "what", at_ms=ms(2027, 1, 1))
    assert later.cost_nusd == 9


def test_an_unknown_model_is_recorded_without_a_price_when_policy_says_so() -> None:
    assert cost_of(Usage(input=1), "what", unknown="record") == Cost(None, {}, None, "none", "test-book 1")
    assert cost_of(Usage(), "what", unknown="record") == Cost(0, {}, 0, "none", "test-book 1")
    assert cost_of(Usage(input=1), "what", unknown="refuse").source == "assumed"


def test_a_model_asked_for_helps_where_the_answered_one_is_unknown() -> None:
    assert cost_of(Usage(input=1), "deployment-7", model_asked="plain") == cost_of(Usage(input=1), "plain")
    assert cost_of(Usage(input=1), "tiered", model_asked="what").source == "book"


def test_a_provider_that_the_book_does_not_know_is_priced_by_the_maker_of_the_model_else_by_the_mainstream() -> None:
    by_prefix = cost_of(Usage(input=1), "acme/plain", provider="some-gateway")
    assert (by_prefix.cost_nusd, by_prefix.source) == (1, "assumed")
    nobody = cost_of(Usage(input=1), "llama-at-home", provider="basement")
    assert (nobody.cost_nusd, nobody.source) == (15, "assumed")
    assert cost_of(Usage(input=1), None, provider="basement").source == "assumed"


def test_images_that_nobody_has_a_price_for_stay_unpriced_rather_than_free() -> None:
    cost = cost_of(Usage(images=1), "what")
    assert (cost.cost_nusd, cost.source) == (None, "none")
    assert (
        cost_of(Usage(images=3), "what", rules=[rule({"model": "what"}, {"per_image": "0.04"})]).cost_nusd
        == 120_000_000
    )


def test_what_is_known() -> None:
    prices = Prices(
        SMALL,
        [
            rule({"model": "acme-*"}, {"input_per_mtok": "1"}),
            rule({"model": "fees-*"}, {"per_request.web_search": "1"}),
            rule({"model": "cheap-*"}, multiplier="0.5"),
        ],
    )
    assert prices.known("acme", "plain")
    assert prices.known("acme-eu", "plain")
    assert prices.known("acme", "acme-7")
    assert not prices.known("acme", "fees-7")
    assert not prices.known("acme", "cheap-7")
    assert not prices.known("acme", None)
    assert not prices.known("basement", "plain")


def test_made_up_model_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.core.prices.QUOTES_MAX", 10)
    monkeypatch.setattr("proxy.core.price_tables.FOUND_MAX", 10)
    prices = Prices(PriceBook(SMALL.version, SMALL.entries.values()))
    for number in range(100):
        prices.cost(provider="acme", model=f"made-up-{number}", usage=Usage(input=1), at_ms=NOW)
    assert len(prices._quotes) <= 10
    assert len(prices.book._found) <= 10


# Admin prices


def rule(match: dict[str, Any], rates: dict[str, Any] | None = None, multiplier: str | None = None) -> PriceRule:
    return PriceRule.read(match, rates, multiplier)


def test_an_admin_price_comes_before_the_book_and_the_first_that_fits_wins() -> None:
    rules = [
        rule({"provider": "acme", "model": ["pla*", "none"]}, {"input_per_mtok": "5", "output_per_mtok": "7"}),
        rule({"provider": "acme"}, {"input_per_mtok": "9", "output_per_mtok": "9"}),
    ]
    cost = cost_of(Usage(input=10, cached_input=10, output=10), "plain", rules=rules)
    assert (cost.cost_nusd, cost.source, cost.list_nusd) == (50_000 + 50_000 + 70_000, "policy", 60)
    assert cost_of(Usage(input=1), "cached", rules=rules).cost_nusd == 9_000
    assert cost_of(Usage(input=1), None, rules=rules).cost_nusd == 5_000
    assert cost_of(Usage(input=1), "x", provider="anthropic", rules=rules).source == "assumed"


def test_an_admin_price_replaces_a_direction_as_a_whole_and_leaves_the_rest_to_the_book() -> None:
    rules = [rule({"model": "cached"}, {"input_per_mtok": "0.002"})]
    cost = cost_of(Usage(input=1, cached_input=1, output=1, requests={"web_search": 1}), "cached", rules=rules)
    assert cost.parts_nusd == {"input": 2, "cached_input": 2, "output": 4, "requests.web_search": 10_000_000}
    fee = [rule({"model": "cached"}, {"per_request": {"web_search": "0.5"}})]
    cost = cost_of(Usage(cached_input=10, requests={"web_search": 1}), "cached", rules=fee)
    assert cost.parts_nusd == {"cached_input": 1, "requests.web_search": USD // 2}


def test_a_direction_that_no_one_prices_is_not_free_by_omission() -> None:
    assert cost_of(Usage(output=1), "what", rules=[rule({"model": "what"}, {"input_per_mtok": "3"})]).cost_nusd == 3_000


def test_a_multiplier_scales_what_is_billed_and_leaves_the_list_price() -> None:
    rules = [rule({"provider": "acme"}, multiplier="0.85")]
    cost = cost_of(Usage(input=1, output=1), rules=rules)
    assert (cost.cost_nusd, cost.list_nusd, cost.source) == (5, 5, "policy")
    cost = cost_of(Usage(input=1_000, output=1_000), rules=rules)
    assert (cost.cost_nusd, cost.list_nusd) == (4_250, 5_000)
    assert cost_of(Usage(input=1), "opus", provider="anthropic", rules=rules).cost_nusd == 15
    assert cost_of(Usage(input=100), "what", rules=rules).source == "assumed"
    assert cost_of(Usage(input=1), provider_cost_usd="0.01", rules=rules).cost_nusd == 8_500_000
    assert cost_of(Usage(input=1_000), rules=[rule({}, multiplier="0")]).cost_nusd == 0


def test_a_rule_may_be_for_one_upstream_alone() -> None:
    rules = [rule({"upstream": "acme-eu"}, multiplier="2")]
    assert cost_of(Usage(input=1), upstream="acme-eu", rules=rules).cost_nusd == 2
    assert cost_of(Usage(input=1), upstream="acme-us", rules=rules).cost_nusd == 1
    assert cost_of(Usage(input=1), rules=rules).cost_nusd == 1


def test_the_price_version_names_the_rules() -> None:
    one, two = rule({"model": "a"}, multiplier="1"), rule({"model": "b"}, multiplier="1")
    versions = {Prices(SMALL, rules).version for rules in ([], [one], [two], [one, two], [two, one])}
    assert len(versions) == 5
    assert Prices(SMALL).version == "test-book 1"
    assert Prices(SMALL, [one]).version.startswith("test-book 1+rules.")


@pytest.mark.parametrize(
    ("match", "rates", "multiplier", "sentence"),
    [
        ({"user": "ada"}, {"input_per_mtok": "1"}, None, "cannot match on `user`"),
        ({}, {}, None, "neither a rate nor a `multiplier`"),
        ({}, {"input_per_mtok": "1"}, "0.5", "not both"),
        ({}, {"input": "1"}, None, "`input` is no rate"),
        ({}, {"per_request.": "1"}, None, "is no rate"),
        ({}, {"input_per_mtok": "cheap"}, None, "write a decimal number"),
        ({}, {"input_per_mtok": "-1"}, None, "write a decimal number"),
        ({}, {"input_per_mtok": "NaN"}, None, "write a decimal number"),
        ({}, {"input_per_mtok": "1e999999999"}, None, "the most it can be"),
        ({}, {"input_per_mtok": "0.0000001"}, None, "cannot be finer"),
        ({}, {"per_call": "2000000"}, None, "the most it can be"),
        ({}, None, "0.1234567", "six decimal places"),
        ({}, None, "lots", "write a decimal number"),
        ({}, None, "1001", "the most it can be"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_a_sentence(
    match: dict[str, Any], rates: dict[str, str] | None, multiplier: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        rule(match, rates, multiplier)


# Costs that the provider reports


def test_what_the_provider_says_wins_over_the_book_in_the_proportions_of_the_book() -> None:
    cost = cost_of(Usage(input=100, output=75), provider_cost_usd="0.000401")
    assert cost == Cost(401_000, {"input": 100_250, "output": 300_750}, 401_000, "provider", "test-book 1")


def test_a_reported_cost_that_the_book_cannot_split_is_one_part() -> None:
    assert cost_of(Usage(input=1), "what", provider_cost_usd="0.5").parts_nusd == {"total": USD // 2}
    assert cost_of(Usage(), provider_cost_usd="0.5").parts_nusd == {"total": USD // 2}
    assert cost_of(Usage(input=1), "what", provider_cost_usd="0", unknown="record").cost_nusd == 0


def test_an_admin_price_wins_over_what_the_provider_says() -> None:
    rules = [rule({"provider": "acme"}, {"input_per_mtok": "1", "output_per_mtok": "1"})]
    assert cost_of(Usage(input=1), provider_cost_usd="0.5", rules=rules).cost_nusd == 1_000


@pytest.mark.parametrize("text", ["", "NaN", "Infinity", "-1", "1e999999999", "free", "9" * 100, "99999999999"])
def test_a_reported_cost_that_is_none_is_passed_over(text: str) -> None:
    assert cost_of(Usage(input=7), provider_cost_usd=text).source == "book"


def test_reported_amounts_are_read_exactly() -> None:
    assert reported_nusd("0.007637") == 7_637_000
    assert reported_nusd("1e-9") == 1
    assert reported_nusd("0") == 0


# Always


counts = st.integers(0, 3_000_000)
any_usage = st.builds(
    Usage,
    input=counts,
    cached_input=counts,
    cache_write=counts,
    cache_write_1h=counts,
    output=counts,
    reasoning=counts,
    audio_input=counts,
    audio_output=counts,
    image_input=counts,
    image_output=counts,
    requests=st.dictionaries(
        st.sampled_from(["web_search", "file_search", "teleport", "web_fetch"]), st.integers(0, 99)
    ),
    seconds=st.floats(0, 1e6),
)
any_rules = st.lists(
    st.one_of(
        st.builds(
            lambda micros: rule({"provider": "acme"}, {"input_per_mtok": f"{micros / 10**6:.6f}"}),
            st.integers(0, 10**8),
        ),
        st.builds(
            lambda micros: rule({"provider": "*"}, multiplier=f"{micros / 10**6:.6f}"), st.integers(0, 2 * 10**6)
        ),
    ),
    max_size=2,
)
MODELS = ["plain", "cached", "tiered", "spoken", "free", "thinker", "searcher", "night", "batched", "what", None]


@given(
    any_usage, st.sampled_from(MODELS), any_rules, st.sampled_from(["metered", "plan"]), st.none() | st.just("0.12345")
)
def test_parts_always_add_up_to_the_cost_and_nothing_is_negative(
    usage: Usage, model: str | None, rules: list[PriceRule], billing: str, reported: str | None
) -> None:
    cost = cost_of(usage, model, rules=rules, billing=billing, provider_cost_usd=reported)
    assert cost.cost_nusd is not None
    assert sum(cost.parts_nusd.values()) == cost.cost_nusd >= 0
    assert all(part > 0 for part in cost.parts_nusd.values())
    assert cost.list_nusd is not None
    assert cost.list_nusd >= 0
    json.dumps(msgspec.to_builtins(cost))


@given(
    any_usage,
    st.sampled_from(MODELS),
    any_rules,
    st.sampled_from(["assume", "record"]),
    st.sampled_from([None, "batch", "flex"]),
)
def test_the_usual_price_in_few_steps_is_that_in_all_steps(
    usage: Usage, model: str | None, rules: list[PriceRule], unknown: UnknownPrice, tier: str | None
) -> None:
    asked: dict[str, Any] = {"rules": rules, "unknown": unknown, "service_tier": tier}
    few = cost_of(usage, model, **asked)
    with patch.object(_Quote, "plain", new=False):
        assert few == cost_of(usage, model, **asked)


@given(
    any_usage,
    st.sampled_from(["plain", "cached", "tiered", "night"]),
    st.sampled_from(["input", "cached_input", "output"]),
    counts,
)
def test_more_tokens_never_cost_less(usage: Usage, model: str, field: str, more: int) -> None:
    larger = msgspec.structs.replace(usage, **{field: getattr(usage, field) + more})
    before, after = cost_of(usage, model).cost_nusd, cost_of(larger, model).cost_nusd
    assert before is not None
    assert after is not None
    assert after >= before


@given(st.integers(0, 10**15), st.dictionaries(st.text(max_size=3), st.integers(0, 10**20), max_size=12))
def test_a_total_is_shared_out_exactly_and_never_more_than_one_away_from_its_proportion(
    total: int, weights: dict[str, int]
) -> None:
    parts = share(total, weights)
    assert sum(parts.values()) == total
    whole = sum(weights.values())
    for name, part in parts.items():
        if whole:
            assert abs(part * whole - total * weights[name]) < whole


# Real models


@pytest.fixture(scope="module")
def real() -> Prices:
    return Prices(compile_book())


def test_o3_became_cheaper_in_june_2025(real: Prices) -> None:
    usage = Usage(input=1_000_000)
    before = real.cost(provider="openai", model="o3", usage=usage, at_ms=ms(2025, 6, 10) - 1)
    after = real.cost(provider="openai", model="o3-2025-04-16", usage=usage, at_ms=ms(2025, 6, 10))
    assert (before.cost_nusd, after.cost_nusd) == (10 * USD, 2 * USD)
    flex = real.cost(provider="openai", model="o3", usage=usage, at_ms=NOW, service_tier="flex")
    batch = real.cost(provider="openai", model="o3", usage=usage, at_ms=NOW, service_tier="default", batch=True)
    assert flex.cost_nusd == batch.cost_nusd == USD


def test_gemini_pro_is_dearer_above_200_000_tokens(real: Prices) -> None:
    def at(count: int) -> int | None:
        usage = Usage(input=count - 40_000, cached_input=40_000, output=10_000)
        return real.cost(provider="gemini", model="gemini-2.5-pro", usage=usage, at_ms=NOW).cost_nusd

    assert at(100_000) == 75_000_000 + 5_000_000 + 100_000_000
    assert at(300_000) == 650_000_000 + 10_000_000 + 150_000_000


def test_an_hour_of_cache_costs_twice_the_input_at_anthropic_and_a_search_a_cent(real: Prices) -> None:
    usage = Usage(
        input=1_000,
        cached_input=1_000,
        cache_write=1_000,
        cache_write_1h=1_000,
        requests={"web_search": 2, "web_fetch": 1},
    )
    cost = real.cost(
        provider="anthropic", model="claude-haiku-4-5-20251001", usage=usage, at_ms=NOW, service_tier="standard"
    )
    assert cost.parts_nusd == {
        "input": 1_000_000,
        "cached_input": 100_000,
        "cache_write": 1_250_000,
        "cache_write_1h": 2_000_000,
        "requests.web_search": 20_000_000,
    }
    assert cost.source == "book"


def test_a_fine_tuned_model_has_its_own_price(real: Prices) -> None:
    usage = Usage(input=1_000_000, output=1_000_000)
    tuned = real.cost(provider="openai", model="ft:gpt-4o-mini-2024-07-18:acme::abc", usage=usage, at_ms=NOW)
    plain = real.cost(provider="openai", model="gpt-4o-mini", usage=usage, at_ms=NOW)
    assert tuned.source == plain.source == "book"
    assert tuned.cost_nusd is not None
    assert plain.cost_nusd is not None
    assert tuned.cost_nusd > plain.cost_nusd


def test_bedrock_prices_regions_by_the_name_of_the_model(real: Prices) -> None:
    usage = Usage(input=1_000_000)
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    costs = [
        real.cost(provider="bedrock", model=name, usage=usage, at_ms=NOW).cost_nusd
        for name in (f"global.{model}", f"us.{model}")
    ]
    assert costs == [3 * USD, 3_300_000_000]


def test_azure_sells_the_models_of_others_and_knows_a_deployment_by_what_answers(real: Prices) -> None:
    usage = Usage(input=1_000_000)
    cost = real.cost(
        provider="azure", model="gpt-4.1-mini-2025-04-14", model_asked="our-deployment", usage=usage, at_ms=NOW
    )
    assert (cost.cost_nusd, cost.source) == (400_000_000, "book")


def test_speech_and_transcripts_are_priced_by_their_own_measures(real: Prices) -> None:
    spoken = real.cost(provider="openai", model="tts-1", usage=Usage(characters=1_000_000), at_ms=NOW)
    assert (spoken.cost_nusd, spoken.parts_nusd) == (15 * USD, {"characters": 15 * USD})
    heard = real.cost(provider="groq", model="whisper-large-v3", usage=Usage(seconds=1), at_ms=NOW)
    ten = real.cost(provider="groq", model="whisper-large-v3", usage=Usage(seconds=10), at_ms=NOW)
    assert heard.cost_nusd == ten.cost_nusd == 308_334


def test_every_provider_of_the_book_has_a_price_for_an_unknown_model(real: Prices) -> None:
    for provider in (*real.book.entries, "nobody-knows-it"):
        cost = real.cost(provider=provider, model="no-such-model-7", usage=Usage(input=1_000, output=1_000), at_ms=NOW)
        assert cost.source == "assumed", provider
        assert cost.cost_nusd, provider
