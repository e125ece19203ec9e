"""Answers that are kept for twins."""

from __future__ import annotations

import pytest

from proxy.store.sealing import Answered, Sealer

ANSWER = Answered(200, [(b"content-type", b"text/event-stream")], b"data: \xff\x00 first words\n\n")
SEALER = Sealer(b"secret")


def test_an_answer_comes_back_byte_by_byte_and_is_not_to_be_read_in_between() -> None:
    sealed = SEALER.seal("n1", "c1", ANSWER)
    assert SEALER.unseal("n1", "c1", sealed) == ANSWER
    assert b"first words" not in sealed
    assert SEALER.seal("n1", "c1", ANSWER) != sealed


@pytest.mark.parametrize(
    ("name", "call_id", "secret"), [("n2", "c1", b"secret"), ("n1", "c2", b"secret"), ("n1", "c1", b"other")]
)
def test_an_answer_is_none_under_another_name_call_or_secret(name: str, call_id: str, secret: bytes) -> None:
    assert Sealer(secret).unseal(name, call_id, SEALER.seal("n1", "c1", ANSWER)) is None


def test_what_was_damaged_is_no_answer() -> None:
    sealed = SEALER.seal("n1", "c1", ANSWER)
    for place in range(0, len(sealed), 7):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        assert SEALER.unseal("n1", "c1", bytes(damaged)) is None
    for length in (0, 1, 11, 12, 13, 27, 28, len(sealed) - 1):
        assert SEALER.unseal("n1", "c1", sealed[:length]) is None
