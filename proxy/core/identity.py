"""Identity: where a key may be, who it stands for, and which headers may go on to the provider.

User, team and org come from the key alone. The key never goes on: not from the place where it was found, and not
from any other header or query parameter that happens to repeat it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_plus

import msgspec

from .call import Call
from .caller import Caller, KeyInfo
from .globs import compiled
from .keys import KEY_PREFIX, ParsedKey, is_tag
from .refusal import Refusal
from .tags import TagInvalid, read_tags
from .trace_context import parse_traceparent, parse_tracestate

OWN_PREFIX = "x-callmeter-"
KEY_HEADER = "x-callmeter-key"
USER_HEADER = "x-callmeter-user"
QUERY_KEY = "key"
"""Where Gemini's clients put a key in the query."""

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where providers' clients put a key."""

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""They speak of one connection, not of the call (RFC 9110, 7.6.1): they go on in neither direction."""

NOT_FORWARDED = HOP_BY_HOP.union(
    (
        # answered or set anew by the relay
        "expect",
        "host",
        "content-length",
        "accept-encoding",
        # the company's own: a provider is a third party
        "baggage",
        "traceparent",
        "tracestate",
    )
)

KEYS_REMEMBERED = 1024
"""Keys whose forms in base64 are kept in memory: those of the callers of a few minutes on one worker."""

_BASIC = re.compile(r"\bbasic\s+([A-Za-z0-9+/_-]+=*)", re.IGNORECASE)
_STANDARD_BASE64 = str.maketrans("-_", "+/")
_HOLDING_A_KEY_CHARS_MIN = 80
"""No key of ours is shorter than this, plain or in base64; most headers are."""

HEADER_NAMES_REMEMBERED = 1024
"""All clients together send a few hundred different names."""

Place = Literal["authorization", "x-api-key", "api-key", "x-goog-api-key", "key", "x-callmeter-key"]


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """A Callmeter key as it came with a call, not yet read, or None; and the place where it was.

    `own_credential`: the call also brings a credential that is not ours. It passes through to the provider.
    """

    key_text: str | None
    own_credential: bool
    place: Place | None = None

    def __repr__(self) -> str:
        """Never shows the key."""
        return f"FoundKey(place={self.place!r}, own_credential={self.own_credential})"


def find_key(headers: Mapping[str, str], query: str) -> FoundKey | Refusal:
    """The key of a call. `headers` have lower-case names; `query` is as sent. Two different keys are refused."""
    found: list[tuple[str, Place]] = []
    own_credential = False
    dedicated = _last_word(headers.get(KEY_HEADER, ""))
    if dedicated:
        found.append((dedicated, "x-callmeter-key"))
    for place in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
        value = headers.get(place)
        if not value:
            continue
        keys = _keys_in(value)
        found.extend((key, place) for key in keys)
        if not keys and not value.isspace():
            own_credential = True
    if query:
        for name, value in map(_parameter, query.split("&")):
            if name != QUERY_KEY or not value:
                continue
            if value.startswith(KEY_PREFIX):
                found.append((value, "key"))
            else:
                own_credential = True
    if not found:
        return FoundKey(key_text=None, own_credential=own_credential)
    key_text, place = found[0]
    for other_text, other_place in found[1:]:
        if other_text != key_text:
            sentence = f"two different Callmeter keys came with this call, in `{place}` and `{other_place}`; send one"
            return Refusal(code="key_invalid", sentence=sentence)
    return FoundKey(key_text=key_text, own_credential=own_credential, place=place)


def missing_credential(found: FoundKey, upstream_key: str | None, upstream: str) -> Refusal | None:
    """The refusal of a call that would reach the provider without any credential, else None."""
    if upstream_key or found.own_credential:
        return None
    return Refusal(
        code="credential_missing",
        sentence=f"upstream `{upstream}` has no key of its own and the call brings none; set `key` of the upstream in "
        "the policy, or send your provider key as usual and your Callmeter key in `x-callmeter-key`",
    )


def outgoing_headers(
    pairs: Iterable[tuple[str, str]], *, found: FoundKey, dialect: str, upstream_key: str | None
) -> list[tuple[str, str]]:
    """The headers that go on to the provider, in their order, with the credential in the dialect's place.

    The caller's own credential wins over the upstream's key. Names may be of any case. The relay adds what it
    sets itself: host, content-length, accept-encoding.
    """
    key_text, own_credential = found.key_text, found.own_credential
    hop_by_hop: set[str] = set()
    outgoing = []
    for pair in pairs:
        name, value = pair
        kind = _kind_of(name)
        if kind == "connection":
            hop_by_hop.update(token.strip().lower() for token in value.split(","))
        elif kind == "other" and len(value) < _HOLDING_A_KEY_CHARS_MIN:
            outgoing.append(pair)
        elif kind == "ours" or (key_text is not None and _repeats(key_text, value)):
            # A key that somebody also put elsewhere (a cookie, a debug header) must not leave the house either.
            continue
        elif kind == "other":
            if not _keys_in_basic(value):
                outgoing.append(pair)
        elif own_credential and not _keys_in(value):
            outgoing.append(pair)
    if not hop_by_hop <= NOT_FORWARDED:
        outgoing = [(name, value) for name, value in outgoing if name.lower() not in hop_by_hop]
    if upstream_key and not found.own_credential:
        outgoing.append(_credential(dialect, found.place, upstream_key))
    return outgoing


def own_credentials(pairs: Iterable[tuple[str, str]], found: FoundKey) -> list[tuple[str, str]]:
    """What the caller brings along for the provider, with its place: what `outgoing_headers` lets pass, so all but what
    is in the query. Names may be of any case."""
    if not found.own_credential:
        return []
    placed = [(name.lower(), value) for name, value in pairs if _kind_of(name) == "credential"]
    return [(name, value) for name, value in placed if value and not _keys_in(value)]


def clean_query(query: str, key_text: str | None) -> str:
    """The query without our key, otherwise byte for byte as it was sent."""
    if not query:
        return query
    return "&".join(part for part in query.split("&") if not _holds_key(part, key_text))


def identify(
    *, info: KeyInfo, parsed: ParsedKey, headers: Mapping[str, str], path_task: str | None, call: Call, now_ms: int
) -> Caller | Refusal:
    """Who calls, for which task. `parsed` is verified, `info` is what it stands for; `headers` have lower-case names.

    `path_task` is percent-decoded. Refuses key_invalid, key_expired, not_allowed and body_invalid. Without a valid
    traceparent `trace_id` is "": the caller of this function makes one, since randomness is not for this room.
    """
    refusal = unusable(info, parsed, now_ms)
    if refusal is not None:
        return refusal
    user = _user(info, parsed, headers.get(USER_HEADER))
    if isinstance(user, Refusal):
        return user
    try:
        tags = read_tags(headers, call, key_task=parsed.task, path_task=path_task)
    except TagInvalid as invalid:
        return Refusal(code="body_invalid", sentence=str(invalid))
    parent_text = headers.get("traceparent")
    parent = parse_traceparent(parent_text) if parent_text else None
    return Caller(
        org=info.org,
        team=info.team,
        user=user,
        key_id=info.key_id,
        labels=info.labels,
        task=tags.task,
        task_source=tags.task_source,
        agent=tags.agent,
        user_agent=tags.user_agent,
        session=tags.session,
        models=parsed.models,
        upstreams=parsed.upstreams,
        max_cost_nusd=parsed.max_cost_nusd,
        trace_id=parent.trace_id if parent else "",
        parent_span_id=parent.span_id if parent else None,
        trace_flags=parent.flags if parent else 1,
        trace_state=parse_tracestate(headers.get("tracestate", "")) if parent else "",
    )


@lru_cache(maxsize=HEADER_NAMES_REMEMBERED)
def _kind_of(name: str) -> Literal["connection", "ours", "credential", "other"]:
    """What becomes of a header. Remembered, since the same names come with every call, as clients spell them."""
    lower = name.lower()
    if lower == "connection":
        return "connection"
    if lower in NOT_FORWARDED or lower.startswith(OWN_PREFIX):
        return "ours"
    return "credential" if lower in CREDENTIAL_HEADERS else "other"


def unusable(info: KeyInfo, parsed: ParsedKey, now_ms: int) -> Refusal | None:
    """Why a key is no good at this moment; None where it is. All else that `identify` says of a call stays as it is."""
    if info.revoked_at_ms is not None:
        return Refusal(code="key_invalid", sentence="this Callmeter key has been revoked; ask an admin for a new one")
    if info.expires_at_ms is not None and info.expires_at_ms <= now_ms:
        return Refusal(code="key_expired", sentence="this Callmeter key has expired; ask an admin for a new one")
    if parsed.expires_at_ms is not None and parsed.expires_at_ms <= now_ms:
        return Refusal(code="key_expired", sentence="this task key has expired; make a new one with `callmeter task`")
    return None


def _user(info: KeyInfo, parsed: ParsedKey, asked: str | None) -> str | Refusal:
    """The key's user, or the one that a service key acts for."""
    if asked is None or not asked.strip() or asked.strip() == info.user:
        return info.user
    asked = asked.strip()
    if not is_tag(asked):
        return Refusal(code="body_invalid", sentence=f"the header `{USER_HEADER}` must be a short, printable name")
    # A task key is in the hands of an agent, which must not be able to choose whom it works for.
    may_act = info.kind == "service" and info.acts_for is not None and not parsed.is_task_key
    if may_act and info.acts_for is not None and compiled((info.acts_for,)).matches(asked):
        return asked
    return Refusal(
        code="not_allowed",
        sentence=f"this key may not act for user `{asked}`; leave out `{USER_HEADER}`, or use a service key that may",
    )


def _last_word(value: str) -> str:
    """The credential in `Bearer <credential>`, in any other scheme, or bare: a key of ours is found in all of them."""
    words = value.split()
    return words[-1] if words else ""


def _keys_in(value: str) -> list[str]:
    """The keys of ours in the value of a credential's header: one, or those that a user and password are."""
    credential = _last_word(value)
    return [credential] if credential.startswith(KEY_PREFIX) else _keys_in_basic(value)


def _keys_in_basic(value: str) -> list[str]:
    """The keys of ours in `Basic base64(user:password)`, as tools like git and curl send them."""
    keys = []
    for found in _BASIC.finditer(value):
        text = found[1].rstrip("=").translate(_STANDARD_BASE64)
        try:
            pair = base64.b64decode(text + "=" * (-len(text) % 4)).decode("latin-1")
        except binascii.Error:
            continue
        keys += [part.strip() for part in pair.split(":", 1) if part.strip().startswith(KEY_PREFIX)]
    return keys


def _repeats(key_text: str, value: str) -> bool:
    """Whether a value holds the key, plain or within something that is written in base64."""
    if len(value) < len(key_text):
        return False
    return key_text in value or any(form in value for form in _in_base64(key_text))


@lru_cache(maxsize=KEYS_REMEMBERED)
def _in_base64(key_text: str) -> tuple[str, ...]:
    """What is the same in every base64 text that the key is a part of, for each of the three ways to begin in it. A
    key has no character that comes to `+` or `/`, so the alphabet for URLs writes it alike."""
    forms = []
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        data = b"\0" * before + key_text.encode("utf-8", "surrogateescape")
        forms.append(base64.b64encode(data).decode()[skipped : len(data) * 8 // 6])
    return tuple(forms)


def _parameter(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return unquote_plus(name), unquote_plus(value).strip()


def _holds_key(part: str, key_text: str | None) -> bool:
    name, value = _parameter(part)
    if name == QUERY_KEY and value.startswith(KEY_PREFIX):
        return True
    return key_text is not None and (_repeats(key_text, value) or key_text in name)


def _credential(dialect: str, place: Place | None, upstream_key: str) -> tuple[str, str]:
    """The upstream's key, where the provider of this dialect looks for it."""
    if dialect == "anthropic":
        return "x-api-key", upstream_key
    if dialect == "gemini":
        return "x-goog-api-key", upstream_key
    # Azure and hosts like it take `api-key`, and so do their clients. Where no dialect is known, the caller does.
    if place == "api-key" or (dialect == "" and place in ("x-api-key", "x-goog-api-key")):
        return place, upstream_key
    return "authorization", f"Bearer {upstream_key}"
