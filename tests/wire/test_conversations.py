"""Conversations: one dialect after the other, then what strangers send."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.fingerprint import Fingerprinter, rounds
from proxy.wire.conversations import _READERS, read_conversation
from proxy.wire.request import json_fields
from tests.support.conversations import APIS, conversation, told
from tests.support.recordings import recordings

each_api = pytest.mark.parametrize("api", APIS)
MAKER = Fingerprinter(b"secret")
STEPS = [("t1", "bash", {"b": 1, "a": ["ls", {"z": 0, "y": None}]}, "total 3")]


def test_every_dialect_with_conversations_is_tried_here() -> None:
    assert set(APIS) == set(_READERS)


@each_api
def test_system_tools_turns_calls_and_results_are_told_apart(api: str) -> None:
    found = told(api, said=["first", "second"], steps=STEPS, last="go on")
    assert (found.system, found.tools) == (["Be brief."], ["bash"])
    assert [turn.by_model for turn in found.turns] == [False, True, False, True, False]
    opening = next((turn for turn in found.turns if not turn.by_model), None)
    last = found.last_turn
    assert opening is not None
    assert opening.texts == ["first"]
    assert last is not None
    assert (last.results, last.texts) == (["total 3"], ["go on"])
    assert found.turns[3].calls == [("bash", '{"a":["ls",{"y":null,"z":0}],"b":1}')]


@pytest.mark.parametrize(("steps", "last"), [([], ""), (STEPS, ""), (STEPS, "go on"), (STEPS * 3, "")])
def test_the_same_conversation_has_one_normalized_fingerprint_in_every_dialect(steps: list[Any], last: str) -> None:
    found = [told(api, said=["Fix the bug in row 17", "and then?"], steps=steps, last=last) for api in APIS]
    assert len({MAKER.normalized(each) for each in found}) == 1
    assert len({MAKER.step(each) for each in found}) == 1
    assert len({rounds(each) for each in found}) == 1


def test_a_text_as_input_is_a_turn() -> None:
    found = conversation("openai.responses", {"model": "m", "input": "hello there"})
    chat = conversation("openai.chat", {"model": "m", "messages": [{"role": "user", "content": "hello there"}]})
    assert MAKER.normalized(found) == MAKER.normalized(chat)


def test_other_pictures_are_another_conversation() -> None:
    def asking(data: str) -> bytes | None:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        content = [{"type": "text", "text": "What is this?"}, picture]
        return MAKER.normalized(conversation("openai.chat", {"messages": [{"role": "user", "content": content}]}))

    assert asking("A" * 5000 + "B" * 5000) == asking("A" * 5000 + "B" * 5000)
    assert asking("A" * 5000 + "B" * 5000) != asking("A" * 5000 + "C" * 5000)


def test_conversation_that_the_provider_keeps_is_told() -> None:
    body = {"model": "m", "input": "go on", "previous_response_id": "resp_1"}
    other = body | {"previous_response_id": "resp_2"}
    one, two = conversation("openai.responses", body), conversation("openai.responses", other)
    assert one.kept_by == "resp_1"
    assert MAKER.normalized(one) != MAKER.normalized(two)
    assert MAKER.opening(one) is None


def test_sampling_is_read_where_each_dialect_has_it() -> None:
    chat = conversation("openai.chat", {"messages": [], "temperature": 0.7, "seed": 5})
    gemini = conversation("gemini.generate", {"contents": [], "generationConfig": {"temperature": 1, "seed": 5}})
    claude = conversation("anthropic.messages", {"messages": [], "temperature": 0})
    assert [(found.temperature, found.seed) for found in (chat, gemini, claude)] == [(0.7, 5), (1, 5), (0, None)]


def test_forms_and_uploads_hold_no_conversation() -> None:
    assert read_conversation(Call(api="openai.audio"), b"--boundary") is None


# -- what strangers send ----------------------------------------------------------------------------------------------

NAMES = ("role", "content", "type", "text", "parts", "name", "input", "output", "tool_calls", "function", "arguments")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(APIS), st.sampled_from(["messages", "input", "contents", "system", "tools"]), json_values)
def test_whatever_a_field_holds_is_read_and_fingerprinted(api: str, name: str, value: Any) -> None:
    body = {name: value, "tools": value, "messages": [{"role": "user", "content": value}, value]}
    found = conversation(api, body)
    MAKER.exact(found, api=api, upstream="u", model=None)
    MAKER.normalized(found)
    MAKER.opening(found)
    MAKER.step(found)
    MAKER.sketch(found)
    assert rounds(found) >= 0


NESTED = b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}"
ONE_WORD = b'{"messages":[{"role":"user","content":"' + b"w" * 10_000_000 + b'"}]}'
ONE_TOOL = b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"x","arguments":"' + b"[" * 500_000
TOOL_TAIL = b'"}}]},{"role":"tool","content":"r"}]}'
TWICE = b'{"messages":[{"role":"user","content":"a","content":"b"}],"messages":[{"role":"user","content":"c"}]}'
MANY_TURNS = json.dumps(
    {"messages": [{"role": "assistant" if n % 2 else "user", "content": f"turn {n}"} for n in range(10_001)]}
).encode()
MANY_STEPS = json.dumps(
    {
        "messages": [
            message
            for n in range(5_000)
            for message in (
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "x", "arguments": f'{{"at":"10:{n % 60:02}"}}'}}],
                },
                {"role": "tool", "content": "same"},
            )
        ]
    }
).encode()
ODD = {
    "deep nesting": NESTED,
    "ten megabytes of one word": ONE_WORD,
    "arguments that never close": ONE_TOOL + TOOL_TAIL,
    "the same key twice": TWICE,
    "ten thousand turns": MANY_TURNS,
    "ten thousand steps": MANY_STEPS,
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_odd_bodies_are_fingerprinted_in_bounded_time(body: bytes) -> None:
    fields = json_fields(body, route="/test", content_type="")
    begun = time.process_time()
    found = read_conversation(Call(api="openai.chat"), fields)
    assert found is not None
    MAKER.exact(found, api="openai.chat", upstream="u", model="m")
    MAKER.normalized(found)
    MAKER.opening(found)
    MAKER.step(found)
    MAKER.sketch(found)
    rounds(found)
    assert time.process_time() - begun < 2  # a guard against a blow-up; bench/duplicates.py measures


def test_an_item_whose_type_is_no_name_is_left_out() -> None:
    assert conversation("openai.responses", {"input": [{"type": []}, {"type": {"a": 1}, "role": []}]}).turns != []


def test_of_the_same_key_twice_the_last_counts_as_at_the_provider() -> None:
    once = conversation("openai.chat", b'{"messages":[{"role":"user","content":"c"}]}')
    twice = conversation("openai.chat", TWICE)
    assert MAKER.normalized(once) == MAKER.normalized(twice)


def test_recorded_conversations_have_turns_and_differ() -> None:
    prints: dict[bytes, str] = {}
    read = 0
    for recording in recordings():
        call_api = {
            "openai.chat": "openai.chat",
            "openai.responses": "openai.responses",
            "anthropic.messages": "anthropic.messages",
            "gemini.generateContent": "gemini.generate",
        }.get(recording.api)
        body = recording.request_body
        if call_api is None or not body.strip().startswith(b"{"):
            continue
        found = conversation(call_api, body)
        if not found.turns:
            continue
        read += 1
        exact = MAKER.exact(found, api=call_api, upstream="u", model=None)
        assert len(exact) == 12
        prints[exact] = recording.name
    assert read > 50
    assert len(prints) > read * 0.6
