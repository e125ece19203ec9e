"""One connection to the store: commands in order, replies in order.

Concurrent calls share a pipeline without knowing of each other: what is sent while replies are awaited leaves with the
next of them, in one write, or after HELD_S. So a store with little to do is asked at once, and one with much to do gets
it in large pieces, which cost it and us less. One watchdog looks after the whole connection instead of a timer for each
command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from .errors import StoreUnavailable, error_from_reply
from .packing import Argument

WATCH_SHARE = 5
"""The watchdog looks this many times per time limit, so a command waits at most a fifth longer than the limit."""

GRACE_S = 0.01
"""Between the first suspicion and the verdict. If our own loop was held up, the replies may be here, unread: the grace
lets them be read first."""

HELD_S = 0.002
"""Commands are held back no longer than this for the replies to those before them. A store nearby answers sooner."""

_NOT_YET: Any = object()


class Connection(asyncio.Protocol):
    """Speaks RESP2. When it fails, every command that waits fails with StoreUnavailable, and `on_lost` is told once.

    timeout_s      how long a command may wait for its reply before the connection is given up
    in_flight_max  how many commands may wait; more are refused at once
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        timeout_s: float,
        in_flight_max: int,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._in_flight_max = in_flight_max
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._sent: deque[tuple[float, int]] = deque()
        """For each write: when it was made, and how many commands had been sent with it and all writes before."""
        self._written_s = 0.0
        self._held: asyncio.TimerHandle | None = None
        self._sent_count = 0
        self._answered_count = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self._suspected: int | None = None
        """How many replies there were when one was first found late: a store that answers meanwhile is not away, it is
        this process that is slow."""
        self._lost: StoreUnavailable | None = None

    def send(self, arguments: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """The reply to come, as `send_packed` gives it."""
        return self.send_packed(hiredis.pack_command(arguments))  # type: ignore[arg-type]  # its stub forgot the `...`

    def send_packed(self, packed: bytes) -> asyncio.Future[Any]:
        """The reply to come: bytes, int, None or a list of those. Raises StoreUnavailable at once where it is plain
        that no reply can come; error replies come as exceptions of the future."""
        if self._lost is not None:
            raise StoreUnavailable(str(self._lost))
        if len(self._waiting) >= self._in_flight_max:
            raise StoreUnavailable(f"More than {self._in_flight_max} commands wait for the store; try again.")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        if not self._unsent:
            if self._sent and self._loop.time() - self._written_s < HELD_S:
                self._held = self._loop.call_later(HELD_S, self._write)
            else:
                self._loop.call_soon(self._write)
        self._unsent.append(packed)
        return future

    def give_up(self, sentence: str) -> None:
        """Ends the connection; everything that waits fails with `sentence`."""
        if self._lost is not None:
            return
        self._lost = StoreUnavailable(sentence)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(sentence))
                # Marks it as seen: whoever awaits it still gets it, and nobody is warned of the ones left behind.
                future.exception()
        self._on_lost(self)

    # -- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOT_YET:
                future = waiting.popleft()
                self._answered_count += 1
                if future.done():
                    continue  # whoever asked was cancelled
                if isinstance(reply, hiredis.ReplyError):
                    future.set_exception(error_from_reply(str(reply)))
                else:
                    future.set_result(reply)
        except (hiredis.HiredisError, IndexError):
            self.give_up("What answers at the store's address does not speak the Redis protocol.")
            return
        while self._sent and self._sent[0][1] <= self._answered_count:
            self._sent.popleft()
        if self._unsent:
            self._loop.call_soon(self._write)

    def connection_lost(self, error: Exception | None) -> None:
        self.give_up("The connection to the store was lost; it is being made again.")

    # -- inside ---------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if not self._unsent or self._transport is None or self._lost is not None:
            return
        if self._held is not None:
            self._held.cancel()
            self._held = None
        self._written_s = self._loop.time()
        self._sent_count += len(self._unsent)
        self._sent.append((self._written_s, self._sent_count))
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._transport.write(data)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout_s / WATCH_SHARE, self._watch)

    def _watch(self) -> None:
        self._watchdog = None
        if not self._sent:
            self._suspected = None
            return
        late = self._loop.time() - self._sent[0][0] > self._timeout_s
        if late and self._suspected == self._answered_count:
            self.give_up(f"The store did not answer within {self._timeout_s:g} s.")
            return
        self._suspected = self._answered_count if late else None
        self._watchdog = self._loop.call_later(GRACE_S if late else self._timeout_s / WATCH_SHARE, self._watch)
