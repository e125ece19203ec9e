"""Settlement: what a finished call is recorded as, from what its answer told. Steps 8 and 9 of the walk, pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .call import Call
from .estimate import Estimator
from .record import Record, Result, UsageSource
from .usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from .prices import Cost, Prices

COUNTED_IN_TOKENS = frozenset(
    {
        "openai.chat",
        "openai.responses",
        "openai.completions",
        "openai.embeddings",
        "anthropic.messages",
        "gemini.generate",
        "gemini.embed",
        "cohere.chat",
        "cohere.embed",
        "ollama.chat",
        "ollama.generate",
        "bedrock.converse",
        "bedrock.invoke",
    }
)
"""The endpoints whose use can be estimated from text where nobody reports it."""


class Routed(Protocol):
    """A call, or the record of one."""

    api: str
    route: str


class Told(Protocol):
    """What an answer told; `wire.reading.Reading` is one. Named here because core knows nothing of wire."""

    usage: Usage | None
    model: str | None
    upstream_call_id: str | None
    finish_reasons: list[str]
    service_tier: str | None
    region: str | None
    provider_cost_usd: str | None
    error: str | None
    complete: bool
    seen_bytes: int
    hidden_reasoning: bool
    later: str | None


def settle(
    record: Record,
    *,
    call: Call,
    told: Told,
    prices: Prices,
    estimator: Estimator,
    billing: str,
    result: Result,
    sent: bool,
    answered: int,
    cut: bool,
    answer_s: float,
) -> None:
    """Completes `record` in place with usage and cost.

    result     what the relay saw: `ok` for an answer that ended, `failed`, `client_gone`
    sent       the provider may have seen the call; one that it cannot have seen costs nothing
    answered   the provider's status, 0 where it sent none
    cut        the answer was not read to its end, so the provider may have made more than it reported
    answer_s   seconds from sending the call to the last byte that was seen
    """
    record.model = told.model or record.model
    if call.retrieves is None:  # a retrieval shows the id of the call that it retrieves, which is another's
        record.upstream_call_id = told.upstream_call_id or record.upstream_call_id
    record.finish_reasons = told.finish_reasons
    record.service_tier = told.service_tier or call.service_tier
    record.result = result
    if told.error is not None:
        record.error = told.error
        if result == "ok":
            record.result = "failed"
    usage: Usage = NO_USAGE
    source: UsageSource = "none"
    if sent and not call.free:
        usage, source = used(record, call, told, estimator, answered=answered, cut=cut, answer_s=answer_s)
    record.usage, record.usage_source = usage, source
    if source == "none" and told.later is not None:
        record.estimate = {**record.estimate, "later": True}
    if source == "none" and (call.free or not sent or record.result == "failed" or settled_by_item(call)):
        record.cost_nusd, record.list_nusd, record.cost_parts_nusd, record.cost_source = 0, 0, {}, "none"
        return
    if source == "none" and told.provider_cost_usd is None:
        # An answer without usage is not free: it is unpriced, counted and shown as such. One whose usage comes
        # with a later retrieval is settled then, by another revision of this record; its estimate says so.
        record.cost_nusd, record.list_nusd, record.cost_parts_nusd, record.cost_source = None, None, {}, "none"
        return
    price(record, told=told, prices=prices, billing=billing)
    if source == "reported" and not cut:
        estimator.learn(record.provider, call, usage, seen_bytes=told.seen_bytes, answer_s=answer_s)


def settled_by_item(call: Routed) -> bool:
    """Making a batch costs nothing; each of its items gets a record of its own when its result is retrieved."""
    return call.api.endswith(".batches") or call.route.endswith(":batchGenerateContent")


def used(
    record: Record, call: Call, told: Told, estimator: Estimator, *, answered: int, cut: bool, answer_s: float
) -> tuple[Usage, UsageSource]:
    """The usage and where it comes from. A call that the provider refused used nothing; one whose usage comes with
    a later retrieval is settled then; any other that says nothing is estimated, so that silence is never free."""
    # A stream that ended without its dialect's end was cut, however cleanly: what it told so far is not the whole.
    cut = cut or (call.stream and told.usage is not None)
    if told.usage is not None and (told.complete or not cut):
        return told.usage, "reported"
    if told.usage is not None and call.api not in COUNTED_IN_TOKENS:
        return told.usage, "partial"
    if call.api not in COUNTED_IN_TOKENS or told.later is not None or answered >= 400:
        return NO_USAGE, "none"
    if (not answered and not cut) or (told.error is not None and told.usage is None and not told.seen_bytes):
        return NO_USAGE, "none"
    estimate = estimator.cut(
        record.provider,
        call,
        told.usage,
        seen_bytes=told.seen_bytes,
        answer_s=answer_s,
        # Before the first byte nobody knows whether the model is at work, and a plain answer shows nothing of it.
        hidden=told.hidden_reasoning or (cut and (not answered or not call.stream)),
    )
    return estimate, "partial" if cut else "estimated"


def price(record: Record, *, told: Told | None, prices: Prices, billing: str, batch: bool = False) -> None:
    """Puts the cost of `record.usage` into the record."""
    cost = prices.cost(
        provider=record.provider,
        model=record.model,
        model_asked=record.model_asked,
        upstream=record.upstream,
        usage=record.usage,
        at_ms=record.at_ms,
        service_tier=record.service_tier,
        region=told.region if told else None,
        parts=getattr(told, "parts", ()),
        provider_cost_usd=told.provider_cost_usd if told else None,
        billing=billing,
        api=record.api,
        batch=batch,
    )
    put_cost(record, cost)


def put_cost(record: Record, cost: Cost) -> None:
    """A cost, its parts, and where they come from."""
    record.cost_nusd = cost.cost_nusd
    record.cost_parts_nusd = cost.parts_nusd
    record.list_nusd = cost.list_nusd
    record.cost_source = cost.source
    record.price_version = cost.version
