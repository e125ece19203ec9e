"""Paths of the data port: which upstream, which task, and what the provider shall see."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

import msgspec

TARGET_BYTES_MAX = 8_000
"""Path and query together; the server refuses longer request lines before we see them."""
TARGETS_REMEMBERED = 1024
"""Agents call a handful of paths again and again; those with ids in them come and go."""

_NEVER_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f\\]")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A request target taken apart. `segment` is the first part of the path (perhaps an upstream's name), `rest`
    what follows it, both still as the caller wrote them; `whole` is the path without the task."""

    task: str | None
    segment: str
    rest: str
    whole: str
    query: str


class TargetInvalid(ValueError):
    """A target that no provider path can be. The text is a sentence for the caller."""


@lru_cache(maxsize=TARGETS_REMEMBERED)
def read_target(raw: str) -> Target:
    """`/task/PAY-7/openai/v1/models?limit=5` -> its parts. Raises TargetInvalid.

    Refused rather than mended: a path that climbs (`..`), empty parts, backslashes and control characters, however
    they are encoded, since a provider might read them otherwise than we do.
    """
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        raise TargetInvalid("the request target must be a path that begins with `/`")
    decoded = unquote(path)
    if _NEVER_IN_A_PATH.search(decoded):
        raise TargetInvalid("the path holds a backslash or a control character")
    if any(part in (".", "..") for part in decoded.split("/")) or "//" in path:
        raise TargetInvalid("the path holds `.`, `..` or an empty part; write it out plainly")
    task = None
    if path.startswith("/task/"):
        encoded, _, tail = path[len("/task/") :].partition("/")
        task, path = unquote(encoded), "/" + tail
        if not task or not tail:
            raise TargetInvalid("a task in the path is written `/task/<task>/<upstream>/...`")
    segment, _, rest = path[1:].partition("/")
    return Target(task=task, segment=segment, rest="/" + rest, whole=path, query=query)
