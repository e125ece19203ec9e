"""Beside: what path, query and headers of a call say by which its provider answers. The body says the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

ANSWERED_BY = (
    "anthropic-beta",
    "anthropic-version",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "x-amzn-bedrock-guardrailidentifier",
    "x-amzn-bedrock-guardrailversion",
    "x-goog-user-project",
)
"""Headers that choose what the provider does, and for which of its accounts. All others tell of the client."""

_HOW_IT_IS_SENT = frozenset({"alt=sse", "alt=json"})
_STREAMED = {"streamGenerateContent": "generateContent", "streamRawPredict": "rawPredict"}
"""Google's streams have paths of their own."""

_encode = msgspec.json.Encoder().encode


def said_beside(
    path: str, query: str, headers: Iterable[tuple[str, str]], credentials: Sequence[tuple[str, str]]
) -> str:
    """A hash of all that shapes the answer and is not in the body: the same for a call and its stream.

    `headers` as they were sent, one that comes twice twice; `query` is without our key; `credentials`: those that the
    caller brings along for the provider, since another account may see other models and files."""
    front, colon, verb = path.rpartition(":")
    asked = sorted(part for part in query.split("&") if part and part not in _HOW_IT_IS_SENT)
    chosen: dict[str, list[str]] = {name: [] for name in ANSWERED_BY}
    for name, value in headers:
        if (values := chosen.get(name.lower())) is not None:
            values += [part.strip() for part in value.split(",")]  # in one line or several, which is the same
    told = _encode((f"{front}{colon}{_STREAMED.get(verb, verb)}", asked, chosen, credentials))
    return hashlib.blake2b(told, digest_size=16).hexdigest()
