"""Pushes, alike in GitHub and GitLab: commits that land on a branch, and those that take others back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.happenings import Happening, Texts
from ...core.outcomes import PUSHED
from ..values import listed
from .payload import REFS_MAX, Names, branch_of, reverted_by, sha, some, text


def read_push(payload: dict[str, Any], names: Names, repo: str, default_branch: str, at_ms: int) -> Sequence[Happening]:
    """One happening for all commits that land something, and one for each that reverts. A push of any number of commits
    is one change. `at_ms` is when it was pushed: what commits say themselves is the writer's to choose."""
    base = branch_of(text(payload, "ref"))
    if not base or not sha(payload, "after"):
        return []
    shipped = base == default_branch
    landed: list[tuple[str, str]] = []
    happenings: list[Happening] = []
    for commit in listed(payload.get("commits"))[-REFS_MAX:]:
        identity, message = sha(commit, "id"), text(commit, "message")
        undoes = reverted_by(message, names, base, shipped=shipped)
        if not undoes:
            landed.append((identity, message))
            continue
        refs = [names.commit(base, identity), names.shipped(identity) if shipped else ""] if identity else []
        happenings.append(Happening(refs=some(refs), undoes=undoes, reason="reverted", at_ms=at_ms))
    if landed:
        happenings.append(_landed(landed, payload, names, repo, base, at_ms))
    return happenings


def _landed(
    landed: list[tuple[str, str]], payload: dict[str, Any], names: Names, repo: str, base: str, at_ms: int
) -> Happening:
    identities, messages = some(one for one, _ in landed), tuple(message for _, message in reversed(landed))
    after = sha(payload, "after")
    return Happening(
        kind=PUSHED,
        repo=repo or None,
        base=base,
        change=sha(payload, "before") or after,
        refs=tuple(names.commit(base, identity) for identity in some((*identities, after))),
        told=tuple(names.told(identity) for identity in some((after, *reversed(identities)))),
        at_ms=at_ms,
        texts=Texts(
            messages=messages,
            branch=base,
            title=messages[0].partition("\n")[0],
            body="\n".join(messages),
        ),
    )
