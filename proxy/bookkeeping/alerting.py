"""Alerting: follows the ledger for events that somebody wants to know, and tells them, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from ..core.alerts import Event, events_of
from ..core.policy import Policy
from ..ledger.alerts import Message
from ..ledger.database import Ledger
from ..ledger.errors import LedgerUnavailable
from ..telemetry.alerts import AlertNotTaken, AlertSender

LOOK_S = 1.0
ROWS_AT_ONCE = 1_000
RETRY_FIRST_MS = 5_000
RETRY_MAX_MS = 15 * 60_000
ATTEMPTS_MAX = 30
"""With waits of at most a quarter of an hour: a receiver may be away for more than six hours."""

log = logging.getLogger("callmeter.bookkeeper")


class Alerting:
    """Blocks, and runs in threads.

    active       whether this bookkeeper is the one that follows the ledger
    may_tell     whether it may send: the active one, and while the store is away every one, since nobody is active then
    now_events   what is wrong at the moment and in no record: faults of the policy files, a store that is away
    """

    def __init__(
        self,
        ledger: Ledger,
        sender: AlertSender,
        *,
        policy: Callable[[], Policy],
        active: Callable[[], bool],
        may_tell: Callable[[], bool],
        now_events: Callable[[], Iterable[Event]] = tuple,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._policy = policy
        self._active = active
        self._may_tell = may_tell
        self._now_events = now_events
        self._clock_ms = clock_ms
        self._told_now: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                while await asyncio.to_thread(self.look):
                    pass
                await asyncio.to_thread(self.tell)
            except LedgerUnavailable as away:
                log.debug("alerts wait: %s", away)
            await asyncio.sleep(LOOK_S)

    def look(self) -> bool:
        """Puts what is new into the outbox, together with how far the ledger was looked at. True: there is more."""
        policy = self._policy()
        now = list(self._messages(policy, self._now_events()))
        new = [message for message in now if message.key not in self._told_now]
        if new:
            self._ledger.alerts.put(new, None)
        self._told_now = {message.key for message in now}
        if not self._active():
            return False
        after = self._ledger.alerts.cursor()
        if not policy.alerts:
            # Nobody wants to know, and what happens meanwhile is no news for whoever does later.
            if (newest := self._ledger.last_seq()) > after:
                self._ledger.alerts.put((), newest)
            return False
        rows = self._ledger.after(after, ROWS_AT_ONCE)
        if not rows:
            return False
        found: dict[str, Message] = {}
        for _, record in rows:
            for message in self._messages(policy, events_of(record, policy)):
                found.setdefault(message.key, message)
        self._ledger.alerts.put(list(found.values()), rows[-1][0])
        return len(rows) == ROWS_AT_ONCE

    def tell(self) -> None:
        """Sends what is due, each message once; what is not taken is tried again later."""
        if not self._may_tell():
            return
        receivers = {rule.name: rule.to for rule in self._policy().alerts}
        for message in self._ledger.alerts.due(self._clock_ms()):
            to = receivers.get(message.alert)
            if to is None:
                self._ledger.alerts.tried(message.key, None)
                continue
            try:
                self._sender.send(to, message.key, message.body, now_s=self._clock_ms() // 1000)
            except AlertNotTaken as why:
                self._ledger.alerts.tried(message.key, self._next_ms(message, why))
            else:
                self._ledger.alerts.tried(message.key, None)

    def _next_ms(self, message: Message, why: AlertNotTaken) -> int | None:
        if message.attempts + 1 >= ATTEMPTS_MAX:
            log.error("alert `%s` is given up after %d attempts: %s", message.alert, ATTEMPTS_MAX, why)
            return None
        if not message.attempts:
            log.warning("alert `%s` is not taken and will be tried again: %s", message.alert, why)
        return self._clock_ms() + min(RETRY_MAX_MS, RETRY_FIRST_MS << min(message.attempts, 10))

    def _messages(self, policy: Policy, events: Iterable[Event]) -> Iterable[Message]:
        if not policy.alerts:
            return
        for event in events:
            body = msgspec.json.encode(event.fields()).decode()
            for rule in policy.alerts:
                if event.kind in rule.on:
                    yield Message(key=event.key(rule.name), alert=rule.name, body=body, at_ms=self._clock_ms())
