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


def joined(*parts: Packed) -> Packed:
    """All of these, one behind the other."""
    return Packed(sum([part.number for part in parts]), b"".join([part.data for part in parts]))


def script_command(called: Packed, keys: Packed, arguments: Packed) -> bytes:
    """The command that runs a script: how it is called, how many keys, the keys, its arguments."""
    count = called.number + 1 + keys.number + arguments.number
    return b"*%d\r\n%b%b%b%b" % (count, called.data, packed_number(keys.number), keys.data, arguments.data)


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


def template(arguments: Sequence[Argument | None]) -> Packed:
    """These arguments, with `%b` in the places of those that are None and still to be packed."""
    parts = [b"%b" if argument is None else packed((argument,)).data.replace(b"%", b"%%") for argument in arguments]
    return Packed(len(arguments), b"".join(parts))
