"""Envelope: what the path and headers of a call tell, before anybody looks into its body.

An agent sends the same headers with every call, but for the length of the body. So what follows from them is worked
out for the first such call and remembered for the others: which upstream, which key, the lines that go on.
"""

from __future__ import annotations

import msgspec

from .. import wire
from ..core import identity
from ..core.caller import Caller
from ..core.duplicates import retry_of
from ..core.policy import Policy, Upstream
from ..core.refusal import Refusal
from ..wire.beside import said_beside
from .answers import wanted_encodings
from .keyring import Known
from .paths import Target, TargetInvalid, read_target
from .request import Headers, RawHeaders, Request, headers_of
from .sentences import WEBSOCKET

ENVELOPES_REMEMBERED = 512
"""Of the agents of a few minutes on one worker, some 3 MB. The oldest are forgotten first."""

REMEMBERED_BYTES_MAX = 16 * 1024
"""Of path and headers together; agents send up to 10 KB. Nobody has looked yet at whose key it is, so that anybody
could fill the memory with larger ones."""

READABLE_ENCODINGS = frozenset(wire.supported_encodings().split(", "))

_LENGTH = b"content-length"
"""The one header that differs from call to call."""
_LENGTH_BYTES = len(_LENGTH)


class Envelope(msgspec.Struct, kw_only=True):
    """What one path and set of headers come to under one policy.

    headers    by their names, but for the length of the body
    path       at the provider
    query      at the provider, without our key
    upstream   None: unknown
    dialect    whose error bodies the caller understands, as far as the path tells
    found      the key, not yet looked up, or why there is none that could be
    wrong      what is wrong with the path
    caller     who called with it last: key, task and session that the body told, and what `identify` made of them
    """

    target: Target
    headers: Headers
    path: str
    query: str = ""
    upstream: Upstream | None = None
    dialect: str = ""
    found: identity.FoundKey | Refusal
    wrong: Refusal | None = None
    caller: tuple[Known, str | None, str | None, Caller] | None = None
    _lines: dict[str, str] = {}
    _beside: str = ""
    _retry: tuple[bytes, int] | None = None

    def __repr__(self) -> str:
        """Without the lines, in which there are credentials."""
        return f"Envelope({self.path}, upstream={self.upstream!r})"

    @property
    def memorable(self) -> bool:
        """It may lead to a call, and so may the next one like it."""
        return self.upstream is not None and self.wrong is None and isinstance(self.found, identity.FoundKey)

    @property
    def beside(self) -> str:
        """What it says by which the provider answers, for duplicate rules."""
        if not self._beside:
            assert isinstance(self.found, identity.FoundKey)
            credentials = identity.own_credentials(self.headers.items(), self.found)
            self._beside = said_beside(self.path, self.query, self.headers.items(), credentials)
        return self._beside

    @property
    def retry(self) -> tuple[bytes, int]:
        """What the client says of its own retries, as `retry_of` tells it."""
        if self._retry is None:
            self._retry = retry_of(self.headers)
        return self._retry

    def lines(self, dialect: str) -> str:
        """The header lines of a call that goes on as it came, each with its end. `dialect`: the one that it speaks."""
        lines = self._lines.get(dialect)
        if lines is None:
            accepted = wanted_encodings(self.headers.get("accept-encoding", ""), READABLE_ENCODINGS)
            lines = self._lines[dialect] = self.other_lines(dialect, accepted=accepted, packed=True)
        return lines

    def other_lines(self, dialect: str, *, accepted: str, packed: bool) -> str:
        """The same for a call that accepts other encodings, or whose body goes on unpacked."""
        assert isinstance(self.found, identity.FoundKey)
        assert self.upstream is not None
        pairs = identity.outgoing_headers(
            self.headers.items(), found=self.found, dialect=dialect, upstream_key=self.upstream.key
        )
        lines = [f"{name}: {value}\r\n" for name, value in pairs if packed or name.lower() != "content-encoding"]
        lines.append(f"accept-encoding: {accepted}\r\n")
        return "".join(lines)


class Envelopes:
    """Opens envelopes, and remembers those of calls alike. One a process."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._generation = 0
        """How many policies there were. A head that knew the policy itself would keep it, and all that it remembers."""
        self._remembered: dict[tuple[str, RawHeaders], Envelope] = {}

    def open(self, policy: Policy, request: Request) -> Envelope:
        if policy is not self._policy:
            self._policy = policy
            self._generation += 1
            self._remembered.clear()
        head = request.head
        if head is not None and head.opened is not None and head.opened[0] == self._generation:
            return head.opened[1]
        envelope = self._open(policy, request.raw_path, request.raw_headers)
        if head is not None and envelope.memorable:
            head.opened = self._generation, envelope
        return envelope

    def _open(self, policy: Policy, raw_path: str, raw: RawHeaders) -> Envelope:
        alike = raw_path, tuple([pair for pair in raw if len(pair[0]) != _LENGTH_BYTES or pair[0].lower() != _LENGTH])
        envelope = self._remembered.get(alike)
        if envelope is None:
            envelope = read_envelope(policy, raw_path, headers_of(alike[1]))
            if envelope.memorable and _bytes_of(raw_path, raw) <= REMEMBERED_BYTES_MAX:
                if len(self._remembered) >= ENVELOPES_REMEMBERED:
                    del self._remembered[next(iter(self._remembered))]
                self._remembered[alike] = envelope
        return envelope


def _bytes_of(raw_path: str, raw: RawHeaders) -> int:
    return len(raw_path) + sum([len(name) + len(value) for name, value in raw])


def read_envelope(policy: Policy, raw_path: str, headers: Headers) -> Envelope:
    wrong: Refusal | None = None
    try:
        target = read_target(raw_path)
    except TargetInvalid as invalid:
        wrong = Refusal(code="body_invalid", sentence=str(invalid))
        target = Target(task=None, segment="", rest="/", whole="/", query="")
    if wrong is None and ("websocket" in headers.get("upgrade", "").lower() or "sec-websocket-key" in headers):
        wrong = WEBSOCKET  # passed on without its upgrade, as all else is that speaks of the connection, it is no call
    upstream, path, dialect = policy.upstream_for(target.segment), target.rest, ""
    if upstream is None:
        dialect = wire.short_form_dialect(target.whole, headers) or ""
        upstream, path = policy.short_form(dialect) if dialect else None, target.whole
    if upstream is not None:
        dialect = dialect or upstream.dialect
    found = identity.find_key(headers, target.query)
    key_text = found.key_text if isinstance(found, identity.FoundKey) else None
    if key_text is None and isinstance(found, identity.FoundKey):
        found = Refusal(code="key_missing")
    return Envelope(
        target=target,
        headers=headers,
        path=path,
        query=identity.clean_query(target.query, key_text),
        upstream=upstream,
        dialect=dialect,
        found=found,
        wrong=wrong,
    )
