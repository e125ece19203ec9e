"""OpenAI responses: answers of the Responses API, plain, streamed, made in the background and retrieved later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from ..core.usage import Usage
from .errors import error_code_in, name_of_error
from .openai_chat import DONE, reasons_unseen
from .openai_usage import provider_cost, usage_of
from .providers import provider_named
from .reading import Part, Reading
from .values import count, decode, listed, mapping, plain, text, text_bytes

ENDS = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""States of a response after which nothing more comes."""

PAID_ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
"""Items of an answer that are paid by the piece, and their names in `Usage.requests`."""

IMAGE_MODEL = "gpt-image-1"
"""What draws pictures for a response whose tool names no model of its own (OpenAI's reference, November 2026)."""

_NOTHING = msgspec.Raw(b"null")


class _Item(msgspec.Struct):
    """One item of the output. Of a web search only the searching is paid, not the opening of pages."""

    type: Any = None
    id: Any = None
    status: Any = None
    action: Any = None
    container_id: Any = None


class _Response(msgspec.Struct):
    """A response, as far as it is read; its output is decoded only where an item in it may have to be paid."""

    id: Any = None
    model: Any = None
    status: Any = None
    service_tier: Any = None
    background: Any = None
    incomplete_details: Any = None
    error: Any = None
    tool_usage: Any = None
    tools: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    output_index: Any = None
    response: msgspec.Raw = _NOTHING
    item: msgspec.Raw = _NOTHING


_event = msgspec.json.Decoder(_Event)
_response = msgspec.json.Decoder(_Response)
_item = msgspec.json.Decoder(_Item)
_items = msgspec.json.Decoder(list[_Item])


class ResponsesReader:
    """Reads one answer. Usage comes once, with the event that ends the stream."""

    def __init__(self, call: Call, *, provider: str) -> None:
        self.reading = Reading(hidden_reasoning=reasons_unseen(call.model))
        self._call = call
        self._provider = provider_named(provider)
        self._pieces: dict[str, set[str]] = {}

    def event(self, name: str, data: bytes) -> None:
        """One event; `[DONE]`, which OpenRouter adds, says nothing new."""
        if data.startswith(DONE):
            return
        try:
            event = _event.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        kind = event.type or name
        if kind.endswith(".delta"):
            if isinstance(event.delta, str) and not kind.endswith("audio.delta"):
                self.reading.seen_bytes += text_bytes(event.delta)
        elif event.response is not _NOTHING:
            self._take_response(bytes(event.response))
        elif kind == "response.output_item.done":
            self._take_item(event.item, event.output_index)
        elif kind == "error" or name == "error":
            self._take_error_event(mapping(decode(data)))

    def answer(self, body: bytes) -> None:
        """A whole plain answer, or an error."""
        self._take_response(body)
        if self.reading.upstream_call_id is None:
            self.reading.error = error_code_in(mapping(decode(body)))
        self.reading.complete = self.reading.complete or self.reading.upstream_call_id is not None

    def _take_response(self, raw: bytes) -> None:
        try:
            response = _response.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        reading = self.reading
        if isinstance(response.id, str) and response.id:
            reading.upstream_call_id = response.id
        if isinstance(response.model, str) and response.model:
            reading.model = response.model
            reading.hidden_reasoning = reading.hidden_reasoning or reasons_unseen(response.model)
        if isinstance(response.service_tier, str) and response.service_tier != "auto":
            reading.service_tier = response.service_tier
        if isinstance(response.error, dict):
            reading.error = name_of_error(response.error)
        if b"_call" in bytes(response.output):
            self._take_output(response.output)
        if response.usage != _NOTHING:
            self._take_usage(bytes(response.usage), response)
        status = response.status
        # A compaction has no status: it is a whole answer whenever it is there.
        if status is None or status in ENDS:
            self._end(response)
        self._link(response)

    def _end(self, response: _Response) -> None:
        self.reading.complete = True
        reason = mapping(response.incomplete_details).get("reason")
        finish = reason if isinstance(reason, str) else response.status
        if isinstance(finish, str):
            self.reading.finish_reasons = [finish]

    def _link(self, response: _Response) -> None:
        """Join a background answer to the retrieval that shows its usage."""
        reading = self.reading
        if self._call.retrieves is not None:
            reading.outcome_of = self._call.retrieves if reading.usage is not None else None
        elif response.background is True and reading.usage is None and response.status not in ENDS:
            reading.later = reading.upstream_call_id
        else:
            reading.later = None

    def _take_usage(self, raw: bytes, response: _Response) -> None:
        usage = usage_of(mapping(decode(raw)), self._provider)
        if usage is None:
            return
        tool_usage = mapping(response.tool_usage)
        requests = self._requests(usage, tool_usage)
        self.reading.usage = msgspec.structs.replace(usage, requests=requests) if requests else usage
        self.reading.parts = []
        self.reading.provider_cost_usd = provider_cost(raw)
        drawn = usage_of(mapping(tool_usage.get("image_gen")), self._provider, generates=False)
        if drawn is not None and drawn.tokens:
            self._take_pictures(drawn, response)

    def _take_pictures(self, drawn: Usage, response: _Response) -> None:
        """The tokens of pictures that another model drew for this one. They lie outside `usage`, and are paid in
        place of the piece. What is not told apart is picture."""
        assert self.reading.usage is not None
        if not drawn.image_output:
            drawn = msgspec.structs.replace(drawn, output=0, reasoning=0, image_output=drawn.output)
        requests = dict(self.reading.usage.requests)
        drawn = msgspec.structs.replace(drawn, images=requests.pop("image_generation", 0))
        own = msgspec.structs.replace(self.reading.usage, requests=requests)
        tools = map(mapping, listed(response.tools))
        named = next((text(tool, "model") for tool in tools if tool.get("type") == "image_generation"), None)
        self.reading.parts = [
            Part(model=self.reading.model, usage=own),
            Part(model=named or IMAGE_MODEL, usage=drawn),
        ]
        self.reading.usage = own + drawn

    def _requests(self, usage: Usage, tool_usage: Mapping[str, Any]) -> dict[str, int]:
        """What was done by the piece. A provider's own count goes before the items that we counted."""
        requests = {name: len(pieces) for name, pieces in self._pieces.items()}
        searches = mapping(tool_usage.get("web_search"))
        if "num_requests" in searches:
            requests.pop("web_search", None)
            if number := count(searches, "num_requests"):
                requests["web_search"] = number
        return requests | usage.requests

    def _take_output(self, raw: msgspec.Raw) -> None:
        try:
            items = _items.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        for position, item in enumerate(items):
            self._count(item, position)

    def _take_item(self, raw: msgspec.Raw, position: Any) -> None:
        try:
            item = _item.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        self._count(item, position)

    def _count(self, item: _Item, position: Any) -> None:
        """Count a paid item once, although a stream shows it twice. Code runs are paid by the container they run in."""
        name = PAID_ITEMS.get(item.type) if isinstance(item.type, str) else None
        if name is None or item.status == "failed":
            return
        action = mapping(plain(item.action)).get("type")
        if name == "web_search" and action not in (None, "search"):
            return
        mark = item.container_id or item.id or position
        self._pieces.setdefault(name, set()).add(str(mark))

    def _take_error_event(self, document: Mapping[str, Any]) -> None:
        """`{"type": "error", "code"}` as documented, or `{"type": "error", "error": {...}}` as sent."""
        self.reading.error = name_of_error(mapping(document.get("error")) or {"code": document.get("code")})
        self.reading.complete = True
