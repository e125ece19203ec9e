"""Keys and task keys: their text, their signature, and the caveats that narrow them.

A key is `cm_<id>_<secret>`, where secret = HMAC-SHA256(server secret, version and id). The server can compute the
secret again from the id, so it stores neither a key nor a hash of one.

A task key is `cm_<id>.<caveats>.<mac>`. Its holder made it offline from a key, or from another task key:

    caveats   base64url, no padding, of a canonical JSON list: [{"task":"PAY-7"},{"max_cost":5000000000}]
    m(0)      the secret of the key, as 32 bytes
    m(i)      HMAC-SHA256(m(i-1), length of caveat i as 4 bytes big-endian, then the JSON of caveat i)
    mac       the last m, in hex

Who holds m(n) can add caveat n+1, but nobody can take one away: that would need an earlier m. What the caveats allow
is their intersection, so a caveat can only narrow. The JSON is canonical (no spaces, UTF-8, one form of each value),
so a task key has exactly one text and any other text is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from .money import NUSD_MAX

KEY_PREFIX = "cm_"
KEY_VERSION = b"\x01"
"""Signed together with the id, so that a later form of key can never be mistaken for this one."""

KEY_CHARS_MAX = 4096
"""Longer texts are not looked at: a header line of this size is the most that common servers and proxies carry."""
CAVEATS_MAX = 32
"""More than any chain of agents needs; it bounds the HMACs that one check costs."""
TAG_CHARS_MAX = 128
"""The longest task, and the longest glob."""
TIME_MS_MAX = 253_402_300_799_999
"""The last millisecond of year 9999, which is where RFC 3339 ends."""
ID_BYTES_MIN = 10
"""80 random bits: ids do not collide, and 10 bytes are 16 letters of base32 with none left over."""
CHAIN_CHARS = 24
"""96 bits name a chain of caveats; only the holder of the key could look for two that are equal."""

CaveatKind = Literal["task", "expires", "max_cost", "models", "upstreams"]
CAVEAT_KINDS: tuple[CaveatKind, ...] = ("task", "expires", "max_cost", "models", "upstreams")

_KEY = re.compile(r"cm_([a-z0-9]{12,40})_([0-9a-f]{64})")
_TASK_KEY = re.compile(r"cm_([a-z0-9]{12,40})\.([A-Za-z0-9_-]+)\.([0-9a-f]{64})")
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhdw])")
_DURATION_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

_NOT_A_KEY = "this is no Callmeter key (`cm_...`), or a part of it is missing"
_BAD_CAVEATS = "the caveats of this task key cannot be read; make a new one with `callmeter task`"

_read_caveats = msgspec.json.Decoder(list[dict[str, int | str | list[str]]])
_write_json = msgspec.json.Encoder()


class KeyInvalid(ValueError):
    """A text that is no key, or a caveat that cannot be. The sentence is for a person and holds no secret."""


class Caveat(msgspec.Struct, frozen=True):
    """One narrowing of a task key.

    task       the task, at most 128 printable characters
    expires    ms since the epoch, or RFC 3339 text with its offset
    max_cost   nano-USD, over the life of the task key and of every key derived from it
    models     globs, one of which the model must match; upstreams likewise
    """

    kind: CaveatKind
    value: str | int | tuple[str, ...]


class ParsedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as read from its text, not yet verified, with what its caveats come to.

    `models` and `upstreams` hold the globs of one caveat each, all of which must match. `max_cost_nusd` maps the chain
    of caveats up to and including each max_cost to its amount: a counter per chain, so adding caveats refills nothing.
    """

    key_id: str
    mac: bytes
    caveats: tuple[Caveat, ...] = ()
    task: str | None = None
    expires_at_ms: int | None = None
    max_cost_nusd: dict[str, int] = {}
    models: tuple[tuple[str, ...], ...] = ()
    upstreams: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        """Never shows the mac: it is as good as the key."""
        return f"ParsedKey({self.key_id}, {len(self.caveats)} caveats)"

    @property
    def is_task_key(self) -> bool:
        """Whether an agent may hold it that must not change its task or user."""
        return bool(self.caveats)


def new_key_id(random_bytes: bytes) -> str:
    """At least 10 random bytes -> an id of at least 16 characters of [a-z2-7]."""
    if len(random_bytes) < ID_BYTES_MIN:
        raise ValueError(f"a key id needs at least {ID_BYTES_MIN} random bytes")
    return base64.b32encode(random_bytes).decode().rstrip("=").lower()


def make_key(secret: bytes, key_id: str) -> str:
    """The key with this id, signed by the server's secret: `cm_<id>_<hex>`."""
    text = f"{KEY_PREFIX}{key_id}_{_sign_id(secret, key_id).hex()}"
    if _KEY.fullmatch(text) is None:
        raise ValueError(f"`{key_id}` is no key id; it needs 12 to 40 characters of [a-z0-9]")
    return text


def parse(text: str) -> ParsedKey:
    """Reads a key or a task key. Raises KeyInvalid, and nothing else; verifies no signature."""
    if len(text) > KEY_CHARS_MAX:
        raise KeyInvalid(f"this key is longer than {KEY_CHARS_MAX} characters")
    plain = _KEY.fullmatch(text)
    if plain is not None:
        return ParsedKey(key_id=plain[1], mac=bytes.fromhex(plain[2]))
    narrowed = _TASK_KEY.fullmatch(text)
    if narrowed is None:
        raise KeyInvalid(_NOT_A_KEY)
    return _parsed(narrowed[1], bytes.fromhex(narrowed[3]), _caveats_of(narrowed[2]))


def verify(parsed: ParsedKey, secrets: Sequence[bytes]) -> bool:
    """Whether one of the server's secrets signed this key; in constant time for each secret."""
    verified = False
    for secret in secrets:
        mac = _narrowed_mac(_sign_id(secret, parsed.key_id), parsed.caveats)
        verified |= hmac.compare_digest(mac, parsed.mac)
    return verified


def attenuate(key_text: str, caveats: Iterable[Caveat]) -> str:
    """A task key narrowed by these caveats, made offline from a key or a task key. Raises KeyInvalid."""
    parsed = parse(key_text)
    added = tuple(_checked(caveat.kind, caveat.value) for caveat in caveats)
    if not added:
        raise KeyInvalid("a task key needs at least one caveat")
    everything = parsed.caveats + added
    # Reading what was made finds conflicts here, where a person is told, and not at the first call.
    made = _parsed(parsed.key_id, _narrowed_mac(parsed.mac, added), everything)
    text = f"{KEY_PREFIX}{made.key_id}.{_caveats_text(everything)}.{made.mac.hex()}"
    if len(text) > KEY_CHARS_MAX:
        raise KeyInvalid(f"this task key would be longer than {KEY_CHARS_MAX} characters; give it fewer caveats")
    return text


def expiry_ms(text: str, now_ms: int) -> int:
    """`90d`, `8h`, `30m` from now, or an RFC 3339 time -> ms since the epoch. Raises ValueError with a sentence."""
    duration = _DURATION.fullmatch(text.strip())
    if duration is not None:
        moment_ms = now_ms + int(duration[1]) * _DURATION_MS[duration[2]]
    else:
        parsed_ms = _rfc3339_ms(text.strip())
        if parsed_ms is None:
            raise ValueError(f"`{text}` is no time; write `90d`, `8h`, `30m` or `2026-12-31T00:00:00Z`")
        moment_ms = parsed_ms
    if not now_ms < moment_ms <= TIME_MS_MAX:
        raise ValueError(f"`{text}` is not in the future, or too far in it")
    return moment_ms


def _sign_id(secret: bytes, key_id: str) -> bytes:
    return hmac.digest(secret, KEY_VERSION + key_id.encode(), "sha256")


def _narrowed_mac(mac: bytes, caveats: Iterable[Caveat]) -> bytes:
    for caveat in caveats:
        mac = hmac.digest(mac, _length_prefixed(_caveat_bytes(caveat)), "sha256")
    return mac


def _length_prefixed(data: bytes) -> bytes:
    """Two lists of caveats can then never run together into the same bytes."""
    return len(data).to_bytes(4, "big") + data


def _caveat_bytes(caveat: Caveat) -> bytes:
    return _write_json.encode({caveat.kind: caveat.value})


def _caveats_text(caveats: Sequence[Caveat]) -> str:
    data = _write_json.encode([{caveat.kind: caveat.value} for caveat in caveats])
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _caveats_of(text: str) -> tuple[Caveat, ...]:
    """The caveats in a task key's middle part. Raises KeyInvalid for anything but their canonical text."""
    try:
        items = _read_caveats.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise KeyInvalid(_BAD_CAVEATS) from None
    if not 1 <= len(items) <= CAVEATS_MAX or any(len(item) != 1 for item in items):
        raise KeyInvalid(_BAD_CAVEATS)
    caveats = tuple(
        _checked(kind, tuple(value) if isinstance(value, list) else value)
        for item in items
        for kind, value in item.items()
    )
    if _caveats_text(caveats) != text:
        raise KeyInvalid(_BAD_CAVEATS)
    return caveats


def _checked(kind: str, value: str | int | tuple[str, ...]) -> Caveat:
    """The caveat, if it is one that this proxy knows. An unknown kind refuses: ignoring it would widen the key."""
    if kind == "task" and isinstance(value, str):
        if is_tag(value):
            return Caveat("task", value)
        raise KeyInvalid(f"a task is 1 to {TAG_CHARS_MAX} printable characters")
    if kind == "expires" and _moment_ms(value) is not None:
        return Caveat("expires", value)
    if kind == "max_cost" and type(value) is int and 0 <= value <= NUSD_MAX:
        return Caveat("max_cost", value)
    if kind in ("models", "upstreams") and isinstance(value, tuple) and value and all(map(is_tag, value)):
        return Caveat("models" if kind == "models" else "upstreams", value)
    if kind in CAVEAT_KINDS:
        raise KeyInvalid(f"the caveat `{kind}` of this task key has a value that cannot be")
    raise KeyInvalid("this task key has a caveat that this proxy does not know, so it cannot be honoured")


def is_tag(text: object) -> bool:
    """Whether it may name a task, session, agent or glob: short, not blank, and without control characters."""
    return isinstance(text, str) and 0 < len(text) <= TAG_CHARS_MAX and text.isprintable() and text == text.strip()


def _moment_ms(value: str | int | tuple[str, ...]) -> int | None:
    moment_ms = _rfc3339_ms(value) if isinstance(value, str) else value
    return moment_ms if type(moment_ms) is int and 0 <= moment_ms <= TIME_MS_MAX else None


def _rfc3339_ms(text: str) -> int | None:
    if _RFC3339.fullmatch(text) is None:
        return None
    try:
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _parsed(key_id: str, mac: bytes, caveats: tuple[Caveat, ...]) -> ParsedKey:
    """Intersects the caveats. Raises KeyInvalid where nothing is left, as with two tasks."""
    if len(caveats) > CAVEATS_MAX:
        raise KeyInvalid(f"a task key holds at most {CAVEATS_MAX} caveats")
    task: str | None = None
    expires: list[int] = []
    max_cost_nusd: dict[str, int] = {}
    globs: dict[str, list[tuple[str, ...]]] = {"models": [], "upstreams": []}
    chain = hashlib.sha256(_length_prefixed(key_id.encode()))
    for caveat in caveats:
        chain.update(_length_prefixed(_caveat_bytes(caveat)))
        value = caveat.value
        if caveat.kind == "task" and isinstance(value, str):
            if task not in (None, value):
                raise KeyInvalid(f"this task key is for task `{task}` and cannot be narrowed to `{value}`")
            task = value
        elif caveat.kind == "max_cost" and isinstance(value, int):
            max_cost_nusd[chain.hexdigest()[:CHAIN_CHARS]] = value
        elif isinstance(value, tuple):
            globs[caveat.kind].append(value)
        else:
            moment_ms = _moment_ms(value)
            expires += [] if moment_ms is None else [moment_ms]
    return ParsedKey(
        key_id=key_id,
        mac=mac,
        caveats=caveats,
        task=task,
        expires_at_ms=min(expires, default=None),
        max_cost_nusd=max_cost_nusd,
        models=tuple(globs["models"]),
        upstreams=tuple(globs["upstreams"]),
    )
