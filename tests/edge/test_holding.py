"""Steps 4 and 5 of the walk, with a store that admits whatever it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from proxy.core.admission import Reserved, Take
from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.expected import Learned
from proxy.core.policy import Policy
from proxy.core.policy_file import load
from proxy.core.price_book import compile_book
from proxy.core.prices import Prices
from proxy.core.record import Record
from proxy.edge.comparing import Comparer
from proxy.edge.envelope import read_envelope
from proxy.edge.holding import Holder

UPSTREAMS = "upstreams: {openai: {dialect: openai, url: 'http://127.0.0.1:1', key: k}}\n"
ENVELOPE = read_envelope(Policy(), "/openai/v1/chat/completions", {})


class Admitting:
    """Keeps the drafts that it was given."""

    def __init__(self) -> None:
        self.drafts: list[Record] = []

    def now_ms(self) -> int:
        return 1_790_000_000_000

    async def reserve(self, draft: Record, candidates: Sequence[Sequence[Take]], marked: Any) -> Reserved:
        self.drafts.append(draft)
        return Reserved(True, 0, [], [], self.now_ms())


def policy_of(more: str = "") -> Policy:
    policy = load({"p.yaml": UPSTREAMS + more}, {}).policy
    assert policy is not None
    return policy


def holder_of(store: Any) -> Holder:
    prices = Prices(compile_book())
    return Holder(store=store, prices=lambda: prices, raises=dict, learned=Learned(), comparer=Comparer(b"secret"))


async def drafted(model: str) -> Record:
    policy, store = policy_of(), Admitting()
    holder = holder_of(store)
    call = Call(api="openai.chat", dialect="openai", model=model, body_bytes=400, max_output_tokens=100)
    caller = Caller(org="default", team="default", user="ada", key_id="k")
    record = Record(call_id="c", at_ms=store.now_ms(), user="ada", key_id="k", provider="openai", model_asked=model)
    plan = holder.plan(policy, caller, call, policy.upstreams["openai"], record.at_ms, envelope=ENVELOPE, fields={})
    assert await holder.reserve(record, plan, policy) is None
    return store.drafts[0]


async def test_the_draft_of_a_call_says_all_of_its_cost_should_the_call_be_lost() -> None:
    draft = await drafted("gpt-5-mini")
    assert draft.cost_nusd == draft.hold_nusd == draft.list_nusd
    assert draft.hold_nusd > 0
    assert sum(draft.cost_parts_nusd.values()) == draft.cost_nusd
    assert draft.cost_source == "book"
    assert draft.price_version.startswith("genai-prices")


async def test_the_draft_of_a_model_without_a_price_says_that_its_cost_is_assumed() -> None:
    assert (await drafted("acme-coder-1")).cost_source == "assumed"


@pytest.mark.parametrize(
    ("allowed", "more", "models"),
    [
        ((), "", ["gpt-5", "gpt-5-mini"]),
        ((("gpt-5*",),), "", ["gpt-5", "gpt-5-mini"]),
        ((("gpt-5",),), "", ["gpt-5"]),
        ((), "access: [{name: no-mini, match: {model: '*mini'}, then: refuse}]\n", ["gpt-5"]),
    ],
)
def test_a_budget_offers_no_model_that_the_caller_may_not_use(
    allowed: tuple[tuple[str, ...], ...], more: str, models: list[str]
) -> None:
    policy = policy_of("budgets: [{name: few, limit: $1, every: day, then: {use: {openai: gpt-5-mini}}}]\n" + more)
    call = Call(api="openai.chat", dialect="openai", route="/v1/chat/completions", model="gpt-5", body_bytes=400)
    caller = Caller(org="default", team="default", user="ada", key_id="k", models=allowed)
    upstream = policy.upstreams["openai"]
    holder, now_ms = holder_of(Admitting()), Admitting().now_ms()
    plan = holder.plan(policy, caller, call, upstream, now_ms, envelope=ENVELOPE, fields={})
    assert [way.call.model for way in plan.ways] == models
