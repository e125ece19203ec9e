"""Ollama: its own interface, besides the OpenAI one that it also speaks: JSON lines with the counts at the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from ..core.usage import Usage
from .errors import UNNAMED_ERROR
from .reader import BodyInvalid, Reader, Route
from .reading import Reading
from .values import decode, json_bytes, listed, mapping, output_limit, plain, text_bytes, whole

_BILLED = {
    "/api/chat": "ollama.chat",
    "/api/generate": "ollama.generate",
    "/api/embed": "openai.embeddings",
    "/api/embeddings": "openai.embeddings",
}
_FREE = ("/api/tags", "/api/show", "/api/ps", "/api/version")

ROUTES = frozenset(_BILLED) | frozenset(_FREE)
"""The routes of this dialect, by which its calls are known: the contract has no name for its errors."""


def match(method: str, path: str) -> Route | None:
    """The Dialect's `match`."""
    for route, api in _BILLED.items():
        if method == "POST" and path.endswith(route):
            return Route(api=api, dialect="", route=route)
    for route in _FREE:
        if path.endswith(route):
            return Route(api="free", dialect="", route=route, free=True)
    return None


def read(
    route: Route,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | bytes,
) -> Call:
    """The Dialect's `read`. Ollama streams unless it is told not to. Raises BodyInvalid."""
    call = Call(api=route.api, route=route.route, method=method, free=route.free)
    if isinstance(body, bytes):
        return call
    model = plain(body.get("model"))
    if isinstance(model, str) and model:
        call.model = model
    elif not route.free:
        raise BodyInvalid(f"The body of `{route.route}` names no model; add `model` to it as a string.")
    call.stream = call.json_lines = route.api.startswith("ollama.") and plain(body.get("stream")) is not False
    call.max_output_tokens = output_limit(mapping(body.get("options")).get("num_predict"))
    call.inline_bytes = _image_bytes(body.get("images"))
    raw = body.get("messages")
    if isinstance(raw, msgspec.Raw) and b'"images"' in bytes(raw):
        call.inline_bytes += sum(_image_bytes(mapping(message).get("images")) for message in listed(raw))
    return call


def _image_bytes(images: Any) -> int:
    """Images come as bare base64 texts."""
    return sum(text_bytes(image) for image in listed(images))


def reader(call: Call, *, provider: str, request_body: bytes) -> Reader:
    """The Dialect's `reader`."""
    return OllamaReader(free=call.free)


def end_of_stream(call: Call, code: str, sentence: str) -> bytes:
    """The Dialect's `end_of_stream`: a last line with the error, after one that may have been cut."""
    return b"\n" + msgspec.json.encode({"error": sentence}) + b"\n" if call.stream else b""


class _Message(msgspec.Struct):
    content: Any = None
    thinking: Any = None
    tool_calls: Any = None


class _Line(msgspec.Struct):
    model: Any = None
    response: Any = None
    thinking: Any = None
    message: _Message | None = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_line = msgspec.json.Decoder(_Line)


class OllamaReader:
    """Reads lines, or the one object of an answer that is not streamed. The last line has the counts.

    A prompt that is still in memory is not evaluated again and then not counted: its tokens are unknown, and none of
    what Ollama does is paid by them.
    """

    def __init__(self, *, free: bool) -> None:
        self.reading = Reading()
        self._free = free

    def event(self, name: str, data: bytes) -> None:
        """One line."""
        self.answer(data)

    def answer(self, body: bytes) -> None:
        """A whole object."""
        if self._free:
            self.reading.complete = True
            return
        try:
            line = _line.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        reading = self.reading
        if isinstance(line.model, str):
            reading.model = line.model
        reading.seen_bytes += text_bytes(line.response) + text_bytes(line.thinking)
        if line.message is not None:
            reading.seen_bytes += text_bytes(line.message.content) + text_bytes(line.message.thinking)
            if line.message.tool_calls:
                reading.seen_bytes += json_bytes(line.message.tool_calls)
        if line.error is not None:
            reading.error = UNNAMED_ERROR
            reading.complete = True
        prompt, output = whole(line.prompt_eval_count), whole(line.eval_count)
        if prompt is not None or output is not None:
            reading.usage = Usage(input=prompt or 0, output=output or 0)
        if line.done is True or (line.done is None and mapping(decode(body)).keys() & {"embedding", "embeddings"}):
            reading.complete = True
            if isinstance(line.done_reason, str):
                reading.finish_reasons = [line.done_reason]
