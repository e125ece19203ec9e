from __future__ import annotations

import asyncio
from typing import Any

from proxy.store.connection import Connection

TIME_LIMIT_S = 0.05


class Wire:
    """A transport that leads nowhere."""

    closed = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.closed


def connected(lost: list[Any]) -> Connection:
    loop = asyncio.get_running_loop()
    connection = Connection(loop, timeout_s=TIME_LIMIT_S, in_flight_max=1_000, on_lost=lost.append)
    connection.connection_made(Wire())  # type: ignore[arg-type]
    return connection


async def test_a_store_that_goes_on_answering_is_not_away_however_many_wait_for_it() -> None:
    lost: list[Any] = []
    connection = connected(lost)
    replies = [connection.send(("PING",)) for _ in range(150)]
    loop = asyncio.get_running_loop()
    for number in range(len(replies)):
        loop.call_later(0.002 * number, connection.data_received, b"+PONG\r\n")
    assert [await reply for reply in replies] == [b"PONG"] * 150
    assert lost == []


async def test_a_store_that_says_nothing_is_given_up() -> None:
    lost: list[Any] = []
    connection = connected(lost)
    reply = connection.send(("PING",))
    async with asyncio.timeout(5):
        outcome = await asyncio.gather(reply, return_exceptions=True)
    assert "did not answer" in str(outcome[0])
    assert lost == [connection]
