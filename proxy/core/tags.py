"""Tags: the task, session and agent of a call, from wherever a tool is able to say them.

Only the task of a task key is proven. All others are self-declared: good for attribution, worthless as identity, so
nothing here ever yields a user, a team or an org. A tag that somebody wrote for us on purpose (the path, a header of
ours) and that cannot be is refused, so that the mistake is seen; one that merely passes by (baggage, an agent's own
headers and body fields) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from .call import Call
from .caller import TaskSource
from .keys import TAG_CHARS_MAX, is_tag
from .trace_context import parse_baggage

USER_AGENT_CHARS_MAX = 256
"""What the record keeps; the longest agents' own are about half of that."""
AGENTS_REMEMBERED = 1024
"""Different user agents whose agent name is kept in memory, for all that come by in a day on one worker."""
TURN_CHARS_MAX = 4096
"""Codex' turn metadata is well under 1 KB; more is not looked at."""

TASK_BAGGAGE = ("task.id", "gen_ai.task.id")
SESSION_BAGGAGE = ("session.id", "gen_ai.conversation.id", "langfuse_session_id")
AGENT_BAGGAGE = ("gen_ai.agent.name",)

AGENT_SESSION_HEADERS = (
    "x-claude-code-session-id",
    "session-id",  # Codex 0.169
    "thread-id",
    "session_id",  # Codex before it
    "conversation_id",
    "x-session-id",  # opencode
    "x-session-affinity",
)
CODEX_TURN_HEADER = "x-codex-turn-metadata"

AGENT_BY_USER_AGENT = (
    ("claude-cli/", "claude-code"),
    ("codex", "codex"),  # codex_exec/, codex_cli_rs/, codex-tui/
    ("opencode/", "opencode"),
    ("geminicli", "gemini-cli"),  # GeminiCLI/, GeminiCLI-tui/
    ("qwencode/", "qwen-code"),
    ("aider/", "aider"),
    ("cline/", "cline"),
    ("agents/python", "openai-agents"),
    ("pydantic-ai/", "pydantic-ai"),
    ("langchain", "langchain"),
    ("litellm/", "litellm"),
    ("ai/", "ai-sdk"),
    ("ai-sdk/", "ai-sdk"),
    ("openai/python", "openai-python"),
    ("asyncopenai/python", "openai-python"),
    ("openai/js", "openai-js"),
    ("anthropic/python", "anthropic-python"),
    ("asyncanthropic/python", "anthropic-python"),
    ("anthropic/js", "anthropic-js"),
    ("google-genai-sdk/", "google-genai"),
    ("groq/python", "groq-python"),
    ("asyncgroq/python", "groq-python"),
    ("mistral-client-python/", "mistral-python"),
    ("cohere/", "cohere-python"),
    ("boto3/", "boto3"),
)
"""What a user agent begins with, in lower case, and the agent it names. First match wins. Seen in real calls."""

_PRODUCT = re.compile(r"([a-z][a-z0-9._-]{0,39})(?:/|\Z)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff]")


class TagInvalid(ValueError):
    """A path or header of ours holds a tag that cannot be. The sentence names it."""


class Tags(msgspec.Struct, frozen=True):
    """What a call says of itself. `task_source` is `none` where there is no task."""

    task: str | None
    task_source: TaskSource
    session: str | None
    agent: str | None
    user_agent: str


class _CodexTurn(msgspec.Struct):
    session_id: str | None = None
    thread_id: str | None = None


_read_turn = msgspec.json.Decoder(_CodexTurn)


def read_tags(headers: Mapping[str, str], call: Call, *, key_task: str | None, path_task: str | None) -> Tags:
    """The tags of a call. `headers` have lower-case names; `path_task` is percent-decoded. Raises TagInvalid."""
    baggage_text = headers.get("baggage")
    baggage = parse_baggage(baggage_text) if baggage_text else {}
    agent_session = _agent_session(headers, call)
    task, source = _task(headers, baggage, call, agent_session, key_task=key_task, path_task=path_task)
    user_agent, agent_of_user_agent = read_user_agent(headers.get("user-agent", ""))
    return Tags(
        task=task,
        task_source=source,
        session=_ours(headers, "x-callmeter-session") or _first(baggage, SESSION_BAGGAGE) or agent_session,
        agent=_ours(headers, "x-callmeter-agent") or _first(baggage, AGENT_BAGGAGE) or agent_of_user_agent,
        user_agent=user_agent,
    )


@lru_cache(maxsize=AGENTS_REMEMBERED)
def read_user_agent(text: str) -> tuple[str, str | None]:
    """The user agent as the record keeps it, and the agent it names: the product's own name where we know no better."""
    kept = _UNPRINTABLE.sub("?", text[:USER_AGENT_CHARS_MAX])
    lowered = kept.lower()
    for beginning, agent in AGENT_BY_USER_AGENT:
        if lowered.startswith(beginning):
            return kept, agent
    product = _PRODUCT.match(lowered)
    return kept, product[1] if product else None


def _task(
    headers: Mapping[str, str],
    baggage: Mapping[str, str],
    call: Call,
    agent_session: str | None,
    *,
    key_task: str | None,
    path_task: str | None,
) -> tuple[str | None, TaskSource]:
    """The first task that is present. A proven one ends the search, so nothing else can take its place."""
    if key_task is not None:
        return key_task, "key"
    if path_task is not None:
        if not is_tag(path_task):
            raise TagInvalid(f"the task in the path must be 1 to {TAG_CHARS_MAX} printable characters")
        return path_task, "path"
    task = _ours(headers, "x-callmeter-task")
    if task is not None:
        return task, "header"
    task = _first(baggage, TASK_BAGGAGE)
    if task is not None:
        return task, "baggage"
    # What the body calls a task says more than the session that the agent happens to be in.
    task = _passing(call.task) or agent_session
    return (task, "agent") if task is not None else (None, "none")


def _agent_session(headers: Mapping[str, str], call: Call) -> str | None:
    """The session as the agent itself keeps it: its header first, then what its body says."""
    for name in AGENT_SESSION_HEADERS:
        text = headers.get(name)
        session = _passing(text) if text else None
        if session is not None:
            return session
    turn_text = headers.get(CODEX_TURN_HEADER)
    if turn_text and len(turn_text) <= TURN_CHARS_MAX:
        try:
            turn = _read_turn.decode(turn_text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            turn = _CodexTurn()
        session = _passing(turn.session_id) or _passing(turn.thread_id)
        if session is not None:
            return session
    return _passing(call.session)


def _ours(headers: Mapping[str, str], name: str) -> str | None:
    """A header of ours: absent, empty and blank are the same; what cannot be a tag is the sender's mistake."""
    text = headers.get(name)
    if text is None:
        return None
    text = text.strip()
    if not text:
        return None
    if not is_tag(text):
        raise TagInvalid(f"the header `{name}` must be at most {TAG_CHARS_MAX} printable characters")
    return text


def _passing(text: str | None) -> str | None:
    """A tag that passes by: left out unless it can be one."""
    if not text:
        return None
    text = text.strip()
    return text if is_tag(text) else None


def _first(pairs: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    if not pairs:
        return None
    for name in names:
        tag = _passing(pairs.get(name))
        if tag is not None:
            return tag
    return None
