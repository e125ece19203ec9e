"""The Anthropic dialect: messages, token counts, and what else lies under /v1 of its API and Vertex's copy of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from . import anthropic_batches
from .anthropic_usage import read_usage
from .errors import name_of_error
from .reader import BodyInvalid, Reader, Route, parameters_of
from .reading import Reading
from .unbounded import anthropic_output_min, mark_anthropic
from .values import (
    NAME_CHARACTERS_MAX,
    REGION,
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

DIALECT = "anthropic"

_ROUTES = tuple(
    (method, re.compile(pattern + r"/?\Z", re.IGNORECASE), Route(api=api, dialect=DIALECT, route=route, free=free))
    for method, pattern, api, route, free in (
        ("POST", r"/v1/messages", "anthropic.messages", "/v1/messages", False),
        ("POST", r"/v1/messages/count_tokens", "anthropic.count_tokens", "/v1/messages/count_tokens", True),
        ("POST", r"/v1/messages/batches", "anthropic.batches", "/v1/messages/batches", False),
        ("GET", r"/v1/messages/batches", "anthropic.batches", "/v1/messages/batches", True),
        ("GET|DELETE", r"/v1/messages/batches/(?P<id>[^/]+)", "anthropic.batches", "/v1/messages/batches/{id}", True),
        (
            "POST",
            r"/v1/messages/batches/(?P<id>[^/]+)/cancel",
            "anthropic.batches",
            "/v1/messages/batches/{id}/cancel",
            True,
        ),
        (
            "GET",
            r"/v1/messages/batches/(?P<id>[^/]+)/results",
            "anthropic.batches",
            "/v1/messages/batches/{id}/results",
            True,
        ),
        # Billed, and its answers carry no usage: `unknown`, so that it is never taken for free.
        ("POST", r"/v1/complete", "unknown", "/v1/complete", False),
        ("GET", r"/v1/models", "free", "/v1/models", True),
        ("GET", r"/v1/models/(?P<model>[^/]+)", "free", "/v1/models/{model}", True),
        ("GET|POST", r"/v1/files", "free", "/v1/files", True),
        ("GET|DELETE", r"/v1/files/(?P<id>[^/]+)", "free", "/v1/files/{id}", True),
        ("GET", r"/v1/files/(?P<id>[^/]+)/content", "free", "/v1/files/{id}/content", True),
    )
)
_VERTEX = re.compile(
    rf"/v1(?:beta1)?/projects/[^/]+/locations/(?:{REGION}|[^/]+)"
    r"/publishers/anthropic/models/(?P<model>[^/:]+)(?P<verb>:rawPredict|:streamRawPredict)\Z"
)
_VERTEX_ROUTE = "/v1/projects/{project}/locations/{location}/publishers/anthropic/models/{model}"
VERTEX_COUNT_TOKENS = "count-tokens"
"""Vertex counts tokens at a model of this name."""

# Claude Code up to 1.x wrote `user_<hash>_account_<uuid>_session_<uuid>`; later ones write a JSON object.
_SESSION = re.compile(r"^(?P<user>.*?)_session_(?P<session>[0-9A-Za-z-]+)$")
_TASK_NAMES = ("task", "task_id", "task.id")

SHOWS_ALL_THINKING = "claude-3-7"
"""The models that print their reasoning in full. All later ones print a summary, or nothing."""

ERROR_TYPES = {
    "budget_spent": "billing_error",
    "budget_held": "rate_limit_error",
    "rate_limited": "rate_limit_error",
    "busy": "rate_limit_error",
    "upstream_timeout": "timeout_error",
}
"""Refusal codes that can end a running stream; any other is an `api_error`."""


def match(method: str, path: str) -> Route | None:
    """The route, recognised by the end of the path, or None."""
    for methods, pattern, route in _ROUTES:
        found = pattern.search(path)
        if found is not None and method in methods.split("|"):
            return msgspec.structs.replace(route, parameters=parameters_of(found)) if found.groupdict() else route
    found = _VERTEX.search(path.replace("%3A", ":").replace("%3a", ":"))
    if found is None or method != "POST":
        return None
    counting = found["model"] == VERTEX_COUNT_TOKENS
    return Route(
        api="anthropic.count_tokens" if counting else "anthropic.messages",
        dialect=DIALECT,
        route=_VERTEX_ROUTE + found["verb"],
        parameters=parameters_of(found),
        free=counting,
    )


def read(
    route: Route,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | bytes,
) -> Call:
    """The call. Raises BodyInvalid where a message, a count or a batch could not be made from the body."""
    call = Call(
        api=route.api,
        dialect=DIALECT,
        route=route.route,
        method=method,
        free=route.free,
        region=route.parameters.get("region"),
    )
    if route.api == "free" or method != "POST" or route.route.endswith("/cancel"):
        call.model = route.parameters.get("model")
        call.retrieves = route.parameters.get("id") if route.api == "anthropic.batches" else None
        return call
    fields = decode(body) if isinstance(body, bytes) else body
    if not isinstance(fields, Mapping):
        raise BodyInvalid(f"The body of `{route.route}` is not a JSON object; send one with `model` and `messages`.")
    if route.api == "anthropic.batches":
        return anthropic_batches.read_batch(call, fields)
    return _read_message(call, fields, route)


def _read_message(call: Call, fields: Mapping[str, Any], route: Route) -> Call:
    verb = route.parameters.get("verb")
    named_in_path = None if verb is None or call.api == "anthropic.count_tokens" else route.parameters["model"]
    model = named_in_path or plain(fields.get("model"))
    if not isinstance(model, str) or not model:
        raise BodyInvalid(f"The body of `{call.route}` names no model; add `model` to it, such as `claude-sonnet-4-5`.")
    if len(model) > NAME_CHARACTERS_MAX:
        raise BodyInvalid(f"`model` in the body of `{call.route}` is longer than any name; send the name of a model.")
    call.model = model
    call.stream = verb == ":streamRawPredict" or plain(fields.get("stream")) is True
    call.max_output_tokens = output_limit(fields.get("max_tokens"))
    if call.max_output_tokens is None:
        call.max_output_tokens = output_limit(fields.get("max_tokens_to_sample"))
    call.service_tier = "fast" if text(fields, "speed") == "fast" else short_name(text(fields, "service_tier"))
    _read_metadata(call, mapping(fields.get("metadata")))
    call.inline_bytes = inline_bytes(fields.get("messages"))
    call.output_tokens_min = anthropic_output_min(fields)
    return call if call.free else mark_anthropic(call, fields)


def _read_metadata(call: Call, metadata: Mapping[str, Any]) -> None:
    """Session and task from `metadata.user_id`, which agents fill in forms of their own."""
    call.task = _task(metadata)
    user = text(metadata, "user_id")
    if user is None:
        return
    if user.startswith("{"):
        told = mapping(decode(user.encode("utf-8", "replace")))
        call.session = short_name(told.get("session_id"))
        call.task = call.task or _task(told)
        return
    found = _SESSION.match(user)
    call.session = short_name(found["session"]) if found else None


def _task(fields: Mapping[str, Any]) -> str | None:
    return next(filter(None, (short_name(fields.get(name)) for name in _TASK_NAMES)), None)


def reader(call: Call, *, provider: str, request_body: bytes) -> Reader:
    """A fresh reader for the answer to this call."""
    if call.api == "anthropic.batches":
        return anthropic_batches.BatchReader(call)
    return MessageReader(call)


def end_of_stream(call: Call, code: str, sentence: str) -> bytes:
    """An `error` event. Blank lines go before it, so that it does not run into an event that was cut."""
    if not call.stream:
        return b""
    error = {"type": ERROR_TYPES.get(code, "api_error"), "message": sentence, "details": {"error_code": code}}
    return b"\n\nevent: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"


class _Delta(msgspec.Struct):
    text: str = ""
    partial_json: str = ""
    thinking: str = ""


class _BlockDelta(msgspec.Struct):
    delta: _Delta
    type: str = ""


_BLOCK_DELTA = msgspec.json.Decoder(_BlockDelta)


class MessageReader:
    """Reads a message: plain or as events; also the completions of old, which report no usage.

    Of a stream, `message_start` tells the usage first and `message_delta` last: the delta wins field by field, and
    the start fills what it leaves out. A message that starts after another has stopped is a new answer, and the
    last one counts.
    """

    def __init__(self, call: Call) -> None:
        self.reading = Reading(region=call.region)
        self._at_start: dict[str, Any] = {}
        self._at_end: dict[str, Any] = {}

    def event(self, name: str, data: bytes) -> None:
        """One event. The data's own type counts, not the event's name, should they differ."""
        if name == "content_block_delta":
            try:
                block = _BLOCK_DELTA.decode(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                block = None
            if block is not None and block.type == name:
                delta = block.delta
                self.reading.seen_bytes += text_bytes(delta.text or delta.partial_json or delta.thinking)
                return
        document = decode(data)
        if isinstance(document, dict):
            self._take(text(document, "type") or name, document)

    def answer(self, body: bytes) -> None:
        """A whole message, completion or error."""
        document = decode(body)
        if not isinstance(document, dict):
            return
        self.reading.complete = True
        if document.get("type") in ("error", "completion") or "error" in document:
            self._take("completion" if document.get("type") == "completion" else "error", document)
            return
        self._start(document)
        self._stop_reason(document)
        for block in listed(document.get("content")):
            self._see_block(mapping(block))

    def _take(self, kind: str, document: dict[str, Any]) -> None:
        if kind == "message_start":
            self._start(mapping(document.get("message")))
        elif kind == "message_delta":
            self._at_end.update(_told(document.get("usage")))
            self._stop_reason(mapping(document.get("delta")))
            self._count()
            # With the reason to stop comes the last count; `message_stop` adds nothing to it.
            self.reading.complete = self.reading.complete or bool(self.reading.finish_reasons)
        elif kind == "message_stop":
            self.reading.complete = True
        elif kind == "content_block_start":
            self._see_block(mapping(document.get("content_block")))
        elif kind == "content_block_delta":
            delta = mapping(document.get("delta"))
            self.reading.seen_bytes += sum(text_bytes(delta.get(name)) for name in ("text", "partial_json", "thinking"))
        elif kind == "error":
            self.reading.error = name_of_error(mapping(document.get("error")))
        elif kind == "completion":
            self.reading.model = text(document, "model") or self.reading.model
            self.reading.upstream_call_id = text(document, "id") or self.reading.upstream_call_id
            self.reading.seen_bytes += text_bytes(document.get("completion"))
            self._stop_reason(document)
            self.reading.complete = bool(self.reading.finish_reasons)

    def _start(self, message: Mapping[str, Any]) -> None:
        reading = self.reading
        if self._at_end and reading.complete:
            self._at_end = {}
            reading.complete = False
        self._at_start = _told(message.get("usage"))
        reading.model = text(message, "model") or reading.model
        reading.upstream_call_id = text(message, "id") or reading.upstream_call_id
        self._count()

    def _stop_reason(self, fields: Mapping[str, Any]) -> None:
        reason = text(fields, "stop_reason")
        if reason is not None:
            self.reading.finish_reasons = [reason]

    def _see_block(self, block: Mapping[str, Any]) -> None:
        kind = block.get("type")
        if kind == "fallback":
            # A message may pass to another model half-way, and is that model's from then on.
            self.reading.model = text(mapping(block.get("to")), "model") or self.reading.model
        elif kind == "redacted_thinking" or (
            kind == "thinking" and SHOWS_ALL_THINKING not in (self.reading.model or "")
        ):
            self.reading.hidden_reasoning = True
        if kind in ("text", "thinking"):
            self.reading.seen_bytes += text_bytes(block.get(kind))
        elif kind in ("tool_use", "server_tool_use") and block.get("input"):
            self.reading.seen_bytes += json_bytes(block["input"])

    def _count(self) -> None:
        """Usage, tier and region from all that was told so far."""
        reading = self.reading
        usage = {**self._at_start, **self._at_end}
        reading.usage, reading.parts = read_usage(usage, reading.model)
        reading.service_tier = "fast" if usage.get("speed") == "fast" else text(usage, "service_tier")
        region = text(usage, "inference_geo")
        if region is not None and region != "not_available":
            reading.region = region


def _told(usage: Any) -> dict[str, Any]:
    """The fields of a usage object that say something: a null must not hide what was said before."""
    return {name: value for name, value in mapping(usage).items() if value is not None}
