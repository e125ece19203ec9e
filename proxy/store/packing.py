"""Arguments of commands as they travel. What calls alike send alike is packed once: to pack a hundred arguments costs
as much as all else that a worker does about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import hiredis

Argument = str | bytes | int


class Packed(NamedTuple):
    """So many arguments, one behind the other in RESP."""

    number: int
    data: bytes

    def followed_by(self, other: Packed) -> Packed:
        return Packed(self.number + other.number, self.data + other.data)


NO_ARGUMENTS = Packed(0, b"")


def packed(arguments: Sequence[Argument]) -> Packed:
    """These arguments."""
    data = hiredis.pack_command(tuple(arguments))  # type: ignore[arg-type]  # its stub forgot the `...`
    return Packed(len(arguments), data[data.index(b"\n") + 1 :])


def command(first: Packed, *others: Packed) -> bytes:
    """One command of these parts."""
    count, data = first
    for part in others:
        count += part[0]
        data += part[1]
    return b"*%d\r\n%b" % (count, data)


def packed_number(number: int) -> bytes:
    """One argument that is a whole number."""
    digits = b"%d" % number
    return b"$%d\r\n%b\r\n" % (len(digits), digits)


def packed_text(text: bytes) -> bytes:
    """One argument that is a text."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def template(arguments: Sequence[Argument | None]) -> Packed:
    """These arguments, with `%b` in the places of those that are None and still to be packed."""
    parts = [b"%b" if argument is None else packed((argument,)).data.replace(b"%", b"%%") for argument in arguments]
    return Packed(len(arguments), b"".join(parts))
