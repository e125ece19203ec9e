"""Pricing again keeps what a call was promised: a batch item its discount; and what was never told stays unpriced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.bookkeeper import Bookkeeper
from proxy.core.price_book import compile_book
from proxy.core.prices import Prices
from proxy.core.record import Record
from proxy.core.usage import Usage
from tests.support.store import a_record

DOLLAR_NUSD = 10**9


@pytest.fixture(scope="module")
def keeper() -> Any:
    policy = SimpleNamespace(upstream_for=lambda _name: None)
    return SimpleNamespace(desk=SimpleNamespace(policy=policy, prices=Prices(compile_book())))


def priced_again(keeper: Any, **fields: Any) -> Record | None:
    told: dict[str, Any] = {"provider": "openai", "model": "o3", "usage": Usage(input=1_000_000)}
    record = a_record("c1", cost_nusd=None, **(told | {"usage_source": "reported"} | fields))
    return Bookkeeper._priced_again(cast(Bookkeeper, keeper), record)


@pytest.mark.parametrize(("tier", "dollars"), [(None, 2), ("default", 2), ("batch", 1), ("flex", 1)])
def test_an_item_of_a_batch_keeps_its_discount(keeper: Any, tier: str | None, dollars: int) -> None:
    record = priced_again(keeper, service_tier=tier)
    assert record is not None
    assert (record.cost_nusd, record.cost_source) == (dollars * DOLLAR_NUSD, "book")


def test_what_was_not_told_is_left_alone(keeper: Any) -> None:
    assert priced_again(keeper, usage_source="none") is None
    assert priced_again(keeper, model="nobody-knows-it") is None
