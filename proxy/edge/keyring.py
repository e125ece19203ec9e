"""A worker's memory of keys: verified once, known for as long as the database says nothing else.

The signature is checked before anything is looked up, so an invented key costs two hashes and never a query. What
keys stand for is asked once and then kept current by polling for changes. A failed look-up is an answer of 503, never
of 401: a developer must not be told that a good key is bad because a database is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from ..core.caller import KeyInfo
from ..core.keys import KeyInvalid, ParsedKey, parse, verify
from ..core.refusal import Refusal
from .polling import POLL_S, Poller

LOOKUP_S = 2.0
"""How long a call waits for the database. Longer, and an agent's own time-out would hide the reason."""
STALE_S = 300.0
"""How long known keys keep working while the database is away: it outlasts a restart or a failover, and is the longest
that a revocation can go unseen. After that calls are refused with `store_unavailable`."""
UNKNOWN_S = 1.0
"""How long an id that the database does not know is remembered as unknown."""
KEYS_MAX = 10_000
"""Key texts, and ids, that one worker remembers; about 20 MB when full of task keys."""
UNKNOWN_MAX = 1_000
THREADS = 4
"""Look-ups at once. They are rare, a few milliseconds each, and must not take the threads of others."""

_V = TypeVar("_V")

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """A verified key and what it stands for. May be expired or revoked: `identify` tells, by the time of the call."""

    info: KeyInfo
    parsed: ParsedKey


class KeyRing:
    """Keys by their text. `lookup` and `changes` block, and run in threads of the ring's own.

    lookup(key_id)     what the key stands for, None when there is no such key
    changes(version)   keys changed since that version, oldest change first; may be only the first of many
    secrets            the server's; each of them verifies
    clock              seconds that only grow
    """

    def __init__(
        self,
        lookup: Callable[[str], KeyInfo | None],
        changes: Callable[[int], Sequence[KeyInfo]],
        secrets: Sequence[bytes],
        poll_s: float = POLL_S,
        *,
        stale_s: float = STALE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._changes = changes
        self._secrets = tuple(secrets)
        self._stale_s = stale_s
        self._clock = clock
        self._parsed: dict[str, ParsedKey] = {}
        self._infos: dict[str, KeyInfo] = {}
        self._unknown: dict[str, float] = {}
        self._looking: dict[str, asyncio.Task[KeyInfo | None]] = {}
        self._version = 0
        self._current_at = clock()
        self._threads = ThreadPoolExecutor(THREADS, "keyring")
        self._poller = Poller("changes of keys", self._poll, poll_s=poll_s)

    def __repr__(self) -> str:
        """Never shows a key."""
        return f"KeyRing({len(self._parsed)} keys)"

    async def start(self) -> None:
        """Begins to follow changes. Does not fail when the database is away; it is then asked again and again."""
        await self._poller.start()

    async def close(self) -> None:
        """Ends polling. A look-up that hangs in its thread is left behind."""
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(self._poller.close(), *self._looking.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def cached(self, key_text: str) -> Known | None:
        """What is known of this key without waiting; None: ask `find`."""
        # Dictionaries compare texts only when their randomized hashes are equal, so this look tells a guesser nothing.
        parsed = self._parsed.get(key_text)
        if parsed is None:
            return None
        info = self._infos.get(parsed.key_id)
        if info is None or self._clock() - self._current_at > self._stale_s:
            return None
        return Known(info, parsed)

    async def find(self, key_text: str) -> Known | Refusal:
        """Verifies a key and tells what it stands for; refuses key_invalid or store_unavailable."""
        known = self.cached(key_text)
        if known is not None:
            return known
        try:
            parsed = parse(key_text)
        except KeyInvalid as invalid:
            return Refusal(code="key_invalid", sentence=str(invalid))
        if not verify(parsed, self._secrets):
            return _invalid("this Callmeter key is not genuine; check that it was copied whole, or ask an admin")
        try:
            async with asyncio.timeout(LOOKUP_S):
                info = await self._look_up(parsed.key_id)
        except Exception as error:
            # Whatever the database's driver raises, the caller is told the same, and the key is in no message.
            log.warning("keys cannot be looked up: %s", type(error).__name__)
            return Refusal(
                code="store_unavailable", sentence="keys cannot be looked up at the moment; try again shortly"
            )
        if info is None:
            return _invalid("this Callmeter key does not exist any more; ask an admin for a new one")
        _remember(self._parsed, key_text, parsed, KEYS_MAX)
        return Known(info, parsed)

    async def _look_up(self, key_id: str) -> KeyInfo | None:
        """One query for each id at a time, however many calls wait for it."""
        if self._unknown.get(key_id, 0.0) > self._clock():
            return None
        task = self._looking.get(key_id)
        if task is None:
            task = asyncio.create_task(self._ask(key_id))
            self._looking[key_id] = task
            task.add_done_callback(lambda done: self._looked(key_id, done))
        # A caller that goes away must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, key_id: str) -> KeyInfo | None:
        info = await asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, key_id)
        if info is None:
            _remember(self._unknown, key_id, self._clock() + UNKNOWN_S, UNKNOWN_MAX)
            return None
        return self._learn(info)

    def _looked(self, key_id: str, task: asyncio.Task[KeyInfo | None]) -> None:
        self._looking.pop(key_id, None)
        if not task.cancelled():
            task.exception()  # seen here also when every caller has gone away

    async def _poll(self) -> None:
        """Takes in what changed, until nothing more is new: one answer may hold only a part of it."""
        while await self._take_changes():
            pass

    async def _take_changes(self) -> bool:
        """One query; whether there may be more. Only keys in use are kept; others are looked up when they come."""
        asked_at = self._clock()
        changed = await self._poller.ask(self._changes, self._version)
        version = self._version
        for info in changed:
            self._version = max(self._version, info.version)
            # A key that is being looked up may have been read before this change: the newer version stays.
            if info.key_id in self._infos or info.key_id in self._looking:
                self._learn(info)
            self._unknown.pop(info.key_id, None)
        if self._version > version:
            return True
        self._current_at = asked_at
        return False

    def _learn(self, info: KeyInfo) -> KeyInfo:
        known = self._infos.get(info.key_id)
        if known is not None and known.version > info.version:
            return known
        _remember(self._infos, info.key_id, info, KEYS_MAX)
        return info


def _invalid(sentence: str) -> Refusal:
    return Refusal(code="key_invalid", sentence=sentence)


def _remember(memory: dict[str, _V], name: str, value: _V, most: int) -> None:
    """Keeps a value, and forgets the oldest where there are too many."""
    if name not in memory and len(memory) >= most:
        del memory[next(iter(memory))]
    memory[name] = value
