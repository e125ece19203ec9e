"""Caller: who makes a call. Org, team and user come from the key alone; the task may be proven or self-declared."""

from __future__ import annotations

from typing import Literal

import msgspec

TaskSource = Literal["key", "path", "header", "baggage", "agent", "none", "claimed"]
"""`claimed` is told afterwards, by the one whose session it was; no call arrives with it."""


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a key stands for, as the ledger's database keeps it. Never the key itself, nor a hash of it.

    `kind` is `person` or `service`; a service key may act for the users that match the glob `acts_for`.
    `version` grows with every change of any key, so that workers can ask for what changed since.
    """

    key_id: str
    user: str
    team: str = "default"
    org: str = "default"
    labels: dict[str, str] = {}
    kind: Literal["person", "service"] = "person"
    acts_for: str | None = None
    created_at_ms: int = 0
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    version: int = 0


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, for which task, with what narrowing. `models` and `upstreams` are the globs a task key allows
    (each inner tuple must match; None: no caveat). `max_cost_nusd` maps the chain up to each max_cost caveat to it."""

    org: str
    team: str
    user: str
    key_id: str
    labels: dict[str, str] = {}
    task: str | None = None
    task_source: TaskSource = "none"
    agent: str | None = None
    user_agent: str = ""
    session: str | None = None
    models: tuple[tuple[str, ...], ...] = ()
    upstreams: tuple[tuple[str, ...], ...] = ()
    max_cost_nusd: dict[str, int] = {}
    trace_id: str = ""
    parent_span_id: str | None = None
    trace_flags: int = 1
    trace_state: str = ""
