"""Happenings: what a source tells in one delivery, and what a rule of `outcomes` makes of it. Pure.

The texts in which a task is looked for go no further than here: what is kept of a happening are names of repositories,
branches, commits and tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from .outcomes import DEPLOYED, Effect, OutcomeRule, Reason
from .patterns import found_in

TASK_CHARACTERS_MAX = 128
"""As the tasks of calls."""
TEXT_CHARACTERS_MAX = 65_536
"""How much of one text is looked through for a task: the longest body that GitHub takes."""
NAME_CHARACTERS_MAX = 256
"""The longest name of a repository, a branch or a change that is kept."""
TRAILERS_LOOKED_AT = 100
"""Commit messages of one push that are looked through."""

_TRAILER = re.compile(r"^[Tt]ask:[ \t]*(\S[^\n]{0,200})$", re.MULTILINE)
"""A line of a commit message or a description that names its task, whatever else the text says."""


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a happening may name its task, in the order in which it is looked for.

    messages   commit messages and the description, for their trailers `Task: PAY-7`
    """

    messages: tuple[str, ...] = ()
    branch: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    body: str = ""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """What one delivery tells, whoever told it.

    effect     `landed`: something came to be; `undone`: something is taken back
    kind       of the outcome, where it landed
    change     what tells this change from others of the repository: its merge base, a commit of an environment
    refs       names by which a later happening may take it back
    told       names by which another happening may tell its task: commits
    undoes     names of what it takes back; one that landed and undoes something does nothing else
    reopens    the task itself is taken up again
    reviewed   whether someone other than its author let it in; None where the source does not say
    at_ms      by the clock of the source
    task       where the source names it in a field of its own
    """

    effect: Effect = "landed"
    kind: str = ""
    repo: str | None = None
    base: str | None = None
    environment: str | None = None
    author: str | None = None
    merged_by: str | None = None
    reviewed: bool | None = None
    change: str = ""
    refs: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    undoes: tuple[str, ...] = ()
    reopens: bool = False
    reason: Reason = ""
    at_ms: int
    texts: Texts = Texts()
    task: str = ""


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome that a rule sees in a happening. `task` is empty where none was found: another happening may still
    tell it, by one of the names in `told`."""

    task: str
    kind: str
    repo: str
    base: str
    change: str
    refs: tuple[str, ...]
    told: tuple[str, ...]
    reviewed: bool | None
    at_ms: int


class Undoing(msgspec.Struct, frozen=True, kw_only=True):
    """Something is taken back. `refs` are the names by which the undoing itself may be undone."""

    refs: tuple[str, ...]
    undoes: tuple[str, ...]
    reason: Reason
    at_ms: int


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """The task of what has one of these names, for an outcome that does not say it itself."""

    refs: tuple[str, ...]
    task: str
    at_ms: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule takes from one delivery."""

    landings: tuple[Landing, ...] = ()
    undoings: tuple[Undoing, ...] = ()
    hints: tuple[Hint, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.landings or self.undoings or self.hints)


def told_by(rule: OutcomeRule, happenings: Iterable[Happening], received_ms: int) -> Told:
    """What `rule` takes from happenings. A clock that is ahead of ours is set back to `received_ms`: nothing that we
    hear of lies in the future."""
    landings: list[Landing] = []
    undoings: list[Undoing] = []
    hints: list[Hint] = []
    for happening in happenings:
        if not rule.match.takes_from(happening.repo):
            continue
        at_ms = max(0, min(happening.at_ms, received_ms))
        task = task_of(rule.task, happening)
        undoes = (*happening.undoes, task_ref(task)) if happening.reopens and task else happening.undoes
        if undoes:
            reason = happening.reason or "reverted"
            undoings.append(Undoing(refs=happening.refs, undoes=undoes, reason=reason, at_ms=at_ms))
        elif happening.effect == "landed" and happening.kind == rule.kind and rule.match.matches(happening):
            base = happening.environment if happening.kind == DEPLOYED else happening.base
            landings.append(
                Landing(
                    task=task,
                    kind=happening.kind,
                    repo=kept(happening.repo),
                    base=kept(base),
                    change=kept(happening.change),
                    refs=happening.refs,
                    told=happening.told,
                    reviewed=happening.reviewed,
                    at_ms=at_ms,
                )
            )
        elif happening.effect == "landed" and task and happening.told:
            hints.append(Hint(refs=happening.told, task=task, at_ms=at_ms))
    return Told(landings=tuple(landings), undoings=tuple(undoings), hints=tuple(hints))


def task_of(pattern: str, happening: Happening) -> str:
    """The task that a happening names: first by a field of its own, then by a trailer, then in branch, title, labels
    and body. Without a pattern only the first two count. Empty where none is named."""
    texts = happening.texts
    for named in (happening.task, *trailers(texts.messages)):
        task = _fitting(pattern, named) if pattern else named
        if task:
            return clean(task)
    if pattern:
        for text in (texts.branch, texts.title, *texts.labels, texts.body):
            if text and (task := _fitting(pattern, text)):
                return clean(task)
    return ""


def trailers(messages: Sequence[str]) -> Iterable[str]:
    """The tasks that lines `Task: ...` name, those of the newest message first."""
    for message in messages[:TRAILERS_LOOKED_AT]:
        text = message[:TEXT_CHARACTERS_MAX].replace("\r\n", "\n")
        yield from (found.strip() for found in reversed(_TRAILER.findall(text)))


def _fitting(pattern: str, text: str) -> str:
    return found_in(pattern, text, TEXT_CHARACTERS_MAX)


def clean(task: str) -> str:
    """A task as the ledger keeps it: bounded, without what no line of text holds."""
    return "".join(character for character in task if character.isprintable()).strip()[:TASK_CHARACTERS_MAX]


def kept(name: str | None) -> str:
    """A name as the ledger keeps it."""
    return (name or "")[:NAME_CHARACTERS_MAX].replace("\0", "\ufffd")


def task_ref(task: str) -> str:
    """The name by which a tracker takes a task up again."""
    return f"task {task}"
