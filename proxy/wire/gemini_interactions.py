"""Gemini interactions: the stateful sibling of generateContent, with names, events and usage of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from .errors import name_of_error
from .gemini_usage import queries_made, read_interaction_usage, web_searches
from .reader import BodyInvalid
from .reading import Reading
from .values import (
    count,
    decode,
    inline_bytes,
    json_bytes,
    listed,
    mapping,
    output_limit,
    plain,
    short_name,
    text,
    text_bytes,
)

RUNNING = ("in_progress", "queued", "pending")
"""States of an interaction that is still to end. All others are ends."""


def read_interaction(call: Call, fields: Mapping[str, Any]) -> Call:
    """Completes the call that makes an interaction. An agent stands in the place of a model."""
    model = short_name(text(fields, "model") or text(fields, "agent"))
    if model is None:
        raise BodyInvalid(
            f"The body of `{call.route}` names no model and no agent; add `model` to it, such as `gemini-2.5-flash`."
        )
    config = mapping(fields.get("generation_config", fields.get("generationConfig")))
    call.model = model.removeprefix("models/")
    call.stream = plain(fields.get("stream")) is True
    call.later = plain(fields.get("background")) is True and not call.stream
    call.max_output_tokens = output_limit(config.get("max_output_tokens", config.get("maxOutputTokens")))
    call.service_tier = short_name(text(fields, "service_tier"))
    call.inline_bytes = inline_bytes(fields.get("input"))
    return call


class InteractionReader:
    """Reads an interaction: plain, as events, or fetched again. Of the usages it tells, the last one counts."""

    def __init__(self, call: Call) -> None:
        self.reading = Reading(outcome_of=call.retrieves)
        self._asked_model = call.model
        self._usage: dict[str, Any] = {}
        self._queries = 0

    def event(self, name: str, data: bytes) -> None:
        """One event. `done` with `[DONE]` follows the last, and tells nothing."""
        document = decode(data)
        if not isinstance(document, dict):
            return
        if "error" in document:
            self.reading.error = name_of_error(mapping(document.get("error")))
        step = mapping(document.get("delta") or document.get("step"))
        if step:
            self._see_step(step)
        self._usage.update(mapping(mapping(document.get("metadata")).get("usage")))
        self._take(mapping(document.get("interaction")))

    def answer(self, body: bytes) -> None:
        """A whole interaction, or an error."""
        document = mapping(decode(body))
        if not document:
            return
        if "error" in document:
            self.reading.error = name_of_error(mapping(document.get("error")))
        for step in listed(document.get("steps", document.get("outputs"))):
            self._see_step(mapping(step))
        self._take(document)
        self.reading.complete = True
        if self.reading.usage is None and self.reading.outcome_of is None and document.get("status") in RUNNING:
            self.reading.later = self.reading.upstream_call_id

    def _take(self, interaction: Mapping[str, Any]) -> None:
        reading = self.reading
        self._usage.update(mapping(interaction.get("usage")))
        reading.model = text(interaction, "model") or text(interaction, "agent") or reading.model
        reading.upstream_call_id = text(interaction, "id") or reading.upstream_call_id
        reading.service_tier = text(interaction, "service_tier") or reading.service_tier
        status = text(interaction, "status")
        if status is not None and status not in RUNNING:
            reading.finish_reasons = [status]
            reading.complete = True
        usage = read_interaction_usage(self._usage)
        if usage is not None:
            reading.hidden_reasoning = usage.reasoning > 0
            reading.usage = msgspec.structs.replace(usage, requests=self._requests())

    def _see_step(self, step: Mapping[str, Any]) -> None:
        """A step, or a piece of one: its text, its thoughts in short, its tool calls."""
        reading = self.reading
        reading.seen_bytes += text_bytes(step.get("text"))
        content = step.get("content", step.get("summary"))
        for piece in content if isinstance(content, list) else [content]:
            reading.seen_bytes += text_bytes(mapping(piece).get("text"))
        arguments = mapping(step.get("arguments"))
        if step.get("type") == "google_search_call":
            self._queries += queries_made(arguments.get("queries"))
        elif arguments:
            reading.seen_bytes += json_bytes(arguments)

    def _requests(self) -> dict[str, int]:
        """Searches as the usage counts them, else as the steps showed them."""
        counted = sum(
            count(mapping(entry), "count")
            for entry in listed(self._usage.get("grounding_tool_count"))
            if mapping(entry).get("type") == "google_search"
        )
        searches = web_searches(self.reading.model or self._asked_model, counted or self._queries)
        return {"web_search": searches} if searches else {}
