"""Gemini usage: from Google's counts, in the names of either API, to our disjoint fields.

Google counts thoughts beside the candidates and the results of tools beside the prompt, and what came from a cache
within the prompt. The details by modality split a count and never add to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.usage import Usage
from .values import count, listed, mapping, text, whole

MODALITIES_BY_NUMBER = {1: "TEXT", 2: "IMAGE", 3: "VIDEO", 4: "AUDIO", 5: "DOCUMENT"}
TRAFFIC_TYPES_BY_NUMBER = {1: "ON_DEMAND", 2: "PROVISIONED_THROUGHPUT"}
"""With `$alt=json;enum-encoding=int` Vertex writes numbers for the names."""

_BILLED_BY_PROMPT = re.compile(r"gemini-[12](?:[.-]|$)")


class Split(msgspec.Struct):
    """One count, split by what is priced apart. Video and documents have no price of their own and stay in `text`."""

    text: int = 0
    audio: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        return self.text + self.audio + self.image


def read_generate_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Usage from a `usageMetadata` object; None where it counts nothing (the first chunks at Vertex)."""
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
    if not any(name in usage for name in names):
        return None
    return build_usage(
        # Embeddings spell the details `promptTokenDetails`.
        prompt=_split(
            count(usage, "promptTokenCount"), usage.get("promptTokensDetails", usage.get("promptTokenDetails"))
        ),
        cached=count(usage, "cachedContentTokenCount"),
        cached_details=usage.get("cacheTokensDetails"),
        tools=_split(count(usage, "toolUsePromptTokenCount"), usage.get("toolUsePromptTokensDetails")),
        output=_split(count(usage, "candidatesTokenCount"), usage.get("candidatesTokensDetails")),
        thoughts=count(usage, "thoughtsTokenCount"),
    )


def read_interaction_usage(usage: Mapping[str, Any]) -> Usage | None:
    """The same from the `usage` object of an interaction."""
    names = ("total_input_tokens", "total_output_tokens", "total_thought_tokens", "total_tool_use_tokens")
    if not any(name in usage for name in names):
        return None
    # The first months of the interface called thoughts `reasoning`.
    thoughts = "total_thought_tokens" if "total_thought_tokens" in usage else "total_reasoning_tokens"
    return build_usage(
        prompt=_split(count(usage, "total_input_tokens"), usage.get("input_tokens_by_modality")),
        cached=count(usage, "total_cached_tokens"),
        cached_details=usage.get("cached_tokens_by_modality"),
        tools=_split(count(usage, "total_tool_use_tokens"), usage.get("tool_use_tokens_by_modality")),
        output=_split(count(usage, "total_output_tokens"), usage.get("output_tokens_by_modality")),
        thoughts=count(usage, thoughts),
    )


def build_usage(
    *, prompt: Split, cached: int, cached_details: Any, tools: Split, output: Split, thoughts: int
) -> Usage:
    """Each token into one field; together they are prompt, tools, output and thoughts (or the cache, if larger)."""
    _take_cached(prompt, cached, cached_details)
    return Usage(
        input=prompt.text + tools.text,
        audio_input=prompt.audio + tools.audio,
        image_input=prompt.image + tools.image,
        cached_input=cached,
        output=output.text + thoughts,
        reasoning=thoughts,
        audio_output=output.audio,
        image_output=output.image,
    )


def _split(total: int, details: Any) -> Split:
    """`[{"modality": "AUDIO", "tokenCount": 5}]` apart; interactions write `audio` and `tokens`."""
    audio = image = 0
    for entry in listed(details):
        entry = mapping(entry)
        modality = entry.get("modality")
        if modality == "TEXT":
            continue
        number = whole(modality)
        name = modality if number is None else MODALITIES_BY_NUMBER.get(number)
        tokens = count(entry, "tokenCount") or count(entry, "tokens")
        if name in ("AUDIO", "audio"):
            audio += tokens
        elif name in ("IMAGE", "image"):
            image += tokens
    audio = min(audio, total)
    image = min(image, total - audio)
    return Split(text=total - audio - image, audio=audio, image=image)


def _take_cached(prompt: Split, cached: int, details: Any) -> None:
    """Takes what came from the cache out of the prompt: from the modality it is told to be of, else from text first.

    The cache may be told to be larger than the prompt; then nothing of the prompt is left, and never less.
    """
    if not cached:
        return
    known = _split(cached, details)
    prompt_before = prompt.total
    prompt.audio -= min(prompt.audio, known.audio)
    prompt.image -= min(prompt.image, known.image)
    left = cached - (prompt_before - prompt.total)
    for modality in ("text", "image", "audio"):
        taken = min(left, getattr(prompt, modality))
        setattr(prompt, modality, getattr(prompt, modality) - taken)
        left -= taken


def service_tier(usage: Mapping[str, Any]) -> str | None:
    """The tier that answered: `serviceTier` at the Gemini API, `trafficType` at Vertex."""
    traffic = usage.get("trafficType")
    number = whole(traffic)
    if number is not None:
        traffic = TRAFFIC_TYPES_BY_NUMBER.get(number)
    return text(usage, "serviceTier") or (traffic if isinstance(traffic, str) else None)


def web_searches(model: str | None, queries: int) -> int:
    """How many searches are billed for so many queries: each; by Gemini 2 and before, one for a prompt."""
    return min(queries, 1) if _BILLED_BY_PROMPT.match(model or "") else queries


def queries_made(queries: Any) -> int:
    """How many of a list of search queries are not empty; empty ones are not billed."""
    return sum(1 for query in listed(queries) if isinstance(query, str) and query)
