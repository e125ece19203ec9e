"""A worker's memory of keys, against a database that changes, hangs and fails."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.core.caller import KeyInfo
from proxy.core.keys import Caveat, attenuate, make_key
from proxy.core.refusal import Refusal
from proxy.edge import keyring
from proxy.edge.keyring import KeyRing, Known

SECRET = b"a secret of the server"
KEY_ID = "abcdefgh2345"
KEY = make_key(SECRET, KEY_ID)
TASK_KEY = attenuate(KEY, [Caveat("task", "PAY-7")])
POLL_S = 0.01


class Database:
    """Keys as the ledger keeps them. `gate` closed: queries hang. `broken`: they fail."""

    def __init__(self) -> None:
        self.keys = {KEY_ID: KeyInfo(key_id=KEY_ID, user="ada", version=1)}
        self.version = 1
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()
        self.lookups: list[str] = []
        self.polls = 0
        self.changes_max = 100

    def lookup(self, key_id: str) -> KeyInfo | None:
        self.lookups.append(key_id)
        found = self.keys.get(key_id)
        self.gate.wait(5)
        if self.broken:
            raise OSError(f"database away, asked for {key_id}")
        return found

    def changes(self, version: int) -> list[KeyInfo]:
        self.polls += 1
        if self.broken:
            raise OSError("database away")
        changed = sorted((info for info in self.keys.values() if info.version > version), key=lambda info: info.version)
        return changed[: self.changes_max]

    def revoke(self, key_id: str = KEY_ID) -> None:
        self.version += 1
        self.keys[key_id] = msgspec.structs.replace(self.keys[key_id], revoked_at_ms=1, version=self.version)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(database: Database, clock: Clock) -> AsyncIterator[KeyRing]:
    ring = KeyRing(database.lookup, database.changes, [SECRET], POLL_S, clock=clock)
    await ring.start()
    yield ring
    database.gate.set()
    await ring.close()


async def known(ring: KeyRing, key: str = KEY) -> Known:
    found = await ring.find(key)
    assert isinstance(found, Known)
    return found


async def refused(ring: KeyRing, key: str = KEY) -> str:
    found = await ring.find(key)
    assert isinstance(found, Refusal)
    return found.code


async def polled(database: Database, times: int = 2) -> None:
    """Waits until a poll that began after this moment has been taken in."""
    target = database.polls + times
    async with asyncio.timeout(5):
        while database.polls < target:
            await asyncio.sleep(POLL_S / 2)


async def test_a_key_is_looked_up_once_and_then_known_without_waiting(ring: KeyRing, database: Database) -> None:
    assert ring.cached(KEY) is None
    assert (await known(ring)).info.user == "ada"
    assert ring.cached(KEY) == await known(ring)
    assert database.lookups == [KEY_ID]


async def test_a_task_key_is_known_with_its_task(ring: KeyRing) -> None:
    found = await known(ring, TASK_KEY)
    assert found.parsed.task == "PAY-7"
    assert found.info.user == "ada"


@pytest.mark.parametrize(
    "key", ["", "sk-other", KEY[:-1], KEY[:-1] + ("0" if KEY[-1] != "0" else "1"), make_key(b"not the secret", KEY_ID)]
)
async def test_a_key_that_is_not_genuine_never_reaches_the_database(
    ring: KeyRing, database: Database, key: str
) -> None:
    assert await refused(ring, key) == "key_invalid"
    assert database.lookups == []


async def test_a_genuine_key_that_the_database_does_not_know_is_invalid_and_asked_once_a_while(
    ring: KeyRing, database: Database, clock: Clock
) -> None:
    del database.keys[KEY_ID]
    assert await refused(ring) == "key_invalid"
    assert await refused(ring) == "key_invalid"
    assert database.lookups == [KEY_ID]
    clock.now += keyring.UNKNOWN_S
    assert await refused(ring) == "key_invalid"
    assert database.lookups == [KEY_ID, KEY_ID]


async def test_many_calls_with_a_new_key_make_one_query(ring: KeyRing, database: Database) -> None:
    found = await asyncio.gather(*(ring.find(KEY) for _ in range(50)))
    assert all(isinstance(one, Known) for one in found)
    assert database.lookups == [KEY_ID]


async def test_a_caller_that_goes_away_does_not_take_the_answer_from_others(ring: KeyRing, database: Database) -> None:
    database.gate.clear()
    first, second = asyncio.create_task(ring.find(KEY)), asyncio.create_task(ring.find(KEY))
    await asyncio.sleep(0.01)
    first.cancel()
    database.gate.set()
    assert isinstance(await second, Known)


async def test_a_revocation_is_seen_by_polling_for_keys_and_their_task_keys(ring: KeyRing, database: Database) -> None:
    await known(ring)
    await known(ring, TASK_KEY)
    database.revoke()
    await polled(database)
    for key in (KEY, TASK_KEY):
        found = ring.cached(key)
        assert found is not None
        assert found.info.revoked_at_ms == 1


async def test_a_revocation_is_seen_at_once_behind_more_changes_than_one_answer_holds(database: Database) -> None:
    database.changes_max = 1
    for number in range(20):
        key_id = f"otherkey{number:04d}"
        database.version += 1
        database.keys[key_id] = KeyInfo(key_id=key_id, user="bob", version=database.version)
    ring = KeyRing(database.lookup, database.changes, [SECRET], poll_s=3600)
    await ring.start()
    assert database.polls == len(database.keys) + 1
    await ring.close()


async def test_a_revocation_during_a_look_up_is_not_lost(ring: KeyRing, database: Database) -> None:
    database.gate.clear()
    finding = asyncio.create_task(ring.find(KEY))
    async with asyncio.timeout(5):
        while not database.lookups:
            await asyncio.sleep(0.001)
    # The look-up has read the row already, and answers only after the change was polled.
    database.revoke()
    await polled(database)
    database.gate.set()
    found = await finding
    assert isinstance(found, Known)
    assert found.info.revoked_at_ms == 1


async def test_a_new_key_is_usable_at_once_though_it_was_unknown_before(ring: KeyRing, database: Database) -> None:
    info = database.keys.pop(KEY_ID)
    assert await refused(ring) == "key_invalid"
    database.keys[KEY_ID] = msgspec.structs.replace(info, version=2)
    await polled(database)
    assert (await known(ring)).info.user == "ada"


async def test_a_database_that_is_away_gives_503_for_new_keys_and_known_ones_work_on(
    ring: KeyRing, database: Database, clock: Clock
) -> None:
    await known(ring)
    database.broken = True
    await polled(database)
    assert await refused(ring, make_key(SECRET, "zyxwvuts2345")) == "store_unavailable"
    assert (await known(ring)).info.user == "ada"
    clock.now += keyring.STALE_S + 1
    assert ring.cached(KEY) is None
    assert await refused(ring) == "store_unavailable"
    database.broken = False
    await polled(database)
    assert ring.cached(KEY) is not None


async def test_a_database_that_hangs_gives_503_in_bounded_time(
    ring: KeyRing, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOKUP_S", 0.02)
    database.gate.clear()
    assert await refused(ring) == "store_unavailable"


async def test_a_ring_starts_while_the_database_is_away(database: Database) -> None:
    database.broken = True
    ring = KeyRing(database.lookup, database.changes, [SECRET], POLL_S)
    await ring.start()
    assert await refused(ring) == "store_unavailable"
    database.broken = False
    assert (await known(ring)).info.user == "ada"
    await ring.close()


async def test_the_memory_of_keys_is_bounded(
    ring: KeyRing, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "KEYS_MAX", 3)
    keys = [attenuate(KEY, [Caveat("task", f"T-{number}")]) for number in range(5)]
    for key in keys:
        await known(ring, key)
    assert [ring.cached(key) is not None for key in keys] == [False, False, True, True, True]


async def test_keys_rotate_with_the_secret(database: Database) -> None:
    ring = KeyRing(database.lookup, database.changes, [b"the new secret of the server", SECRET], POLL_S)
    await ring.start()
    assert (await known(ring)).info.user == "ada"
    await ring.close()


async def test_no_key_stands_in_a_log_line_or_a_repr(
    ring: KeyRing, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = repr(await known(ring)) + repr(ring)
    database.broken = True
    await polled(database)
    shown += repr(await ring.find(make_key(SECRET, "zyxwvuts2345")))
    assert "keys cannot be" in caplog.text or "changes of keys" in caplog.text
    assert KEY.rsplit("_", 1)[1] not in shown + caplog.text
    assert KEY not in shown + caplog.text
