"""Refusals: the closed list, and what each looks like to every kind of client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.refusal import (
    CODES,
    SENTENCE_CHARACTERS_MAX,
    Answer,
    Refusal,
    answer,
    first_by_precedence,
    header_text,
    one_line,
    quoted,
)

NOW_MS = 1_795_500_000_000
DIALECTS = ("openai", "anthropic", "gemini", "bedrock", "")
CREDENTIAL = ("key_missing", "key_invalid", "key_expired", "credential_missing")
PERMISSION = ("not_allowed", "task_required", "unproven", "unknown_call", "price_unknown")
LIMIT = ("rate_limited", "busy", "budget_held")
TWIN = ("duplicate", "loop")


def answered(code: str, dialect: str, **given: Any) -> Answer:
    of_client = {name: given.pop(name) for name in ("user_agent", "originator", "sent") if name in given}
    return answer(Refusal(code=code, **given), dialect=dialect, call_id="c-1", now_ms=NOW_MS, **of_client)


def body(told: Answer) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(told.body)
    return read


def headers(told: Answer) -> dict[str, str]:
    assert len(dict(told.headers)) == len(told.headers)
    return dict(told.headers)


CONTRACT = """
key_missing key_invalid key_expired credential_missing not_allowed task_required body_too_large body_invalid
unknown_call price_unknown rate_limited busy budget_held budget_spent duplicate loop unproven store_unavailable
policy_broken upstream_unreachable upstream_timeout
"""


def test_the_codes_are_those_of_the_contract_in_their_order() -> None:
    assert list(CODES) == CONTRACT.split()


def test_the_caller_hears_the_refusal_that_comes_first_in_the_list() -> None:
    spent, missing = Refusal(code="budget_spent"), Refusal(code="task_required", rule="a")
    later = Refusal(code="task_required", rule="b")
    assert first_by_precedence([spent, missing, later]) is missing


OPENAI = [
    *((code, 401, "invalid_request_error", "invalid_api_key") for code in CREDENTIAL),
    *((code, 403, "permission_error", code) for code in PERMISSION),
    ("body_too_large", 413, "invalid_request_error", "body_too_large"),
    ("body_invalid", 400, "invalid_request_error", "body_invalid"),
    *((code, 429, "rate_limit_exceeded", code) for code in LIMIT),
    ("budget_spent", 402, "insufficient_quota", "budget_spent"),
    *((code, 400, "invalid_request_error", code) for code in TWIN),
    ("store_unavailable", 503, "server_error", "store_unavailable"),
    ("policy_broken", 500, "server_error", "policy_broken"),
    ("upstream_unreachable", 502, "server_error", "upstream_unreachable"),
    ("upstream_timeout", 504, "server_error", "upstream_timeout"),
]
ANTHROPIC = [
    *((code, 401, "authentication_error") for code in CREDENTIAL),
    *((code, 403, "permission_error") for code in PERMISSION),
    ("body_too_large", 413, "request_too_large"),
    ("body_invalid", 400, "invalid_request_error"),
    *((code, 429, "rate_limit_error") for code in LIMIT),
    ("budget_spent", 402, "billing_error"),
    *((code, 400, "invalid_request_error") for code in TWIN),
    ("store_unavailable", 503, "api_error"),
    ("policy_broken", 500, "api_error"),
    ("upstream_unreachable", 502, "api_error"),
    ("upstream_timeout", 504, "timeout_error"),
]
GEMINI = [
    *((code, 401, "UNAUTHENTICATED") for code in CREDENTIAL),
    *((code, 403, "PERMISSION_DENIED") for code in PERMISSION),
    *((code, 400, "INVALID_ARGUMENT") for code in ("body_too_large", "body_invalid")),
    *((code, 429, "RESOURCE_EXHAUSTED") for code in LIMIT),
    ("budget_spent", 402, "FAILED_PRECONDITION"),
    *((code, 400, "FAILED_PRECONDITION") for code in TWIN),
    ("store_unavailable", 503, "UNAVAILABLE"),
    ("policy_broken", 500, "INTERNAL"),
    ("upstream_unreachable", 502, "UNAVAILABLE"),
    ("upstream_timeout", 504, "DEADLINE_EXCEEDED"),
]
BEDROCK = [
    *((code, 403, "UnrecognizedClientException") for code in CREDENTIAL),
    *((code, 403, "AccessDeniedException") for code in (*PERMISSION, "budget_spent")),
    *((code, 400, "ValidationException") for code in (*TWIN, "body_too_large", "body_invalid")),
    *((code, 429, "ThrottlingException") for code in LIMIT),
    *((code, 503, "ServiceUnavailableException") for code in ("store_unavailable", "upstream_unreachable")),
    ("upstream_timeout", 503, "ServiceUnavailableException"),
    ("policy_broken", 500, "InternalServerException"),
]


@pytest.mark.parametrize("table", [OPENAI, ANTHROPIC, GEMINI, BEDROCK])
def test_every_code_has_a_shape_in_every_dialect(table: list[tuple[Any, ...]]) -> None:
    assert sorted(row[0] for row in table) == sorted(CODES)


@pytest.mark.parametrize(("code", "status", "kind", "own_code"), OPENAI)
def test_openai_shapes(code: str, status: int, kind: str, own_code: str) -> None:
    told = answered(code, "openai", sentence="no")
    assert told.status == status
    assert body(told) == {"error": {"message": "no", "type": kind, "param": None, "code": own_code}}
    assert headers(told)["x-request-id"] == "c-1"
    assert headers(told)["content-type"] == "application/json"


@pytest.mark.parametrize(("code", "status", "kind"), ANTHROPIC)
def test_anthropic_shapes(code: str, status: int, kind: str) -> None:
    told = answered(code, "anthropic", sentence="no")
    error = {"type": kind, "message": "no", "details": {"error_code": code}}
    assert told.status == status
    assert body(told) == {"type": "error", "error": error, "request_id": "c-1"}
    assert headers(told)["request-id"] == "c-1"


@pytest.mark.parametrize(("code", "status", "word"), GEMINI)
def test_gemini_shapes(code: str, status: int, word: str) -> None:
    told = answered(code, "gemini", sentence="no")
    error = body(told)["error"]
    assert told.status == error["code"] == status
    assert (error["status"], error["message"]) == (word, "no")
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert error["details"][0]["reason"] == code.upper()


@pytest.mark.parametrize(("code", "status", "kind"), BEDROCK)
def test_bedrock_shapes(code: str, status: int, kind: str) -> None:
    told = answered(code, "bedrock", sentence="no")
    assert told.status == status
    assert body(told) == {"message": "no"}
    assert headers(told)["x-amzn-errortype"] == kind
    assert headers(told)["x-amzn-requestid"] == "c-1"


def test_an_unknown_dialect_gets_problem_details() -> None:
    told = answered("budget_spent", "", sentence="no", rule="person-day")
    assert told.status == 402
    assert headers(told)["content-type"] == "application/problem+json"
    assert body(told) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Payment Required",
        "status": 402,
        "detail": "no",
        "code": "budget_spent",
        "call_id": "c-1",
        "violated-policies": ["person-day"],
    }
    assert body(answered("body_invalid", "klingon"))["type"] == "about:blank"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("code", CODES)
def test_every_answer_names_call_and_reason_and_what_is_not_retryable_says_so(code: str, dialect: str) -> None:
    told = headers(answered(code, dialect, retry_after_s=5))
    assert (told["x-callmeter-call"], told["x-callmeter-reason"]) == ("c-1", code)
    retryable = CODES[code].retryable
    assert (told.get("x-should-retry") == "false") is not retryable
    assert ("retry-after" in told) is retryable
    assert len(CODES[code].sentence) > 20


@pytest.mark.parametrize(
    ("known_s", "told_s", "told_ms"), [(5, "5", "5000"), (0.2, "1", "200"), (-3, "1", "1"), (86_400, "60", "60000")]
)
def test_retry_after_is_a_whole_number_of_seconds_up_to_60(known_s: float, told_s: str, told_ms: str) -> None:
    told = headers(answered("rate_limited", "openai", retry_after_s=known_s))
    assert (told["retry-after"], told["retry-after-ms"]) == (told_s, told_ms)
    assert "retry-after-ms" not in headers(answered("rate_limited", "anthropic", retry_after_s=known_s))
    details = body(answered("rate_limited", "gemini", retry_after_s=known_s))["error"]["details"]
    assert details[1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{told_s}s"}


def test_retry_after_is_left_out_where_nobody_knows_it() -> None:
    assert "retry-after" not in headers(answered("busy", "openai"))
    assert len(body(answered("busy", "gemini"))["error"]["details"]) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_store_that_is_away_is_tried_again_after_two_seconds(dialect: str) -> None:
    assert headers(answered("store_unavailable", dialect))["retry-after"] == "2"


@pytest.mark.parametrize("code", ["upstream_unreachable", "upstream_timeout"])
def test_a_call_that_may_have_reached_the_provider_invites_no_repeat(code: str) -> None:
    assert "x-should-retry" not in headers(answered(code, "openai"))
    told = headers(answered(code, "openai", sent=True, retry_after_s=1))
    assert told["x-should-retry"] == "false"
    assert "retry-after" not in told


@pytest.mark.parametrize("client", [{"originator": "codex_exec"}, {"user_agent": "codex_cli_rs/0.169.0"}])
def test_codex_learns_of_a_spent_budget_in_the_one_way_it_takes_at_once(client: dict[str, str]) -> None:
    told = answered("budget_spent", "openai", resets_at_ms=NOW_MS + 90_500, **client)
    error = body(told)["error"]
    assert told.status == 429
    assert (error["type"], error["code"], error["plan_type"]) == ("usage_limit_reached", "budget_spent", "team")
    assert (error["resets_at"], error["resets_in_seconds"]) == ((NOW_MS + 90_500) // 1000, 91)
    assert "retry-after" not in headers(told)
    assert "resets_at" not in body(answered("budget_spent", "openai", **client))["error"]


def test_codex_is_not_told_of_a_broken_policy_by_a_500_which_it_repeats_thirty_times() -> None:
    assert answered("policy_broken", "openai", originator="codex_exec").status == 400
    assert answered("policy_broken", "openai").status == 500


@pytest.mark.parametrize("code", TWIN)
def test_claude_code_gets_a_409_for_duplicates_since_it_repeats_a_400(code: str) -> None:
    told = answered(code, "anthropic", user_agent="claude-cli/2.1.330 (external, cli)")
    assert (told.status, body(told)["error"]["type"]) == (409, "conflict_error")
    assert headers(told)["x-should-retry"] == "false"


def test_a_refusal_without_a_sentence_says_what_its_code_says() -> None:
    assert body(answered("busy", "openai"))["error"]["message"] == CODES["busy"].sentence


@given(
    code=st.sampled_from(list(CODES)),
    dialect=st.sampled_from(DIALECTS),
    sentence=st.text(alphabet=st.characters(), max_size=50).map(lambda text: text * 40),
)
def test_any_sentence_leaves_as_one_bounded_line_of_json(code: str, dialect: str, sentence: str) -> None:
    told = answered(code, dialect, sentence=sentence)
    read = body(told)
    error = read.get("error", read)
    message = error["message"] if "message" in error else error["detail"]
    assert len(message) <= SENTENCE_CHARACTERS_MAX
    assert message.isprintable()
    assert all("\n" not in value and "\r" not in value for _, value in told.headers)


def test_values_of_callers_are_shown_harmlessly() -> None:
    assert quoted("a\r\nx-evil: 1\x1b[31m") == "`a x-evil: 1 [31m`"
    assert quoted("a`b") == "`a'b`"
    assert quoted(None) == quoted("\x00") == "`none`"
    assert len(quoted("x" * 10_000)) <= 82
    assert one_line("a\u202eb \u2028 c", 50) == "a b c"
    assert one_line("\ud800", 50) == ""


def test_a_header_holds_plain_ascii() -> None:
    assert header_text("rule; früh\nspät") == "rule; fr?h sp?t"
