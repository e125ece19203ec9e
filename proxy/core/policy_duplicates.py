"""Duplicate rules of policy files: whether the keys of one go together, and the rule that it makes."""

from __future__ import annotations

from .duplicates import LENDS_ONLY, DuplicateRule
from .matching import Mode
from .policy_budgets import Written, match_of
from .windows import DAY_MS, Every

WINDOW_DEFAULT = "rolling 10m"
WINDOW_MAX_MS = 31 * DAY_MS
"""What is remembered of every call fills the store; in a month the ledger shows what repeats."""

LENT_LIMIT_DEFAULT = 1
"""With `replay` and `join` the second call is the one that is answered from the first."""


def check_duplicate(written: Written) -> None:
    """Puts every fault and warning about one rule into its report."""
    fields = written.fields
    if (fields.get("match") or {}).get("not") == {}:
        written.fault("an empty `not` never lets the rule apply", "match", "not")
    kind, then = fields.get("kind"), fields.get("then", "warn")
    lends = then in ("replay", "join")
    if fields.get("limit") is not None:
        unit, _ = fields["limit"]
        if unit != "calls":
            written.fault("counts calls; write how many with one fingerprint may pass, like `3 calls`", "limit")
    elif "limit" not in fields and not lends:
        written.fault("the key `limit` is missing: how many calls with one fingerprint may pass?")
    every = fields.get("every")
    if every is not None:
        window = Every.parse(every)
        if window.kind == "ever":
            written.fault("what every call was is not remembered for ever; write a window like `rolling 24h`", "every")
        elif window.kind == "rolling" and window.length_ms > WINDOW_MAX_MS:
            written.fault(f"`{every}` is longer than calls are remembered, 31 days", "every")
        if "timezone" in fields and window.kind != "calendar":
            written.warn(f"makes no difference to `{every}`, which follows no calendar", "timezone")
    if kind is None or then is None:
        return
    if lends and kind not in LENDS_ONLY:
        written.fault(
            f"`{then}` gives the answer of another call, which must be the same: only with `kind: exact`", "then"
        )
    if kind == "similar" and then != "warn":
        written.fault("what is only alike may be something else: `similar` can warn and no more", "then")
    if kind == "task" and "task" in (fields.get("per") or ()):
        written.fault(
            "compares tasks with one another, so that they cannot be kept apart; write `user`, `team` or `org`", "per"
        )


def duplicate_of(written: Written, mode: Mode) -> DuplicateRule:
    """The rule. Only of one without faults."""
    fields = written.fields
    kind = fields["kind"]
    return DuplicateRule(
        name=fields["name"],
        kind=kind,
        match=match_of(fields.get("match")),
        per=fields.get("per", ("org",) if kind == "task" else ("user",)),
        limit=fields["limit"][1] if "limit" in fields else LENT_LIMIT_DEFAULT,
        every=Every.parse(fields.get("every", WINDOW_DEFAULT), fields.get("timezone", "UTC")),
        then=fields.get("then", "warn"),
        mode=fields.get("mode", mode),
        share=fields.get("share", "user"),
        samples=fields.get("samples", False),
        help=fields.get("help", ""),
    )
