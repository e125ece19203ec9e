"""OpenAI: the dialect as a whole: its paths, which reader reads which answer, and how its broken streams end.

Azure, Groq, Mistral, OpenRouter and many others speak it under other prefixes, so a path is known by its end.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

from ..core.call import Call
from . import openai_batches, openai_chat, openai_more, openai_responses
from .openai_request import read
from .reader import Reader, Route, parameters_of

__all__ = ["end_of_stream", "match", "read", "reader"]

DIALECT = "openai"

PATHS_REMEMBERED = 1024
"""Paths whose route is remembered. Those with ids in them come and go; the others are a handful."""


class _Pattern(NamedTuple):
    method: str
    path: re.Pattern[str]
    api: str
    route: str
    free: bool = False


def _pattern(method: str, path: str, api: str, route: str, *, free: bool = False) -> _Pattern:
    # Azure and others take paths in any case; what they take must be known here, or it would go unmetered.
    return _Pattern(method, re.compile(path + r"/?\Z", re.IGNORECASE), api, route, free)


_DEPLOYMENT = r"/deployments/(?P<model>[^/]+)"

_PATTERNS = (
    _pattern("POST", _DEPLOYMENT + "/chat/completions", "openai.chat", "/openai/deployments/{model}/chat/completions"),
    _pattern("POST", "/chat/completions", "openai.chat", "/v1/chat/completions"),
    _pattern("POST", "/agents/completions", "openai.chat", "/v1/agents/completions"),
    _pattern("POST", "/v1/chat", "openai.chat", "/v1/chat"),
    _pattern("POST", "/fim/completions", "openai.completions", "/v1/fim/completions"),
    _pattern("POST", _DEPLOYMENT + "/completions", "openai.completions", "/openai/deployments/{model}/completions"),
    _pattern("POST", "/completions", "openai.completions", "/v1/completions"),
    _pattern("POST", "/responses", "openai.responses", "/v1/responses"),
    _pattern("POST", "/responses/compact", "openai.responses", "/v1/responses/compact"),
    _pattern("POST", "/responses/input_tokens", "free", "/v1/responses/input_tokens", free=True),
    _pattern(
        "POST",
        "/responses/(?P<retrieves>[^/]+)/cancel",
        "openai.responses",
        "/v1/responses/{id}/cancel",
        free=True,
    ),
    _pattern("GET", "/responses/(?P<retrieves>[^/]+)", "openai.responses", "/v1/responses/{id}", free=True),
    _pattern("GET", "/responses/[^/]+/input_items", "free", "/v1/responses/{id}/input_items", free=True),
    _pattern("DELETE", "/responses/[^/]+", "free", "/v1/responses/{id}", free=True),
    _pattern("POST", _DEPLOYMENT + "/embeddings", "openai.embeddings", "/openai/deployments/{model}/embeddings"),
    _pattern("POST", "(?<!/api)/embeddings", "openai.embeddings", "/v1/embeddings"),
    _pattern("POST", "/images/generations", "openai.images", "/v1/images/generations"),
    _pattern("POST", "/images/edits", "openai.images", "/v1/images/edits"),
    _pattern("POST", "/images/variations", "openai.images", "/v1/images/variations"),
    _pattern("POST", "/audio/speech", "openai.audio", "/v1/audio/speech"),
    _pattern("POST", "/audio/transcriptions", "openai.audio", "/v1/audio/transcriptions"),
    _pattern("POST", "/audio/translations", "openai.audio", "/v1/audio/translations"),
    _pattern("POST", "/moderations", "openai.moderations", "/v1/moderations"),
    _pattern("POST", "/rerank", "cohere.rerank", "/v1/rerank"),
    _pattern("POST", "/ocr", "unknown", "/v1/ocr"),
    _pattern("POST", "/batches", "openai.batches", "/v1/batches"),
    _pattern("GET", "/batches", "free", "/v1/batches", free=True),
    _pattern("GET", "/batches/(?P<retrieves>[^/]+)", "openai.batches", "/v1/batches/{id}", free=True),
    _pattern("POST", "/batches/(?P<retrieves>[^/]+)/cancel", "openai.batches", "/v1/batches/{id}/cancel", free=True),
    _pattern("GET", "/files/(?P<retrieves>[^/]+)/content", "openai.batches", "/v1/files/{id}/content", free=True),
    _pattern("POST", "/(?:v1|openai)/files", "free", "/v1/files", free=True),
    _pattern("GET", "/(?:v1|openai)/files", "free", "/v1/files", free=True),
    _pattern("GET", "/(?:v1|openai)/files/[^/]+", "free", "/v1/files/{id}", free=True),
    _pattern("DELETE", "/(?:v1|openai)/files/[^/]+", "free", "/v1/files/{id}", free=True),
    _pattern("GET", "/models", "free", "/v1/models", free=True),
    _pattern("GET", "/models/.+", "free", "/v1/models/{id}", free=True),
    _pattern("DELETE", "/models/.+", "free", "/v1/models/{id}", free=True),
    _pattern("POST", "/threads/[^/]+/runs", "openai.responses", "/v1/threads/{id}/runs"),
    _pattern("POST", "/threads/runs", "openai.responses", "/v1/threads/runs"),
    _pattern(
        "POST",
        "/threads/[^/]+/runs/[^/]+/submit_tool_outputs",
        "openai.responses",
        "/v1/threads/{id}/runs/{id}/submit_tool_outputs",
    ),
    _pattern(
        "GET",
        "/threads/[^/]+/runs/(?P<retrieves>[^/]+)",
        "openai.responses",
        "/v1/threads/{id}/runs/{id}",
        free=True,
    ),
    _pattern("GET", "/threads/[^/]+/.+", "free", "/v1/threads/{id}/...", free=True),
)

AMBIGUOUS_ROUTES = frozenset({"/v1/chat", "/v1/files", "/v1/files/{id}", "/v1/ocr", "/v1/rerank", "/v1/moderations"})
"""Routes that other dialects have too; they are OpenAI's only where the upstream speaks it."""


@lru_cache(maxsize=PATHS_REMEMBERED)
def match(method: str, path: str) -> Route | None:
    """The Dialect's `match`."""
    for pattern in _PATTERNS:
        if pattern.method == method:
            found = pattern.path.search(path)
            if found is not None:
                return Route(
                    api=pattern.api,
                    dialect=DIALECT,
                    route=pattern.route,
                    parameters=parameters_of(found),
                    free=pattern.free,
                )
    return None


def reader(call: Call, *, provider: str, request_body: bytes) -> Reader:
    """The Dialect's `reader`."""
    route = call.route
    if route.startswith("/v1/threads"):
        return openai_batches.RunReader(call, provider=provider)
    if call.api in ("openai.chat", "openai.completions"):
        return openai_chat.ChatReader(call, provider=provider)
    if call.api == "openai.responses":
        return openai_responses.ResponsesReader(call, provider=provider)
    if route == "/v1/files/{id}/content":
        return openai_batches.ResultsReader(call, provider=provider)
    if call.api == "openai.batches":
        return openai_batches.BatchReader(call)
    return openai_more.reader(call, provider=provider)


def end_of_stream(call: Call, code: str, sentence: str) -> bytes:
    """The Dialect's `end_of_stream`. The blank line before it ends an event that was cut in the middle."""
    if not call.stream:
        return b""
    kind = "insufficient_quota" if code == "budget_spent" else "server_error"
    error = {"message": sentence, "type": kind, "param": None, "code": code}
    if call.api != "openai.responses" or call.route.startswith("/v1/threads"):
        return b"\n\ndata: " + msgspec.json.encode({"error": error}) + b"\n\n"
    # OpenAI itself sends both: the SDKs raise at the first, Codex ends its turn at the second.
    shown = "insufficient_quota" if code == "budget_spent" else code
    first = {"type": "error", "sequence_number": 0, "code": shown, "message": sentence, "param": None}
    failed = {
        "type": "response.failed",
        "sequence_number": 0,
        "response": {
            "id": "",
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": {"code": shown, "message": sentence},
            "incomplete_details": None,
            "model": call.model or "",
            "output": [],
            "usage": None,
        },
    }
    return b"".join(
        (
            b"\n\nevent: error\ndata: ",
            msgspec.json.encode(first),
            b"\n\nevent: response.failed\ndata: ",
            msgspec.json.encode(failed),
            b"\n\n",
        )
    )
