"""Matching: which calls a rule is about. Fields of caller, call and upstream, and the globs their values must be in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec

from .call import Call
from .caller import Caller
from .globs import Globs
from .refusal import quoted


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A configured provider endpoint.

    dialect    openai | anthropic | gemini, or "" where calls are relayed without being understood
    provider   who is paid, by the price book's name
    url        scheme, host and the path before the provider's own, without a slash at the end
    key        the provider's key; None: the caller's own credential passes
    billing    `plan`: a subscription; the list cost is kept, the billed cost is 0
    """

    name: str
    dialect: str = ""
    provider: str = ""
    url: str
    key: str | None = None
    billing: Literal["metered", "plan"] = "metered"

    def __repr__(self) -> str:
        """Without the key: an upstream may end up in a log line."""
        key = "set" if self.key else "none"
        return f"Upstream({self.name}, dialect={self.dialect or 'none'}, url={self.url}, key={key})"


Mode = Literal["enforce", "shadow"]

Read = Callable[[Caller, Call, Upstream], str | None]

FIELDS: dict[str, Read] = {
    "org": lambda caller, call, upstream: caller.org,
    "team": lambda caller, call, upstream: caller.team,
    "user": lambda caller, call, upstream: caller.user,
    "key": lambda caller, call, upstream: caller.key_id,
    "task": lambda caller, call, upstream: caller.task,
    # Identity says `none` for a task that is absent; to a rule that is an absent value, which `*` must not match.
    "task_source": lambda caller, call, upstream: None if caller.task_source == "none" else caller.task_source,
    "agent": lambda caller, call, upstream: caller.agent,
    "upstream": lambda caller, call, upstream: upstream.name,
    "provider": lambda caller, call, upstream: upstream.provider,
    "api": lambda caller, call, upstream: call.api,
    "model": lambda caller, call, upstream: call.model,
}
"""What a rule can match on, beside `label.<name>`."""

APIS = (
    "openai.chat",
    "openai.responses",
    "openai.completions",
    "openai.embeddings",
    "openai.images",
    "openai.audio",
    "openai.moderations",
    "openai.realtime",
    "openai.batches",
    "anthropic.messages",
    "anthropic.count_tokens",
    "anthropic.batches",
    "gemini.generate",
    "gemini.embed",
    "gemini.count_tokens",
    "bedrock.converse",
    "bedrock.invoke",
    "cohere.chat",
    "cohere.embed",
    "cohere.rerank",
    "ollama.chat",
    "ollama.generate",
    "free",
    "unknown",
)
"""Every value of `api`."""

LABEL = "label."


@lru_cache(maxsize=1024)
def reader_of(field: str) -> Read:
    """How the value of a field is read: one of FIELDS, or `label.<name>`. Raises KeyError for any other."""
    if field.startswith(LABEL):
        label = field.removeprefix(LABEL)
        return lambda caller, call, upstream: caller.labels.get(label)
    return FIELDS[field]


class Condition(msgspec.Struct, frozen=True):
    """One line of a `match`: a field and the globs that its value must be in."""

    field: str
    globs: Globs
    read: Read

    @classmethod
    def on(cls, field: str, patterns: tuple[str, ...]) -> Condition:
        """`field` is one of FIELDS or `label.<name>`."""
        return cls(field, Globs(patterns), reader_of(field))


class Match(msgspec.Struct, frozen=True):
    """When a rule applies: all of `conditions` hold, and those of `inverted`, if any, do not all hold."""

    conditions: tuple[Condition, ...] = ()
    inverted: tuple[Condition, ...] = ()

    def matches(self, caller: Caller, call: Call, upstream: Upstream) -> bool:
        """Whether the rule applies to this call."""
        for condition in self.conditions:
            if not condition.globs.matches(condition.read(caller, call, upstream)):
                return False
        if not self.inverted:
            return True
        return any(not condition.globs.matches(condition.read(caller, call, upstream)) for condition in self.inverted)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it looks at, each once, in order."""
        return tuple(dict.fromkeys(condition.field for condition in (*self.conditions, *self.inverted)))

    def described(self, caller: Caller, call: Call, upstream: Upstream) -> str:
        """What it saw, for a person: each field with its value, `none` where there is none."""
        seen = {condition.field: condition for condition in (*self.conditions, *self.inverted)}
        told = (f"{field} {quoted(each.read(caller, call, upstream))}" for field, each in seen.items())
        return ", ".join(told) or "every call"
