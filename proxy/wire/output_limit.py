"""Output limit: how many tokens an answer may have, put into a request that says nothing, or too much, of it."""

from __future__ import annotations

import msgspec

from ..core.call import Call
from .body_edit import fields_of, with_field
from .openai_request import OUTPUT_LIMITS

TAKE_MAX_COMPLETION_TOKENS = frozenset({"openai", "azure", "groq", "x-ai", "cerebras", "openrouter"})
"""Providers whose chat takes `max_completion_tokens`, which OpenAI's newer models want; all know `max_tokens`."""

_NESTED = {
    "gemini.generate": (("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens")),
    "ollama.chat": (("options",), ("num_predict",)),
    "ollama.generate": (("options",), ("num_predict",)),
}
"""Endpoints that keep the limit in an object: the names of the object and of the limit, the usual one first."""


def takes_output_limit(call: Call) -> bool:
    """Whether a limit can be put into this call. A batch holds many requests, a free call none."""
    if call.free or call.api.endswith(".batches") or "atchGenerateContent" in call.route:
        return False
    return _name_for(call, "") is not None or call.api in _NESTED


def with_output_limit(call: Call, body: bytes, tokens: int, provider: str) -> bytes | None:
    """The body with its limit set to `tokens`; None where this call takes none. `provider` is the upstream's."""
    if not takes_output_limit(call):
        return None
    value = b"%d" % tokens
    if call.api in _NESTED:
        return _with_nested(call, body, value)
    fields = fields_of(body)
    if fields is None:
        return None
    usual = _name_for(call, provider)
    names = [name for name in OUTPUT_LIMITS if name in fields] or ([usual] if usual else [])
    edited: bytes | None = body
    for name in names:
        edited = with_field(edited, name, value) if edited is not None else None
    return edited


def _name_for(call: Call, provider: str) -> str | None:
    """The name of the limit at this endpoint; None where it has none."""
    if call.api == "anthropic.messages" or call.api == "openai.completions":
        return "max_tokens"
    if call.api == "openai.chat":
        return "max_completion_tokens" if provider in TAKE_MAX_COMPLETION_TOKENS else "max_tokens"
    if call.api == "openai.responses" and not call.route.endswith("/compact"):
        return "max_completion_tokens" if call.route.startswith("/v1/threads") else "max_output_tokens"
    return None


def _with_nested(call: Call, body: bytes, value: bytes) -> bytes | None:
    objects, limits = _NESTED[call.api]
    if call.route.endswith("/interactions"):
        objects, limits = objects[::-1], limits[::-1]  # the one endpoint of Gemini that writes its names like this
    fields = fields_of(body)
    if fields is None:
        return None
    name = next((name for name in objects if name in fields), objects[0])
    inner: bytes | None = bytes(fields.get(name, msgspec.Raw(b"{}")))
    if inner == b"null":
        inner = b"{}"
    inner_fields = fields_of(inner or b"")
    if inner_fields is None:
        return None
    for limit in [limit for limit in limits if limit in inner_fields] or [limits[0]]:
        inner = with_field(inner, limit, value) if inner is not None else None
    return None if inner is None else with_field(body, name, inner)
