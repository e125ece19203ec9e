"""Gemini batches: made by one call; shown by a later one with all answers, or with a file that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.call import Call
from .errors import name_of_error
from .gemini_generate import GenerateReader
from .reader import BodyInvalid
from .reading import Item, Reading
from .values import decode, inline_bytes, listed, mapping, output_limit, text

ENDS_WITHOUT_RESULTS = ("failed", "cancelled", "expired")
ID_NAMES = ("key", "custom_id")
"""Where the maker of a batch may have put an id of an entry. Without one, its place in the list is its id."""


def read_batch(call: Call, fields: Mapping[str, Any]) -> Call:
    """Completes the call that makes a batch: `choices` is how many requests it holds, where they are in the body."""
    batch = mapping(fields.get("batch"))
    config = mapping(batch.get("inputConfig", batch.get("input_config")))
    if not config:
        raise BodyInvalid(
            f"The body of `{call.route}` has no `batch.inputConfig`; put the requests or their file there."
        )
    requests = listed(mapping(config.get("requests")).get("requests"))
    limits = []
    for entry in requests:
        request = mapping(mapping(entry).get("request"))
        generation = mapping(request.get("generationConfig", request.get("generation_config")))
        limits.append(output_limit(generation.get("maxOutputTokens", generation.get("max_output_tokens"))))
    call.later = True
    call.choices = max(1, len(requests))
    call.max_output_tokens = max((limit for limit in limits if limit is not None), default=None)
    call.inline_bytes = inline_bytes(config)
    return call


class BatchReader:
    """Reads the operation that stands for a batch, and the lines of a file of results."""

    def __init__(self, call: Call) -> None:
        self.reading = Reading(outcome_of=call.retrieves)
        self._call = call
        self._is_file = call.route.endswith(":download")
        self._lines = 0

    def event(self, name: str, data: bytes) -> None:
        """One line of a file of results: `{"key": ..., "response": ...}`."""
        line = decode(data)
        if not isinstance(line, dict):
            return
        if "response" in line or "key" in line:
            self.reading.items.append(self._item(line, self._lines))
        elif "error" in line:
            self.reading.error = name_of_error(mapping(line.get("error")))
        self._lines += 1
        self.reading.complete = True

    def answer(self, body: bytes) -> None:
        """A whole operation, or all the lines of a file at once."""
        if self._is_file:
            for line in body.splitlines():
                self.event("", line)
            return
        document = decode(body)
        if not isinstance(document, dict):
            return
        reading = self.reading
        reading.complete = True
        metadata = mapping(document.get("metadata"))
        state = (text(metadata, "state") or text(document, "state") or "").rpartition("_")[2].lower()
        if state in ENDS_WITHOUT_RESULTS:
            reading.finish_reasons = [state]
        if "error" in document:
            reading.error = name_of_error(mapping(document.get("error")))
            return
        reading.upstream_call_id = text(document, "name")
        model = text(metadata, "model")
        reading.model = model.removeprefix("models/") if model else None
        if self._call.later:
            reading.later = reading.upstream_call_id
            return
        output = mapping(document.get("response")) or mapping(metadata.get("output"))
        responses = mapping(output.get("inlinedResponses")).get("inlinedResponses")
        for position, entry in enumerate(listed(responses)):
            reading.items.append(self._item(mapping(entry), position))
        file = text(output, "responsesFile")
        if file is not None:
            reading.files.append(file)

    def _item(self, entry: Mapping[str, Any], position: int) -> Item:
        ids = (text(place, name) for place in (entry, mapping(entry.get("metadata"))) for name in ID_NAMES)
        item_id = next(filter(None, ids), str(position))
        response = GenerateReader(self._call)
        response.take(mapping(entry.get("response")))
        told = response.reading
        error = told.error
        if error is None and ("error" in entry or not entry.get("response")):
            error = name_of_error(mapping(entry.get("error") or entry.get("status")))
        return Item(
            item_id=item_id,
            usage=told.usage,
            model=told.model or self.reading.model,
            upstream_call_id=told.upstream_call_id,
            error=error,
        )
