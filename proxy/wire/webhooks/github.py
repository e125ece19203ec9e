"""GitHub: pull requests that were merged, deployments, pushes, and issues that were opened again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.happenings import Happening, Texts
from ...core.outcomes import DEPLOYED, MERGED, OutcomeRule
from .issues import read_reopened
from .payload import Names, moment_ms, name, payload_of, reverted_by, sha, some, text, texts
from .pushes import read_push


def read(_rule: OutcomeRule, headers: Mapping[str, str], body: bytes, received_ms: int) -> Sequence[Happening]:
    """What a delivery tells, by the header `X-GitHub-Event`."""
    payload = payload_of(body, headers.get("content-type", ""))
    repo = text(payload, "repository", "full_name")
    reader = _EVENTS.get(headers.get("x-github-event", ""))
    return reader(payload, Names("github", repo), repo, received_ms) if reader is not None else []


def _pull_request(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    request = payload.get("pull_request") or {}
    if text(payload, "action") != "closed" or not isinstance(request, dict) or request.get("merged") is not True:
        return []
    base, number = text(request, "base", "ref"), name(request, "number") or ""
    merge = sha(request, "merge_commit_sha")
    author, merged_by = name(request, "user", "login"), name(request, "merged_by", "login")
    body = text(request, "body")
    return [
        Happening(
            kind=MERGED,
            repo=repo or None,
            base=base or None,
            author=author,
            merged_by=merged_by,
            reviewed=author != merged_by if author and merged_by else None,
            # Where the branch was cut: pull requests that were cut from one change at one place share it.
            change=sha(request, "base", "sha") or f"#{number}",
            refs=some([names.request(base, number), names.commit(base, merge) if merge else ""]),
            told=(names.told(merge),) if merge else (),
            undoes=reverted_by(body, names, base),
            at_ms=moment_ms(request.get("merged_at"), received_ms),
            texts=Texts(
                messages=(body,),
                branch=text(request, "head", "ref"),
                title=text(request, "title"),
                labels=texts(request.get("labels"), "name"),
                body=body,
            ),
        )
    ]


def _deployment_status(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    status, deployment = payload.get("deployment_status"), payload.get("deployment")
    state = text(status, "state")
    environment = text(status, "environment") or text(deployment, "environment")
    number, commit, ref = name(deployment, "id"), sha(deployment, "sha"), text(deployment, "ref")
    if not number or not isinstance(status, dict):
        return []
    at_ms = moment_ms(status.get("created_at"), received_ms)
    if state in ("failure", "error"):
        return [Happening(effect="undone", undoes=(names.deployment(number),), reason="failed", at_ms=at_ms)]
    if state != "success":
        return []
    of_commit = (names.deployed(environment, commit), names.shipped(commit)) if commit else ()
    return [
        Happening(
            kind=DEPLOYED,
            repo=repo or None,
            base=ref or None,
            environment=environment or None,
            author=name(deployment, "creator", "login"),
            change=commit or number,
            refs=(*of_commit, names.deployment(number)),
            told=(names.told(commit),) if commit else (),
            at_ms=at_ms,
            texts=Texts(
                messages=(text(deployment, "description"),),
                branch=ref,
                title=text(deployment, "description"),
                body=text(deployment, "payload") or text(deployment, "payload", "task"),
            ),
        )
    ]


def _push(payload: dict[str, Any], names: Names, repo: str, received_ms: int) -> Sequence[Happening]:
    repository = payload.get("repository") or {}
    pushed = repository.get("pushed_at") if isinstance(repository, dict) else None
    at_ms = moment_ms(pushed, received_ms)
    return read_push(payload, names, repo, text(repository, "default_branch"), at_ms)


def _issues(payload: dict[str, Any], _names: Names, _repo: str, received_ms: int) -> Sequence[Happening]:
    issue = payload.get("issue")
    if text(payload, "action") != "reopened" or not isinstance(issue, dict):
        return []
    return read_reopened(issue, text(issue, "body"), texts(issue.get("labels"), "name"), received_ms)


_EVENTS: dict[str, Callable[[dict[str, Any], Names, str, int], Sequence[Happening]]] = {
    "pull_request": _pull_request,
    "deployment_status": _deployment_status,
    "push": _push,
    "issues": _issues,
}
