"""Small deliveries of webhooks, of our own writing, in the shape of the real services, and their signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from proxy.core.record import rfc3339

SECRET = "it-is-only-a-test"
STANDARD_KEY = b"thirty-two bytes of a shared key"
STANDARD_SECRET = "whsec_" + base64.b64encode(STANDARD_KEY).decode()
MINUTE = 60_000
DAY = 86_400_000
AT_MS = 1_795_000_000_000
"""When the first change of the tests is merged."""


def commit(word: str) -> str:
    """A commit's name, the same for the same word."""
    return hashlib.sha1(word.encode()).hexdigest()


def merged(
    number: int = 7,
    *,
    title: str = "PAY-7 refund twice",
    branch: str = "fix",
    body: str | None = "",
    labels: tuple[str, ...] = (),
    base: str = "main",
    cut_from: str = "start",
    author: str = "ada",
    merged_by: str | None = "bob",
    at_ms: int = AT_MS,
    repo: str = "acme/pay",
) -> dict[str, Any]:
    """GitHub's `pull_request`, closed because it was merged. Its merge commit is `commit(f"merge {number}")`."""
    return {
        "action": "closed",
        "number": number,
        "pull_request": {
            "number": number,
            "title": title,
            "body": body,
            "merged": True,
            "merged_at": rfc3339(at_ms),
            "merge_commit_sha": commit(f"merge {number}"),
            "user": {"login": author},
            "merged_by": {"login": merged_by} if merged_by else None,
            "labels": [{"name": label} for label in labels],
            "head": {"ref": branch, "sha": commit(f"head {number}")},
            "base": {"ref": base, "sha": commit(cut_from)},
        },
        "repository": {"full_name": repo, "default_branch": "main"},
    }


def pushed(
    *commits: tuple[str, str], base: str = "main", at_ms: int = AT_MS, before: str = "start", repo: str = "acme/pay"
) -> dict[str, Any]:
    """GitHub's `push`: commits as pairs of a word for `commit` and a message."""
    return {
        "ref": f"refs/heads/{base}",
        "before": commit(before),
        "after": commit(commits[-1][0]) if commits else "0" * 40,
        "commits": [{"id": commit(word), "message": message} for word, message in commits],
        "repository": {"full_name": repo, "default_branch": "main", "pushed_at": at_ms // 1000},
    }


def reverting(number: int) -> str:
    """What git writes for a revert of a merged pull request."""
    return f'Revert "x"\n\nThis reverts commit {commit(f"merge {number}")}.\n'


def deployed(
    word: str,
    number: int = 1,
    *,
    state: str = "success",
    environment: str = "production",
    at_ms: int = AT_MS,
    description: str = "",
) -> dict[str, Any]:
    """GitHub's `deployment_status` of `commit(word)`."""
    return {
        "action": "created",
        "deployment_status": {"state": state, "environment": environment, "created_at": rfc3339(at_ms)},
        "deployment": {
            "id": number,
            "sha": commit(word),
            "ref": "main",
            "environment": environment,
            "description": description,
            "creator": {"login": "ci"},
        },
        "repository": {"full_name": "acme/pay", "default_branch": "main"},
    }


def reopened(title: str, at_ms: int = AT_MS) -> dict[str, Any]:
    """GitHub's `issues`, opened again."""
    return {
        "action": "reopened",
        "issue": {"title": title, "body": None, "labels": [], "updated_at": rfc3339(at_ms)},
        "repository": {"full_name": "acme/pay", "default_branch": "main"},
    }


def event_of(payload: Mapping[str, Any]) -> str:
    """The name of GitHub's event, by what is in it."""
    for key, event in (("pull_request", "pull_request"), ("deployment", "deployment_status"), ("issue", "issues")):
        if key in payload:
            return event
    return "push"


def github(
    payload: Mapping[str, Any], *, delivery: str = "d1", secret: str = SECRET, event: str | None = None
) -> tuple[bytes, dict[str, str]]:
    """Body and headers as GitHub sends them."""
    body = json.dumps(payload).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "content-type": "application/json",
        "x-github-event": event or event_of(payload),
        "x-github-delivery": delivery,
        "x-hub-signature-256": f"sha256={digest}",
    }


def standard(
    kind: str,
    data: Mapping[str, Any],
    *,
    delivery: str = "msg_1",
    sent_ms: int = AT_MS,
    at_ms: int | None = None,
    key: bytes = STANDARD_KEY,
    others: str = "",
) -> tuple[bytes, dict[str, str]]:
    """Body and headers as Standard Webhooks say. `others`: signatures beside ours."""
    happened = rfc3339(sent_ms if at_ms is None else at_ms)
    body = json.dumps({"type": kind, "timestamp": happened, "data": data}).encode()
    stamp = str(sent_ms // 1000)
    digest = hmac.new(key, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"{others} v1,{base64.b64encode(digest).decode()}".strip()
    return body, {"webhook-id": delivery, "webhook-timestamp": stamp, "webhook-signature": signature}
