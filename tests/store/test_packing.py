"""Packed arguments: the same bytes, however a command is put together."""

from __future__ import annotations

from itertools import chain

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.packing import (
    NO_ARGUMENTS,
    Argument,
    Gaps,
    packed,
    packed_number,
    packed_text,
    script_command,
    template,
)

some_arguments = st.lists(st.one_of(st.text(), st.binary(), st.integers(-(2**63), 2**63)), max_size=12)


def at_once(arguments: list[Argument]) -> bytes:
    return bytes(hiredis.pack_command(tuple(arguments)))  # type: ignore[arg-type]  # its stub forgot the `...`


in_parts = st.lists(some_arguments, max_size=4)


@given(in_parts, in_parts)
def test_a_script_is_called_with_its_keys_their_number_and_its_arguments(
    keys: list[list[Argument]], arguments: list[list[Argument]]
) -> None:
    """In however many parts they come."""
    called = packed(("EVALSHA", "0123"))
    all_keys = [*chain.from_iterable(keys)]
    expected = at_once(["EVALSHA", "0123", len(all_keys), *all_keys, *chain.from_iterable(arguments)])
    packed_keys, packed_arguments = (
        [packed(part) if part else NO_ARGUMENTS for part in each] for each in (keys, arguments)
    )
    assert script_command(called, packed_keys, packed_arguments) == expected


@given(some_arguments, st.binary(), st.integers(0, 2**53))
def test_what_is_filled_into_a_template_stands_in_its_place(around: list[Argument], text: bytes, number: int) -> None:
    gaps = Gaps(b"%b and 7%% %b", 2 * len(text) + len(b" and 7% "))
    form = template([*around, None, "100 %", gaps, None, *around])
    filled = form.data % (packed_text(text), text, text, packed_number(number))
    arguments = [*around, text, "100 %", text + b" and 7% " + text, number, *around]
    assert b"*%d\r\n%b" % (form.number, filled) == at_once(arguments)
