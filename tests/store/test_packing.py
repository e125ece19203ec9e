"""Packed arguments: the same bytes, however a command is put together."""

from __future__ import annotations

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.packing import (
    NO_ARGUMENTS,
    Argument,
    joined,
    packed,
    packed_number,
    packed_text,
    script_command,
    template,
)

some_arguments = st.lists(st.one_of(st.text(), st.binary(), st.integers(-(2**63), 2**63)), max_size=12)


def at_once(arguments: list[Argument]) -> bytes:
    return bytes(hiredis.pack_command(tuple(arguments)))  # type: ignore[arg-type]  # its stub forgot the `...`


@given(st.lists(some_arguments, min_size=1, max_size=4).filter(any))
def test_a_command_of_parts_is_the_command_that_is_packed_at_once(parts: list[list[Argument]]) -> None:
    together: list[Argument] = [argument for part in parts for argument in part]
    whole = joined(*[packed(part) for part in parts], NO_ARGUMENTS)
    assert b"*%d\r\n%b" % (whole.number, whole.data) == at_once(together)


@given(some_arguments, some_arguments)
def test_a_script_is_called_with_its_keys_their_number_and_its_arguments(
    keys: list[Argument], arguments: list[Argument]
) -> None:
    called = packed(("EVALSHA", "0123"))
    expected = at_once(["EVALSHA", "0123", len(keys), *keys, *arguments])
    assert script_command(called, packed(keys), packed(arguments)) == expected


@given(some_arguments, st.binary(), st.integers(0, 2**53))
def test_what_is_filled_into_a_template_stands_in_its_place(around: list[Argument], text: bytes, number: int) -> None:
    form = template([*around, None, "100 %", None, *around])
    filled = form.data % (packed_text(text), packed_number(number))
    assert b"*%d\r\n%b" % (form.number, filled) == at_once([*around, text, "100 %", number, *around])
