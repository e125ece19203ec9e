"""Duplicate rules, marks and call ids for tests."""

from __future__ import annotations

from typing import Any

from proxy.core.duplicates import DuplicateRule, DuplicateScope, Frame, Mark, Prints, marks_for
from proxy.core.fingerprint import Fingerprinter
from proxy.core.windows import Every
from tests.support.budgets import NOON_MS, OPENAI, call, caller
from tests.support.conversations import told

MAKER = Fingerprinter(b"secret")


def rule(kind: Any = "exact", *, every: str = "rolling 10m", **fields: Any) -> DuplicateRule:
    given: dict[str, Any] = {"name": f"same-{kind}", "kind": kind, "limit": 1, "then": "refuse"}
    return DuplicateRule(every=Every.parse(every), **(given | fields))


def scope_of(one: DuplicateRule, who: Any = None) -> DuplicateScope:
    return DuplicateScope(one, "0" * 16, ())


def call_id(number: int = 0, *, at_ms: int = NOON_MS) -> str:
    """An id of a call made at an instant, as `flight.new_call_id` makes them."""
    return f"{at_ms:012x}7000{number:016x}"


def mark(kind: Any = "exact", fingerprint: bytes = b"f" * 12, **fields: Any) -> Mark:
    """Its own fields, and those of its frame."""
    own = {name: fields.pop(name) for name in Mark.__struct_fields__ if name in fields}
    frame: dict[str, Any] = {
        "kind": kind,
        "counter": f"{kind:_<16.16}",
        "limit": 1,
        "places": ("10.2", "10.1"),
        "begins_ms": NOON_MS - 600_000,
        "expires_ms": NOON_MS + 1_200_000,
        "ends_ms": NOON_MS + 600_000,
    }
    short = fingerprint[:8] if kind in ("loop", "similar") else fingerprint
    return Mark(Frame(**(frame | fields)), **({"fingerprint": short} | own))


def marks_of(*rules: DuplicateRule, said: Any = ("Fix the login page.",), **options: Any) -> list[Mark]:
    """What a call leaves under each rule."""
    who = caller(**options.pop("who", {}))
    conversation = options.pop("conversation", None) or told("openai.chat", said=list(said))
    what = options.pop("call", None) or call()
    now_ms = options.pop("now_ms", NOON_MS)
    scopes = [DuplicateScope(one, "0" * 16, ()) for one in rules]
    marks, _ = marks_for(
        scopes, conversation, MAKER, caller=who, call=what, upstream=OPENAI, now_ms=now_ms, prints=Prints(), **options
    )
    return marks
