"""Other model: a request turned to another model of its dialect, as `then: {use: ...}` asks for."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec

from ..core.call import Call
from .body_edit import fields_of, with_field

CHANGEABLE = frozenset(
    {"openai.chat", "openai.completions", "openai.responses", "anthropic.messages", "gemini.generate"}
)
"""Where another model gives an answer of the same kind. Vectors of different models must never be mixed, and a model
for pictures or speech is no substitute for one that writes."""

_MODEL_IN_PATH = re.compile(r"(/models/)[^/]+(?=(?::|%3A)[A-Z]+/?\Z)|(/deployments/)[^/]+(?=/)", re.IGNORECASE)
"""The name may hold a colon itself, and Azure takes paths in any case. Vertex's own endpoints and tuned models are
named by numbers, so that another model is not found beside them."""


def takes_other_model(call: Call) -> bool:
    """Whether the model of this call can be changed. What runs elsewhere already, or goes on there, keeps its own."""
    elsewhere = call.later or "agent" in call.unbounded or "agent_id" in call.unbounded or "thread" in call.unbounded
    return call.api in CHANGEABLE and call.model is not None and not call.free and not elsewhere


def with_other_model(call: Call, path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """Path and body with another model; None where this call has no place for one.

    `path` is the provider's, as the caller wrote it. The model stands in the path, in the body, or in both.
    """
    if not takes_other_model(call):
        return None
    in_path = "{model}" in call.route
    if in_path:
        name = quote(model, safe="@-._~")
        path, changed = _MODEL_IN_PATH.subn(lambda found: (found[1] or found[2]) + name, path, count=1)
        if not changed:
            return None
    fields = fields_of(body)
    if fields is None:
        return None
    if "model" in fields or not in_path:
        edited = with_field(body, "model", msgspec.json.encode(model))
        if edited is None:
            return None
        body = edited
    return path, body
