"""Anthropic usage: from the `usage` object of a message to our disjoint fields, and to parts by model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.usage import NO_USAGE, Usage
from .reading import Part
from .values import count, listed, mapping, text

COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
REQUESTS_SUFFIX = "_requests"


def read_usage(usage: Mapping[str, Any], model: str | None) -> tuple[Usage | None, list[Part]]:
    """The usage of a message and, where several models worked on it, the part of each.

    usage    the message's `usage` object; in streams that of `message_start` overlaid with that of `message_delta`
    model    the model that answered, to which everything belongs that names no other
    Gives (None, []) where nothing is counted. The parts add up to the usage.
    """
    if not any(name in usage for name in COUNTS):
        return None, []
    top = _one(usage)
    iterations = [entry for entry in listed(usage.get("iterations")) if isinstance(entry, dict)]
    by_model: dict[str | None, Usage] = {}
    for iteration in iterations:
        worker = text(iteration, "model") or model
        by_model[worker] = by_model.get(worker, NO_USAGE) + _one(iteration)
    if sum(part.tokens for part in by_model.values()) < top.tokens:
        # The top level leaves out compaction and advisors, so a list that tells less than it is not the whole list.
        return top, []
    # What the iterations do not tell apart (searches, thinking) belongs to the model that answered.
    own = by_model.pop(model, NO_USAGE)
    own = msgspec.structs.replace(
        own,
        requests=top.requests or own.requests,
        reasoning=min(own.output, max(own.reasoning, top.reasoning)),
    )
    parts = [Part(model=model, usage=own)]
    parts += [Part(model=name, usage=msgspec.structs.replace(part, requests={})) for name, part in by_model.items()]
    whole = NO_USAGE
    for part in parts:
        whole += part.usage
    return whole, parts if len(parts) > 1 else []


def _one(fields: Mapping[str, Any]) -> Usage:
    """One object of counts. Caches lie outside `input_tokens`; the total written to caches includes both lives."""
    split = mapping(fields.get("cache_creation"))
    written_5m, written_1h = count(split, "ephemeral_5m_input_tokens"), count(split, "ephemeral_1h_input_tokens")
    if fields.get("cache_creation_input_tokens") is not None:
        # The total is the truth: the split is missing in most deltas, and zero in some answers that wrote a cache.
        written = count(fields, "cache_creation_input_tokens")
        written_1h = min(written_1h, written)
        written_5m = written - written_1h
    output = count(fields, "output_tokens")
    thinking = count(mapping(fields.get("output_tokens_details")), "thinking_tokens")
    return Usage(
        input=count(fields, "input_tokens"),
        cached_input=count(fields, "cache_read_input_tokens"),
        cache_write=written_5m,
        cache_write_1h=written_1h,
        output=output,
        reasoning=min(thinking, output),
        requests=_requests(mapping(fields.get("server_tool_use"))),
    )


def _requests(server_tools: Mapping[str, Any]) -> dict[str, int]:
    """`{"web_search_requests": 2, "web_fetch_requests": 0}` is two of `web_search`."""
    counted = {
        name.removesuffix(REQUESTS_SUFFIX): count(server_tools, name)
        for name in server_tools
        if name.endswith(REQUESTS_SUFFIX)
    }
    return {name: number for name, number in counted.items() if number}
