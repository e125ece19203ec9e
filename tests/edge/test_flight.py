"""A flight's id and clock."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.core.record import Record
from proxy.edge.flight import Flight, new_call_id


def flight(**times: Any) -> Flight:
    record = Record(call_id="0" * 32, at_ms=0, user="ada", key_id="k1")
    return Flight(request=cast(Any, None), record=record, started_s=100.0, **times)


def test_ids_of_calls_sort_by_time_and_are_valid_uuids_of_version_7() -> None:
    ids = [new_call_id(now_ms) for now_ms in (1, 2, 1_790_000_000_000, 1_790_000_000_001)]
    assert ids == sorted(ids)
    for made in ids:
        assert len(made) == 32
        assert made[12] == "7"
        assert made[16] in "89ab"
    assert int(ids[2][:12], 16) == 1_790_000_000_000


def test_ids_made_in_the_same_moment_differ() -> None:
    assert len({new_call_id(5) for _ in range(1000)}) == 1000


def test_overhead_is_our_share_alone_without_the_upload_and_without_the_provider() -> None:
    flown = flight(body_s=0.3, sent_s=100.31, arrived_s=105.0, first_write_s=105.002)
    flown.clock_out(109.0)
    assert flown.record.ms_total == 9000.0
    assert flown.record.ms_first_byte == 5002.0
    assert flown.record.ms_overhead == pytest.approx(10 + 2)


def test_a_refused_call_is_all_overhead_but_for_its_upload() -> None:
    flown = flight(body_s=0.5)
    flown.clock_out(100.502)
    assert flown.record.ms_overhead == pytest.approx(2.0)
    assert flown.record.ms_first_byte is None


def test_a_call_that_is_answered_from_its_twin_waits_for_that_one_and_not_for_us() -> None:
    flown = flight(body_s=0.5, waited_s=3.0, first_write_s=103.502)
    flown.clock_out(104.0)
    assert flown.record.ms_first_byte == 3502.0
    assert flown.record.ms_overhead == pytest.approx(2.0)


def test_a_call_that_goes_upstream_after_its_twin_failed_has_not_waited_for_us() -> None:
    flown = flight(waited_s=3.0, sent_s=103.004, arrived_s=105.0, first_write_s=105.001)
    flown.clock_out(106.0)
    assert flown.record.ms_overhead == pytest.approx(5.0)


def test_flights_share_no_list() -> None:
    first, second = flight(), flight()
    first.wrong.append(cast(Any, "wrong"))
    assert second.wrong == []
