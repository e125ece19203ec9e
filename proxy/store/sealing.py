"""Sealing: answers that are kept for twins, encrypted with a key that follows from the server's secret, so that the
store holds nothing of what was answered."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
VERSION = b"callmeter answer 1"
"""Another layout is another version: what an older or newer proxy has kept is no answer here."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it was given: status, the provider's headers, and the body as it left, byte by byte."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answered).decode


class Sealer:
    """AES-256-GCM. Each answer is bound to its name and its call, so that none can be put in another's place."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, VERSION, "sha256")

    def seal(self, name: str, call_id: str, answered: Answered) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, _encode(answered), _place(name, call_id))

    def unseal(self, name: str, call_id: str, sealed: bytes) -> Answered | None:
        """None for what was damaged, moved, or kept by another version or with another secret."""
        from cryptography.exceptions import InvalidTag

        nonce, data = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        if not data:
            return None
        try:
            return _decode(self._cipher().decrypt(nonce, data, _place(name, call_id)))
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            return None

    def _cipher(self) -> AESGCM:
        """Imported where a rule asks for it alone: that takes a while and some MB."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)


def _place(name: str, call_id: str) -> bytes:
    return b"\n".join((VERSION, name.encode(), call_id.encode()))
