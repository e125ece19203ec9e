from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from proxy.store.client import Client
from proxy.store.connection import Connection
from proxy.store.errors import StoreError, StoreRefused, StoreUnavailable
from tests.support.store import eventually, open_client
from tests.support.valkey import RunningServer


async def test_replies_come_in_the_order_of_the_commands(store_url: str) -> None:
    async with open_client(store_url) as client:
        echoes = await asyncio.gather(*[client.call("ECHO", f"word {number}") for number in range(500)])
    assert echoes == [b"word %d" % number for number in range(500)]


async def test_commands_of_one_tick_leave_in_one_write(store_url: str) -> None:
    async with open_client(store_url) as client:
        connection = client._connection
        assert connection is not None
        assert connection._transport is not None
        writes: list[bytes] = []

        class Watched:
            def __init__(self, transport: Any) -> None:
                self.write = lambda data: (writes.append(data), transport.write(data))
                self.abort = transport.abort

        connection._transport = Watched(connection._transport)  # type: ignore[assignment]
        await asyncio.gather(*[client.call("ECHO", "x") for _ in range(20)])
    assert len(writes) == 1


async def test_an_error_reply_reaches_only_the_one_who_asked(store_url: str) -> None:
    async with open_client(store_url) as client:
        before, wrong, after = await client.replies([("SET", "a", 1), ("LPUSH", "a", 1), ("GET", "a")])
    assert (before, after) == (b"OK", b"1")
    assert isinstance(wrong, StoreError)
    assert "WRONGTYPE" in str(wrong)


async def test_a_cancelled_command_does_not_shift_the_replies(store_url: str) -> None:
    async with open_client(store_url) as client:
        first, second = client.send("ECHO", "first"), client.send("ECHO", "second")
        first.cancel()
        assert await second == b"second"


async def test_more_commands_than_may_be_in_flight_are_refused_at_once(store_url: str) -> None:
    # The scripts are loaded in one write, too.
    async with open_client(store_url, in_flight_max=20) as client:
        waiting = [client.send("PING") for _ in range(20)]
        with pytest.raises(StoreUnavailable, match="20 commands wait"):
            client.send("PING")
        await asyncio.gather(*waiting)
        assert await client.call("PING") == b"PONG"


async def test_scripts_are_sent_again_after_the_store_forgot_them(store_url: str) -> None:
    async with open_client(store_url) as client:
        await client.call("SCRIPT", "FLUSH")
        assert await client.script("lease", ("a-lease",), ("me", 1000, "")) == 1


async def test_a_store_that_is_away_is_said_so_and_connected_when_it_comes(own_valkey: RunningServer) -> None:
    await own_valkey.kill()
    client = Client(own_valkey.url)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await client.open()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        client.send("PING")
    await own_valkey.start()
    await asyncio.wait_for(client.until_up(), 10)
    assert await client.call("PING") == b"PONG"
    await client.close()


async def test_a_silent_store_fails_its_commands_soon_and_is_used_again_when_it_speaks(
    own_valkey: RunningServer,
) -> None:
    async with open_client(own_valkey.url, command_timeout_s=0.25) as client:
        own_valkey.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.25 s"):
            await client.call("PING")
        assert not client.up
        with pytest.raises(StoreUnavailable):
            client.send("PING")
        own_valkey.signal(signal.SIGCONT)
        await asyncio.wait_for(client.until_up(), 10)
        assert await client.call("PING") == b"PONG"


async def test_a_lost_connection_fails_what_waits_and_is_made_again(own_valkey: RunningServer) -> None:
    async with open_client(own_valkey.url) as client:
        blocked = client.send("BLPOP", "nothing", 0)
        await client_kill(own_valkey)
        with pytest.raises(StoreUnavailable, match="lost"):
            await blocked
        await eventually(lambda: client.up)
        assert await client.call("PING") == b"PONG"


async def client_kill(server: RunningServer) -> None:
    await asyncio.sleep(0)  # lets the command leave
    await server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def test_what_does_not_speak_redis_is_said_so() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    client = Client(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(StoreUnavailable, match="does not speak the Redis protocol"):
        await client.open()
    await client.close()
    server.close()
    await server.wait_closed()


async def test_a_password_is_asked_for_and_used_and_a_wrong_one_refused(own_valkey: RunningServer) -> None:
    await own_valkey.ask("CONFIG", "SET", "requirepass", "pa ss/word")
    path = own_valkey.socket
    with pytest.raises(StoreRefused, match="needs a password; write it into its URL"):
        await Client(f"unix://{path}").open()
    with pytest.raises(StoreRefused, match="refused the user or password") as wrong:
        await Client(f"unix://:gues%73ed@{path}").open()
    assert "guessed" not in str(wrong.value)
    async with open_client(f"unix://:pa%20ss%2Fword@{path}?db=3") as client:
        assert await client.call("PING") == b"PONG"
        assert b"db=3" in await client.call("CLIENT", "INFO")
        await client.call("CONFIG", "SET", "requirepass", "")
    with pytest.raises(StoreRefused, match="has no password, but its URL gives one"):
        await Client(f"unix://:x@{path}").open()


async def test_opening_twice_is_opening_once(own_valkey: RunningServer) -> None:
    async with open_client(own_valkey.url) as client:
        before = await client.call("CLIENT", "ID")
        await client.open()
        assert await client.call("CLIENT", "ID") == before
        await own_valkey.kill()
        await eventually(lambda: not client.up)
        with pytest.raises(StoreUnavailable):
            await client.open()
        await client.close()
        await client.close()


async def test_a_command_is_not_held_back_for_long_for_the_replies_to_others() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the first command once the second is there."""
        await reader.readuntil(b"first\r\n")
        await reader.readuntil(b"second\r\n")
        writer.write(b"+one\r\n+two\r\n")
        await writer.drain()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    loop, lost = asyncio.get_running_loop(), []
    _, connection = await loop.create_connection(
        lambda: Connection(loop, timeout_s=5.0, in_flight_max=10, on_lost=lost.append),
        *server.sockets[0].getsockname(),
    )
    first = connection.send(("ECHO", "first"))
    await asyncio.sleep(0)
    second = connection.send(("ECHO", "second"))
    async with asyncio.timeout(2):
        assert await asyncio.gather(first, second) == [b"one", b"two"]
    assert not lost
    connection.give_up("The test is over.")
    server.close()
