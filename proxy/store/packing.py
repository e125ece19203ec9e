"""Arguments of commands as they travel. What calls alike send alike is packed once: to pack a hundred arguments costs
as much as all else that a worker does about them."""

from __future__ import annotations

from collections.abc import Sequence

import hiredis
import msgspec

Argument = str | bytes | int


class Packed(msgspec.Struct, frozen=True, gc=False):
    """So many arguments, one behind the other in RESP."""

    number: int
    data: bytes


NO_ARGUMENTS = Packed(0, b"")


def packed(arguments: Sequence[Argument]) -> Packed:
    """These arguments."""
    data = hiredis.pack_command(tuple(arguments))  # type: ignore[arg-type]  # its stub forgot the `...`
    return Packed(len(arguments), data[data.index(b"\n") + 1 :])


def script_command(called: Packed, keys: Sequence[Packed], arguments: Sequence[Packed]) -> bytes:
    """The command that runs a script: how it is called, how many keys, the keys, its arguments."""
    key_count, all_keys = 0, []
    for part in keys:
        key_count += part.number
        all_keys.append(part.data)
    count, all_arguments = called.number + 1 + key_count, []
    for part in arguments:
        count += part.number
        all_arguments.append(part.data)
    return b"".join((b"*%d\r\n" % count, called.data, packed_number(key_count), *all_keys, *all_arguments))


_BEGINNINGS = tuple([b"$%d\r\n" % length for length in range(4096)])
"""How arguments begin, by their length."""


def packed_text(text: bytes) -> bytes:
    """One argument that is a text."""
    length = len(text)
    beginning = _BEGINNINGS[length] if length < len(_BEGINNINGS) else b"$%d\r\n" % length
    return b"".join((beginning, text, b"\r\n"))


def packed_number(number: int) -> bytes:
    """One argument that is a whole number."""
    return _PACKED_SMALL[number] if 0 <= number < len(_PACKED_SMALL) else packed_text(b"%d" % number)


_PACKED_SMALL = tuple([packed_text(b"%d" % number) for number in range(256)])


class Gaps(msgspec.Struct, frozen=True):
    """An argument of which parts are still to be filled in. Its text has `%b` for them and `%%` for `%`; `length` is
    that of the whole argument, which is the same whatever is filled in."""

    text: bytes
    length: int


def template(arguments: Sequence[Argument | Gaps | None]) -> Packed:
    """These arguments, with `%b` in the places of those that are None and still to be packed."""
    return Packed(len(arguments), b"".join([_form_of(argument) for argument in arguments]))


def _form_of(argument: Argument | Gaps | None) -> bytes:
    if argument is None:
        return b"%b"
    if isinstance(argument, Gaps):
        return b"$%d\r\n%b\r\n" % (argument.length, argument.text)
    return packed((argument,)).data.replace(b"%", b"%%")
