"""Recorded: the caller, call and upstream that a record tells of, as rules saw them when the call was admitted. So that
counting what was spent, rehearsing a policy and explaining a call use the very same matching as the walk does."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .admission import Unit
from .call import Call
from .caller import Caller, TaskSource
from .matching import Upstream
from .record import Record
from .usage import Usage

Seen = tuple[Caller, Call, Upstream]

_NO_ESTIMATE = (b"{}", b"null")


class Counted(msgspec.Struct, kw_only=True):
    """The part of a record that counters need. Decoding it alone takes a third of the time of the whole."""

    at_ms: int = 0
    org: str = "default"
    team: str = "default"
    user: str = ""
    key_id: str = ""
    labels: dict[str, str] = {}
    max_cost_nusd: dict[str, int] = {}
    task: str | None = None
    task_source: TaskSource = "none"
    agent: str | None = None
    upstream: str = ""
    provider: str = ""
    api: str = "unknown"
    model_asked: str | None = None
    policy_version: str = ""
    result: str = "ok"
    usage: Usage = Usage()
    cost_nusd: int | None = 0
    estimate: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def held(self) -> bool:
        """Whether the call took a hold. A refused one never did, nor one that costs nothing: such have no estimate."""
        return self.result != "refused" and bytes(self.estimate) not in _NO_ESTIMATE

    @property
    def model_used(self) -> str | None:
        """The model of `then: use`, where it was used in place of the one asked for."""
        if b'"model"' not in bytes(self.estimate):
            return None
        model: str | None = msgspec.json.decode(self.estimate, type=_Used).model
        return model

    def amount(self, unit: Unit) -> int:
        """What the call adds to what its counters have spent."""
        if unit == "nusd":
            return self.cost_nusd or 0
        if unit == "tokens":
            return self.usage.tokens
        return int(self.held) if unit == "calls" else 0


class _Used(msgspec.Struct):
    model: str | None = None


decode_counted = msgspec.json.Decoder(Counted).decode


def seen_in(told: Record | Counted, upstreams: Mapping[str, Upstream]) -> Seen:
    """What rules see of a recorded call, with the model that it was made with. An upstream that the policy does not
    have any more is made up from the record."""
    used = told.model_used if isinstance(told, Counted) else told.estimate.get("model")
    caller = Caller(
        org=told.org,
        team=told.team,
        user=told.user,
        key_id=told.key_id,
        labels=told.labels,
        task=told.task,
        task_source=told.task_source,  # type: ignore[arg-type]  # one of TaskSource, which a record spells as text
        agent=told.agent,
        max_cost_nusd=told.max_cost_nusd,
    )
    upstream = upstreams.get(told.upstream) or Upstream(name=told.upstream, provider=told.provider, url="")
    return caller, Call(api=told.api, model=used or told.model_asked, dialect=upstream.dialect), upstream
