"""OpenAI batches and assistant runs: work that is ordered now and whose usage is told by a later answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from .errors import UNNAMED_ERROR, error_code_in, name_of_error
from .openai_chat import DONE
from .openai_usage import usage_of
from .providers import provider_named
from .reading import Item, Reading
from .values import decode, json_bytes, listed, mapping, text

BATCH_ENDS = ("completed", "failed", "expired", "cancelled")
RUN_ENDS = frozenset({"completed", "incomplete", "failed", "cancelled", "expired", "requires_action"})
"""States of an assistant's run in which it stands still."""


class BatchReader:
    """Reads a batch object: when it is made, looked at or cancelled.

    Its own `usage` is a sum over its items and is not taken: the items are settled one by one from the file with their
    results, and counting both would bill the batch twice.
    """

    def __init__(self, call: Call) -> None:
        self.reading = Reading()
        self._retrieves = call.retrieves

    def event(self, name: str, data: bytes) -> None:
        """Batch objects are not streamed."""

    def answer(self, body: bytes) -> None:
        """A batch object, or an error."""
        document = mapping(decode(body))
        reading = self.reading
        reading.error = error_code_in(document)
        batch_id = text(document, "id")
        if batch_id is None:
            return
        reading.complete = True
        reading.upstream_call_id = batch_id
        reading.model = text(document, "model")
        if self._retrieves is None:
            reading.later = batch_id
        else:
            reading.outcome_of = self._retrieves
        names = ("output_file_id", "error_file_id", "output_file", "error_file")
        reading.files = [found for found in (text(document, name) for name in names) if found is not None]
        status = (text(document, "status") or "").lower()
        if status in BATCH_ENDS and not (text(document, "output_file_id") or text(document, "output_file")):
            # It ended without an answer that costs anything.
            reading.finish_reasons = ["failed" if status == "completed" else status]


class _ResultBody(msgspec.Struct):
    """What is read of one answer inside a batch; its text or vectors are skipped."""

    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _Result(msgspec.Struct):
    status_code: int | None = None
    body: _ResultBody | None = None


class _Line(msgspec.Struct):
    custom_id: str | None = None
    response: _Result | None = None
    error: Any = None


_line = msgspec.json.Decoder(_Line)


class ResultsReader:
    """Reads the file with a batch's results: one line, one item. Other files hold no such lines and give no items."""

    def __init__(self, call: Call, *, provider: str) -> None:
        self.reading = Reading()
        self._file_id = call.retrieves
        self._provider = provider_named(provider)

    def event(self, name: str, data: bytes) -> None:
        """One line."""
        self._take_line(data)

    def answer(self, body: bytes) -> None:
        """A file of one line, any other file in JSON, or an error."""
        if not self._take_line(body):
            self.reading.error = error_code_in(mapping(decode(body)))
        self.reading.complete = True

    def _take_line(self, data: bytes) -> bool:
        """The end of the bytes is the end of the file, so that each whole line may have been the last."""
        self.reading.complete = True
        try:
            line = _line.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        if not line.custom_id or (line.response is None and line.error is None):
            return False
        self.reading.items.append(self._item(line.custom_id, line))
        self.reading.outcome_of = self._file_id
        return True

    def _item(self, custom_id: str, line: _Line) -> Item:
        body = line.response.body if line.response is not None and line.response.body is not None else _ResultBody()
        error: str | None = None
        if isinstance(line.error, dict):
            error = name_of_error(line.error)
        elif line.response is not None and (line.response.status_code or 200) >= 400:
            error = name_of_error(body.error) if isinstance(body.error, dict) else UNNAMED_ERROR
        usage = usage_of(body.usage, self._provider) if body.usage is not None and error is None else None
        return Item(item_id=custom_id, usage=usage, model=body.model, upstream_call_id=body.id, error=error)


class RunReader:
    """Reads an assistant's run: streamed, or an object whose usage is null until the run stands still.

    The run's own usage is the sum over its steps, whose usage therefore is not taken.
    """

    def __init__(self, call: Call, *, provider: str) -> None:
        self.reading = Reading()
        self._retrieves = call.retrieves
        self._provider = provider_named(provider)

    def event(self, name: str, data: bytes) -> None:
        """One event of a streamed run."""
        if data.startswith(DONE):
            self.reading.complete = True
            return
        document = mapping(decode(data))
        if document.get("object") == "thread.run":
            self._take_run(document)
            self.reading.later = None
        elif document.get("object") == "thread.message.delta":
            for part in listed(mapping(document.get("delta")).get("content")):
                self.reading.seen_bytes += json_bytes(mapping(part).get("text"))
        elif name == "error" or "error" in document:
            self.reading.error = error_code_in(document) or name_of_error(document)

    def answer(self, body: bytes) -> None:
        """A run object, or an error."""
        document = mapping(decode(body))
        self.reading.error = error_code_in(document)
        if document.get("object") == "thread.run":
            self._take_run(document)
            self.reading.complete = True

    def _take_run(self, document: Mapping[str, Any]) -> None:
        reading = self.reading
        reading.upstream_call_id = text(document, "id")
        reading.model = text(document, "model")
        failure = document.get("last_error")
        if isinstance(failure, dict):
            reading.error = name_of_error(failure)
        status = text(document, "status")
        if status in RUN_ENDS:
            reading.finish_reasons = [status]
        if isinstance(document.get("usage"), dict):
            reading.usage = usage_of(document["usage"], self._provider)
        if self._retrieves is not None:
            reading.outcome_of = self._retrieves if reading.usage is not None else None
        elif reading.usage is None and status not in RUN_ENDS:
            reading.later = reading.upstream_call_id
