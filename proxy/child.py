"""Children: how a worker or bookkeeper is told its settings, says that it is ready, and ends with its parent.

The parent writes the settings as one line to the child's standard input and keeps it open; its end means that the
parent is gone, however it went. Standard output carries the child's one line back; logs go to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from .settings import PRIVATE_UMASK, Settings

EXIT_SETTINGS = 2
"""Exit status of a child that cannot run with what it was given; trying again would not help."""

GC_THRESHOLD = 50_000
"""Objects between two collections. Calls leave no cycles behind, so looking less often costs no memory and saves a
tenth of the time."""


def encode_settings(settings: Settings) -> bytes:
    return msgspec.json.encode(settings, enc_hook=str) + b"\n"


def read_settings() -> Settings:
    """The settings that the parent wrote. Reads no further than their line, so that the end can still be noticed."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(EXIT_SETTINGS)
        line += byte
    return msgspec.json.decode(bytes(line), type=Settings, dec_hook=lambda kind, value: kind(value))


def say_ready(**facts: Any) -> None:
    """Tells the parent; one that is gone meanwhile is noticed by the end of standard input."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, msgspec.json.encode(facts) + b"\n")


def keep_what_is_there() -> None:
    """Once a process has what it needs: those objects live as long as it does, and are not to be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


async def until_told_to_stop() -> None:
    """Until SIGTERM, SIGINT or the end of the parent."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def parent_said() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, parent_said)
    await stop.wait()


def run(main: Callable[[Settings], Awaitable[None]]) -> None:
    """Runs a child's main coroutine on uvloop."""
    import uvloop

    os.umask(PRIVATE_UMASK)
    settings = read_settings()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(settings))  # type: ignore[arg-type]
