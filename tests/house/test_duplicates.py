"""Duplicate rules as people with the real SDKs meet them: what is refused, what is not, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.support.house import POLICY, House, Providers, eventually, own_house

CHAT = "/openai/v1/chat/completions"
WORK = "Please add a page that lists all open invoices of a customer, newest first"

RULES = """\
duplicates:
  - {name: same-call, kind: exact, match: {user: "same*"}, limit: 1 calls, then: refuse, help: "ask #ai"}
  - {name: same-words, kind: normalized, match: {user: "words*"}, limit: 1 calls, then: refuse}
  - {name: warned, kind: exact, match: {user: "warn*"}, limit: 1 calls}
  - {name: tried-out, kind: exact, match: {user: "shadow*"}, limit: 1 calls, then: refuse, mode: shadow}
  - {name: circle, kind: loop, match: {user: "loop*"}, per: task, limit: 3 calls, then: refuse}
  - {name: same-work, kind: task, match: {user: "work*"}, per: team, every: rolling 7d, limit: 1 calls, then: refuse,
     share: org}
  - {name: sampled, kind: exact, match: {user: "sample*"}, limit: 1 calls, then: refuse, samples: true}
"""


def chat(content: Any = WORK, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5-mini", "messages": [{"role": "user", "content": content}], **more}


@pytest.fixture(scope="module")
def strict(providers: Providers) -> Iterator[House]:
    """A house with two workers and the rules above."""
    with own_house(providers, policy=POLICY, workers=2) as made:
        made.write_policy(RULES, "duplicates.yaml")
        until_rules_apply(made)
        yield made


def until_rules_apply(house: House) -> None:
    """Until each worker has taken the rules: a new connection finds either."""
    for number in range(6):

        def refused(number: int = number) -> bool:
            who = house.caller("same-probe")
            return [who.post(CHAT, chat(f"probe {number}")).status for _ in range(2)] == [200, 400]

        eventually(refused, "the rules are in force")


# -- what is refused, in each dialect ---------------------------------------------------------------------------------


def test_openai_sdk_raises_bad_request_at_once_and_shows_what_it_repeats(strict: House) -> None:
    ada = strict.caller("same")
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key=ada.key)
    first = client.chat.completions.with_raw_response.create(**chat())
    with pytest.raises(openai.BadRequestError) as no:
        client.chat.completions.create(**chat(metadata={"a": "b"}, stream=True))
    assert no.value.code == "duplicate"
    call_id = first.headers["x-callmeter-call"]
    assert f"it is the same as call `{call_id}` of 0 s ago" in no.value.message
    assert no.value.message.endswith("use its answer, or change what is asked; ask #ai")
    assert no.value.response.headers["x-should-retry"] == "false"
    refused = ada.records(2)[1]
    assert (refused["result"], refused["refusal"], refused["rule"]) == ("refused", "duplicate", "same-call")
    assert (refused["twin_of"], refused["twin_kind"], refused["repeats"]) == (call_id, "exact", 1)
    assert (refused["cost_nusd"], refused["moved_on"]) == (0, False)


def test_anthropic_sdk_and_claude_code_are_told_in_their_own_ways(strict: House) -> None:
    ada = strict.caller("same")
    asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": chat()["messages"]}
    client = anthropic.Anthropic(base_url=strict.url, api_key=ada.key)
    client.messages.create(**asked)
    with pytest.raises(anthropic.BadRequestError) as no:
        client.messages.create(**asked)
    body: Any = no.value.body
    assert body["error"]["details"]["error_code"] == "duplicate"
    with pytest.raises(anthropic.ConflictError):
        client.messages.create(**asked, extra_headers={"user-agent": "claude-cli/2.1.330 (external, cli)"})


def test_google_sdk_is_told(strict: House) -> None:
    ada = strict.caller("same")
    client = genai.Client(api_key=ada.key, http_options=types.HttpOptions(base_url=strict.url))
    client.models.generate_content(model="gemini-2.5-flash", contents=WORK)
    with pytest.raises(errors.ClientError) as no:
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents=WORK))
    assert (no.value.code, no.value.status) == (400, "FAILED_PRECONDITION")


def test_ids_and_times_make_no_other_call_for_a_normalized_rule(strict: House) -> None:
    ada = strict.caller("words")
    marks = ["[550e8400-e29b-41d4-a716-446655440000] at 10:30", "[123e4567-e89b-12d3-a456-426614174000] at 11:45"]
    statuses = [ada.post(CHAT, chat(f"{mark} {WORK}")).status for mark in marks]
    assert statuses == [200, 400]
    assert ada.post(CHAT, chat(f"{marks[0]} {WORK} of year 2025")).status == 200


def test_a_loop_is_refused_also_across_new_conversations(strict: House) -> None:
    ada = strict.caller("loop")

    def step(task: str, *, before: int) -> Any:
        call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": '{"command": "make"}'}}
        turns = [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "failed"},
        ]
        body = chat(f"go {before}") | {"messages": [{"role": "user", "content": f"go {before}"}, *turns * before]}
        return ada.post(CHAT, body, {"x-callmeter-task": task})

    assert [step("A-1", before=rounds).status for rounds in (1, 2, 3, 4)] == [200, 200, 200, 400]
    again = [step("A-2", before=1) for _ in range(4)]
    assert [answer.status for answer in again] == [200, 200, 200, 400]
    assert again[3].json["error"]["code"] == "loop"
    assert "for the 4th time in a row" in again[3].json["error"]["message"]
    records = ada.records(8)
    assert [record["loop"] for record in records] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert [record["moved_on"] for record in records[:2]] == [True, False]


def test_a_circle_of_new_conversations_stays_refused_until_something_else_is_tried(strict: House) -> None:
    ada = strict.caller("loop")

    def step(name: str) -> Any:
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}}
        turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": name}]
        return ada.post(CHAT, {"model": "gpt-5-mini", "messages": turns}, {"x-callmeter-task": "A-3"})

    answers = [step(name) for name in ("read", "write", "test") * 5]
    assert [answer.status for answer in answers] == [200] * 11 + [400] * 4
    for answer in answers[11:]:
        assert "the same tool calls with the same results for the 4th time in a row" in answer.json["error"]["message"]
    assert [step(name).status for name in ("think", "read", "write", "test")] == [200] * 4


def test_a_task_that_was_asked_the_same_as_another_is_refused_and_the_other_goes_on(strict: House) -> None:
    ada, bob = strict.caller("work"), strict.caller("work")
    assert ada.post(CHAT, chat(), {"x-callmeter-task": "PAY-7"}).status == 200
    assert ada.post(CHAT, chat(), {"x-callmeter-task": "PAY-7"}).status == 200
    no = bob.post(CHAT, chat(f"{WORK} ({'a1b2c3d4e5f6'})"), {"x-callmeter-task": "PAY-8"})
    assert no.status == 400
    assert f"the same work as task `PAY-7` of 0 s ago by user `{ada.user}`" in no.json["error"]["message"]
    one, other = ada.records(2)[0], bob.records()[0]
    assert one["work"] == other["work"] is not None


# -- what is not ------------------------------------------------------------------------------------------------------


def test_sdk_retries_of_a_failed_call_are_no_duplicates(strict: House, providers: Providers) -> None:
    ada = strict.caller("same")
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key=ada.key, max_retries=2)
    before = len(providers.simulator.seen)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**chat(), extra_headers={"x-sim": "status=500"})
    assert len(providers.simulator.seen) == before + 3
    assert client.chat.completions.create(**chat()).choices


def test_a_repeat_of_a_refused_call_is_refused_once_for_what_was_made_first(strict: House) -> None:
    ada = strict.caller("same")
    assert [ada.post(CHAT, chat()).status for _ in range(4)] == [200, 400, 400, 400]
    assert {record["repeats"] for record in ada.records(2)[1:]} == {1}


def test_a_call_that_its_caller_gave_up_is_no_duplicate(strict: House) -> None:
    ada = strict.caller("same")
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key=ada.key, max_retries=0, timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**chat(), extra_headers={"x-sim": "first-ms=1500"})
    eventually(lambda: ada.post(CHAT, chat()).status == 200, "the repeat passes")


def test_other_samples_are_no_duplicates_where_the_rule_says_so(strict: House) -> None:
    ada = strict.caller("sample")
    assert [ada.post(CHAT, chat(temperature=0.7)).status for _ in range(3)] == [200] * 3
    assert [ada.post(CHAT, chat(seed=seed)).status for seed in (1, 2, 3)] == [200] * 3
    assert [ada.post(CHAT, chat(temperature=0)).status for _ in range(2)] == [200, 400]


def test_free_calls_are_polled_as_often_as_one_likes(strict: House) -> None:
    ada = strict.caller("same")
    counted = {"model": "claude-sonnet-4-5", "messages": chat()["messages"]}
    statuses = {ada.post("/anthropic/v1/messages/count_tokens", counted).status for _ in range(4)}
    assert statuses == {200}


# -- what is only said ------------------------------------------------------------------------------------------------


def test_a_warning_comes_in_a_header_and_in_the_record(strict: House) -> None:
    ada = strict.caller("warn")
    one, two = ada.post(CHAT, chat()), ada.post(CHAT, chat())
    assert (one.status, two.status) == (200, 200)
    assert "x-callmeter-warning" not in one.headers
    call_id = one.headers["x-callmeter-call"]
    assert two.headers["x-callmeter-warning"].startswith(f"warned; it is the same as call `{call_id}` of 0 s ago")
    [record] = [record for record in ada.records(2) if record["call_id"] == two.headers["x-callmeter-call"]]
    assert record["warnings"] == [two.headers["x-callmeter-warning"]]
    assert (record["twin_of"], record["twin_rule"], record["repeats"]) == (call_id, "warned", 1)


def test_shadow_rules_are_recorded_and_say_nothing(strict: House) -> None:
    ada = strict.caller("shadow")
    answers = [ada.post(CHAT, chat()) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert "x-callmeter-warning" not in answers[1].headers
    assert [record["shadow"] for record in ada.records(2)] == [[], ["tried-out"]]


def test_nothing_of_a_prompt_is_in_the_store(strict: House) -> None:
    ada = strict.caller("words")
    secret_word = "xylophone-quartz-ostrich"
    assert ada.post(CHAT, chat(f"{WORK} with {secret_word}")).status == 200
    ada.record()
    files = [path for path in strict.data.rglob("*") if path.is_file()]
    assert files
    assert not any(secret_word.encode() in path.read_bytes() for path in files)
