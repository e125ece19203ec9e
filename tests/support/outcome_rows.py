"""Rows of the table `outcomes`, as deliveries of webhooks would leave them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete

from proxy.ledger.database import Ledger
from proxy.ledger.tables import outcomes
from tests.support.ledger_calls import AT_MS, HOUR_MS

DAY_MS = 24 * HOUR_MS


def landed(number: int, **changes: Any) -> dict[str, Any]:
    """A merged change of PAY-7 that landed an hour after the first calls, accepted a day later."""
    fields: dict[str, Any] = {
        "key": f"outcome{number:04d}",
        "org": "default",
        "rule": "merged",
        "source": "signed",
        "kind": "merged",
        "task": "PAY-7",
        "repo": "acme/pay",
        "base": "main",
        "change": f"base-{number}",
        "per": "change",
        "weight": 1,
        "accepted_after_ms": DAY_MS,
        "state": "accepted",
        "reason": "",
        "landed_ms": AT_MS + HOUR_MS,
        "due_ms": AT_MS + HOUR_MS + DAY_MS,
        "accepted_ms": None,
        "undone_ms": None,
        "reviewed": 1,
        "seen_ms": AT_MS + HOUR_MS,
        "changed_ms": AT_MS + HOUR_MS,
        "deliveries": 1,
    }
    fields |= changes
    if fields["state"] == "accepted" and fields["accepted_ms"] is None:
        fields["accepted_ms"] = fields["landed_ms"] + DAY_MS
    if fields["state"] == "undone" and fields["undone_ms"] is None:
        fields["undone_ms"] = fields["landed_ms"] + HOUR_MS
    return {name: value for name, value in fields.items() if name in outcomes.c}


def put(ledger: Ledger, *rows: dict[str, Any]) -> None:
    """Writes outcomes, in the place of those with the same keys."""
    with ledger._database.writing() as connection:
        for row in rows:
            connection.execute(delete(outcomes).where(outcomes.c.key == row["key"]))
            connection.execute(outcomes.insert(), row)
