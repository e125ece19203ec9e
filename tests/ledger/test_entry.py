"""Places in a stream: they sort as the stream does, and move forwards only."""

from __future__ import annotations

import pytest

from proxy.ledger.entry import Position, furthest, order
from tests.support.ledger_calls import entries, made


def test_stream_ids_sort_as_numbers_and_not_as_text() -> None:
    assert order("9-1") < order("10-0") < order("10-2") < order("10-10")
    assert order("10") == order("10-0")
    with pytest.raises(ValueError, match="invalid literal"):
        order("x")


def test_the_furthest_entry_of_each_shard_counts() -> None:
    batch = entries(made(1), made(2), shard=1, first=99) + entries(made(3), shard=2)
    assert furthest(batch, {}) == {1: Position("first", "100-0"), 2: Position("first", "1-0")}


def test_an_entry_from_before_moves_nothing() -> None:
    assert furthest(entries(made(1), first=4), {0: Position("first", "5-0")}) == {}


def test_a_new_epoch_begins_anew() -> None:
    moved = furthest(entries(made(1), epoch="second"), {0: Position("first", "5-0")})
    assert moved == {0: Position("second", "1-0")}
