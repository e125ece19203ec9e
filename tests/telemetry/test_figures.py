from __future__ import annotations

from proxy.core.usage import Usage
from proxy.telemetry.figures import figures_of
from tests.support.telemetry_records import FULL, record


def test_input_includes_the_cache_and_every_modality() -> None:
    usage = Usage(input=1, cached_input=2, cache_write=4, cache_write_1h=8, audio_input=16, image_input=32)
    figures = figures_of(record(usage=usage))
    assert (figures.input_tokens, figures.output_tokens, figures.cache_write_tokens) == (63, 0, 12)


def test_reasoning_is_not_added_to_the_output_that_it_is_a_part_of() -> None:
    assert figures_of(record(usage=Usage(output=10, reasoning=4))).output_tokens == 10


def test_input_and_output_tokens_together_are_all_tokens() -> None:
    figures = figures_of(FULL)
    assert figures.input_tokens + figures.output_tokens == FULL.usage.tokens


def test_costs_by_the_piece_are_in_the_total_alone() -> None:
    figures = figures_of(record(cost_nusd=30, cost_parts_nusd={"input": 10, "output": 15, "requests.web_search": 5}))
    assert (figures.cost_usd, figures.input_cost_usd, figures.output_cost_usd) == (30e-9, 10e-9, 15e-9)


def test_an_unpriced_call_has_no_cost() -> None:
    assert figures_of(record(cost_nusd=None)).cost_usd is None
