"""OpenAI requests: the facts of a call out of its path and body, for every endpoint of the dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from ..core.call import Call
from .reader import BodyInvalid, Route
from .request import is_form, read_form
from .unbounded import mark_openai, openai_output_min
from .values import choices, listed, mapping, output_limit, plain, short_name, text

TASK_FIELDS = ("task", "task_id", "task.id")
SESSION_FIELDS = ("session_id", "session", "session.id", "sessionId", "conversation_id")
"""Names under which agents put their task and session into OpenAI's `metadata`, most telling first."""

MODEL_NEEDED = frozenset({"openai.chat", "openai.completions", "openai.embeddings", "cohere.rerank", "openai.audio"})
"""Endpoints that name their model in the request. The others have a default, a stored prompt or an assistant."""

OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
"""Names under which a request limits its output."""

OTHER_MODELS_MAX = 64
"""Models to fall back on. Each is decided on."""

API_VERSION_CHARACTERS_MAX = 32
"""Azure's versions are dates, some with `-preview` behind them."""

INLINE_BYTES_MIN = 4096
"""Base64 of this length is always found; shorter runs of it may be taken for text, of which they are little."""

_SAMPLE_BYTES = 64
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"
_PROMPTS = re.compile(rb'\s*\[\s*["\[]')
_AUDIO_DATA = re.compile(rb'"input_audio"\s*:\s*\{[^{}]{0,200}?"data"\s*:\s*"')


def read(
    route: Route,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | bytes,
) -> Call:
    """The Dialect's `read` for all routes of `openai.match`. Raises BodyInvalid."""
    call = Call(api=route.api, dialect=route.dialect, route=route.route, method=method, free=route.free)
    call.model = route.parameters.get("model")  # an Azure deployment: it is what is served, whatever the body says
    call.retrieves = route.parameters.get("retrieves")
    for part in query.split("&") if query else ():
        name, _, value = unquote(part).partition("=")
        if name == "stream":
            call.stream = value == "true"
        elif name == "api-version":
            call.api_version = value[:API_VERSION_CHARACTERS_MAX]
    if isinstance(body, bytes):
        content_type = headers.get("content-type", "")
        if is_form(content_type) and not route.free:
            _read_form_fields(call, body, content_type)
    else:
        _read_json_fields(call, body)
    if call.model is None and call.api in MODEL_NEEDED and not route.free and not _has_agent(body):
        raise BodyInvalid(f"The body of `{call.route}` names no model; add `model` to it.")
    return call


def _read_form_fields(call: Call, body: bytes, content_type: str) -> None:
    form = read_form(body, route=call.route, content_type=content_type)
    call.model = call.model or form.fields.get("model")
    call.stream = form.fields.get("stream", "").lower() in ("true", "1")
    call.choices = choices(form.fields.get("n"))
    call.inline_bytes = form.file_bytes


def _read_json_fields(call: Call, body: Mapping[str, Any]) -> None:
    model = plain(body.get("model"))
    if model is not None:
        if not isinstance(model, str) or not model:
            raise BodyInvalid(f"`model` in the body of `{call.route}` is not a name; write it as a string.")
        call.model = call.model or model
    # Most requests have few of these, and a look whether one is there costs less than a look into it.
    if "models" in body or "providerOptions" in body:
        call.other_models = _other_models(call, body)
    if "stream" in body:
        call.stream = plain(body["stream"]) is True
    if "stream_options" in body:
        asked = mapping(body["stream_options"]).get("include_usage")
        call.usage_asked = asked if isinstance(asked, bool) else None
    for name in OUTPUT_LIMITS:
        if name in body and (limit := output_limit(body[name])) is not None:
            # Where several are given, providers differ in which one counts.
            call.max_output_tokens = max(limit, call.max_output_tokens or 0)
    call.output_tokens_min = openai_output_min(call)
    for name in ("n", "best_of"):
        if name in body:
            call.choices = max(choices(body[name]), call.choices)
    if call.api == "openai.completions":
        call.choices *= _prompts(body.get("prompt"))
    if "service_tier" in body:
        call.service_tier = short_name(plain(body["service_tier"]))
    call.later = call.api == "openai.batches" or plain(body.get("background")) is True or _is_run(call)
    _read_labels(call, body)
    if call.route == "/v1/audio/speech":
        call.characters = len(text(body, "input") or "")
    for value in body.values():
        if isinstance(value, msgspec.Raw) and len(memoryview(value)) >= INLINE_BYTES_MIN:
            call.inline_bytes += _inline_bytes(bytes(value))
    if not call.free:
        mark_openai(call, body)


def _other_models(call: Call, body: Mapping[str, Any]) -> tuple[str, ...]:
    """The models to fall back on: OpenRouter's `models`, Vercel's `providerOptions.gateway.models`. One whose name is
    none is left out, and the provider refuses it. Raises BodyInvalid for more than any provider takes."""
    gateway = mapping(mapping(body.get("providerOptions")).get("gateway"))
    named = [*listed(body.get("models")), *listed(gateway.get("models"))]
    if len(named) > OTHER_MODELS_MAX:
        raise BodyInvalid(f"The body of `{call.route}` names {len(named)} models; name {OTHER_MODELS_MAX} at most.")
    return tuple(dict.fromkeys([name for name in map(short_name, named) if name is not None]))


def _read_labels(call: Call, body: Mapping[str, Any]) -> None:
    """What the body says of task and session."""
    if "metadata" in body:
        metadata = mapping(body.get("metadata"))
        call.task = _first_name(metadata, TASK_FIELDS)
        call.session = _first_name(metadata, SESSION_FIELDS)
    call.session = call.session or short_name(plain(body.get("prompt_cache_key")))


def _first_name(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        found = short_name(plain(fields.get(name)))
        if found:
            return found
    return None


def _is_run(call: Call) -> bool:
    """Assistants run in the background unless they are streamed."""
    return "/runs" in call.route and not call.stream


def _prompts(prompt: Any) -> int:
    """How many prompts a completion answers: the limit of its output is that of each. A list of numbers is one."""
    several = isinstance(prompt, msgspec.Raw) and _PROMPTS.match(prompt) is not None
    return max(1, len(listed(prompt))) if several else 1


def _has_agent(body: Mapping[str, Any] | bytes) -> bool:
    """Mistral's agents name their model themselves."""
    return not isinstance(body, bytes) and "agent_id" in body


def _inline_bytes(data: bytes) -> int:
    """Length of base64 data in an undecoded value: data URLs and `input_audio`. Base64 holds no quote."""
    if not _samples_base64(data):
        return 0
    total = 0
    position = data.find(b";base64")
    while position >= 0:
        start = position + len(b";base64,")
        end = data.find(b'"', start)
        end = end if end >= 0 else len(data)
        total += end - start
        position = data.find(b";base64", end)
    position = data.find(b'"input_')
    while position >= 0:
        # {"type": "input_audio", "input_audio": {"data": "...", "format": "wav"}}
        found = _AUDIO_DATA.match(data, position)
        start = end = position + len(b'"input_')
        if found is not None:
            start, end = found.end(), data.find(b'"', found.end())
        if end < 0:
            break
        total += end - start
        position = data.find(b'"input_', end)
    return total


def _samples_base64(data: bytes) -> bool:
    """Whether some place looks like base64. Looking at few places costs a tenth of a search through it all, and most
    conversations hold none."""
    for at in range(0, len(data), INLINE_BYTES_MIN - _SAMPLE_BYTES):
        sample = data[at : at + _SAMPLE_BYTES]
        if b" " not in sample and not sample.translate(None, _BASE64):  # the first look is quick, and prose ends there
            return True
    return False
