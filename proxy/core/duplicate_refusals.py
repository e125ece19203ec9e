"""What duplicate rules say of a call: the refusal of one that was made before, warnings, and facts for its record.

Who made the earlier call is told only to the user who made it, or where the rule shares answers within the org.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .caller import Caller
from .duplicates import DuplicateRule, DuplicateScope, Kind, Mark
from .refusal import Refusal, first_by_precedence, header_text, quoted
from .twins import Seen, exceeded, made_at_ms
from .windows import DAY_MS, HOUR_MS, MINUTE_MS

_TELLING: tuple[Kind, ...] = ("exact", "normalized", "task", "loop", "similar")
"""Which twin a record names, where rules of several kinds found one: the one that is most alike."""

_MOVES: tuple[Kind, ...] = ("exact", "normalized", "loop")
"""The kinds that tell whether a conversation moved on."""


class Finding(msgspec.Struct, kw_only=True):
    """What all rules together say of one call.

    refusal     None: it may go on
    rule, kind  the rule that found the twin named here, and its kind; of a refusal the one that refused
    twin_of     id of the earlier call; None where there is none, or where the rounds of a loop are all its own
    repeats     calls before it that were the same, exactly or normalized, in the window
    loop        equal rounds at its end, with its own: 1 where its last step is a new one, 0 where it ends in none
    moved_on    False: the call asks what was asked before, or ends in the step before it. None: no rule looked
    """

    refusal: Refusal | None = None
    rule: str | None = None
    kind: Kind | None = None
    twin_of: str | None = None
    repeats: int = 0
    loop: int = 0
    moved_on: bool | None = None
    shadow: list[str] = []
    warnings: list[str] = []


def weigh(
    scopes: Sequence[DuplicateScope],
    marks: Sequence[Mark],
    seen: Sequence[Seen],
    *,
    caller: Caller,
    now_ms: int,
) -> Finding:
    """The lists belong together, place by place. A call that is answered from its twin is not weighed for refusal."""
    finding = Finding()
    refusals: list[Refusal] = []
    best = len(_TELLING)
    for scope, mark, found in zip(scopes, marks, seen, strict=True):
        rule, kind = scope.rule, mark.frame.kind
        if kind in _MOVES:
            finding.moved_on = finding.moved_on is not False and not found.count
            if kind == "loop":
                finding.loop = max(finding.loop, found.count + 1)
            else:
                finding.repeats = max(finding.repeats, found.count)
        if kind == "similar" and not exceeded(mark, found):
            continue  # likeness alone is nothing to tell: only that there is a lot of it
        if found.count and (place := _TELLING.index(kind)) < best:
            best, finding.rule, finding.kind, finding.twin_of = place, rule.name, kind, found.twin or None
        if not exceeded(mark, found):
            continue
        if rule.mode == "shadow":
            if rule.then != "warn":
                finding.shadow.append(rule.name)
        elif rule.then == "refuse":
            refusals.append(_refusal(rule, found, caller, now_ms))
        elif rule.then == "warn":
            told = _told(rule, found, caller, now_ms)
            finding.warnings.append(header_text(f"{rule.name}; {told}{f'; {rule.help}' if rule.help else ''}"))
    if refusals:
        finding.refusal = first_by_precedence(refusals)
        scope, mark, found = next(
            each for each in zip(scopes, marks, seen, strict=True) if each[0].rule.name == finding.refusal.rule
        )
        finding.rule, finding.kind, finding.twin_of = scope.rule.name, mark.frame.kind, found.twin or None
    return finding


def _refusal(rule: DuplicateRule, seen: Seen, caller: Caller, now_ms: int) -> Refusal:
    sentence = f"rule `{rule.name}` refuses this call: {_told(rule, seen, caller, now_ms)}; {_ADVICE[rule.kind]}"
    if rule.help:
        sentence += f"; {rule.help}"
    return Refusal(code="loop" if rule.kind == "loop" else "duplicate", sentence=sentence, rule=rule.name)


_ADVICE: dict[Kind, str] = {
    "exact": "use its answer, or change what is asked",
    "normalized": "use its answer, or change what is asked: ids, times and counters make no other call of it",
    "loop": "try something else, or stop",
    "similar": "use its answer, or change what is asked",
    "task": "go on with what that task came to, or ask for something else",
}


def _told(rule: DuplicateRule, seen: Seen, caller: Caller, now_ms: int) -> str:
    """What the rule found, and how much of it may pass."""
    if rule.kind == "loop":
        earlier = f", as in call `{seen.twin}`" if seen.twin else ""
        return (
            f"it ends in the same tool calls with the same results for the {ordinal(seen.count + 1)} time in a row"
            f"{earlier}, and {_times(rule.limit)} may pass"
        )
    window = rule.every.told
    if rule.kind == "task":
        work = f"task {quoted(seen.task)}" if seen.task and _may_know(rule, seen, caller) else "an earlier task"
        found = f"its task is the same work as {work}{_when_and_who(rule, seen, caller, now_ms)}"
        return f"{found}, and {rule.limit} such task{'' if rule.limit == 1 else 's'} may pass {window}"
    alike = {"exact": "the same as", "normalized": "but for ids and times the same as", "similar": "much like"}
    found = f"it is {alike[rule.kind]} call `{seen.twin}`{_when_and_who(rule, seen, caller, now_ms)}"
    if seen.task and seen.task != caller.task and _may_know(rule, seen, caller):
        found += f" for task {quoted(seen.task)}"
    return f"{found}, and {rule.limit} such call{'' if rule.limit == 1 else 's'} may pass {window}"


def _may_know(rule: DuplicateRule, seen: Seen, caller: Caller) -> bool:
    return seen.user == caller.user or rule.share == "org"


def _when_and_who(rule: DuplicateRule, seen: Seen, caller: Caller, now_ms: int) -> str:
    when = f" of {told_ago(now_ms - made_at_ms(seen.twin))} ago" if seen.twin else ""
    if not seen.user or seen.user == caller.user:
        return when
    return f"{when} by user {quoted(seen.user)}" if rule.share == "org" else f"{when} by another user"


def told_ago(ms: int) -> str:
    """How long ago, to one figure: `3 min`, `2 days`."""
    for unit_ms, unit in ((DAY_MS, "day"), (HOUR_MS, "h"), (MINUTE_MS, "min")):
        if ms >= unit_ms:
            number = ms // unit_ms
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{max(0, ms) // 1000} s"


def ordinal(number: int) -> str:
    """`1st`, `12th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _times(number: int) -> str:
    return "1 round" if number == 1 else f"{number} rounds"
