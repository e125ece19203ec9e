"""OpenAI chat: answers of chat completions and of the older completions, plain and streamed, from all who speak it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ..core.call import Call
from .errors import error_code_in, name_of_error
from .openai_usage import provider_cost, usage_of, usual_usage
from .providers import provider_named
from .reading import Reading
from .values import decode, json_bytes, listed, mapping, text, text_bytes

DONE = b"[DONE]"

MODELS_REMEMBERED = 256
"""Names that were looked at. Callers choose them, so the memory is bounded."""

_NOTHING = msgspec.Raw(b"null")

_REASONS_UNSEEN = re.compile(
    r"(?:^|[/.])(?:o[134](?![a-z])|gpt-5(?!.*chat)|codex|grok-4(?!.*non-reasoning)|gemini-(?:2\.5|3))"
)
"""Models that reason and do not show it, or show a summary at most."""

_SEARCHES_ALWAYS = re.compile(r"search-preview|search-api")
"""Chat models that pay for one web search in each call, which no usage shows."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    index: int | None = None
    usage: msgspec.Raw = _NOTHING


class _Chunk(msgspec.Struct):
    """An answer, or one event of a stream, as far as it is read. Whatever has another shape is read field by field
    instead."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING
    x_groq: msgspec.Raw = _NOTHING


_chunk = msgspec.json.Decoder(_Chunk)


class ChatReader:
    """Reads one answer. The last usage counts: some providers send running totals with every chunk."""

    def __init__(self, call: Call, *, provider: str) -> None:
        self.reading = Reading(hidden_reasoning=reasons_unseen(call.model))
        self._provider = provider_named(provider)
        self._finish: dict[int, str] = {}
        self._searches = searches_always(call.model or "")

    def event(self, name: str, data: bytes) -> None:
        """One chunk, or `[DONE]`."""
        if data.startswith(DONE):
            self.reading.complete = True
            return
        self._read(data)

    def answer(self, body: bytes) -> None:
        """A whole plain answer."""
        if self._read(body):
            self.reading.complete = True

    def _read(self, data: bytes) -> bool:
        """A chunk or an answer; False where it is no JSON object."""
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._read_loosely(data)
        reading = self.reading
        if chunk.model and chunk.model != reading.model:
            self._take_model(chunk.model)
        if chunk.id and reading.upstream_call_id is None:
            reading.upstream_call_id = chunk.id
        if chunk.service_tier and chunk.service_tier != "auto":
            reading.service_tier = chunk.service_tier
        for position, choice in enumerate(chunk.choices or ()):
            delta = choice.delta or choice.message
            if delta is not None:
                self._take_delta(delta)
            if choice.text:
                reading.seen_bytes += text_bytes(choice.text)
            if choice.finish_reason:
                self._take_finish(position if choice.index is None else choice.index, choice.finish_reason)
            if choice.usage is not _NOTHING and choice.usage != _NOTHING and chunk.usage is _NOTHING:
                self._take_usage(bytes(choice.usage))  # Moonshot's place for it, where it was not asked for
        if chunk.x_groq is not _NOTHING:
            self._take_x_groq(bytes(chunk.x_groq))
        if chunk.usage is not _NOTHING and chunk.usage != _NOTHING:
            self._take_usage(bytes(chunk.usage))
            # A chunk of its own for the usage is the last that matters; running totals come beside choices.
            reading.complete = reading.complete or (not chunk.choices and reading.usage is not None)
        if chunk.choices is None or chunk.error is not _NOTHING:
            document = mapping(decode(data))
            self._take_error(document)
            # Writer's completions have their text here, and nothing else.
            reading.seen_bytes += text_bytes(document.get("value"))
        return True

    def _read_loosely(self, data: bytes) -> bool:
        """What has an unusual shape (content in parts, an error as text), field by field."""
        document = decode(data)
        if not isinstance(document, dict):
            return False
        self._read_document(document, data)
        return True

    def _read_document(self, document: Mapping[str, Any], data: bytes) -> None:
        if model := text(document, "model"):
            self._take_model(model)
        self.reading.upstream_call_id = self.reading.upstream_call_id or text(document, "id")
        tier = text(document, "service_tier")
        if tier and tier != "auto":
            self.reading.service_tier = tier
        for position, choice in enumerate(listed(document.get("choices"))):
            fields = mapping(choice)
            message = mapping(fields.get("delta") or fields.get("message"))
            self.reading.seen_bytes += _generated_bytes(message) + text_bytes(fields.get("text"))
            if text(message, "reasoning_content") or text(message, "reasoning"):
                self.reading.hidden_reasoning = False
            if reason := text(fields, "finish_reason"):
                index = fields.get("index")
                self._take_finish(index if isinstance(index, int) else position, reason)
        if isinstance(document.get("x_groq"), dict):
            self._take_x_groq(msgspec.json.encode(document["x_groq"]))
        if document.get("usage"):
            self._take_usage(raw_usage(data))
        if document.get("error") or "choices" not in document:
            self._take_error(document)

    def _take_delta(self, delta: _Delta) -> None:
        reading = self.reading
        content = delta.content
        if content:
            reading.seen_bytes += len(content) if content.isascii() else text_bytes(content)
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            reading.seen_bytes += text_bytes(reasoning)
            reading.hidden_reasoning = False
        if delta.refusal:
            reading.seen_bytes += text_bytes(delta.refusal)
        for call in delta.tool_calls or ():
            if call.function is not None:
                reading.seen_bytes += text_bytes(call.function.name) + text_bytes(call.function.arguments)

    def _take_model(self, model: str) -> None:
        self.reading.model = model
        if reasons_unseen(model) and not self.reading.seen_bytes:
            self.reading.hidden_reasoning = True
        self._searches = self._searches or searches_always(model)

    def _take_finish(self, index: int, reason: str) -> None:
        self._finish[index] = reason
        self.reading.finish_reasons = [self._finish[index] for index in sorted(self._finish)]
        # Some end without `[DONE]`. With the usage known nothing that matters can follow.
        self.reading.complete = self.reading.complete or self.reading.usage is not None

    def _take_usage(self, raw: bytes) -> None:
        usage = usual_usage(raw)
        if usage is None:
            reported = mapping(decode(raw))
            usage = usage_of(reported, self._provider)
            if usage is None:
                return
            self.reading.provider_cost_usd = provider_cost(raw) or self.reading.provider_cost_usd
            self.reading.service_tier = text(reported, "service_tier") or self.reading.service_tier
        if self._searches and not usage.requests:
            usage = msgspec.structs.replace(usage, requests={"web_search": 1})
        self.reading.usage = usage
        self.reading.complete = self.reading.complete or bool(self._finish)

    def _take_x_groq(self, raw: bytes) -> None:
        """Groq's own corner of a chunk: the usage of older answers, and errors."""
        fields = mapping(decode(raw))
        if isinstance(fields.get("usage"), dict) and self.reading.usage is None:
            self._take_usage(msgspec.json.encode(fields["usage"]))
        if fields.get("error"):
            self.reading.error = error_code_in(fields)

    def _take_error(self, document: Mapping[str, Any]) -> None:
        error = error_code_in(document)
        if error is None and document.get("object") == "error":
            error = name_of_error(document)
        if error is not None:
            self.reading.error = error
            self.reading.complete = True


@lru_cache(maxsize=MODELS_REMEMBERED)
def reasons_unseen(model: str | None) -> bool:
    """Whether a model of this name reasons without showing all of it."""
    return model is not None and _REASONS_UNSEEN.search(model.lower()) is not None


@lru_cache(maxsize=MODELS_REMEMBERED)
def searches_always(model: str) -> bool:
    """Whether each call of a model of this name pays for a web search that no usage shows."""
    return _SEARCHES_ALWAYS.search(model) is not None


def _generated_bytes(message: Mapping[str, Any]) -> int:
    """Bytes that the model wrote in a message or delta of any shape: text, parts, reasoning, tool calls."""
    total = 0
    content = message.get("content")
    if isinstance(content, list):
        total += sum(json_bytes(part) for part in content)
    for piece in (content, message.get("reasoning_content"), message.get("reasoning"), message.get("refusal")):
        total += text_bytes(piece)
    for call in listed(message.get("tool_calls")):
        function = mapping(mapping(call).get("function"))
        total += text_bytes(function.get("name")) + text_bytes(function.get("arguments"))
    return total


class _OnlyUsage(msgspec.Struct):
    usage: msgspec.Raw = _NOTHING


_only_usage = msgspec.json.Decoder(_OnlyUsage)


def raw_usage(document: bytes) -> bytes:
    """The `usage` of a JSON document as it was written, so that money in it stays exact; `null` where it has none."""
    try:
        return bytes(_only_usage.decode(document).usage)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b"null"
