"""Tags: which task, session and agent a call has, from each place where a tool can say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.tags import TagInvalid, Tags, read_tags, read_user_agent

SESSION = "1a2b3c4d-0000-4000-8000-000000000001"


def tags_of(
    headers: dict[str, str] | None = None,
    call: Call | None = None,
    *,
    key_task: str | None = None,
    path_task: str | None = None,
) -> Tags:
    return read_tags(headers or {}, call or Call(), key_task=key_task, path_task=path_task)


def test_a_call_that_says_nothing_has_no_task() -> None:
    assert tags_of() == Tags(task=None, task_source="none", session=None, agent=None, user_agent="")


def test_the_first_task_in_order_of_precedence_counts() -> None:
    headers = {
        "x-callmeter-task": "HEADER-1",
        "baggage": "task.id=BAGGAGE-1",
        "x-claude-code-session-id": SESSION,
    }
    call = Call(task="BODY-1")
    everything = tags_of(headers, call, key_task="KEY-1", path_task="PATH-1")
    assert (everything.task, everything.task_source) == ("KEY-1", "key")
    without_key = tags_of(headers, call, path_task="PATH-1")
    assert (without_key.task, without_key.task_source) == ("PATH-1", "path")
    steps = [
        ("x-callmeter-task", "HEADER-1", "header"),
        ("baggage", "BAGGAGE-1", "baggage"),
    ]
    for header, task, source in steps:
        found = tags_of(headers, call)
        assert (found.task, found.task_source) == (task, source)
        del headers[header]
    assert tags_of(headers, call).task == "BODY-1"
    found = tags_of(headers)
    assert (found.task, found.task_source) == (SESSION, "agent")


@pytest.mark.parametrize(
    ("headers", "agent"),
    [
        ({"x-claude-code-session-id": SESSION, "user-agent": "claude-cli/2.1.330 (external, sdk-cli)"}, "claude-code"),
        ({"session-id": SESSION, "thread-id": "t", "user-agent": "codex_exec/0.169.0 (Debian)"}, "codex"),
        ({"thread-id": SESSION, "user-agent": "codex_cli_rs/0.150.0"}, "codex"),
        (
            {"x-codex-turn-metadata": f'{{"session_id":"{SESSION}","turn_id":"1"}}', "user-agent": "codex-tui/1"},
            "codex",
        ),
        ({"x-session-id": SESSION, "user-agent": "opencode/1.18.33 ai-sdk/provider-utils"}, "opencode"),
        ({"x-session-affinity": SESSION, "user-agent": "opencode/1.18.33"}, "opencode"),
    ],
)
def test_the_session_of_an_agent_is_found_in_its_own_header(headers: dict[str, str], agent: str) -> None:
    found = tags_of(headers)
    assert (found.session, found.task, found.task_source, found.agent) == (SESSION, SESSION, "agent", agent)


def test_the_session_in_a_body_is_used_where_no_header_has_one() -> None:
    found = tags_of(call=Call(session=SESSION))
    assert (found.session, found.task, found.task_source) == (SESSION, SESSION, "agent")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"session_id":7}', "null", '{"session_id":"' + "x" * 5000 + '"}', "\udcff"]
)
def test_turn_metadata_that_cannot_be_read_is_left_out(text: str) -> None:
    assert tags_of({"x-codex-turn-metadata": text}).session is None


def test_a_session_we_are_told_wins_over_baggage_and_that_over_the_agents_own() -> None:
    headers = {"x-callmeter-session": "ours", "baggage": "gen_ai.conversation.id=theirs", "session-id": "own"}
    assert tags_of(headers).session == "ours"
    del headers["x-callmeter-session"]
    assert tags_of(headers).session == "theirs"
    assert tags_of({"session-id": "own"}).session == "own"


def test_a_session_that_we_are_told_is_no_task() -> None:
    assert tags_of({"x-callmeter-session": "ours"}).task is None


@pytest.mark.parametrize("name", ["task.id", "gen_ai.task.id"])
def test_a_task_in_baggage_is_decoded(name: str) -> None:
    found = tags_of({"baggage": f"other=1, {name}=PAY%207;prop=1"})
    assert (found.task, found.task_source) == ("PAY 7", "baggage")


@pytest.mark.parametrize("name", ["x-callmeter-task", "x-callmeter-session", "x-callmeter-agent"])
@pytest.mark.parametrize("value", ["x" * 129, "a\tb", "a\x00b", "a\udcffb", "a\u2028b"])
def test_a_header_of_ours_that_cannot_be_a_tag_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(TagInvalid, match=name):
        tags_of({name: value})


@pytest.mark.parametrize("value", ["", "x" * 129, "a\nb"])
def test_a_path_that_cannot_be_a_task_is_refused(value: str) -> None:
    with pytest.raises(TagInvalid, match="path"):
        tags_of(path_task=value)


def test_tags_that_pass_by_and_cannot_be_are_left_out() -> None:
    headers = {"baggage": "task.id=a%0Ab,session.id=" + "x" * 129, "session-id": "a\x00b"}
    found = tags_of(headers, Call(task="x" * 129, session="\n"))
    assert (found.task, found.task_source, found.session) == (None, "none", None)


def test_an_empty_header_is_as_if_it_had_not_been_sent() -> None:
    assert tags_of({"x-callmeter-task": "  ", "baggage": "task.id=T-1"}).task == "T-1"


def test_the_agent_is_named_by_header_then_baggage_then_user_agent() -> None:
    headers = {
        "x-callmeter-agent": "mine",
        "baggage": "gen_ai.agent.name=planner",
        "user-agent": "OpenAI/Python 3.54.0",
    }
    assert tags_of(headers).agent == "mine"
    del headers["x-callmeter-agent"]
    assert tags_of(headers).agent == "planner"
    del headers["baggage"]
    assert tags_of(headers).agent == "openai-python"


@pytest.mark.parametrize(
    ("user_agent", "agent"),
    [
        ("GeminiCLI-tui/0.61.0/gemini-2.5-flash (linux; x64; terminal)", "gemini-cli"),
        ("QwenCode/0.15.10 (linux; x64)", "qwen-code"),
        ("AsyncOpenAI/Python 2.54.0", "openai-python"),
        ("OpenAI/JS 6.49.0", "openai-js"),
        ("Anthropic/Python 2.12.0", "anthropic-python"),
        ("google-genai-sdk/3.4.0 gl-python/3.11.7", "google-genai"),
        ("Agents/Python 0.24.0", "openai-agents"),
        ("ai-sdk/openai/3.0.141 ai-sdk/provider-utils/4.0.66", "ai-sdk"),
        ("my-agent/1.0", "my-agent"),
        ("curl/8.1", "curl"),
        ("(nothing)", None),
        ("", None),
    ],
)
def test_an_agent_is_told_by_its_user_agent(user_agent: str, agent: str | None) -> None:
    assert read_user_agent(user_agent) == (user_agent, agent)


@given(st.text(max_size=400))
def test_a_kept_user_agent_is_short_and_printable(text: str) -> None:
    kept, _ = read_user_agent(text)
    assert len(kept) <= 256
    assert not any(character in kept for character in "\r\n\x00\x7f\udcff")
