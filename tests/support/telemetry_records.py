"""Records for the tests of telemetry: a call with everything in it, and the rows of a small ledger."""

from __future__ import annotations

import msgspec

from proxy.core.record import Record
from proxy.core.usage import Usage

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_SPAN_ID = "00f067aa0ba902b7"

FULL = Record(
    call_id="01jd000000000000000000000a",
    at_ms=1_790_000_000_123,
    org="acme",
    team="payments",
    user="ada",
    key_id="k234567abcdef",
    task="PAY-7",
    task_source="key",
    agent="claude-code",
    user_agent="claude-cli/2.1.330",
    session="5c2f0f3e-8a63-4a3a-9f6e-2b9f53ad1d11",
    labels={"cost_center": "4711"},
    upstream="anthropic",
    provider="anthropic",
    api="anthropic.messages",
    route="/v1/messages",
    model_asked="claude-sonnet-4-5",
    model="claude-sonnet-4-5-20250929",
    stream=True,
    policy_version="a1b2c3",
    status=200,
    usage=Usage(input=1000, cached_input=6000, cache_write=2500, cache_write_1h=500, output=700, reasoning=200),
    usage_source="reported",
    cost_nusd=27_675_001,
    cost_parts_nusd={
        "input": 3_000_000,
        "cached_input": 1_800_000,
        "cache_write": 9_375_000,
        "cache_write_1h": 3_000_001,
        "output": 10_500_000,
    },
    list_nusd=27_675_001,
    cost_source="book",
    price_version="genai-prices 0.2.3",
    ms_total=2345.5,
    ms_first_byte=321.5,
    ms_overhead=1.5,
    trace_id=TRACE_ID,
    parent_span_id=PARENT_SPAN_ID,
    span_id="1111111111111111",
    client_span_id="2222222222222222",
    server_address="api.anthropic.com",
    upstream_call_id="msg_01",
    finish_reasons=["end_turn"],
)

REFUSED = Record(
    call_id="01jd000000000000000000000b",
    at_ms=1_790_000_000_500,
    user="ada",
    key_id="k234567abcdef",
    provider="openai",
    api="openai.chat",
    route="/v1/chat/completions",
    model_asked="gpt-5-mini",
    result="refused",
    status=402,
    refusal="budget_spent",
    rule="person-day",
    ms_total=1.25,
    ms_overhead=1.25,
    trace_id=TRACE_ID,
    span_id="3333333333333333",
    client_span_id="4444444444444444",
)


def record(base: Record = FULL, **changes: object) -> Record:
    return msgspec.structs.replace(base, **changes)


def numbered(number: int, **changes: object) -> Record:
    """A record of its own for each number, with ids that follow from it."""
    return record(
        FULL,
        call_id=f"call{number:06d}",
        trace_id=f"{number + 1:032x}",
        parent_span_id=None,
        span_id=f"{2 * number + 1:016x}",
        client_span_id=f"{2 * number + 2:016x}",
        **changes,
    )


class Rows:
    """A ledger of rows with their sequence numbers and the cursor of one reader, as the exporter sees it."""

    def __init__(self, records: list[Record] | None = None) -> None:
        self.rows: list[tuple[int, Record]] = []
        self.cursor = 0
        self.saved: list[int] = []
        for each in records or []:
            self.add(each)

    def add(self, added: Record) -> None:
        """Appends a row, which takes the place of an earlier revision of the same call."""
        seq = self.rows[-1][0] + 1 if self.rows else 1
        self.rows = [row for row in self.rows if row[1].call_id != added.call_id]
        self.rows.append((seq, added))

    def read_after(self, seq: int, limit: int) -> list[tuple[int, Record]]:
        return [row for row in self.rows if row[0] > seq][:limit]

    def load_cursor(self) -> int:
        return self.cursor

    def save_cursor(self, seq: int) -> None:
        self.cursor = seq
        self.saved.append(seq)
