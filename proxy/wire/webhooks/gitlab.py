"""GitLab: merge requests that were merged, deployments, pushes, and issues that were opened again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.happenings import Happening, Texts
from ...core.outcomes import DEPLOYED, MERGED, OutcomeRule
from .issues import read_reopened
from .payload import Names, moment_ms, name, payload_of, reverted_by, sha, some, text, texts
from .pushes import read_push


def read(_rule: OutcomeRule, headers: Mapping[str, str], body: bytes, received_ms: int) -> Sequence[Happening]:
    """What a delivery tells, by its `object_kind`."""
    payload = payload_of(body, headers.get("content-type", ""))
    repo = text(payload, "project", "path_with_namespace")
    reader = _EVENTS.get(text(payload, "object_kind"))
    return reader(payload, Names("gitlab", repo), repo, received_ms) if reader is not None else []


def _merge_request(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    request = payload.get("object_attributes")
    if not isinstance(request, dict) or request.get("action") != "merge" or request.get("state") != "merged":
        return []
    base, number = text(request, "target_branch"), name(request, "iid") or ""
    merge = sha(request, "merge_commit_sha") or sha(request, "squash_commit_sha") or sha(request, "last_commit", "id")
    author, merged_by = name(request, "author_id"), name(payload, "user", "id")
    body, last = text(request, "description"), text(request, "last_commit", "message")
    return [
        Happening(
            kind=MERGED,
            repo=repo or None,
            base=base or None,
            author=author,
            merged_by=name(payload, "user", "username"),
            reviewed=author != merged_by if author and merged_by else None,
            # GitLab does not tell the merge base: each merge request is a change of its own.
            change=f"!{number}",
            refs=some([names.request(base, number), names.commit(base, merge) if merge else ""]),
            told=(names.told(merge),) if merge else (),
            undoes=reverted_by(body, names, base),
            at_ms=moment_ms(request.get("merged_at") or request.get("updated_at"), received_ms),
            texts=Texts(
                messages=(body, last),
                branch=text(request, "source_branch"),
                title=text(request, "title"),
                labels=texts(payload.get("labels"), "title"),
                body=body,
            ),
        )
    ]


def _deployment(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    number, status = name(payload, "deployment_id"), text(payload, "status")
    if not number:
        return []
    at_ms = moment_ms(payload.get("status_changed_at"), received_ms)
    if status in ("failed", "canceled"):
        return [Happening(effect="undone", undoes=(names.deployment(number),), reason="failed", at_ms=at_ms)]
    if status != "success":
        return []
    commit, environment = sha(text(payload, "commit_url").rpartition("/")[2]), text(payload, "environment")
    of_commit = (names.deployed(environment, commit), names.shipped(commit)) if commit else ()
    return [
        Happening(
            kind=DEPLOYED,
            repo=repo or None,
            base=text(payload, "ref") or None,
            environment=environment or None,
            author=name(payload, "user", "username"),
            change=commit or number,
            refs=(*of_commit, names.deployment(number)),
            told=(names.told(commit),) if commit else (),
            at_ms=at_ms,
            texts=Texts(branch=text(payload, "ref"), title=text(payload, "commit_title")),
        )
    ]


def _push(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    # GitLab tells no time of a push; that of its arrival is the best that is known.
    return read_push(payload, names, repo, text(payload, "project", "default_branch"), received_ms)


def _issue(payload: dict[str, Any], _names: Names, _repo: str, received_ms: int) -> Sequence[Happening]:
    issue = payload.get("object_attributes")
    if not isinstance(issue, dict) or issue.get("action") != "reopen":
        return []
    return read_reopened(issue, text(issue, "description"), texts(payload.get("labels"), "title"), received_ms)


_EVENTS: dict[str, Callable[[dict[str, Any], Names, str, int], Sequence[Happening]]] = {
    "merge_request": _merge_request,
    "deployment": _deployment,
    "push": _push,
    "issue": _issue,
}
