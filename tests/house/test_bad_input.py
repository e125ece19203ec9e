"""What a data port is sent on bad days: each gets an answer that says what is wrong, in the dialect of the caller, and
a record where the caller is known."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import pytest

from tests.support.house import Answer, Caller, House, eventually, read_answer
from tests.support.valkey import PATIENT_S

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
GOOD = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
BODY = json.dumps(GOOD).encode()
JSON = {"content-type": "application/json"}
NOT_GENUINE = "cm_abcdefgh12345678_" + "0" * 64


@pytest.fixture
def ada(house: House) -> Caller:
    return house.caller("ada")


def told(answer: Answer, path: str) -> tuple[str, str]:
    """Type and sentence of a refusal, after its shape was checked against the dialect of the path."""
    assert answer.headers["x-should-retry"] == "false"
    assert len(answer.headers["x-callmeter-call"]) == 32
    document = answer.json
    if path == CHAT:
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        return document["error"]["type"], document["error"]["message"]
    if path == MESSAGES:
        assert document["type"] == "error"
        assert document["request_id"] == answer.headers["x-callmeter-call"]
        return document["error"]["type"], document["error"]["message"]
    if path == GEMINI:
        assert document["error"]["code"] == answer.status
        return document["error"]["status"], document["error"]["message"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status
    return document["title"], document["detail"]


def head(path: str, key: str, *lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    """The head of a request, to be sent as it is."""
    told = [f"{method} {path} HTTP/{version}", "Host: x", f"Authorization: Bearer {key}", *lines]
    return ("\r\n".join(told) + "\r\n\r\n").encode()


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (CHAT, "invalid_request_error"),
        (MESSAGES, "authentication_error"),
        (GEMINI, "UNAUTHENTICATED"),
        ("/nope", "Unauthorized"),
    ],
)
@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (None, "no Callmeter key was sent"),
        ("sk-somebody-elses", "no Callmeter key was sent"),
        (NOT_GENUINE, "not genuine"),
        (NOT_GENUINE[:-9], "cm_"),
        ("cm_", "cm_"),
    ],
)
def test_a_key_that_is_none_is_refused_in_the_dialect(
    house: House, path: str, kind: str, key: str | None, sentence: str
) -> None:
    headers = JSON if key is None else JSON | {"authorization": f"Bearer {key}"}
    answer = house.request("POST", path, BODY, headers)
    assert answer.status == 401
    found_kind, message = told(answer, path)
    assert found_kind == kind
    assert sentence in message
    assert NOT_GENUINE[20:60] not in message, "a key is never repeated"


def test_a_real_key_that_was_cut_when_copied_is_refused(house: House, ada: Caller) -> None:
    for cut in (ada.key[:-1], ada.key[:20], ada.key + "0"):
        answer = house.request("POST", CHAT, BODY, JSON | {"authorization": f"Bearer {cut}"})
        assert (answer.status, answer.headers["x-callmeter-reason"]) == (401, "key_invalid"), cut


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [(CHAT, "invalid_request_error"), (MESSAGES, "invalid_request_error"), (GEMINI, "INVALID_ARGUMENT")],
)
@pytest.mark.parametrize(
    ("body", "headers", "sentence"),
    [
        (b"", {}, "is empty"),
        (b"{", {}, "is not JSON"),
        (b'{"model": "x"', {}, "is not JSON"),
        (b"[1, 2]", {}, "not an object"),
        (b"null", {}, "not an object"),
        (b'"text"', {}, "not an object"),
        (b'{"model": "\xff"}', {}, "not UTF-8"),
        (b"model=gpt-5", {"content-type": "application/x-www-form-urlencoded"}, "content-type"),
        (BODY, {"content-encoding": "gzip"}, "cannot be decoded"),
        (BODY, {"content-encoding": "exotic"}, "cannot be decoded"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_what_is_wrong(
    ada: Caller, path: str, kind: str, body: bytes, headers: dict[str, str], sentence: str
) -> None:
    answer = ada.post(path, body, headers)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (400, "body_invalid")
    found_kind, message = told(answer, path)
    assert found_kind == kind
    assert sentence in message
    record = ada.record()
    assert (record["result"], record["refusal"], record["status"]) == ("refused", "body_invalid", 400)
    assert (record["cost_nusd"], record["usage_source"]) == (0, "none")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    "body", [{"messages": []}, {"model": "", "messages": []}, {"model": 5, "messages": []}, {"model": None}]
)
def test_a_body_without_a_model_is_refused(ada: Caller, path: str, body: dict[str, Any]) -> None:
    answer = ada.post(path, body)
    assert answer.status == 400
    assert "`model`" in told(answer, path)[1]


def test_a_body_that_names_two_models_is_refused(ada: Caller) -> None:
    answer = ada.post(CHAT, b'{"model": "gpt-5-mini", "model": "gpt-5", "messages": []}')
    assert answer.status == 400
    assert "twice" in told(answer, CHAT)[1]


def test_a_body_that_is_nested_without_end_is_refused_or_passed_but_never_a_fault(ada: Caller) -> None:
    deep = b'{"model": "gpt-5-mini", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = ada.post(CHAT, deep)
    assert answer.status in (400, 200, 500)
    assert answer.headers.get("x-callmeter-reason") in ("body_invalid", None)


def test_a_packed_body_goes_on_as_it_is(ada: Caller, house: House) -> None:
    packed = gzip.compress(BODY)
    house.providers.simulator.seen.clear()
    ada.post(CHAT, packed, {"content-encoding": "gzip"})
    _, headers, _ = house.providers.seen(CHAT)
    assert headers["content-encoding"] == "gzip"
    assert headers["content-length"] == str(len(packed))
    assert ada.record()["model_asked"] == "gpt-5-mini"


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [(CHAT, "invalid_request_error", 413), (MESSAGES, "request_too_large", 413), (GEMINI, "INVALID_ARGUMENT", 400)],
)
def test_a_body_over_the_limit_is_refused_before_it_is_sent(
    house: House, ada: Caller, path: str, kind: str, status: int
) -> None:
    line = f"Content-Length: {2**20 + 1}"
    answer = house.answer_to(head(path, ada.key, line, "Connection: close"))
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (status, "body_too_large")
    found_kind, message = told(answer, path)
    assert found_kind == kind
    assert "1 MiB" in message
    assert ada.record()["refusal"] == "body_too_large"


def test_a_whole_body_over_the_limit_still_hears_the_answer(ada: Caller) -> None:
    answer = ada.post(CHAT, b'{"model": "gpt-5-mini", "x": "' + b"x" * 3 * 2**20 + b'"}')
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (413, "body_too_large")


def test_a_body_of_unknown_length_is_counted_as_it_comes(house: House, ada: Caller) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = house.answer_to(head(CHAT, ada.key, "Transfer-Encoding: chunked") + chunk * 17)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (413, "body_too_large")
    assert ada.record()["refusal"] == "body_too_large"


def test_a_chunked_body_within_the_limit_goes_on_whole(house: House, ada: Caller) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:10], BODY[10:]))
    lines = ("Transfer-Encoding: chunked", "Content-Type: application/json", "Connection: close")
    answer = house.answer_to(head(CHAT, ada.key, *lines) + chunks + b"0\r\n\r\n")
    assert answer.status == 200
    _, headers, seen = house.providers.seen(CHAT)
    assert seen == BODY
    assert headers["content-length"] == str(len(BODY))


def test_an_upload_that_breaks_off_is_recorded_as_its_makers(house: House, ada: Caller) -> None:
    assert ada.post(CHAT, GOOD).status == 200, "the caller is known already"
    house.providers.simulator.seen.clear()
    house.raw(head(CHAT, ada.key, "Content-Length: 1000") + BODY, end=True)
    _, record = ada.records(2)
    assert (record["result"], record["cost_nusd"], record["usage_source"]) == ("client_gone", 0, "none")
    assert not house.providers.simulator.seen, "half a call is no call"


def test_chunks_that_are_malformed_are_refused(house: House, ada: Caller) -> None:
    answer = house.answer_to(head(CHAT, ada.key, "Transfer-Encoding: chunked") + b'5\r\n{"mod\r\nzz\r\n')
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (400, "body_invalid")


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/openai/../anthropic/v1/messages",
        "/openai/v1/%2e%2e/%2e%2e/admin",
        "/openai/%2E./v1/models",
        "/openai//v1/models",
        "/openai/v1\\..\\models",
        "/openai/v1/models%0d%0aX-Injected:%201",
        "/openai/v1/models%00",
        "/task/a%0d%0ab:c/openai/v1/models",
        "/task/",
    ],
)
def test_a_path_that_climbs_or_smuggles_is_refused(house: House, ada: Caller, path: str) -> None:
    house.providers.simulator.seen.clear()
    answer = ada.get(path)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (400, "body_invalid"), answer.body
    assert "x-injected" not in answer.headers
    assert not house.providers.simulator.seen
    assert ada.record()["result"] == "refused"


def test_an_unknown_upstream_is_told_with_those_that_there_are(ada: Caller) -> None:
    answer = ada.post("/opennai/v1/chat/completions", GOOD)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (403, "unknown_call")
    message = told(answer, CHAT)[1]
    assert "`opennai`" in message
    assert "`openai`" in message
    record = ada.record()
    assert (record["refusal"], record["upstream"], record["cost_nusd"]) == ("unknown_call", "", 0)


def test_a_dialect_without_an_upstream_is_told(ada: Caller) -> None:
    answer = ada.post("/model/us.anthropic.claude-haiku-4-5/converse", {"messages": []})
    assert answer.headers["x-callmeter-reason"] == "unknown_call"
    assert "bedrock" in answer.json["message"]


def test_an_unknown_path_of_a_known_upstream_is_relayed_and_recorded_without_a_price(ada: Caller) -> None:
    answer = ada.post("/openai/v1/brand/new", {"model": "gpt-5-mini"})
    assert answer.status == 404, "as the simulated provider says"
    record = ada.record()
    assert (record["api"], record["usage_source"], record["route"]) == ("unknown", "none", "")


# -- HTTP --------------------------------------------------------------------------------------------------------------


def test_a_caller_who_asks_first_is_told_to_go_on(house: House, ada: Caller) -> None:
    with socket.create_connection(house.address(), timeout=PATIENT_S) as connection:
        lines = ("Expect: 100-continue", f"Content-Length: {len(BODY)}", "Content-Type: application/json")
        connection.sendall(head(CHAT, ada.key, *lines))
        assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        answer = read_answer(connection)
    assert answer.status == 200
    assert answer.json["model"] == "gpt-5-mini"


def test_a_caller_who_asks_first_with_too_much_is_told_no_at_once(house: House, ada: Caller) -> None:
    lines = ("Expect: 100-continue", "Content-Length: 9999999")
    with socket.create_connection(house.address(), timeout=PATIENT_S) as connection:
        connection.sendall(head(CHAT, ada.key, *lines))
        assert connection.recv(12) == b"HTTP/1.1 413", "and not 100"


def test_a_caller_who_asks_first_with_a_wrong_key_is_told_no_at_once(house: House) -> None:
    with socket.create_connection(house.address(), timeout=PATIENT_S) as connection:
        connection.sendall(head(CHAT, NOT_GENUINE, "Expect: 100-continue", "Content-Length: 100"))
        assert connection.recv(12) == b"HTTP/1.1 401", "and not 100"


@pytest.mark.parametrize("stream", [False, True])
def test_an_old_client_of_http_1_0_gets_an_answer_it_can_read(house: House, ada: Caller, stream: bool) -> None:
    body = json.dumps(GOOD | {"stream": stream}).encode()
    lines = (f"Content-Length: {len(body)}", "Content-Type: application/json")
    raw = house.raw(head(CHAT, ada.key, *lines, version="1.0") + body)
    assert raw.startswith(b"HTTP/1.0 200")
    assert b"transfer-encoding" not in raw.lower()
    assert raw.endswith(b"data: [DONE]\n\n" if stream else b"}")
    assert ada.record()["result"] == "ok"


def test_a_target_in_absolute_form_is_refused_with_what_to_write(house: House, ada: Caller) -> None:
    lines = ("Content-Length: 0", "Connection: close")
    answer = house.answer_to(head(f"http://evil.example{CHAT}", ada.key, *lines))
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (400, "body_invalid")
    assert "begins with `/`" in told(answer, "")[1]


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Many-{number}: 1" for number in range(300)],
        ["X-Long: " + "x" * 20_000],
        ["X-Split: a\rX-Injected: 1"],
        ["no colon at all"],
        ["X Bad Name: 1"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Content-Length: 5x"],
    ],
)
def test_what_is_not_http_gets_a_plain_no(house: House, ada: Caller, lines: list[str]) -> None:
    answer = house.answer_to(head(CHAT, ada.key, *lines))
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (400, "body_invalid")
    assert "cannot be read as HTTP/1.1" in told(answer, "")[1]
    assert ada.key[30:] not in house.log


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\r\n\r\n\r\nhello\r\n\r\n"]
)
def test_what_does_not_even_look_like_http_ends_the_connection_and_nothing_else(house: House, data: bytes) -> None:
    house.raw(data, end=True)
    assert house.request("GET", "/healthz", None, {}).status == 200


def test_calls_that_are_sent_without_waiting_are_answered_in_order(house: House, ada: Caller) -> None:
    raw = b""
    for number in range(5):
        body = json.dumps(GOOD).encode()
        lines = [f"Content-Length: {len(body)}", "Content-Type: application/json", f"X-Sim: chunks={number + 1}"]
        lines += ["Connection: close"] if number == 4 else []
        raw += head(CHAT, ada.key, *lines) + body
    answers = house.raw(raw)
    found = [part.partition(b'"completion_tokens": ')[2][:1] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert found == [b"1", b"2", b"3", b"4", b"5"]
    assert len(ada.records(5)) == 5


def test_identical_refusals_in_a_row_are_folded_into_one_record(ada: Caller) -> None:
    for _ in range(20):
        assert ada.post(CHAT, b"{").status == 400
    records = ada.records(2, until=lambda records: sum(record["count"] for record in records) == 20)
    assert len(records) < 10
    assert {record["refusal"] for record in records} == {"body_invalid"}


def test_health_and_readiness_need_no_key(house: House) -> None:
    assert house.request("GET", "/healthz", None, {}).json == {"status": "ok"}
    assert eventually(lambda: house.request("GET", "/readyz", None, {}).status == 200, "it never became ready")
