"""Payloads: careful looks into what a source sent, the names that happenings have, and the words in which people undo.

A signed payload comes from whom holds the secret, and may still be anything: what is not as expected is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from ..values import listed, mapping

REFS_MAX = 200
"""Commits of one push that can be reverted by name. One with more is a release or an import."""
COMMIT = r"[0-9a-f]{40}(?:[0-9a-f]{24})?"

_FORMS = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,9})? ?(Z|UTC|[+-]\d\d:?\d\d)?\Z")
_SHA = re.compile(rf"{COMMIT}\Z")
_REVERTS_COMMIT = re.compile(rf"^This reverts commit ({COMMIT})", re.MULTILINE)
_REVERTS_REQUEST = re.compile(
    r"^(?:Reverts|This reverts merge request) (?:[\w./-]{1,200})?[#!]([0-9]{1,12})[ \t.]*$", re.MULTILINE
)
_MS_MIN = 10**11
"""Numbers from here on are milliseconds: as seconds they would lie beyond the year 5000."""


class PayloadInvalid(ValueError):
    """A sentence about a body that cannot be read."""


def payload_of(body: bytes, content_type: str = "") -> dict[str, Any]:
    """The JSON object in a body, whatever it is said to be; GitHub may send it as the field `payload` of a form. Raises
    PayloadInvalid."""
    is_form = content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"
    if is_form and not body.lstrip().startswith(b"{"):
        try:
            body = parse_qs(body.decode(), max_num_fields=8).get("payload", [""])[0].encode()
        except ValueError:
            raise PayloadInvalid("the body is not a form; let the webhook send `application/json`") from None
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise PayloadInvalid("the body is not JSON") from None
    if not isinstance(payload, dict):
        raise PayloadInvalid("the body is not a JSON object")
    return payload


def text(value: Any, *path: str) -> str:
    """The text at a path of keys; empty where there is none."""
    for key in path:
        value = mapping(value).get(key)
    return value if isinstance(value, str) else ""


def name(value: Any, *path: str) -> str | None:
    """The same as a name: text or a number, None where there is none."""
    for key in path:
        value = mapping(value).get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def texts(values: Any, *path: str) -> tuple[str, ...]:
    """The text at a path in each object of a list."""
    return tuple(found for value in listed(values) if (found := text(value, *path)))


def sha(value: Any, *path: str) -> str:
    """A commit at a path; empty where there is none, or all zeros, as where a branch begins or ends."""
    found = text(value, *path).lower()
    return found if _SHA.match(found) and found.strip("0") else ""


def moment_ms(value: Any, otherwise_ms: int) -> int:
    """A time as sources write it: RFC 3339, with a space, with `UTC`, or a number of seconds or ms since 1970."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**14:
        return int(value if value >= _MS_MIN else value * 1000)
    found = _FORMS.match(value) if isinstance(value, str) else None
    if found is None:
        return otherwise_ms
    day, clock, fraction, offset = found.groups()
    offset = "+00:00" if offset in (None, "Z", "UTC") else offset
    try:
        seconds = int(datetime.fromisoformat(f"{day}T{clock}{offset}").astimezone(UTC).timestamp())
        return seconds * 1000 + int((fraction or ".")[1:4].ljust(3, "0"))
    except (ValueError, OverflowError):
        return otherwise_ms


class Names:
    """The names by which a source's happenings are known to each other. A revert counts where the change went: names of
    commits and requests carry the branch."""

    def __init__(self, source: str, repo: str) -> None:
        self._place = f"{source}:{repo}"

    def request(self, base: str, number: str) -> str:
        """A pull or merge request that went into a branch."""
        return f"{self._place}:{base}#{number}"

    def commit(self, base: str, commit: str) -> str:
        """A commit on a branch."""
        return f"{self._place}:{base}@{commit}"

    def shipped(self, commit: str) -> str:
        """A commit of the default branch: what deployments are made of."""
        return f"{self._place}@{commit}"

    def told(self, commit: str) -> str:
        """A commit, wherever it is, as what tells a task."""
        return f"{self._place} {commit}"

    def deployed(self, environment: str, commit: str) -> str:
        """A commit in an environment, however often it is deployed there."""
        return f"{self._place} {environment}@{commit}"

    def deployment(self, number: str) -> str:
        """One deployment."""
        return f"{self._place} deployment {number}"


def reverted_by(message: str, names: Names, base: str, *, shipped: bool = False) -> tuple[str, ...]:
    """What a commit message or a description says that it reverts, by name; `shipped`: also for deployments of it."""
    commits = _REVERTS_COMMIT.findall(message)[:REFS_MAX]
    found = [names.commit(base, commit) for commit in commits]
    if shipped:
        found += [names.shipped(commit) for commit in commits]
    found += [names.request(base, number) for number in _REVERTS_REQUEST.findall(message)[:REFS_MAX]]
    return tuple(dict.fromkeys(found))


def branch_of(ref: str) -> str | None:
    """The branch of a pushed ref; None for a tag."""
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else None


def some(values: Iterable[str]) -> tuple[str, ...]:
    """Those that are there, each once."""
    return tuple(dict.fromkeys(value for value in values if value))
