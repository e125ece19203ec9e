"""Outcomes: what a task came to, and whether it held. Pure: what happened is told, in any order, and a state follows.

An outcome is something that the spender cannot write: a merged change, a deployment, an event of a tracker, told by a
source that signs. It is `pending` when it lands, `accepted` when it held for `accepted_after`, and `undone` when it was
reverted, rolled back or reopened before that. Acceptance is for good: what comes after is new work, and a month that
was closed stays as it was. Only accepted outcomes count, each with its weight.

Happenings come late, twice and in the wrong order. So nothing is worked out step by step: all that is known of an
outcome is kept, and its state is worked out anew from the whole (`standing`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from .globs import Globs

if TYPE_CHECKING:
    from .happenings import Happening

State = Literal["pending", "accepted", "undone"]
Source = Literal["signed", "self_declared"]
Origin = Literal["github", "gitlab", "standard", "declared"]
Effect = Literal["landed", "undone"]
Reason = Literal["", "reverted", "rolled_back", "failed", "reopened"]
"""Why an outcome is undone; empty where it is not."""

MERGED, DEPLOYED, PUSHED, DECLARED = "merged", "deployed", "pushed", "declared"
"""Kinds of outcomes. Those of Standard Webhooks have the `type` of their event as kind."""

UNITS = {"merged change": MERGED, "deployment": DEPLOYED, "commit on main": PUSHED}
"""What a team may call its delivery unit without naming a rule -> the kind of outcome."""

STANDARD_SECRET = "whsec_"
"""Begins the secrets of Standard Webhooks, and the signing tokens of GitLab; base64 follows."""

KEY_BYTES = 16


class OutcomeMatch(msgspec.Struct, frozen=True):
    """Which happenings a rule takes: all of `conditions` hold, those of `inverted`, if any, do not all hold, and where
    `reviewed` is True, someone other than its author let the change in."""

    conditions: tuple[tuple[str, Globs], ...] = ()
    inverted: tuple[tuple[str, Globs], ...] = ()
    reviewed: bool | None = None

    def matches(self, happening: Happening) -> bool:
        """Values of `repo`, `base`, `environment`, `author` and `merged_by` by glob. An absent one matches `none`."""
        if self.reviewed is not None and happening.reviewed != self.reviewed:
            return False
        if not all(globs.matches(getattr(happening, field)) for field, globs in self.conditions):
            return False
        return not self.inverted or any(not globs.matches(getattr(happening, field)) for field, globs in self.inverted)

    def takes_from(self, repo: str | None) -> bool:
        """Whether anything that is told of this repository is of interest."""
        return repo is None or all(globs.matches(repo) for field, globs in self.conditions if field == "repo")


class OutcomeRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of `outcomes`: whose word is taken, for what, and how much it counts.

    origin             who tells: `from` in the file
    event              what must have happened, in the words of the origin
    task               a regular expression that finds the task (`proxy/core/patterns.py`); its first group, else all
    accepted_after_ms  how long it must hold; None: it is never accepted
    per                `change`: each change counts once; `task`: all changes of a task count once together
    undone_by          types of events by which a Standard Webhooks source takes back what it told
    """

    name: str
    origin: Origin
    secret: str = ""
    event: str = ""
    match: OutcomeMatch = OutcomeMatch()
    task: str = ""
    accepted_after_ms: int | None
    weight: int = 1
    per: Literal["change", "task"] = "change"
    undone_by: tuple[str, ...] = ()
    org: str = "default"

    def __repr__(self) -> str:
        """Without the secret."""
        return f"OutcomeRule({self.name}, from={self.origin}, event={self.event})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What a delivery may be signed with: the secret, or any of several with commas between them, while one takes
        the place of another."""
        parts = tuple(part.strip() for part in self.secret.split(",") if part.strip())
        return parts if len(parts) > 1 else (self.secret,)

    @property
    def kind(self) -> str:
        """The kind of outcome that it makes."""
        return KINDS.get((self.origin, self.event), DECLARED if self.origin == "declared" else self.event)


KINDS = {
    ("github", "pull_request.merged"): MERGED,
    ("github", "deployment_status.success"): DEPLOYED,
    ("github", "push"): PUSHED,
    ("gitlab", "merge_request.merged"): MERGED,
    ("gitlab", "deployment.success"): DEPLOYED,
    ("gitlab", "push"): PUSHED,
}
"""What can be had of GitHub and GitLab, by origin and event."""


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """What a team delivers, and how many it is. `unit` is the name of a rule of `outcomes`, or one of UNITS."""

    name: str
    unit: str
    size: int

    def delivers(self, rule: str, kind: str) -> bool:
        """Whether an outcome of this rule and kind is one of its delivery units."""
        return self.unit == rule or UNITS.get(self.unit) == kind


class Event(msgspec.Struct, frozen=True, order=True):
    """One step in the life of an outcome. At the same instant `landed` comes before `undone`: in doubt it did not
    hold."""

    at_ms: int
    effect: Effect
    reason: Reason = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an outcome stands at an instant. `due_ms`: when it is accepted if it holds; None: never by itself."""

    state: State
    landed_ms: int
    due_ms: int | None
    accepted_ms: int | None = None
    undone_ms: int | None = None
    reason: Reason = ""


def standing(events: Iterable[Event], accepted_after_ms: int | None, now_ms: int) -> Standing | None:
    """The state that follows from all that is known; the order in which it became known does not matter.

    A change that lands again after it was undone (a revert that was reverted) begins anew. What comes after acceptance
    changes nothing, also if it is heard of earlier. None where nothing landed.
    """
    found: Standing | None = None
    for event in sorted(events):
        if found is not None and found.due_ms is not None and found.state == "pending" and event.at_ms >= found.due_ms:
            break
        if event.effect == "landed" and (found is None or found.state == "undone"):
            due_ms = None if accepted_after_ms is None else event.at_ms + accepted_after_ms
            found = Standing(state="pending", landed_ms=event.at_ms, due_ms=due_ms)
        elif event.effect == "undone" and found is not None and found.state == "pending":
            found = msgspec.structs.replace(
                found, state="undone", due_ms=None, undone_ms=event.at_ms, reason=event.reason
            )
    if found is not None and found.state == "pending" and found.due_ms is not None and now_ms >= found.due_ms:
        return msgspec.structs.replace(found, state="accepted", accepted_ms=found.due_ms)
    return found


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger's table `outcomes`: one change of one task, however many deliveries told of it.

    task                  empty where none was found
    change                what tells it from other changes of the task
    accepted_after_ms     of the rule when it landed: a rule that changes later does not move it. None: never accepted
    weight                how much it counts once it is accepted
    seen_ms, changed_ms   when it was first heard of, and when its state last changed, by our clock
    deliveries            how many told of it
    """

    key: str
    org: str
    rule: str
    source: Source
    kind: str
    task: str
    repo: str
    base: str
    change: str
    per: str
    weight: int
    accepted_after_ms: int | None
    state: State
    reason: Reason
    landed_ms: int
    due_ms: int | None
    accepted_ms: int | None
    undone_ms: int | None
    reviewed: bool | None
    seen_ms: int
    changed_ms: int
    deliveries: int


def outcome_key(org: str, rule: str, task: str, repo: str, base: str, change: str) -> str:
    """The same for everything that is one outcome: one change cut into many pull requests shares task and merge base,
    and so is one."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(msgspec.json.encode((org, rule, task, repo, base, change)))
    return digest.hexdigest()


def counts(outcome: Outcome) -> int:
    """What an outcome adds to its task: its weight, once it is accepted."""
    return outcome.weight if outcome.state == "accepted" else 0


def standard_secret(text: str) -> bytes:
    """The bytes of a secret of Standard Webhooks. Raises ValueError where they are not base64."""
    try:
        return base64.b64decode(text.removeprefix(STANDARD_SECRET), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
