"""Records and entries for the tests of the ledger."""

from __future__ import annotations

from typing import Any

from proxy.core.record import Record
from proxy.core.usage import Usage
from proxy.ledger.entry import Entry

AT_MS = 1_790_000_000_000 - 1_790_000_000_000 % 3_600_000
"""The beginning of an hour in September 2026."""
MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def made(number: int, **changes: Any) -> Record:
    """A call of its own for each number: ada on PAY-7, 1000 tokens in and 100 out for 0.0012 dollars."""
    fields: dict[str, Any] = {
        "call_id": f"call{number:06d}",
        "at_ms": AT_MS + number,
        "team": "payments",
        "user": "ada",
        "key_id": "k234567abcdef",
        "task": "PAY-7",
        "task_source": "key",
        "agent": "codex",
        "upstream": "openai",
        "provider": "openai",
        "api": "openai.chat",
        "model_asked": "gpt-5-mini",
        "model": "gpt-5-mini-2025-08-07",
        "status": 200,
        "usage": Usage(input=1000, output=100),
        "usage_source": "reported",
        "cost_nusd": 1_200_000,
        "cost_parts_nusd": {"input": 1_000_000, "output": 200_000},
        "list_nusd": 1_200_000,
        "cost_source": "book",
        "upstream_call_id": f"chatcmpl-{number}",
    }
    return Record(**(fields | changes))


def refused(number: int, **changes: Any) -> Record:
    """A refusal: no model answered, nothing was used."""
    fields: dict[str, Any] = {
        "model": None,
        "status": 403,
        "result": "refused",
        "refusal": "not_allowed",
        "rule": "no-frontier",
        "usage": Usage(),
        "usage_source": "none",
        "cost_nusd": 0,
        "cost_parts_nusd": {},
        "list_nusd": 0,
        "cost_source": "none",
        "upstream_call_id": None,
    }
    return made(number, **(fields | changes))


def entries(*records: Record, shard: int = 0, epoch: str = "first", first: int = 1) -> list[Entry]:
    """The records as a stream has them, numbered from `first`."""
    return [
        Entry(shard=shard, epoch=epoch, id=f"{number}-0", record=record) for number, record in enumerate(records, first)
    ]
