"""Expected: what a call is taken to use and cost before it is made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import expected
from proxy.core.call import Call
from proxy.core.expected import (
    INLINE_TOKENS_MIN,
    INPUT_TOKENS_BESIDE,
    SAMPLES_KEPT,
    SAMPLES_MIN,
    Estimate,
    Learned,
    Subject,
    foresee,
    subject_of,
)
from proxy.core.money import NUSD_MAX
from proxy.core.price_tables import ModelPrices, Price, ProviderEntry, ProviderTable, pack_table
from proxy.core.prices import PriceBook, Prices
from proxy.core.usage import Usage
from tests.support.budgets import NOON_MS, OPENAI, call, caller


def book() -> PriceBook:
    rates = {"input": (1_000_000,), "cache_write": (1_250_000,), "output": (4_000_000,), "audio_input": (9_000_000,)}
    models = tuple(ModelPrices(name, (Price(dict(rates)),)) for name in ("gpt-5-mini", "gpt-5"))
    tiered = ModelPrices("tiered", (Price({"input": (10, 200_000, 90), "output": (0,)}),))
    flex = ModelPrices("tier", (Price({"input": (10,)}),), (Price({"input": (5,)}, when={"service_tier": "flex"}),))
    table = ProviderTable((*models, tiered, flex), {"gpt-5-mini": 0, "gpt-5": 1, "tiered": 2, "tier": 3}, ())
    return PriceBook("test", [ProviderEntry("openai", pack_table(table))])


PRICES = Prices(book())
SUBJECT = Subject(org="acme", user="ada", task="T-1", agent="codex", provider="openai", model="gpt-5-mini")


def foreseen(
    what: Call, learned: Learned | None = None, subject: Subject = SUBJECT, *, worst: bool = False, **fields: Any
) -> Estimate:
    return foresee(
        what,
        subject,
        learned=learned or Learned(),
        prices=fields.get("prices", PRICES),
        upstream=fields.get("upstream", OPENAI),
        max_output_tokens=32_000,
        at_ms=NOON_MS,
        worst=worst,
    )


def taught(*outputs: int, subject: Subject = SUBJECT, what: Call | None = None, read: int = 1_000) -> Learned:
    learned = Learned()
    for output in outputs:
        learned.learn(subject, what or call(), Usage(input=read, output=output), answer_s=4.0)
    return learned


# -- input ------------------------------------------------------------------------------------------------------------


def test_a_first_call_reads_half_its_bytes() -> None:
    estimate = foreseen(call(body_bytes=4_000))
    assert (estimate.usage.input, estimate.input_by) == (2_000, "bytes")


def test_the_next_call_of_a_task_reads_what_the_last_did_and_what_was_added() -> None:
    learned = taught(10, what=call(body_bytes=4_000), read=1_000)
    estimate = foreseen(call(body_bytes=5_400), learned)
    assert (estimate.usage.input, estimate.input_by) == (1_020 + 1_000, "task")


def test_cached_input_is_input_that_was_read() -> None:
    learned = Learned()
    usage = Usage(input=10, cached_input=900, cache_write=50, cache_write_1h=40, output=5)
    learned.learn(SUBJECT, call(body_bytes=4_000), usage, answer_s=1)
    assert foreseen(call(body_bytes=4_000), learned).usage.input == 1_020


@pytest.mark.parametrize("other", [{"task": "T-2"}, {"user": "bob"}, {"org": "x"}, {"model": "gpt-5"}])
def test_another_conversation_tells_nothing(other: dict[str, str]) -> None:
    subject = msgspec.structs.replace(SUBJECT, **other)
    learned = taught(10, what=call(body_bytes=4_000))
    assert foreseen(call(body_bytes=4_000), learned, subject).input_by == "bytes"


def test_a_shorter_body_is_another_conversation() -> None:
    learned = taught(10, what=call(body_bytes=100_000), read=30_000)
    assert foreseen(call(body_bytes=4_000), learned).usage.input == 2_000


def test_without_a_task_the_session_tells_and_then_the_user() -> None:
    session = msgspec.structs.replace(SUBJECT, task=None, session="s1")
    learned = taught(10, subject=session, what=call(body_bytes=4_000))
    assert foreseen(call(body_bytes=4_000), learned, session).input_by == "task"
    assert foreseen(call(body_bytes=4_000), learned, msgspec.structs.replace(session, session="s2")).input_by == "bytes"


def test_a_small_image_costs_what_images_cost() -> None:
    estimate = foreseen(call(body_bytes=9_000, inline_bytes=8_000))
    assert estimate.usage.input == 500 + INLINE_TOKENS_MIN


# -- output -----------------------------------------------------------------------------------------------------------


def test_nothing_learned_max_tokens_tells_else_the_policy() -> None:
    assert (foreseen(call(max_output_tokens=700)).usage.output, foreseen(call()).usage.output) == (700, 32_000)
    assert (foreseen(call(max_output_tokens=700)).output_by, foreseen(call()).output_by) == ("max_tokens", "default")


def test_a_high_quantile_of_what_calls_like_it_made() -> None:
    learned = taught(*([100] * 37), 200, 5_000, 5_000)
    assert foreseen(call(), learned).usage.output == 200, "19 of 20 of the calls made no more"
    assert foreseen(call(max_output_tokens=150), learned).usage.output == 150


def test_the_quantile_falls_back_from_task_to_agent_to_model() -> None:
    learned = taught(*([300] * SAMPLES_MIN))
    by = [
        foreseen(call(), learned, msgspec.structs.replace(SUBJECT, **other)).output_by
        for other in ({}, {"task": "T-2"}, {"agent": "other"}, {"org": "other"}, {"model": "gpt-5"})
    ]
    assert by == ["task", "agent", "model", "model", "default"]


def test_a_few_calls_say_nothing_of_a_quantile() -> None:
    assert foreseen(call(), taught(*([300] * (SAMPLES_MIN - 1)))).output_by == "default"


def test_old_calls_are_forgotten() -> None:
    learned = taught(*([9_000] * 50), *([100] * SAMPLES_KEPT))
    assert foreseen(call(), learned).usage.output == 100


def test_each_of_several_answers_is_counted() -> None:
    learned = taught(*([600] * SAMPLES_MIN), what=call(choices=3))
    assert foreseen(call(choices=2), learned).usage.output == 400


def test_embeddings_have_no_output() -> None:
    estimate = foreseen(call(api="openai.embeddings"), worst=True)
    assert (estimate.usage.output, estimate.output_by, estimate.limit_missing) == (0, "none", False)
    assert estimate.worst_tokens == 4_000 + INPUT_TOKENS_BESIDE


@given(st.lists(st.integers(min_value=1, max_value=10**6), min_size=SAMPLES_MIN, max_size=SAMPLES_KEPT))
def test_at_most_a_twentieth_of_what_was_learned_made_more(outputs: list[int]) -> None:
    quantile = foreseen(call(), taught(*outputs)).usage.output
    assert quantile in outputs
    assert sum(output > quantile for output in outputs) * 20 <= len(outputs)


def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "REMEMBERED_MAX", 3)
    learned = Learned()
    for place in range(10):
        subject = msgspec.structs.replace(SUBJECT, task=f"T-{place}")
        learned.learn(subject, call(), Usage(input=5, output=5), answer_s=1)
    assert foreseen(call(), learned, msgspec.structs.replace(SUBJECT, task="T-9")).input_by == "task"
    assert foreseen(call(), learned, msgspec.structs.replace(SUBJECT, task="T-0")).input_by == "bytes"


# -- money and bounds -------------------------------------------------------------------------------------------------


def test_the_cost_is_that_of_the_expected_usage() -> None:
    estimate = foreseen(call(max_output_tokens=100))
    assert estimate.expected_nusd == 2_000 * 1_000 + 100 * 4_000
    assert estimate.expected_tokens == 2_100
    assert estimate.worst_nusd == 0, "nobody asked for it"


def test_the_worst_case_is_a_token_for_each_byte_in_the_dearest_field_and_all_of_max_tokens() -> None:
    estimate = foreseen(call(max_output_tokens=100, choices=2), worst=True)
    read = 4_000 + INPUT_TOKENS_BESIDE
    assert estimate.worst_nusd == read * 1_250 + 200 * 4_000
    assert estimate.worst_tokens == read + 200
    assert not estimate.limit_missing


def test_a_call_without_a_limit_is_to_be_given_one() -> None:
    estimate = foreseen(call(), worst=True)
    assert (estimate.limit_missing, estimate.output_tokens) == (True, 32_000)
    assert estimate.worst_tokens == 4_000 + INPUT_TOKENS_BESIDE + 32_000


def test_inline_data_may_be_dearer_than_text() -> None:
    estimate = foreseen(call(body_bytes=104_000, inline_bytes=100_000, max_output_tokens=0), worst=True)
    assert estimate.worst_nusd == (104_000 + INPUT_TOKENS_BESIDE) * 9_000


def test_tiers_count() -> None:
    subject = msgspec.structs.replace(SUBJECT, model="tiered")
    large = call(model="tiered", body_bytes=600_000, max_output_tokens=0)
    assert foreseen(large, subject=subject).expected_nusd == 300_000 * 90 // 1000
    flex = call(model="tier", service_tier="flex", max_output_tokens=0, body_bytes=400_000)
    assert foreseen(flex).expected_nusd == 200_000 * 5 // 1000


def test_a_plan_costs_nothing() -> None:
    upstream = msgspec.structs.replace(OPENAI, billing="plan")
    assert foreseen(call(), upstream=upstream, worst=True).expected_nusd == 0


def test_free_calls_hold_nothing() -> None:
    estimate = foreseen(call(free=True), worst=True)
    assert (estimate.expected_nusd, estimate.worst_tokens, estimate.unbounded) == (0, 0, ())


def test_absurd_limits_stay_within_what_the_store_counts() -> None:
    estimate = foreseen(call(max_output_tokens=10**12, choices=10**6), worst=True)
    assert estimate.expected_nusd == estimate.worst_nusd == NUSD_MAX
    assert estimate.worst_tokens == NUSD_MAX


def test_unbounded_calls_are_marked_and_their_tools_fees_expected() -> None:
    what = call(unbounded=("web_search",), tool_fees={"web_search": 2, "code_interpreter": 0})
    estimate = foreseen(what)
    assert estimate.unbounded == ("web_search",)
    assert estimate.usage.requests == {"web_search": 2, "code_interpreter": expected.TOOL_USES_EXPECTED}
    assert estimate.explained()["unbounded"] == ["web_search"]


@pytest.mark.parametrize("api", ["unknown", "openai.images", "openai.audio", "openai.realtime", "openai.batches"])
def test_what_is_not_counted_in_tokens_has_no_bound(api: str) -> None:
    assert "not_in_tokens" in foreseen(call(api=api)).unbounded


def test_an_estimate_explains_itself() -> None:
    learned = taught(*([300] * SAMPLES_MIN))
    assert foreseen(call(max_output_tokens=1_000), learned, worst=True).explained() == {
        "input": 1_020,
        "input_by": "task",
        "output": 300,
        "output_by": "task",
        "expected_nusd": 1_020 * 1_000 + 300 * 4_000,
        "worst_nusd": (4_000 + INPUT_TOKENS_BESIDE) * 1_250 + 1_000 * 4_000,
        "worst_tokens": 4_000 + INPUT_TOKENS_BESIDE + 1_000,
    }


@given(
    st.integers(min_value=0, max_value=10**6),
    st.integers(min_value=0, max_value=10**6),
    st.one_of(st.none(), st.integers(min_value=0, max_value=10**6)),
    st.lists(st.integers(min_value=0, max_value=10**5), max_size=8),
)
def test_a_first_call_is_never_expected_to_pass_its_bound(
    text_bytes: int, inline_bytes: int, limit: int | None, outputs: list[int]
) -> None:
    what = call(body_bytes=text_bytes + inline_bytes, inline_bytes=inline_bytes, max_output_tokens=limit)
    other = msgspec.structs.replace(SUBJECT, task="other")
    estimate = foreseen(what, taught(*outputs, subject=other), worst=True)
    if limit is not None or estimate.output_by == "default":
        assert estimate.expected_nusd <= estimate.worst_nusd
        assert estimate.expected_tokens <= estimate.worst_tokens


def test_calls_are_alike_by_what_caller_and_record_say_alike() -> None:
    who = caller(task="T-1", agent="codex", session="s")
    subject = subject_of(who, "openai", "gpt-5-mini")
    assert subject == msgspec.structs.replace(SUBJECT, session="s")


def test_how_long_calls_run_is_learned() -> None:
    assert foreseen(call()).run_s == expected.RUN_S
    assert foreseen(call(), taught(10, 10, 10)).run_s == pytest.approx(4.0)
