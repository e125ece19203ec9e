"""Who calls, and for which task, in every place where it can be said; and what of it the provider sees: nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.keys import Caveat, attenuate
from tests.support.house import PROVIDER_KEYS, Answer, Caller, House

CHAT = "/openai/v1/chat/completions"
BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
DATA = json.dumps(BODY).encode()
JSON = {"content-type": "application/json"}


def post(caller: Caller, headers: dict[str, str], path: str = CHAT, body: bytes = DATA) -> Answer:
    """A call with exactly these headers."""
    return caller.house.request("POST", path, body, JSON | headers)


@pytest.mark.parametrize(
    "place",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer   {key}"},
        lambda key: {"x-api-key": key},
        lambda key: {"api-key": key},
        lambda key: {"x-goog-api-key": key},
        lambda key: {"x-callmeter-key": key},
        lambda key: {"x-callmeter-key": f"Bearer {key}"},
        lambda key: {"authorization": f"Bearer {key}", "x-api-key": key},
    ],
)
def test_a_key_is_found_wherever_a_provider_key_goes(house: House, place: Callable[[str], dict[str, str]]) -> None:
    ada = house.caller()
    assert post(ada, place(ada.key)).status == 200
    _, headers, body = house.providers.seen("/v1/chat/completions")
    assert headers["authorization" if "api-key" not in headers else "api-key"].endswith(PROVIDER_KEYS["openai"])
    assert ada.key not in str(headers)
    assert body == DATA
    assert ada.record()["key_id"] == ada.key.split("_")[1]


def test_a_key_in_the_query_is_found_and_taken_out(house: House) -> None:
    ada = house.caller()
    path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent"
    answer = house.request("POST", f"{path}?alt=json&key={ada.key}&x=%20y", b'{"contents": []}', JSON)
    assert answer.status == 200
    target, headers, _ = house.providers.seen("/v1beta/models/gemini-2.5-flash:generateContent")
    assert target == "/v1beta/models/gemini-2.5-flash:generateContent?alt=json&x=%20y"
    assert headers["x-goog-api-key"] == PROVIDER_KEYS["gemini"]
    assert ada.record()["api"] == "gemini.generate"


def test_two_different_keys_are_refused(house: House) -> None:
    ada, ben = house.caller("ada"), house.caller("ben")
    answer = post(ada, {"authorization": f"Bearer {ada.key}", "x-callmeter-key": ben.key})
    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert "two different" in answer.json["error"]["message"]


def test_ones_own_credential_passes_beside_our_key_and_wins_over_that_of_the_upstream(house: House) -> None:
    ada = house.caller()
    own = {"authorization": "Bearer sk-mine", "x-callmeter-key": ada.key}
    for upstream in ("openai", "bare"):
        assert post(ada, own, f"/{upstream}/v1/chat/completions").status == 200
        _, headers, _ = house.providers.seen("/v1/chat/completions")
        assert headers["authorization"] == "Bearer sk-mine"
        assert not [name for name in headers if name.startswith("x-callmeter")]
    assert [record["upstream"] for record in ada.records(2)] == ["openai", "bare"]


def test_an_upstream_without_a_key_needs_the_callers_own(house: House) -> None:
    ada = house.caller()
    answer = ada.post("/bare/v1/chat/completions", BODY)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (401, "credential_missing")
    assert "x-callmeter-key" in answer.json["error"]["message"]
    record = ada.record()
    assert (record["result"], record["refusal"], record["upstream"]) == ("refused", "credential_missing", "bare")


def test_the_provider_sees_the_callers_bytes_and_headers_and_nothing_of_ours(house: House) -> None:
    ada = house.caller()
    body = b'{ "model":"gpt-5-mini",\n "messages":[{"role":"user","content":"na\xc3\xafve \\u00e9"}], "n": 1 }'
    told = {
        "authorization": f"Bearer {ada.key}",
        "X-Stainless-Lang": "python",
        "OpenAI-Organization": "org-1",
        "user-agent": "OpenAI/Python 3.1",
        "accept-encoding": "gzip, deflate, br, exotic",
        "x-callmeter-task": "PAY-7",
        "x-callmeter-user": ada.user,
        "cookie": f"debug={ada.key}",
        "baggage": "task.id=secret-project",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "te": "trailers",
    }
    answer = post(ada, told, f"{CHAT}?a=%2F&b", body)
    target, headers, seen = house.providers.seen("/v1/chat/completions")
    assert seen == body
    assert target == "/v1/chat/completions?a=%2F&b"
    assert headers.pop("host") == house.providers.simulator_url.removeprefix("http://")
    assert headers == {
        "content-type": "application/json",
        "x-stainless-lang": "python",
        "openai-organization": "org-1",
        "user-agent": "OpenAI/Python 3.1",
        "accept-encoding": "gzip, deflate, br",
        "authorization": f"Bearer {PROVIDER_KEYS['openai']}",
        "content-length": str(len(body)),
    }
    record = ada.record(answer.headers["x-callmeter-call"])
    assert record["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert record["parent_span_id"] == "b7ad6b7169203331"


def test_a_task_key_proves_its_task_against_every_other_place(house: House) -> None:
    ada = house.caller()
    headers = {"authorization": f"Bearer {ada.task_key('PAY-7')}", "x-callmeter-task": "OTHER-1"}
    assert post(ada, headers, "/task/OTHER-2" + CHAT).status == 200
    record = ada.record()
    assert (record["task"], record["task_source"], record["user"]) == ("PAY-7", "key", ada.user)


@pytest.mark.parametrize(
    ("path", "headers", "body", "task", "source"),
    [
        ("/task/PAY%2F7%20a" + CHAT, {"x-callmeter-task": "B"}, {}, "PAY/7 a", "path"),
        ("/task/SHORT/v1/chat/completions", {}, {}, "SHORT", "path"),
        (CHAT, {"x-callmeter-task": "PAY-7", "baggage": "task.id=B"}, {}, "PAY-7", "header"),
        (CHAT, {"baggage": "a=b,task.id=PAY%207;x=y"}, {}, "PAY 7", "baggage"),
        (CHAT, {}, {"metadata": {"task": "PAY-7"}}, "PAY-7", "agent"),
        (CHAT, {"x-claude-code-session-id": "5f1c"}, {}, "5f1c", "agent"),
        (CHAT, {}, {}, None, "none"),
    ],
)
def test_a_task_is_taken_from_the_first_place_that_names_one(
    house: House, path: str, headers: dict[str, str], body: dict[str, Any], task: str | None, source: str
) -> None:
    ada = house.caller()
    assert ada.post(path, BODY | body, headers).status == 200
    record = ada.record()
    assert (record["task"], record["task_source"]) == (task, source)
    assert house.providers.seen("/v1/chat/completions")[0] == "/v1/chat/completions"


def test_a_task_that_cannot_be_one_is_refused_with_what_is_wrong(house: House) -> None:
    ada = house.caller()
    answer = ada.post(CHAT, BODY, {"x-callmeter-task": "x" * 129})
    assert (answer.status, answer.json["error"]["code"]) == (400, "body_invalid")
    assert "x-callmeter-task" in answer.json["error"]["message"]


def test_a_caveat_narrows_and_never_widens(house: House) -> None:
    ada = house.caller()
    narrow = ada.task_key("PAY-7", Caveat("models", ("gpt-5-mini",)), Caveat("upstreams", ("openai",)))
    assert post(ada, {"authorization": f"Bearer {narrow}"}).status == 200
    wider = attenuate(narrow, [Caveat("models", ("*",)), Caveat("upstreams", ("*",))])
    other_model = json.dumps(BODY | {"model": "gpt-5"}).encode()
    for key in (narrow, wider):
        answer = post(ada, {"authorization": f"Bearer {key}"}, body=other_model)
        assert (answer.status, answer.headers["x-callmeter-reason"]) == (403, "not_allowed")
        answer = post(ada, {"x-api-key": key}, "/anthropic/v1/messages", b'{"model": "gpt-5-mini", "max_tokens": 1}')
        assert (answer.status, answer.headers["x-callmeter-reason"]) == (403, "not_allowed")


def test_a_task_key_that_was_changed_by_hand_is_refused(house: House) -> None:
    ada = house.caller()
    key_id, caveats, mac = ada.task_key("PAY-7").split(".")
    other = ada.task_key("PAY-8").split(".")[1]
    for forged in (f"{key_id}.{other}.{mac}", f"{key_id}.{caveats}.{mac[:-1]}", f"{key_id}.{caveats}"):
        answer = post(ada, {"authorization": f"Bearer {forged}"})
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key"), forged


def test_a_task_key_ends_when_it_says(house: House) -> None:
    ada = house.caller()
    ended = ada.task_key("PAY-7", Caveat("expires", int(time.time() * 1000) - 1))
    answer = post(ada, {"authorization": f"Bearer {ended}"})
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (401, "key_expired")


def test_a_rule_that_needs_a_proven_task_says_so(house: House) -> None:
    ada = house.caller(team="payments")
    answer = ada.post(CHAT, BODY, {"x-callmeter-task": "PAY-7"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "task_required")
    assert "task-needed" in answer.json["error"]["message"]
    assert post(ada, {"authorization": f"Bearer {ada.task_key('PAY-7')}"}).status == 200
    assert [record["rule"] for record in ada.records(2)] == ["task-needed", None]


def test_only_a_service_key_may_act_for_others_and_only_for_those_it_names(house: House) -> None:
    person, service = house.caller("person"), house.caller("bot", kind="service", acts_for="team-*")
    assert person.post(CHAT, BODY, {"x-callmeter-user": "team-cleo"}).status == 403
    assert service.post(CHAT, BODY, {"x-callmeter-user": "somebody"}).status == 403
    answer = service.post(CHAT, BODY, {"x-callmeter-user": "team-cleo"})
    assert answer.status == 200
    [record] = [
        record
        for record in Caller(house, "team-cleo", "").records()
        if record["call_id"] == answer.headers["x-callmeter-call"]
    ]
    assert (record["user"], record["key_id"]) == ("team-cleo", service.key.split("_")[1])


def test_labels_team_and_org_come_from_the_key(house: House) -> None:
    ada = house.caller(team="search", org="acme", labels={"cost_center": "42"})
    assert ada.post(CHAT, BODY).status == 200
    record = ada.record()
    assert (record["org"], record["team"], record["labels"]) == ("acme", "search", {"cost_center": "42"})


def test_a_holder_sees_themselves_and_their_own_calls_alone(house: House) -> None:
    ada, ben = house.caller("ada"), house.caller("ben")
    call_id = ada.post(CHAT, BODY, {"x-callmeter-task": "PAY-7"}).headers["x-callmeter-call"]
    record = ada.record(call_id)
    me = ada.get("/callmeter/me")
    assert (me.status, me.json["user"], me.json["key_id"]) == (200, ada.user, record["key_id"])
    assert [task["task"] for task in me.json["tasks"]] == ["PAY-7"]
    assert ada.get(f"/callmeter/calls/{call_id}").json == record
    foreign = ben.get(f"/callmeter/calls/{call_id}")
    assert (foreign.status, foreign.json["code"]) == (403, "unknown_call")
    assert ben.get("/callmeter/nonsense").json["code"] == "unknown_call"
    assert house.request("GET", "/callmeter/me", None, {}).json["code"] == "key_missing"
    assert len(ada.records(1)) == 1, "a look at one's own figures is no call"


def test_a_revoked_key_is_refused_within_a_second(house: House) -> None:
    ada = house.caller()
    assert ada.post(CHAT, BODY).status == 200
    assert house.admin("POST", f"/api/keys/{ada.key.split('_')[1]}/revoke").status == 200
    time.sleep(1.0)
    answer = ada.post(CHAT, BODY)
    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert "revoked" in answer.json["error"]["message"]


def test_a_key_made_by_the_admin_works_at_once_and_ends_when_it_should(house: House) -> None:
    ada = house.caller(expires_at="1s")
    assert ada.post(CHAT, BODY).status == 200
    time.sleep(1.0)
    answer = ada.post(CHAT, BODY)
    assert (answer.status, answer.headers["x-callmeter-reason"]) == (401, "key_expired")
