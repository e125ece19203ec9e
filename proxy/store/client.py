"""Client: a connection to the store that comes back by itself, and the scripts.

Not redis-py: that costs 24 MB and about 60 microseconds of CPU a command where this costs 6, and every call of an
agent needs two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from . import address
from .connection import Connection
from .errors import ScriptMissing, StoreError, StoreForeign, StoreRefused, StoreUnavailable
from .identity import Identity
from .packing import Argument, Packed, packed, script_command
from .script import SCRIPTS

COMMAND_TIMEOUT_S = 0.25
"""A healthy store answers in under a millisecond; an agent should not wait longer than this for one that is not."""

CONNECT_TIMEOUT_S = 1.0
"""For connecting, TLS and logging in. No call waits for it: while there is no connection, commands fail at once."""

IN_FLIGHT_MAX = 10_000
"""About 40 MB of records: beyond this the store is away, whatever it says."""

RECONNECT_S_MIN = 0.01
RECONNECT_S_MAX = 0.2
"""Pauses between attempts to connect double from the first to the second: a restart is noticed soon, and a store that
stays away is not flooded."""

CLAIM_S = 5.0
"""How often a store that stays connected is asked whether it is still ours: one that was emptied may be claimed by
another installation before we notice, and then takes nothing from us any more."""

AWAY = "Callmeter's store cannot be reached; try again in a moment."
"""What callers are told: they cannot do anything with its address."""

log = logging.getLogger("callmeter.store")


class Client:
    """Commands go out in the order of the calls, all of one tick in one write. Never use it for commands that block:
    `for_blocking` gives a client with a connection of its own for those.

    Every method that sends raises StoreUnavailable at once while there is no connection.

    identity   claims the store on every connection before anything else can be sent; None: nobody asks whose it is
    """

    def __init__(
        self,
        url: str,
        *,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        in_flight_max: int = IN_FLIGHT_MAX,
        identity: Identity | None = None,
    ) -> None:
        self._url = url
        self._identity = identity
        self.address = address.parse(url)
        self._command_timeout_s = command_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._in_flight_max = in_flight_max
        self._connection: Connection | None = None
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._is_foreign = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.connected_at_s = 0.0
        """When the present connection was made, by the clock of the loop."""
        self.trouble = "The store is not connected yet."
        """Why there is no connection, with the store's address: for logs and health pages. Empty while there is one."""

    @property
    def up(self) -> bool:
        return self._connection is not None

    async def open(self) -> None:
        """Connects. Raises StoreRefused where trying again would not help, and then keeps nothing open; raises
        StoreUnavailable where the store is away, and goes on trying until `close`. May be repeated."""
        if self._keeper is None:
            try:
                await self._connect()
            except StoreUnavailable as error:
                self._went_down(str(error))
            self._keeper = asyncio.create_task(self._keep_connected())
        if not self.up:
            raise StoreUnavailable(self.trouble)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        connection, self._connection = self._connection, None
        self.trouble = "The connection to the store is closed."
        self._is_up.clear()
        if connection is not None:
            connection.give_up(self.trouble)

    async def until_up(self) -> None:
        """Returns as soon as there is a connection."""
        await self._is_up.wait()

    async def claim(self) -> None:
        """Asks the store once more whether it is ours, and makes it ours where it was emptied: before anything is
        written that another installation must not get. Raises StoreForeign, StoreUnavailable."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(AWAY)
        try:
            await self._claim(connection)
        except StoreForeign as foreign:
            self._end(foreign)
            raise

    async def until_foreign(self) -> str:
        """Returns when the store turns out to be another installation's, with the sentence that says so. Nothing was
        sent there since, and nothing will be."""
        await self._is_foreign.wait()
        return self.trouble

    def for_blocking(self, blocks_s: float) -> Client:
        """Another client of the same store, for commands that block up to `blocks_s`."""
        return Client(
            self._url,
            command_timeout_s=blocks_s + self._command_timeout_s,
            connect_timeout_s=self._connect_timeout_s,
            in_flight_max=self._in_flight_max,
            identity=self._identity,
        )

    def send(self, *arguments: Argument) -> asyncio.Future[Any]:
        """One command, its reply to come. Not a coroutine, so that many can be sent in a row and awaited together."""
        if self._connection is None:
            raise StoreUnavailable(AWAY)
        return self._connection.send(arguments)

    def _send_packed(self, data: bytes) -> asyncio.Future[Any]:
        if self._connection is None:
            raise StoreUnavailable(AWAY)
        return self._connection.send_packed(data)

    async def call(self, *arguments: Argument) -> Any:
        """One command and its reply: bytes, int, None or a list of those. Raises StoreError."""
        return await self.send(*arguments)

    async def pipeline(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Many commands in one write; their replies in order. Raises the first error there was."""
        replies = await self.replies(commands)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def replies(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Like `pipeline`, with each error in the place of its reply."""
        return await asyncio.gather(*[self.send(*command) for command in commands], return_exceptions=True)

    async def script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs `scripts/<name>.lua` and returns its reply. Raises StoreError."""
        return await self.run(name, (packed(keys),), (packed(arguments),))

    async def run(self, name: str, keys: Sequence[Packed], arguments: Sequence[Packed]) -> Any:
        """The same with what is packed already, in as many parts as it was."""
        script = SCRIPTS[name]
        try:
            return await self._send_packed(script_command(script.by_sha, keys, arguments))
        except ScriptMissing:
            return await self._send_packed(script_command(script.by_source, keys, arguments))

    # -- connecting -----------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        try:
            while True:
                await self._claim_until_down()
                await self._connect_again()
        except StoreForeign as foreign:
            self._end(foreign)

    def _end(self, foreign: StoreForeign) -> None:
        """For good: nothing is sent any more."""
        connection = self._connection
        self._is_foreign.set()
        self._went_down(str(foreign))
        if connection is not None:
            connection.give_up(str(foreign))

    async def _claim_until_down(self) -> None:
        """Returns when the connection is lost. Raises StoreForeign."""
        while (connection := self._connection) is not None:
            try:
                async with asyncio.timeout(CLAIM_S):
                    await self._is_down.wait()
            except TimeoutError:
                try:
                    await self._claim(connection)
                except StoreForeign:
                    raise
                except StoreError:
                    pass  # lost meanwhile, or not able to answer: asked again

    async def _connect_again(self) -> None:
        """Tries until there is a connection. Raises StoreForeign."""
        pause_s, said = RECONNECT_S_MIN, ""
        while self._connection is None:
            if self._is_foreign.is_set():
                raise StoreForeign(self.trouble)
            try:
                await self._connect()
            except StoreForeign:
                raise
            except StoreError as error:
                if str(error) != said:
                    said = self.trouble = str(error)
                    log.warning(said)
                await asyncio.sleep(pause_s)
                pause_s = min(RECONNECT_S_MAX, 2 * pause_s)
        log.info("The store at %s is connected again.", self.address.shown)

    async def _claim(self, connection: Connection) -> None:
        """Raises StoreForeign or StoreUnavailable."""
        if self._identity is not None:
            await self._identity.claim(connection.send, self.address.shown)

    async def _connect(self) -> None:
        """Raises StoreUnavailable or StoreRefused."""
        if self._identity is not None:
            self._identity.check_known()
        loop = asyncio.get_running_loop()
        connection = Connection(
            loop,
            timeout_s=self._command_timeout_s,
            in_flight_max=self._in_flight_max,
            on_lost=self._lost,
        )
        place = self.address
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if place.path is not None:
                    await loop.create_unix_connection(lambda: connection, place.path)
                else:
                    await loop.create_connection(lambda: connection, place.host, place.port, ssl=place.tls)
                await self._greet(connection)
                await self._claim(connection)
        except TimeoutError:
            connection.give_up("The store did not answer.")
            raise StoreUnavailable(
                f"The store at {place.shown} did not answer within {self._connect_timeout_s:g} s; is it running?"
            ) from None
        except OSError as error:
            connection.give_up("The store was not reached.")
            reason = error.strerror or str(error)
            raise StoreUnavailable(f"The store at {place.shown} cannot be reached: {reason}; is it running?") from None
        except BaseException:
            connection.give_up("The store did not let us in.")
            raise
        self._connection, self.trouble = connection, ""
        self.connected_at_s = loop.time()
        self._is_down.clear()
        self._is_up.set()

    async def _greet(self, connection: Connection) -> None:
        """Logs in, chooses the database and loads the scripts, in one write."""
        place = self.address
        commands: list[tuple[Argument, ...]] = []
        if place.password is not None:
            name = (place.user,) if place.user else ()
            commands.append(("AUTH", *name, place.password))
        if place.database:
            commands.append(("SELECT", place.database))
        commands.append(("PING",))
        commands.extend(("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values())
        replies = await asyncio.gather(*[connection.send(command) for command in commands], return_exceptions=True)
        for reply in replies:
            if isinstance(reply, StoreRefused):
                raise StoreRefused(self._refused_sentence(str(reply))) from None
            if isinstance(reply, BaseException):
                raise reply

    def _refused_sentence(self, reply: str) -> str:
        place = self.address
        if place.password is None:
            return (
                f"The store at {place.shown} needs a password; write it into its URL (--redis-url, CALLMETER_REDIS_URL)"
                " like redis://:PASSWORD@HOST:PORT"
            )
        if "without any password" in reply:
            return f"The store at {place.shown} has no password, but its URL gives one; take it out of the URL"
        if "NOPERM" in reply:
            return f"The store at {place.shown} does not allow its user what Callmeter needs: {reply}"
        return f"The store at {place.shown} refused the user or password in its URL; correct --redis-url"

    def _lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._went_down(f"The connection to the store at {self.address.shown} was lost.")

    def _went_down(self, trouble: str) -> None:
        self._connection = None
        self.trouble = trouble
        self._is_up.clear()
        self._is_down.set()
