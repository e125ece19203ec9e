from __future__ import annotations

import msgspec
import pytest

from proxy.core.record import Record, decode, encode, public, rfc3339
from proxy.core.usage import Usage

RECORD = Record(call_id="c1", at_ms=1_790_000_000_123, user="ada", key_id="k1", usage=Usage(input=3))


def test_a_record_survives_the_way_through_store_and_ledger() -> None:
    assert decode(encode(RECORD)) == RECORD


def test_outside_a_record_has_its_time_in_rfc_3339_and_every_field() -> None:
    shown = public(RECORD)
    assert shown["at"] == "2026-09-21T14:13:20.123Z"
    assert "at_ms" not in shown
    assert set(RECORD.__struct_fields__) - {"at_ms"} <= set(shown)
    assert shown["usage"]["input"] == 3


def test_bytes_that_are_no_record_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"call_id": 7}')


def test_milliseconds_are_written_with_three_digits() -> None:
    assert rfc3339(5) == "1970-01-01T00:00:00.005Z"


def test_what_is_no_text_is_written_all_the_same() -> None:
    record = Record(call_id="c", at_ms=1, user="ada", key_id="k", service_tier="\udcff", labels={"a\ud800": "b"})
    again = decode(encode(record))
    assert (again.service_tier, again.labels, again.user) == ("?", {"a?": "b"}, "ada")
