"""Refusals: our no. One closed list of codes, and what each looks like in the dialect of the caller.

The shapes follow what real SDKs and agents were seen to do with a status: which ones they repeat, how long they sleep,
whose words they show. A client that repeats a call that can never pass burns its user's time, so everything that is
not retryable says so, and `Retry-After` is sent only where waiting helps.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

SENTENCE_CHARACTERS_MAX = 1_000
"""Longer sentences are cut: agents print them in one line, and some of their parts come from callers."""

VALUE_CHARACTERS_MAX = 80
"""How much of a value that a caller sent (a model, a task) is repeated in a sentence."""

RETRY_AFTER_S_MAX = 60
"""Some agents sleep through whatever `Retry-After` says, and Node overflows its timer on a very long one."""

STORE_RETRY_AFTER_S = 2.0
"""A store that restarts or fails over is back within seconds."""


class Code(NamedTuple):
    """What is true of every refusal of one code.

    kind        the row of the shapes below
    retryable   the same call can pass later without anyone changing anything
    sentence    what is said when the one who refuses has nothing more exact to say
    retry_after_s   known from the code alone, else None
    """

    kind: str
    retryable: bool
    sentence: str
    retry_after_s: float | None = None


CODES: dict[str, Code] = {
    "key_missing": Code(
        "credential",
        False,
        "no Callmeter key was sent: put one (`cm_...`) where the provider's API key goes, or in `x-callmeter-key`",
    ),
    "key_invalid": Code(
        "credential",
        False,
        "this Callmeter key is not valid here: check that it was copied whole, or ask your admin for another",
    ),
    "key_expired": Code("credential", False, "this Callmeter key has expired: ask your admin for another"),
    "credential_missing": Code(
        "credential",
        False,
        "the upstream has no provider key: send your own provider credential beside `x-callmeter-key`, "
        "or ask your admin to set the upstream's `key`",
    ),
    "not_allowed": Code("permission", False, "the policy does not allow this call: ask your admin"),
    "task_required": Code(
        "permission", False, "the policy asks for a task here: make a task key with `callmeter task NAME` and use it"
    ),
    "body_too_large": Code("size", False, "the body is larger than the policy's `max_body`: send less"),
    "body_invalid": Code("body", False, "the body is not one that this endpoint takes"),
    "unknown_call": Code("permission", False, "this path is not known to Callmeter: check the base URL and the path"),
    "price_unknown": Code(
        "permission", False, "this model has no known price: use another, or ask your admin to add it to `prices`"
    ),
    "rate_limited": Code("limit", True, "a limit on calls or tokens is reached: wait and try again"),
    "busy": Code("limit", True, "the most calls that may run at once are running: wait for one to end"),
    "budget_held": Code("limit", True, "running calls hold what is left of the budget: try again when one has ended"),
    "budget_spent": Code("spent", False, "the budget is spent: ask your admin"),
    "duplicate": Code("twin", False, "the same call was made before: use its answer, or change what is asked"),
    "loop": Code("twin", False, "the conversation repeats the same step with the same result: try something else"),
    "unproven": Code("permission", False, "the task has spent without an outcome so far: ask your admin"),
    "store_unavailable": Code(
        "store", True, "the budgets cannot be read at the moment: try again in a moment", STORE_RETRY_AFTER_S
    ),
    "policy_broken": Code("broken", False, "the policy cannot be applied to this call: ask your admin"),
    "upstream_unreachable": Code("unreachable", True, "the provider could not be reached"),
    "upstream_timeout": Code("timeout", True, "the provider did not answer in time"),
}
"""Every code, in order of precedence: where several refusals are due, the caller hears the first."""

_PRECEDENCE = {code: place for place, code in enumerate(CODES)}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One no, with the reasons for it.

    sentence        for a person: the rule, the limit, what to do; empty: the code's own
    rule            the rule that decided, where one did
    retry_after_s   when a repeat can pass, where that is known; used only where the code is retryable
    resets_at_ms    when the limit starts anew, in ms since the epoch
    """

    code: str
    sentence: str = ""
    rule: str | None = None
    retry_after_s: float | None = None
    resets_at_ms: int | None = None

    @property
    def told(self) -> str:
        """The sentence for a person, in one line of bounded length."""
        return one_line(self.sentence or CODES[self.code].sentence, SENTENCE_CHARACTERS_MAX)


def first_by_precedence(refusals: list[Refusal]) -> Refusal:
    """The refusal that the caller hears; among equals the one found first. The list must not be empty."""
    return min(refusals, key=lambda refusal: _PRECEDENCE[refusal.code])


class Answer(msgspec.Struct, frozen=True):
    """A refusal as it leaves the house."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Shape(NamedTuple):
    """What a kind of refusal is called in each dialect. `bedrock_status` where AWS clients expect another status."""

    status: int
    openai_type: str
    anthropic_type: str
    gemini_status: str
    bedrock_type: str
    bedrock_status: int
    gemini_code: int | None = None


_SHAPES: dict[str, _Shape] = {
    "credential": _Shape(
        401, "invalid_request_error", "authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException", 403
    ),
    "permission": _Shape(
        403, "permission_error", "permission_error", "PERMISSION_DENIED", "AccessDeniedException", 403
    ),
    "size": _Shape(
        413, "invalid_request_error", "request_too_large", "INVALID_ARGUMENT", "ValidationException", 400, 400
    ),
    "body": _Shape(
        400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException", 400
    ),
    "limit": _Shape(429, "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException", 429),
    # 402 is shown once and in our words by every client but Codex. boto3 has no 402; an access error is not repeated.
    "spent": _Shape(402, "insufficient_quota", "billing_error", "FAILED_PRECONDITION", "AccessDeniedException", 403),
    # 400 is the one status that every OpenAI-style client takes at once.
    "twin": _Shape(
        400, "invalid_request_error", "invalid_request_error", "FAILED_PRECONDITION", "ValidationException", 400
    ),
    "store": _Shape(503, "server_error", "api_error", "UNAVAILABLE", "ServiceUnavailableException", 503),
    "broken": _Shape(500, "server_error", "api_error", "INTERNAL", "InternalServerException", 500),
    "unreachable": _Shape(502, "server_error", "api_error", "UNAVAILABLE", "ServiceUnavailableException", 503),
    "timeout": _Shape(504, "server_error", "timeout_error", "DEADLINE_EXCEEDED", "ServiceUnavailableException", 503),
}

_PROBLEM_TYPES = {
    "limit": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "spent": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "twin": "https://iana.org/assignments/http-problem-types#abnormal-usage-detected",
    "store": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
"""Registered problem types; a status alone says the rest."""

_PROBLEM_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

REQUEST_ID_HEADERS = {
    "openai": "x-request-id",
    "anthropic": "request-id",
    "gemini": "x-request-id",
    "bedrock": "x-amzn-requestid",
    "": "x-request-id",
}
"""Where a dialect's SDK looks for the id that people quote to support. Google's reads none; it gets the usual one."""

_CODEX_PLAN = "team"
"""Codex words its message by the plan; for this one it tells the user to ask their admin."""


class _Asked(NamedTuple):
    """Everything an answer is made of."""

    refusal: Refusal
    kind: str
    call_id: str
    now_ms: int
    codex: bool
    claude_code: bool
    retry_after_s: float | None


def answer(
    refusal: Refusal,
    *,
    dialect: str,
    call_id: str,
    now_ms: int,
    user_agent: str = "",
    originator: str = "",
    sent: bool = False,
) -> Answer:
    """The refusal in the caller's dialect ("" and unknown ones: problem details, RFC 9457).

    `user_agent` and `originator` are the caller's headers: Codex and Claude Code repeat some statuses that others
    take at once, and get another one there. `sent`: something of the call has already gone to the provider, so that
    a repeat might be paid for twice, and nothing invites one.
    """
    code = CODES[refusal.code]
    retryable = code.retryable and not sent
    asked = _Asked(
        refusal=refusal,
        kind=code.kind,
        call_id=call_id,
        now_ms=now_ms,
        codex="codex_" in user_agent or "codex_" in originator,
        claude_code="claude-cli" in user_agent,
        retry_after_s=_retry_after_s(refusal, code) if retryable else None,
    )
    status, content_type, body, own_headers = _WRITERS.get(dialect, _problem)(asked)
    headers = [
        ("content-type", content_type),
        ("x-callmeter-call", call_id),
        ("x-callmeter-reason", refusal.code),
        (REQUEST_ID_HEADERS.get(dialect, REQUEST_ID_HEADERS[""]), call_id),
        *own_headers,
    ]
    if not retryable:
        headers.append(("x-should-retry", "false"))
    elif asked.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(asked.retry_after_s)))))
        if dialect == "openai" and status == 429:
            headers.append(("retry-after-ms", str(max(1, math.ceil(asked.retry_after_s * 1000)))))
    return Answer(status, headers, msgspec.json.encode(body))


def _retry_after_s(refusal: Refusal, code: Code) -> float | None:
    known = refusal.retry_after_s if refusal.retry_after_s is not None else code.retry_after_s
    return None if known is None else min(max(known, 0.0), RETRY_AFTER_S_MAX)


_Written = tuple[int, str, dict[str, Any], list[tuple[str, str]]]
"""Status, content type, body, and headers that only this dialect has."""


def _openai(asked: _Asked) -> _Written:
    shape = _SHAPES[asked.kind]
    error: dict[str, Any] = {
        "message": asked.refusal.told,
        "type": shape.openai_type,
        "param": None,
        "code": "invalid_api_key" if asked.kind == "credential" else asked.refusal.code,
    }
    status = shape.status
    if asked.codex and asked.kind == "spent":
        # Codex repeats a 402 six times, and a 429 of any other type loses or replaces our words.
        status = 429
        error |= {"type": "usage_limit_reached", "plan_type": _CODEX_PLAN}
        if asked.refusal.resets_at_ms is not None:
            left_ms = max(0, asked.refusal.resets_at_ms - asked.now_ms)
            error |= {"resets_at": asked.refusal.resets_at_ms // 1000, "resets_in_seconds": -(-left_ms // 1000)}
    elif asked.codex and asked.kind == "broken":
        status = 400  # Codex repeats a 500 thirty times and tells its user of high demand.
    return status, "application/json", {"error": error}, []


def _anthropic(asked: _Asked) -> _Written:
    shape = _SHAPES[asked.kind]
    status, error_type = shape.status, shape.anthropic_type
    if asked.claude_code and asked.kind == "twin":
        status, error_type = 409, "conflict_error"  # Claude Code repeats a 400 four times, a 409 not at all.
    error = {
        "type": error_type,
        "message": asked.refusal.told,
        "details": {"error_code": asked.refusal.code},
    }
    return status, "application/json", {"type": "error", "error": error, "request_id": asked.call_id}, []


def _gemini(asked: _Asked) -> _Written:
    shape = _SHAPES[asked.kind]
    status = shape.gemini_code or shape.status
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": asked.refusal.code.upper(),
            "domain": "callmeter",
            "metadata": {"call": asked.call_id},
        }
    ]
    if asked.retry_after_s is not None:
        delay = f"{max(1, math.ceil(asked.retry_after_s))}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    error = {"code": status, "message": asked.refusal.told, "status": shape.gemini_status, "details": details}
    return status, "application/json; charset=UTF-8", {"error": error}, []


def _bedrock(asked: _Asked) -> _Written:
    shape = _SHAPES[asked.kind]
    body = {"message": asked.refusal.told}
    return shape.bedrock_status, "application/json", body, [("x-amzn-errortype", shape.bedrock_type)]


def _problem(asked: _Asked) -> _Written:
    status = _SHAPES[asked.kind].status
    body: dict[str, Any] = {
        "type": _PROBLEM_TYPES.get(asked.kind, "about:blank"),
        "title": _PROBLEM_TITLES[status],
        "status": status,
        "detail": asked.refusal.told,
        "code": asked.refusal.code,
        "call_id": asked.call_id,
    }
    if asked.refusal.rule is not None:
        body["violated-policies"] = [asked.refusal.rule]
    return status, "application/problem+json", body, []


_WRITERS: dict[str, Callable[[_Asked], _Written]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "": _problem,
}


def one_line(text: str, characters_max: int) -> str:
    """Text for a sentence or a header of one line: no control or hidden characters, one space at a time, bounded.

    What a caller sent ends up in error bodies and terminals; a line break or an escape sequence must not.
    """
    # Each character comes out as at most one, so that a little more than the bound is enough to look at.
    text = text[: 4 * characters_max]
    cleaned = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= characters_max else cleaned[: characters_max - 1] + "…"


def quoted(value: str | None) -> str:
    """A caller's value for a sentence, in backticks; `none` where there is none."""
    return f"`{one_line(value or '', VALUE_CHARACTERS_MAX).replace('`', chr(39)) or 'none'}`"


def header_text(text: str) -> str:
    """A sentence for a header: one line, ASCII alone, since clients disagree on anything else."""
    return one_line(text, SENTENCE_CHARACTERS_MAX).encode("ascii", "replace").decode("ascii")
