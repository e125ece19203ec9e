"""Exports: `/api/export/focus`, written while it is read, so that a year of calls needs no more memory than an hour."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import msgspec
from aiohttp import web

from ..core import focus
from ..core.attribution import shares
from ..core.cells import csv_lines
from ..ledger.changes import Parts
from ..ledger.exports import HourSums
from ..ledger.rollups import DIMENSIONS, MEASURES
from .context import AdminContext
from .parameters import chosen, in_order, known_only, moment_ms, zone_of
from .threads import Threads

log = logging.getLogger(__name__)

PARTS_WAITING_MAX = 8
"""Hours that are written ahead of a slow reader."""
SINCE = "30d"


class Exports:
    """Handlers that stream what the ledger holds."""

    def __init__(self, context: AdminContext, threads: Threads) -> None:
        self._context = context
        self._threads = threads

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/export/focus", self.focus)]

    async def focus(self, request: web.Request) -> web.StreamResponse:
        """FOCUS 1.2 as CSV: a row for each hour, task, agent and model. With `with_users=true` also for each user."""
        query = request.query
        known_only(query, ("since", "until", "timezone", "with_users"))
        timezone, months_of = query.get("timezone") or "UTC", zone_of(query)
        with_users = chosen(query, "with_users", ("true", "false")) == "true"
        now_ms = self._context.clock_ms()
        asked = {"since": SINCE} | {name: text for name, text in query.items() if text}
        since_ms = moment_ms(asked, "since", now_ms, months_of) or 0
        until_ms = moment_ms(asked, "until", now_ms, months_of)
        in_order(asked, since_ms, until_ms)
        until_ms = now_ms + 1 if until_ms is None else until_ms

        def parts() -> Iterator[bytes]:
            yield csv_lines([focus.head(with_users)]).encode()
            for hour in self._context.ledger.hours(since_ms, until_ms, timezone):
                yield csv_lines(focus_lines(hour, with_users)).encode()

        return await stream(request, "text/csv", self._threads, parts)


def focus_lines(hour: HourSums, with_users: bool) -> Iterator[list[str]]:
    """The rows of one hour, in the order of names: results, and users where they are left out, are summed up. What a
    task cost is shared out among its outcomes, as in reports."""
    places: dict[focus.Place, list[int]] = {}
    for values, sums in hour.by.items():
        named = dict(zip(DIMENSIONS, values, strict=True))
        del named["result"]
        if not with_users:
            named["user"] = ""
        total = places.setdefault(focus.Place(**named), [0] * len(MEASURES))
        for index, value in enumerate(sums):
            total[index] += value
    for place in sorted(places, key=lambda place: tuple(getattr(place, name) for name in place.__struct_fields__)):
        for shown, sums in by_outcome(place, places[place], hour.outcomes):
            named_sums = dict(zip(MEASURES, sums, strict=True))
            if focus.is_charge(named_sums):
                yield focus.line(shown, named_sums, hour.charged, hour.month, with_users=with_users)


def by_outcome(place: focus.Place, sums: list[int], outcomes: Parts) -> Iterator[tuple[focus.Place, list[int]]]:
    """A row for each outcome of the task; the row as it is where there is none."""
    parts = outcomes.get((place.org, place.task), ())
    if not parts:
        yield place, sums
        return
    cut = [shares(amount, [part.weight for part in parts]) for amount in sums]
    for number, part in enumerate(parts):
        shown = msgspec.structs.replace(place, outcome=part.key, outcome_status=part.state)
        yield shown, [amounts[number] for amounts in cut]


async def stream(
    request: web.Request, content_type: str, threads: Threads, parts: Callable[[], Iterator[bytes]]
) -> web.StreamResponse:
    """Answers with what `parts` gives, which runs in a thread and waits while the reader is behind. A reader that
    leaves ends it; after an error the connection is cut, so that half a file is never taken for a whole one."""
    response = web.StreamResponse(headers={"cache-control": "no-store"})
    response.content_type = content_type
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(PARTS_WAITING_MAX)
    left = threading.Event()

    def produce() -> None:
        try:
            for part in parts():
                room.acquire()
                if left.is_set():
                    return
                loop.call_soon_threadsafe(waiting.put_nowait, part)
        finally:
            loop.call_soon_threadsafe(waiting.put_nowait, None)

    producing = asyncio.ensure_future(threads.run(produce))
    try:
        while (part := await waiting.get()) is not None:
            await response.write(part)
            room.release()
        await producing
        await response.write_eof()
    except ConnectionResetError:
        pass  # the reader left
    except Exception:
        log.exception("the export at %s broke off", request.path)
        if request.transport is not None:
            request.transport.abort()
    finally:
        left.set()
        room.release()
    return response
