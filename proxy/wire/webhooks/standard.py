"""Standard Webhooks: any CI or tracker. The body is `{"type", "timestamp", "data"}`; of `data` these are read:

task, repo, base, environment, author, merged_by, branch, title, body, labels[], and `change`: what it is that landed,
by which an event of `undone_by` takes it back. Without `change` such an event takes back all of its task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.happenings import Happening, Texts
from ...core.outcomes import OutcomeRule, Reason
from ..values import listed, mapping
from .payload import moment_ms, name, payload_of, text


def read(rule: OutcomeRule, headers: Mapping[str, str], body: bytes, received_ms: int) -> Sequence[Happening]:
    """What a delivery tells, by its `type`."""
    payload = payload_of(body, headers.get("content-type", ""))
    event, data = text(payload, "type"), mapping(payload.get("data"))
    at_ms = moment_ms(payload.get("timestamp"), received_ms)
    change = name(data, "change")
    refs = (f"standard/{rule.name}:{change}",) if change else ()
    about = Texts(
        messages=(text(data, "body"),),
        branch=text(data, "branch"),
        title=text(data, "title"),
        labels=tuple(label for label in listed(data.get("labels")) if isinstance(label, str)),
        body=text(data, "body"),
    )
    task = name(data, "task") or ""
    if event in rule.undone_by:
        reason = reason_of(event)
        return [
            Happening(
                effect="undone", undoes=refs, reopens=not refs, reason=reason, at_ms=at_ms, texts=about, task=task
            )
        ]
    if event != rule.event:
        return []
    author, merged_by = name(data, "author"), name(data, "merged_by")
    return [
        Happening(
            kind=rule.kind,
            repo=name(data, "repo"),
            base=name(data, "base"),
            environment=name(data, "environment"),
            author=author,
            merged_by=merged_by,
            reviewed=author != merged_by if author and merged_by else None,
            change=change or headers.get("webhook-id", ""),
            refs=refs,
            at_ms=at_ms,
            texts=about,
            task=task,
        )
    ]


def reason_of(event: str) -> Reason:
    """The word for why, by what the event is called."""
    if "reopen" in event.lower():
        return "reopened"
    return "rolled_back" if "roll" in event.lower() else "reverted"
