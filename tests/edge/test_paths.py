from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.edge.paths import TargetInvalid, normal, read_target


def test_an_upstream_and_its_path_are_told_apart() -> None:
    target = read_target("/openai/v1/chat/completions?api-version=1")
    assert (target.segment, target.rest, target.query) == ("openai", "/v1/chat/completions", "api-version=1")
    assert target.task is None


def test_a_task_stands_before_either_form() -> None:
    target = read_target("/task/PAY-7/v1/messages")
    assert (target.task, target.whole) == ("PAY-7", "/v1/messages")


def test_a_task_with_a_slash_is_written_encoded() -> None:
    assert read_target("/task/feature%2Flogin/openai/v1/models").task == "feature/login"


def test_an_encoded_model_reaches_the_provider_as_it_was_written() -> None:
    assert read_target("/aws/model/a%3A0/converse").rest == "/model/a%3A0/converse"


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        ("/anthropic/v1/mess%61ges", "/v1/messages"),
        ("/anthr%6Fpic/v1/messages", "/v1/messages"),
        ("/%74ask/PAY-7/anthropic/v1/messages", "/v1/messages"),
        ("/gemini/v1beta/models/gemini-2.5-pr%6f:generateContent", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("/gemini/v1beta/models/m%3agenerateContent", "/v1beta/models/m%3AgenerateContent"),
        ("/hf/v1/models/org%2fname", "/v1/models/org%2Fname"),
        ("/aws/model/arn%3Aaws%3Abedrock%3A%3A1%3Aprofile%2Fa.b-v1%3A0/invoke",) * 2,
        ("/azure/openai/deployments/team%2Fgpt/chat/completions",) * 2,
        ("/openai/v1/files/a%20b", "/v1/files/a%20b"),
        ("/openai/v1/files/100%25", "/v1/files/100%25"),
        ("/openai/v1/files/caf%c3%a9", "/v1/files/caf%C3%A9"),
    ],
)
def test_escapes_are_written_one_way_for_us_and_for_the_provider(raw: str, rest: str) -> None:
    segment = "/" + raw.split("/")[1]
    assert read_target(raw).rest == rest.removeprefix(segment)
    assert read_target(raw).segment in ("anthropic", "gemini", "hf", "aws", "azure", "openai")


def test_a_task_is_decoded_once_whatever_it_holds() -> None:
    assert read_target("/task/100%25%2f%2541/openai/v1/models").task == "100%/%41"
    assert read_target("/task/https%3A%2F%2Fgit.example%2F7/openai/v1/models").task == "https://git.example/7"


@pytest.mark.parametrize(
    "raw",
    [
        "/openai/v1/mess%2561ges",
        "/openai/v1/mess%25%361ges",
        "/openai/v1/mess%252561ges",
        "/openai/v1%2Fchat%2Fcompletions",
        "/openai%2Fv1/chat/completions",
        "/azure/openai%2fdeployments%2Fdear/chat/completions",
        "/azure/openai/deployments%2Fdear/chat/completions",
        "/gemini/v1beta/models%2Fgemini-2.5-pro:generateContent",
        "/hf/v1/models/%2Forg",
        "/hf/v1/models/a%2F..%2Fb",
        "/openai/v1/messages%",
        "/openai/v1/messages%6",
        "/openai/v1/mess%zzges",
        "/openai/v1/messages;a=1",
        "/openai/v1/messages#a",
        "/openai/v1/%ff",
        "/openai/v1/\udcff",
    ],
)
def test_what_hides_in_an_escape_or_behind_a_mark_is_refused(raw: str) -> None:
    with pytest.raises(TargetInvalid):
        read_target(raw)


@given(st.text(st.sampled_from("abA%25/F6e1:.~ \u00e9"), max_size=40))
def test_a_normal_path_is_normal_already_and_hides_no_letter(text: str) -> None:
    try:
        path = normal(text)
    except TargetInvalid:
        return
    assert normal(path) == path
    for escape in path.split("%")[1:]:
        assert escape[:2] == escape[:2].upper()
        assert not chr(int(escape[:2], 16)).isalnum() or int(escape[:2], 16) > 0x7F


ENDPOINTS = ("v1/messages", "v1/chat/completions", "v1beta/models/gemini-2.5-pro:generateContent")


@given(st.sampled_from(ENDPOINTS), st.sampled_from(["%{:02X}", "%{:02x}", "%25{:02X}"]), st.data())
def test_no_way_to_escape_a_path_makes_another_call_of_it(endpoint: str, way: str, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, len(endpoint) - 1), max_size=6))
    raw = "".join(way.format(ord(letter)) if at in places else letter for at, letter in enumerate(endpoint))
    try:
        path = read_target(f"/up/{raw}").rest
    except TargetInvalid:
        return
    call = wire.read_call(
        method="POST",
        path=path,
        query="",
        headers={},
        body=b'{"model": "gemini-2.5-pro", "messages": [], "contents": []}',
        dialect="",
        provider="",
    )
    assert call.api in ("anthropic.messages", "openai.chat", "gemini.generate")
    assert call.model == "gemini-2.5-pro"


@pytest.mark.parametrize(
    "raw",
    [
        "/openai/../secret",
        "/openai/%2e%2e/secret",
        "/openai/v1/./x",
        "/openai//v1",
        "/openai/..%5cwindows",
        "/openai/v1%0d%0aHost: evil",
        "/openai/%00",
        "http://elsewhere.test/v1/chat/completions",
        "*",
        "/task/PAY-7",
        "/task/PAY-7/",
        "/task//v1/messages",
    ],
)
def test_a_path_that_a_provider_might_read_otherwise_is_refused(raw: str) -> None:
    with pytest.raises(TargetInvalid):
        read_target(raw)


@given(st.text(max_size=200))
def test_a_target_that_is_read_never_climbs(raw: str) -> None:
    try:
        target = read_target(raw)
    except TargetInvalid:
        return
    assert target.rest.startswith("/")
    assert ".." not in target.rest.split("/")
