"""Wire: bytes in, facts out. What a request asks for, what an answer cost, in every dialect; pure.

One file a dialect; `reader.py` says what such a file offers, `reading.py` what is read of an answer. Here the rooms
outside find the few functions they need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from ..core.call import Call
from . import anthropic_messages, gemini, ollama, openai
from .decode import supported_encodings
from .framing import AnswerMeter
from .openai_more import SilentReader
from .other_model import takes_other_model, with_other_model
from .output_limit import takes_output_limit, with_output_limit
from .providers import provider_named
from .reader import BodyInvalid, Dialect, Reader, Route
from .reading import Item, Meter, Part, Reading
from .request import is_form, json_fields, named_model, plain_body
from .usage_request import UsageRemover, ask_for_usage
from .values import NAME_CHARACTERS_MAX

__all__ = [
    "DIALECTS",
    "BodyInvalid",
    "Item",
    "Meter",
    "Part",
    "Reading",
    "UsageRemover",
    "ask_for_usage",
    "end_of_stream",
    "open_meter",
    "plain_body",
    "read_call",
    "read_request",
    "short_form_dialect",
    "supported_encodings",
    "takes_other_model",
    "takes_output_limit",
    "with_other_model",
    "with_output_limit",
]

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {"openai": openai, "anthropic": anthropic_messages, "gemini": gemini, "ollama": ollama}
)
"""Every dialect by the name that a policy gives it."""

_FOREIGN = ("openai", "anthropic", "gemini", "ollama")
"""The order in which dialects that are not the upstream's own are tried; their unmistakable paths do not overlap."""

_SHORT_FORMS = (
    (re.compile(r"/v1/messages(?:/.*)?\Z"), "anthropic"),
    (re.compile(r"/v1(?:beta|alpha|beta1)?/models/[^/]+(?::|%3[Aa])[A-Za-z]+\Z"), "gemini"),
    (re.compile(r"/v1(?:beta|alpha)/.+\Z"), "gemini"),
    (re.compile(r"/model/[^/]+/(?:converse|converse-stream|invoke|invoke-with-response-stream)\Z"), "bedrock"),
    (
        re.compile(
            r"/v1/(?:chat/completions|completions|responses|embeddings|images|audio|moderations|batches|files)(?:/.*)?\Z"
        ),
        "openai",
    ),
)
_MODELS = re.compile(r"/v1/models(?:/[^:]*)?\Z")


def short_form_dialect(path: str, headers: Mapping[str, str]) -> str | None:
    """The dialect that a path without an upstream names by itself, or None where it names none.
    `GET /v1/models` belongs to two: Anthropic's clients are known by their `anthropic-version`."""
    return _short_form_dialect(path, "anthropic-version" in headers)


@lru_cache(maxsize=openai.PATHS_REMEMBERED)
def _short_form_dialect(path: str, from_anthropic: bool) -> str | None:
    if _MODELS.match(path):
        return "anthropic" if from_anthropic else "openai"
    for pattern, dialect in _SHORT_FORMS:
        if pattern.match(path):
            return "anthropic" if from_anthropic and path.startswith("/v1/files") else dialect
    return None


def read_call(
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    dialect: str,
    provider: str,
) -> Call:
    """What a request asks for, as `read_request` says."""
    return read_request(
        method=method, path=path, query=query, headers=headers, body=body, dialect=dialect, provider=provider
    )[0]


def read_request(
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    dialect: str,
    provider: str,
) -> tuple[Call, Mapping[str, object] | bytes]:
    """What a request asks for, and the fields of its body, each still undecoded (the bytes where it is no JSON object):
    so that whoever has to look into the conversation need not decode it again.

    `path` is the provider's, without upstream and task; `dialect` the upstream's ("" if it has none), in normal form.
    Header names are in lower case. `body` is without its content encoding (see `plain_body`), and the encoding is not
    looked at. A path that nobody knows gives a call with the api `unknown`, and the model that its body names, if any.

    Raises BodyInvalid with a sentence for the person who sent the request.
    """
    found = _route(method, path, dialect)
    if found is None:
        if "%2F" in path and _route(method, path.replace("%2F", "/"), dialect) is not None:
            raise BodyInvalid("The path hides what it asks for behind `%2F`; write its slashes plainly.")
        known = dialect if dialect in ("openai", "anthropic", "gemini") else ""
        model = named_model(headers, body)
        return Call(dialect=known, method=method, model=model, body_bytes=len(body)), body
    speaks, route = found
    fields = _fields(route, headers, body)
    call = speaks.read(route, method=method, query=query, headers=headers, body=fields)
    call.body_bytes = len(body)
    if call.model is not None and len(call.model) > NAME_CHARACTERS_MAX:  # whoever remembers models remembers thousands
        raise BodyInvalid(f"`model` of `{call.route}` is longer than any name; send the name of a model.")
    if call.service_tier is not None and call.service_tier.lower() == "batch":
        # Batches are made at places of their own: no call gets their prices for the asking.
        call.service_tier = None
    if call.api == "openai.moderations" and provider_named(provider).moderation_is_free:
        call.free = True
    return call, fields


def _route(method: str, path: str, dialect: str) -> tuple[Dialect, Route] | None:
    own = DIALECTS.get(dialect)
    if own is not None:
        route = own.match(method, path)
        if route is not None:
            return own, route
    for name in _FOREIGN:
        if name == dialect:
            continue
        route = DIALECTS[name].match(method, path)
        if route is not None and route.route not in openai.AMBIGUOUS_ROUTES:
            return DIALECTS[name], route
    return None


def _fields(route: Route, headers: Mapping[str, str], body: bytes) -> Mapping[str, object] | bytes:
    """The body as the dialect takes it: the fields of a JSON object, each still undecoded, or the bytes as they are.

    A free call may have any body or none: uploads, which may look like JSON and be JSONL; cancellations.
    """
    content_type = headers.get("content-type", "")
    if not body and (route.free or route.parameters.get("retrieves")):
        return body
    if route.free and route.route.endswith("/files"):
        return body
    if is_form(content_type) and body.lstrip()[:1] != b"{":
        return body
    if route.free and body.lstrip()[:1] != b"{":
        return body
    return json_fields(body, route=route.route, content_type=content_type)


def open_meter(
    call: Call,
    *,
    provider: str,
    status: int,
    content_type: str,
    content_encoding: str,
    request_body: bytes = b"",
) -> Meter:
    """A fresh meter for the answer to `call`, which began with this status and these headers."""
    speaks = _dialect_of(call)
    reader: Reader
    reader = SilentReader() if speaks is None else speaks.reader(call, provider=provider, request_body=request_body)
    return AnswerMeter(
        reader,
        status=status,
        content_type=content_type,
        content_encoding=content_encoding,
        stream=call.stream,
    )


def end_of_stream(call: Call, refusal_code: str, sentence: str) -> bytes:
    """The honest end of a broken stream in the caller's dialect: an error event; nothing where it has no such thing."""
    speaks = _dialect_of(call)
    return b"" if speaks is None else speaks.end_of_stream(call, refusal_code, sentence)


def _dialect_of(call: Call) -> Dialect | None:
    """The dialect that read the call. A path that none knows has no route and no reader: its usage stays unknown."""
    if call.route in ollama.ROUTES:
        return ollama
    return DIALECTS.get(call.dialect) if call.route else None
