"""Figures: what the conventions want to know of a record's usage and cost, worked out once for all profiles.

This is the edge of the house where money becomes a float, because the attributes are defined as doubles of USD.
Each float is one division of an exact integer of nano-USD, never a sum of floats.
"""

from __future__ import annotations

import msgspec

from ..core.money import NUSD_PER_USD
from ..core.record import Record

INPUT_FIELDS = ("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")
OUTPUT_FIELDS = ("output", "audio_output", "image_output")
COST_OUTPUT_FIELDS = (*OUTPUT_FIELDS, "reasoning")
"""A price book may price reasoning apart from output, although its tokens are a part of the output tokens."""


class Figures(msgspec.Struct, frozen=True):
    """Tokens and cost of one call as the conventions count them.

    `input_tokens` includes what was read from and written to a cache, audio and images; `output_tokens` includes
    reasoning. `cost_usd` is None where the call has no price; the two parts do not add up to it where a call was
    also billed by the piece or the second.
    """

    known: bool
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cost_usd: float | None
    input_cost_usd: float
    output_cost_usd: float


def usd(amount_nusd: int) -> float:
    """Nano-USD -> USD as the nearest double."""
    return amount_nusd / NUSD_PER_USD


def figures_of(record: Record) -> Figures:
    """The figures of a record. `known` is False where nothing is known of its usage."""
    usage, parts = record.usage, record.cost_parts_nusd
    return Figures(
        known=record.usage_source != "none",
        input_tokens=usage.input
        + usage.cached_input
        + usage.cache_write
        + usage.cache_write_1h
        + usage.audio_input
        + usage.image_input,
        output_tokens=usage.output + usage.audio_output + usage.image_output,
        cache_write_tokens=usage.cache_write + usage.cache_write_1h,
        cost_usd=None if record.cost_nusd is None else usd(record.cost_nusd),
        input_cost_usd=usd(sum(parts.get(field, 0) for field in INPUT_FIELDS)),
        output_cost_usd=usd(sum(parts.get(field, 0) for field in COST_OUTPUT_FIELDS)),
    )
