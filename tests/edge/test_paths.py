from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.edge.paths import TargetInvalid, read_target


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
