"""Steps 8 and 9 of the walk: what a finished call is recorded as."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.estimate import Estimator
from proxy.core.price_book import compile_book
from proxy.core.prices import Prices
from proxy.core.record import Record
from proxy.core.settlement import settle
from proxy.core.usage import Usage
from proxy.wire.reading import Part, Reading

USAGE = Usage(input=1_000, output=100)
CHAT = Call(api="openai.chat", dialect="openai", model="gpt-5-mini", body_bytes=3_000)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices(compile_book())


def settled(prices: Prices, reading: Reading, call: Call = CHAT, **facts: Any) -> Record:
    record = Record(
        call_id="c",
        at_ms=1_790_000_000_000,
        user="ada",
        key_id="k",
        provider="openai",
        api=call.api,
        model_asked=call.model,
    )
    given: dict[str, Any] = {
        "result": "ok",
        "sent": True,
        "answered": 200,
        "cut": False,
        "answer_s": 2.0,
        "billing": "metered",
    }
    settle(record, call=call, told=reading, prices=prices, estimator=Estimator(), **given | facts)
    return record


def test_what_the_provider_reports_is_what_is_recorded_and_priced(prices: Prices) -> None:
    record = settled(prices, Reading(usage=USAGE, model="gpt-5-mini-2025-08-07", complete=True))
    assert (record.result, record.usage, record.usage_source) == ("ok", USAGE, "reported")
    assert record.cost_nusd == 450_000
    assert sum(record.cost_parts_nusd.values()) == record.cost_nusd
    assert record.cost_source == "book"
    assert record.model == "gpt-5-mini-2025-08-07"


def test_a_complete_answer_without_usage_is_estimated_and_never_free(prices: Prices) -> None:
    record = settled(prices, Reading(seen_bytes=400, complete=True))
    assert record.usage_source == "estimated"
    assert record.usage.output == 100
    assert record.cost_nusd is not None
    assert record.cost_nusd > 0


def test_a_stream_that_was_cut_is_partial_and_never_free(prices: Prices) -> None:
    record = settled(prices, Reading(seen_bytes=40), result="client_gone", cut=True)
    assert (record.result, record.usage_source) == ("client_gone", "partial")
    assert record.cost_nusd is not None
    assert record.cost_nusd > 0


def test_a_stream_whose_end_was_seen_is_reported_also_when_the_agent_left_after_it(prices: Prices) -> None:
    record = settled(prices, Reading(usage=USAGE, complete=True), result="client_gone", cut=True)
    assert (record.usage, record.usage_source) == (USAGE, "reported")


def test_an_agent_that_leaves_before_the_first_byte_pays_for_the_time_the_model_had(prices: Prices) -> None:
    record = settled(prices, Reading(), result="client_gone", cut=True, answered=0, answer_s=10.0)
    assert record.usage.output == 500


def test_a_stream_that_ends_without_its_end_is_cut_however_cleanly_it_ended(prices: Prices) -> None:
    stream = Call(api="anthropic.messages", dialect="anthropic", model="gpt-5-mini", body_bytes=3_000, stream=True)
    begun = Usage(input=1_000, output=1)
    record = settled(prices, Reading(usage=begun, seen_bytes=400, error="overloaded_error"), stream)
    assert (record.result, record.usage_source) == ("failed", "partial")
    assert record.usage == Usage(input=1_000, output=100)


def test_what_a_cut_answer_told_is_kept_where_nothing_can_be_estimated(prices: Prices) -> None:
    told = Reading(usage=Usage(seconds=12))
    record = settled(prices, told, Call(api="openai.audio", dialect="openai", model="whisper-1", stream=True))
    assert (record.usage, record.usage_source) == (Usage(seconds=12), "partial")


def test_a_call_that_never_reached_the_provider_costs_nothing(prices: Prices) -> None:
    record = settled(prices, Reading(), result="failed", sent=False, answered=0)
    assert (record.cost_nusd, record.usage, record.usage_source) == (0, Usage(), "none")


def test_a_call_that_the_provider_refused_costs_nothing_and_says_why(prices: Prices) -> None:
    record = settled(prices, Reading(error="rate_limit_exceeded"), result="failed", answered=429)
    assert (record.result, record.error, record.cost_nusd) == ("failed", "rate_limit_exceeded", 0)


def test_an_error_inside_a_stream_that_began_well_is_a_failure_with_what_it_made(prices: Prices) -> None:
    record = settled(prices, Reading(usage=USAGE, error="overloaded_error", complete=True))
    assert (record.result, record.usage_source) == ("failed", "reported")
    assert record.cost_nusd == 450_000


def test_a_free_call_shows_no_usage_even_where_its_answer_does(prices: Prices) -> None:
    free = Call(api="anthropic.count_tokens", dialect="anthropic", free=True)
    record = settled(prices, Reading(usage=Usage(input=99), complete=True), free)
    assert (record.usage, record.cost_nusd, record.cost_source) == (Usage(), 0, "none")


def test_an_answer_of_an_unknown_kind_is_unpriced_and_not_free(prices: Prices) -> None:
    record = settled(prices, Reading(complete=True), Call(api="unknown"))
    assert (record.usage_source, record.cost_nusd, record.list_nusd) == ("none", None, None)


def test_a_background_answer_waits_for_its_usage_and_says_so(prices: Prices) -> None:
    call = Call(api="openai.responses", dialect="openai", model="gpt-5-mini", later=True)
    record = settled(prices, Reading(later="resp_1", complete=True), call)
    assert (record.usage_source, record.cost_nusd) == ("none", None)
    assert record.estimate["later"] is True


@pytest.mark.parametrize("api", ["openai.batches", "anthropic.batches"])
def test_making_a_batch_costs_nothing_since_its_items_are_settled_one_by_one(prices: Prices, api: str) -> None:
    assert settled(prices, Reading(later="batch_1", complete=True), Call(api=api, later=True)).cost_nusd == 0


def test_a_retrieval_does_not_take_the_id_of_the_call_it_retrieves(prices: Prices) -> None:
    call = Call(api="openai.responses", free=True, retrieves="resp_1")
    assert settled(prices, Reading(upstream_call_id="resp_1", complete=True), call).upstream_call_id is None


def test_parts_that_another_model_made_are_priced_as_that_model(prices: Prices) -> None:
    reading = Reading(
        usage=USAGE + USAGE,
        parts=[Part(model="gpt-5-mini", usage=USAGE), Part(model="gpt-5", usage=USAGE)],
        model="gpt-5-mini",
        complete=True,
    )
    assert settled(prices, reading).cost_nusd == 450_000 + 2_250_000


def test_a_plan_is_billed_nothing_and_keeps_the_list_price(prices: Prices) -> None:
    record = settled(prices, Reading(usage=USAGE, complete=True), billing="plan")
    assert (record.cost_nusd, record.list_nusd) == (0, 450_000)
