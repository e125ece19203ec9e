"""Keys: `/api/keys`. A key's text leaves the house once, in the answer that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from ..core.caller import KeyInfo
from ..core.keys import TAG_CHARS_MAX, expiry_ms, is_tag
from ..core.record import rfc3339
from .answers import Problem, json_answer
from .context import AdminContext
from .parameters import body_of, known_only
from .threads import Threads

LABELS_MAX = 32
"""Labels go into every record of the key; more would outweigh the record."""
IMPORT_KEYS_MAX = 10_000
"""One import is one transaction and one answer."""

Kind = Literal["person", "service"]


class NewKey(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a key to be made stands for. `expires_at`: a time, or how long from now (`90d`)."""

    user: str
    team: str = "default"
    org: str = "default"
    labels: dict[str, str] = {}
    kind: Kind = "person"
    acts_for: str | None = None
    expires_at: str | None = None


class KeyChanges(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to change. The user stays: another user needs another key."""

    team: str | UnsetType = UNSET
    org: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    kind: Kind | UnsetType = UNSET
    acts_for: str | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET


class Import(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[NewKey]


class Keys:
    """Handlers that read and change keys, in threads."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._store = context.ledger.keys
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/keys", self.list),
            web.post("/api/keys", self.create),
            web.post("/api/keys/import", self.import_all),
            web.patch("/api/keys/{key_id}", self.update),
            web.post("/api/keys/{key_id}/revoke", self.revoke),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`{"keys": [...]}`: what each key stands for, by org and user; never the keys themselves."""
        known_only(request.query, ())
        found = await self._threads.run(self._store.list)
        return json_answer({"keys": [key_fields(info) for info in found]})

    async def create(self, request: web.Request) -> web.Response:
        """Makes a key: its fields, and its text as `key`."""
        [made] = await self._make([await body_of(request, NewKey)], "")
        return json_answer(made, 201)

    async def import_all(self, request: web.Request) -> web.Response:
        """Makes all of the keys or, with any fault, none."""
        body = await body_of(request, Import)
        if len(body.keys) > IMPORT_KEYS_MAX:
            raise Problem(400, f"`keys` has {len(body.keys)} keys; send at most {IMPORT_KEYS_MAX} at once")
        return json_answer({"keys": await self._make(body.keys, "keys")}, 201)

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request, KeyChanges)
        named: dict[str, Any] = {name: getattr(body, name) for name in body.__struct_fields__}
        changes = {name: value for name, value in named.items() if value is not UNSET}
        faults = faults_of(changes)
        if "expires_at" in changes:
            try:
                changes["expires_at_ms"] = self._expires_ms(changes.pop("expires_at"))
            except ValueError as error:
                faults.append(f"`expires_at`: {error}")
        if faults:
            raise Problem(400, "; ".join(faults))
        key_id = request.match_info["key_id"]
        if changes.get("acts_for") is not None:
            info = await self._threads.run(lambda: self._store.get(key_id))
            if info is not None and changes.get("kind", info.kind) != "service":
                raise Problem(400, "`acts_for` is for keys of kind `service`; change `kind` as well")
        return self._found(key_id, await self._threads.run(lambda: self._store.update(key_id, **changes)))

    async def revoke(self, request: web.Request) -> web.Response:
        key_id = request.match_info["key_id"]
        now_ms = self._context.clock_ms()
        return self._found(key_id, await self._threads.run(lambda: self._store.revoke(key_id, now_ms)))

    def _found(self, key_id: str, info: KeyInfo | None) -> web.Response:
        if info is None:
            raise Problem(404, f"there is no key `{key_id}`; `callmeter keys list` shows all")
        return json_answer(key_fields(info))

    def _expires_ms(self, text: str | None) -> int | None:
        return None if text is None else expiry_ms(text, self._context.clock_ms())

    async def _make(self, wanted: Sequence[NewKey], where: str) -> Sequence[dict[str, Any]]:
        """Checks all, then makes all. `where` names the list they came in, for faults."""
        faults: list[str] = []
        texts: list[str] = []
        infos: list[KeyInfo] = []
        for number, new in enumerate(wanted):
            place = f"{where}[{number}]: " if where else ""
            fields: dict[str, Any] = msgspec.structs.asdict(new)
            faults += [place + fault for fault in faults_of(fields)]
            if new.acts_for is not None and new.kind != "service":
                faults.append(f"{place}`acts_for` is for keys of kind `service`")
            try:
                fields["expires_at_ms"] = self._expires_ms(fields.pop("expires_at"))
            except ValueError as error:
                faults.append(f"{place}`expires_at`: {error}")
                continue
            key_id, key = self._context.make_key()
            texts.append(key)
            infos.append(KeyInfo(key_id=key_id, created_at_ms=self._context.clock_ms(), **fields))
        if faults:
            raise Problem(400, "; ".join([*faults, "no key was made"]))
        made = await self._threads.run(lambda: self._store.create_all(infos))
        return [{"key": text} | key_fields(info) for text, info in zip(texts, made, strict=True)]


def faults_of(fields: dict[str, Any]) -> list[str]:
    """Sentences about names and labels that would be no use in a record."""
    names = [(name, fields.get(name)) for name in ("user", "team", "org", "acts_for")]
    faults = [
        f"`{name}` is `{value}`; give it 1 to {TAG_CHARS_MAX} printable characters"
        for name, value in names
        if value is not None and not is_tag(value)
    ]
    labels: dict[str, str] = fields.get("labels") or {}
    faults += [
        f"label `{name}={value}` needs a name and a value of 1 to {TAG_CHARS_MAX} printable characters"
        for name, value in labels.items()
        if not (is_tag(name) and is_tag(value))
    ]
    if len(labels) > LABELS_MAX:
        faults.append(f"there are {len(labels)} labels; a key has at most {LABELS_MAX}")
    return faults


def key_fields(info: KeyInfo) -> dict[str, Any]:
    """What a key stands for, as the API shows it: times in RFC 3339."""
    fields: dict[str, Any] = msgspec.to_builtins(info)
    for name in ("created_at", "expires_at", "revoked_at"):
        at_ms = fields.pop(f"{name}_ms")
        fields[name] = None if at_ms is None else rfc3339(at_ms)
    return fields
