"""Paths of the data port: which upstream, which task, and what the provider shall see."""

from __future__ import annotations

import re
import string
from functools import lru_cache
from itertools import pairwise
from urllib.parse import unquote

import msgspec

TARGET_BYTES_MAX = 8_000
"""Path and query together; the server refuses longer request lines before we see them."""
TARGETS_REMEMBERED = 1024
"""Agents call a handful of paths again and again; those with ids in them come and go."""

NAMES_FOLLOW = frozenset(
    {
        "model",
        "models",
        "tunedModels",
        "endpoints",
        "deployments",
        "engines",
        "guardrail",
        "inference-profiles",
        "async-invoke",
    }
)
"""Parts of a path behind which a name stands that may hold a slash, written `%2F`: a model of Hugging Face or
OpenRouter, a resource name of AWS."""

_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_ESCAPED_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}")
_NEVER_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
"""Control characters, backslashes, and bytes that are no UTF-8."""
_CUT_OFF_BY_SOME = re.compile("[;#]")
"""Some servers read a path only up to these."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A request target taken apart. `segment` is the first part of the path (perhaps an upstream's name), `rest`
    what follows it; `whole` is the path without the task. All three have their escapes written in the one normal way,
    and go on to the provider like that; `task` is decoded, the query as it was sent."""

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
    they are encoded, and slashes and escapes that hide in another escape: a provider might read them otherwise than
    we do, and rules and prices go by what we read.
    """
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        raise TargetInvalid("the request target must be a path that begins with `/`")
    path = normal(path)
    decoded = unquote(path, errors="surrogateescape")
    if _NEVER_IN_A_PATH.search(decoded):
        raise TargetInvalid("the path holds a backslash, a control character or bytes that are not UTF-8")
    if any(part in (".", "..") for part in decoded.split("/")) or "//" in path:
        raise TargetInvalid("the path holds `.`, `..` or an empty part; write it out plainly")
    task = None
    if path.startswith("/task/"):
        encoded, _, tail = path[len("/task/") :].partition("/")
        task, path = unquote(encoded), "/" + tail
        if not task or not tail:
            raise TargetInvalid("a task in the path is written `/task/<task>/<upstream>/...`")
    _check_for_the_provider(path)
    segment, _, rest = path[1:].partition("/")
    return Target(task=task, segment=segment, rest="/" + rest, whole=path, query=query)


def normal(path: str) -> str:
    """The path with its escapes in normal form (RFC 3986, 6.2.2): none of a character that needs none, and capital
    letters in all others. `/v1/mess%61ges` and `/v1/messages` are then one path, here and at the provider."""
    return _ESCAPE.sub(_normal_escape, path) if "%" in path else path


def _normal_escape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        raise TargetInvalid("the path holds a `%` that begins no escape; write it as `%25`")
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else f"%{escape[1].upper()}"


def _check_for_the_provider(path: str) -> None:
    """Raises TargetInvalid for what a provider that decodes once more than we do, or less, would read otherwise."""
    if _CUT_OFF_BY_SOME.search(path):
        raise TargetInvalid("the path holds a `;` or a `#`; leave it out, or escape it where it belongs to a name")
    if "%" not in path:
        return
    if _ESCAPED_TWICE.search(path):
        raise TargetInvalid("the path is escaped twice (`%25` before an escape); escape it once")
    if "//" in unquote(path):
        raise TargetInvalid("the path holds an empty part, written with `%2F`; write it out plainly")
    for before, part in pairwise(path.split("/")):
        if "%2F" in part and before not in NAMES_FOLLOW:
            raise TargetInvalid("the path holds `%2F` in a part that is not the name of a model; write `/` plainly")
