"""The Gemini dialect: the Gemini API and Vertex, which share bodies and differ in paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from ..core.call import Call
from . import gemini_batches, gemini_interactions
from .gemini_generate import GenerateReader
from .reader import BodyInvalid, Reader, Route, parameters_of
from .unbounded import gemini_output_min, mark_gemini
from .values import REGION, choices, decode, inline_bytes, mapping, output_limit, short_name, text

DIALECT = "gemini"

_VERSION = r"/v1(?:(?:alpha|beta)\d?)?"
_METHOD = re.compile(
    rf"(?P<version>{_VERSION})(?P<place>/projects/[^/]+/locations/(?:{REGION}|[^/]+))?(?P<publisher>/publishers/google)?"
    r"/(?P<kind>models|tunedModels|endpoints)/(?P<model>[^/]+):(?P<verb>[A-Za-z]+)/?\Z"
)
_APIS = {
    "generateContent": "gemini.generate",
    "streamGenerateContent": "gemini.generate",
    "batchGenerateContent": "gemini.generate",
    "embedContent": "gemini.embed",
    "batchEmbedContents": "gemini.embed",
    "asyncBatchEmbedContent": "gemini.embed",
    "countTokens": "gemini.count_tokens",
    "computeTokens": "gemini.count_tokens",
    "predict": "",
    # Videos: billed by the second, and no answer tells how many.
    "predictLongRunning": "unknown",
    "fetchPredictOperation": "free",
}
"""What follows the colon of a model's path. The model decides what `predict` is."""

_BATCH_VERBS = ("batchGenerateContent", "asyncBatchEmbedContent")
_FREE_APIS = ("gemini.count_tokens", "free")

# Method, end of the path, api, route, whether it is free. Keeping content in a cache is billed by the hour and its
# answer tells no usage, so that making or prolonging one is `unknown` and never taken for free.
_ROUTES = tuple(
    (
        methods,
        re.compile(rf"({_VERSION}){pattern}/?\Z"),
        Route(api=api, dialect=DIALECT, route=route, free=free),
    )
    for methods, pattern, api, route, free in (
        ("GET", r"/models", "free", "/models", True),
        ("GET", r"/(?:models|tunedModels)/(?P<model>[^/:]+)", "free", "/models/{model}", True),
        ("GET", r"/models/(?P<model>[^/]+)/operations/[^/]+", "free", "/models/{model}/operations/{id}", True),
        ("POST", r"/interactions", "gemini.generate", "/interactions", False),
        ("GET", r"/interactions/(?P<id>[^/:]+)", "gemini.generate", "/interactions/{id}", True),
        ("DELETE", r"/interactions/[^/:]+", "free", "/interactions/{id}", True),
        ("POST", r"/interactions/[^/:]+[/:]cancel", "free", "/interactions/{id}/cancel", True),
        ("GET", r"/batches", "free", "/batches", True),
        ("GET", r"/(?P<id>batches/[^/:]+)", "gemini.generate", "/batches/{id}", True),
        ("DELETE", r"/batches/[^/:]+", "free", "/batches/{id}", True),
        ("POST", r"/batches/[^/:]+:(?:cancel|delete)", "free", "/batches/{id}:cancel", True),
        ("GET|POST", r"/files", "free", "/files", True),
        ("GET", r"/(?P<id>files/[^/:]+):download", "gemini.generate", "/files/{id}:download", True),
        ("GET|DELETE", r"/files/[^/:]+", "free", "/files/{id}", True),
        ("POST", r"(?:/projects/[^/]+/locations/[^/]+)?/cachedContents", "unknown", "/cachedContents", False),
        ("GET", r"(?:/projects/[^/]+/locations/[^/]+)?/cachedContents", "free", "/cachedContents", True),
        (
            "PATCH",
            r"(?:/projects/[^/]+/locations/[^/]+)?/cachedContents/[^/]+",
            "unknown",
            "/cachedContents/{id}",
            False,
        ),
        (
            "GET|DELETE",
            r"(?:/projects/[^/]+/locations/[^/]+)?/cachedContents/[^/]+",
            "free",
            "/cachedContents/{id}",
            True,
        ),
    )
)

_TIER_HEADER = "x-vertex-ai-llm-shared-request-type"

_ERRORS = {
    "budget_spent": (402, "FAILED_PRECONDITION"),
    "budget_held": (429, "RESOURCE_EXHAUSTED"),
    "rate_limited": (429, "RESOURCE_EXHAUSTED"),
    "busy": (429, "RESOURCE_EXHAUSTED"),
    "upstream_timeout": (504, "DEADLINE_EXCEEDED"),
    "upstream_unreachable": (502, "UNAVAILABLE"),
}
"""Refusal codes that can end a running stream, in Google's words; any other is 500 INTERNAL."""


def match(method: str, path: str) -> Route | None:
    """The route, recognised by the end of the path, or None. Clients may write the colon as `%3A`."""
    path = path.replace("%3A", ":").replace("%3a", ":")
    found = _METHOD.search(path)
    if found is not None:
        return _model_route(found) if method == "POST" else None
    for methods, pattern, route in _ROUTES:
        found = pattern.search(path)
        if found is not None and method in methods.split("|"):
            # The version stays in the route: under /v1 some of these paths are other dialects' too.
            return msgspec.structs.replace(route, route=found[1] + route.route, parameters=parameters_of(found))
    return None


def _model_route(found: re.Match[str]) -> Route | None:
    verb, kind, model = found["verb"], found["kind"], unquote(found["model"])
    api = _APIS.get(verb)
    if api is None:
        return None
    if verb == "predict":
        api = "gemini.embed" if "embed" in model else "gemini.generate" if model.startswith("imagen") else "unknown"
    place = "/projects/{project}/locations/{location}" if found["place"] else ""
    parameters = {"model": model if kind == "models" else f"{kind}/{model}", "verb": verb}
    if found["region"]:
        parameters["region"] = found["region"]
    return Route(
        api=api,
        dialect=DIALECT,
        route=f"{found['version']}{place}{found['publisher'] or ''}/{kind}/{{model}}:{verb}",
        parameters=parameters,
        free=api in _FREE_APIS,
    )


def read(
    route: Route,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | bytes,
) -> Call:
    """The call. Raises BodyInvalid where nothing could be generated from the body."""
    verb = route.parameters.get("verb", "")
    call = Call(
        api=route.api,
        dialect=DIALECT,
        route=route.route,
        method=method,
        model=route.parameters.get("model"),
        free=route.free,
        retrieves=route.parameters.get("id"),
        region=route.parameters.get("region"),
        stream=verb == "streamGenerateContent",
    )
    asked = unquote(query).split("&")
    if call.stream:
        call.json_array = not any(part in asked for part in ("alt=sse", "$alt=sse"))
    if call.retrieves is not None:
        call.stream = "stream=true" in asked
    if route.api == "free" or method in ("GET", "DELETE"):
        return call
    fields = decode(body) if isinstance(body, bytes) else body
    if not isinstance(fields, Mapping):
        raise BodyInvalid(
            f"The body of `{route.route}` is not a JSON object; send one with the fields that Google's reference names."
        )
    if route.route.endswith("/interactions"):
        return mark_gemini(gemini_interactions.read_interaction(call, fields), fields)
    if verb in _BATCH_VERBS:
        return mark_gemini(gemini_batches.read_batch(call, fields), fields)
    return _read_generate(call, fields, headers)


def _read_generate(call: Call, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    if call.model is None:
        # Only caches name their model in the body.
        call.model = (text(fields, "model") or "").rpartition("models/")[2] or None
    config = mapping(fields.get("generationConfig", fields.get("generation_config")))
    _check_spelled_once(call.route, fields, "generationConfig", "generation_config")
    _check_spelled_once(call.route, config, "maxOutputTokens", "max_output_tokens")
    _check_spelled_once(call.route, config, "candidateCount", "candidate_count")
    call.max_output_tokens = output_limit(config.get("maxOutputTokens", config.get("max_output_tokens")))
    asked = config.get("candidateCount", config.get("candidate_count"))
    if asked is None:
        asked = mapping(fields.get("parameters")).get("sampleCount")
    call.choices = choices(asked)
    call.service_tier = short_name(
        text(fields, "serviceTier") or text(fields, "service_tier") or headers.get(_TIER_HEADER)
    )
    for name in ("contents", "content", "requests", "instances"):
        call.inline_bytes += inline_bytes(fields.get(name))
    call.output_tokens_min = gemini_output_min(config)
    return call if call.free else mark_gemini(call, fields)


def _check_spelled_once(route: str, fields: Mapping[str, Any], name: str, other: str) -> None:
    """Google takes a name in two spellings. Where both are there we would decide by one, and Google might take the
    other."""
    if name in fields and other in fields:
        raise BodyInvalid(f"The body of `{route}` names `{name}` twice, as `{other}` too; name it once.")


def reader(call: Call, *, provider: str, request_body: bytes) -> Reader:
    """A fresh reader for the answer to this call."""
    if "/interactions" in call.route:
        return gemini_interactions.InteractionReader(call)
    if call.later or "/batches" in call.route or call.route.endswith(":download"):
        return gemini_batches.BatchReader(call)
    return GenerateReader(call)


def end_of_stream(call: Call, code: str, sentence: str) -> bytes:
    """A last chunk with an error in Google's shape; in the array form the last element, and the bracket that closes it.

    Blank lines go before an event, so that it does not run into one that was cut. An array that was cut between two
    elements, as Google sends them, stays valid JSON.
    """
    if not call.stream:
        return b""
    number, status = _ERRORS.get(code, (500, "INTERNAL"))
    if "/interactions" in call.route:
        event = {"event_type": "error", "error": {"code": code, "message": sentence}}
        return b"\n\nevent: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.upper(), "domain": "callmeter"}
    chunk = msgspec.json.encode({"error": {"code": number, "message": sentence, "status": status, "details": [reason]}})
    if call.json_array:
        return b",\r\n" + chunk + b"]"
    return b"\r\n\r\ndata: " + chunk + b"\r\n\r\n"
