"""Reads what Gemini's model methods answer: generated content plain, as events or as an array; embeddings; images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from ..core.usage import Usage
from .errors import name_of_error
from .gemini_usage import queries_made, read_generate_usage, service_tier, web_searches
from .reading import Reading
from .values import count, decode, json_bytes, listed, mapping, text, text_bytes, whole

_THINKS_UNASKED = re.compile(r"gemini-(?:2\.5|[3-9])")
"""Models that think unless told not to, and in the dark; the first chunk tells whether this one did."""
FINISH_REASONS_BY_NUMBER = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION"}
"""The numbers on which both APIs agree, for answers with `enum-encoding=int`."""


class _Statistics(msgspec.Struct):
    statistics: Any = None


class _Prediction(msgspec.Struct):
    embeddings: _Statistics | None = None


class _Embedded(msgspec.Struct, rename="camel"):
    """What matters of an answer with embeddings. Leaving the vectors undecoded saves most of its time."""

    usage_metadata: Any = None
    error: Any = None
    predictions: list[_Prediction] = []


_EMBEDDED = msgspec.json.Decoder(_Embedded)


class GenerateReader:
    """Reads one answer. In streams the usage is a running total in every chunk, and may go down: the last one counts.

    A field that a later chunk leaves out keeps its value, since some chunks tell less than the one before.
    """

    def __init__(self, call: Call) -> None:
        thinks = call.stream and _THINKS_UNASKED.match(call.model or "") is not None
        self.reading = Reading(region=call.region, hidden_reasoning=thinks)
        self._asked_model = call.model
        self._embeds = call.api == "gemini.embed"
        self._usage: dict[str, Any] = {}
        self._finished: dict[int, str] = {}
        self._queries = 0

    def event(self, name: str, data: bytes) -> None:
        """One chunk, from an SSE event or an element of the array."""
        document = decode(data)
        if isinstance(document, dict):
            self.take(document)

    def answer(self, body: bytes) -> None:
        """A whole answer. Errors to calls for an array come as an array, too."""
        document = _decode_embedded(body) if self._embeds else decode(body)
        for element in document if isinstance(document, list) else [document]:
            if isinstance(element, dict):
                self.take(element)
                self.reading.complete = True

    def take(self, document: Mapping[str, Any]) -> None:
        """One decoded GenerateContentResponse, or what stands in its place."""
        reading = self.reading
        if "error" in document:
            reading.error = name_of_error(mapping(document.get("error")))
        model = text(document, "modelVersion")
        reading.model = model.removeprefix("models/") if model else reading.model
        reading.upstream_call_id = text(document, "responseId") or reading.upstream_call_id
        for position, candidate in enumerate(listed(document.get("candidates"))):
            self._take_candidate(position, mapping(candidate))
        blocked = text(mapping(document.get("promptFeedback")), "blockReason")
        if blocked is not None:
            self._finished[0] = blocked
        if self._finished:
            reading.finish_reasons = [self._finished[index] for index in sorted(self._finished)]
            reading.complete = True
        self._count(mapping(document.get("usageMetadata")))
        if "predictions" in document:
            self._count_predictions(listed(document.get("predictions")))

    def _take_candidate(self, position: int, candidate: Mapping[str, Any]) -> None:
        for part in listed(mapping(candidate.get("content")).get("parts")):
            part = mapping(part)
            self.reading.seen_bytes += text_bytes(part.get("text"))
            arguments = mapping(part.get("functionCall")).get("args")
            if arguments:
                self.reading.seen_bytes += json_bytes(arguments)
        reason = candidate.get("finishReason")
        number = whole(reason)
        if number:
            reason = FINISH_REASONS_BY_NUMBER.get(number, str(number))
        if isinstance(reason, str) and reason:
            index = whole(candidate.get("index"))
            self._finished[position if index is None else index] = reason
        grounding = mapping(candidate.get("groundingMetadata"))
        self._queries = max(self._queries, queries_made(grounding.get("webSearchQueries")))

    def _count(self, usage: Mapping[str, Any]) -> None:
        self._usage.update((name, value) for name, value in usage.items() if value is not None)
        counted = read_generate_usage(self._usage)
        reading = self.reading
        reading.service_tier = service_tier(self._usage) or reading.service_tier
        if counted is None:
            return
        reading.hidden_reasoning = counted.reasoning > 0
        searches = web_searches(reading.model or self._asked_model, self._queries)
        reading.usage = msgspec.structs.replace(counted, requests={"web_search": searches}) if searches else counted

    def _count_predictions(self, predictions: list[Any]) -> None:
        """Vertex's `predict`: embeddings tell the tokens of each text; images are billed by the piece."""
        tokens = images = 0
        counted = False
        for prediction in predictions:
            prediction = mapping(prediction)
            statistics = mapping(mapping(prediction.get("embeddings")).get("statistics"))
            counted = counted or "token_count" in statistics
            tokens += count(statistics, "token_count")
            images += "bytesBase64Encoded" in prediction or "gcsUri" in prediction
        if counted or images:
            self.reading.usage = Usage(input=tokens, images=images)


def _decode_embedded(body: bytes) -> Any:
    try:
        embedded = _EMBEDDED.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return decode(body)
    document: dict[str, Any] = {"usageMetadata": embedded.usage_metadata}
    if embedded.error is not None:
        document["error"] = embedded.error
    if embedded.predictions:
        document["predictions"] = [
            {"embeddings": {"statistics": prediction.embeddings.statistics if prediction.embeddings else None}}
            for prediction in embedded.predictions
        ]
    return document
