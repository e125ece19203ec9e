"""Record: the ledger row of one call. Its JSON is what leaves the house; the names are part of the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from .usage import NO_USAGE, Usage

EPOCH = datetime.fromtimestamp(0, UTC)

Result = Literal["ok", "refused", "failed", "client_gone", "lost"]
UsageSource = Literal["reported", "estimated", "partial", "none"]
CostSource = Literal["book", "policy", "provider", "assumed", "none"]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call, from its admission to what it cost. Times in ms since the epoch, money in nano-USD.

    As store and ledger keep it, what is as here by default is left out: two fifths of it. `public` shows all.

    `cost_nusd` is None only when the call has no price, 0 when it was free. `cost_parts_nusd` adds up to it exactly.
    `revision` counts up when a provisional row (`lost`, a background answer) is replaced by what was learned later.
    """

    call_id: str
    revision: int = 1
    at_ms: int
    org: str = "default"
    team: str = "default"
    user: str
    key_id: str
    task: str | None = None
    task_source: str = "none"
    agent: str | None = None
    user_agent: str = ""
    session: str | None = None
    labels: dict[str, str] = {}
    max_cost_nusd: dict[str, int] = {}
    """The `max_cost` budgets of the task key, by their chains: to count again what was spent of them. Beside the
    contract."""

    upstream: str = ""
    provider: str = ""
    api: str = "unknown"
    route: str = ""
    model_asked: str | None = None
    model: str | None = None
    stream: bool = False
    policy_version: str = ""

    result: Result = "ok"
    status: int = 0
    count: int = 1
    refusal: str | None = None
    rule: str | None = None
    error: str | None = None
    """Why a call failed, in a word: the provider's error code, or ours for a broken connection. Beside the contract."""
    shadow: list[str] = []
    warnings: list[str] = []
    degraded: bool = False

    usage: Usage = NO_USAGE
    usage_source: UsageSource = "none"
    cost_nusd: int | None = 0
    cost_parts_nusd: dict[str, int] = {}
    list_nusd: int | None = 0
    cost_source: CostSource = "none"
    price_version: str = ""
    service_tier: str | None = None
    hold_nusd: int = 0
    estimate: dict[str, Any] = {}

    fingerprint: str | None = None
    work: str | None = None
    """Fingerprint of what the task was asked to do: tasks with the same one are the same work. Beside the contract, as
    are `twin_rule` and `twin_kind` (which rule found the twin), `loop` and `moved_on`."""
    twin_of: str | None = None
    twin_rule: str | None = None
    twin_kind: str | None = None
    repeats: int = 0
    loop: int = 0
    """Equal rounds of tool use at the end of its conversation, or of its task; 1: the last one is new, 0: it ends in
    none."""
    moved_on: bool | None = None
    replayed: bool = False
    joined: bool = False
    """Answered from a twin that it waited for. Beside the contract."""

    ms_total: float = 0
    ms_first_byte: float | None = None
    ms_overhead: float = 0

    trace_id: str = ""
    parent_span_id: str | None = None
    span_id: str = ""
    client_span_id: str = ""
    trace_flags: int = 1
    http_method: str = "POST"
    server_address: str = ""
    upstream_call_id: str | None = None
    finish_reasons: list[str] = []
    retry_of: str | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record as the store and the ledger keep it: JSON with `at_ms`. What came in a header and is no text is
    written with `?`: a call that could not be recorded would never end."""
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return _encoder.encode(_as_text(msgspec.to_builtins(record)))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_as_text(name): _as_text(inner) for name, inner in value.items()}
    return [_as_text(inner) for inner in value] if isinstance(value, list) else value


def decode(data: bytes | str) -> Record:
    """Raises msgspec.DecodeError or msgspec.ValidationError for bytes that are no record."""
    return _decoder.decode(data)


def is_unpriced(record: Record) -> bool:
    """Whether a call lacks a price. One whose usage is still to come (`estimate.later`: a background answer) does not:
    the record that takes its place will say what it cost."""
    return record.cost_nusd is None and record.estimate.get("later") is not True


def stands_still(record: Record) -> bool:
    """Whether the conversation of a call did not move on, as far as any rule looked."""
    return record.moved_on is False


def is_repeat(record: Record) -> bool:
    """Whether a call repeats work: it stands still, or has a twin, as where its task is the work of another one. What
    is only alike may be something else."""
    return stands_still(record) or (record.twin_of is not None and record.twin_kind != "similar")


def rfc3339(at_ms: int) -> str:
    """Milliseconds since the epoch -> `2026-11-23T22:26:30.123Z`."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def ms_of_rfc3339(text: str) -> int:
    """What `rfc3339` wrote -> milliseconds since the epoch. Raises ValueError for anything that is no time in UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"`{text}` has no time zone")
    return (moment - EPOCH) // timedelta(milliseconds=1)


def public(record: Record) -> dict[str, Any]:
    """The record as the API, the CLI and exports show it: `at` in RFC 3339 in place of `at_ms`."""
    fields = {name: msgspec.to_builtins(getattr(record, name)) for name in record.__struct_fields__}
    fields["usage"] = msgspec.structs.asdict(record.usage)
    shown: dict[str, Any] = {"call_id": fields.pop("call_id"), "revision": fields.pop("revision")}
    shown["at"] = rfc3339(fields.pop("at_ms"))
    return shown | fields
