"""Keys: what each key stands for. No key is kept, nor a hash of one; the secret part follows from the id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from ..core.caller import KeyInfo
from .engine import Database
from .reader import KEY_COLUMNS, key_info
from .tables import KEYS_VERSION, keys, meta

UPDATABLE = frozenset({"team", "org", "labels", "kind", "acts_for", "expires_at_ms"})
COLUMNS = [keys.c[name] for name in KEY_COLUMNS]


class KeyExists(ValueError):
    """A key with this id is there already. Nothing was written."""


class KeyStore:
    """Keys in the ledger's database. Every change raises the version, by which workers ask what is new.

    Every method raises LedgerUnavailable where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, info: KeyInfo) -> KeyInfo:
        """Writes a new key and gives it back with its version. Raises KeyExists."""
        return self.create_all([info])[0]

    def create_all(self, infos: Sequence[KeyInfo]) -> Sequence[KeyInfo]:
        """Writes all of the keys, or none of them. Raises KeyExists."""
        if not infos:
            return []
        with self._database.writing(KEYS_VERSION) as connection:
            version = raise_version(connection, len(infos)) - len(infos)
            created = [
                msgspec.structs.replace(info, version=version + number) for number, info in enumerate(infos, start=1)
            ]
            try:
                connection.execute(keys.insert(), [key_row(info) for info in created])
            except IntegrityError as error:
                raise KeyExists("a key with the same id exists already, or is given twice; nothing was made") from error
        return created

    def get(self, key_id: str) -> KeyInfo | None:
        with self._database.reading() as connection:
            row = connection.execute(select(*COLUMNS).where(keys.c.key_id == key_id)).one_or_none()
        return None if row is None else key_info(row)

    def list(self) -> Sequence[KeyInfo]:
        """All keys, by org, user and when they were made."""
        order = (keys.c.org, keys.c.user, keys.c.created_at_ms, keys.c.key_id)
        with self._database.reading() as connection:
            return [key_info(row) for row in connection.execute(select(*COLUMNS).order_by(*order))]

    def update(self, key_id: str, **changes: Any) -> KeyInfo | None:
        """Changes what a key stands for, any of UPDATABLE. None: there is no such key."""
        unknown = changes.keys() - UPDATABLE
        if unknown:
            raise ValueError(f"`{min(unknown)}` of a key cannot be changed")
        return self._change(key_id, changes)

    def revoke(self, key_id: str, at_ms: int) -> KeyInfo | None:
        """Takes a key out of use for good; revoking it again changes nothing. None: there is no such key."""
        return self._change(key_id, {"revoked_at_ms": at_ms})

    def _change(self, key_id: str, changes: dict[str, Any]) -> KeyInfo | None:
        with self._database.writing(KEYS_VERSION) as connection:
            row = connection.execute(select(*COLUMNS).where(keys.c.key_id == key_id)).one_or_none()
            if row is None:
                return None
            before = key_info(row)
            if "revoked_at_ms" in changes and before.revoked_at_ms is not None:
                return before
            changed = msgspec.structs.replace(before, **changes, version=raise_version(connection, 1))
            connection.execute(update(keys).where(keys.c.key_id == key_id).values(key_row(changed)))
        return changed


def raise_version(connection: Connection, by: int) -> int:
    """The new version. The transaction holds the row, so versions grow in the order of commits."""
    version = int(connection.execute(select(meta.c.value).where(meta.c.name == KEYS_VERSION)).scalar_one()) + by
    connection.execute(update(meta).where(meta.c.name == KEYS_VERSION).values(value=str(version)))
    return version


def key_row(info: KeyInfo) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(info)
    fields["labels"] = msgspec.json.encode(info.labels).decode()
    return fields
