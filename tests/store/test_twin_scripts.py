"""The scripts against the specification of duplicate rules, `core.twins`: the same steps, and the same replies."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.duplicates import Mark
from proxy.core.twins import Looked, Twins
from proxy.store.calls import CallStore
from proxy.store.client import Client
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.marks import Marked, kept_answer
from proxy.store.spool import Spool
from tests.support.duplicates import call_id, mark
from tests.support.store import a_record, ensure_epochs, now_ms, open_client
from tests.support.valkey import PATIENT_S, RunningServer, short_folder

ACME = KEYS[shard_of("acme")]
SLOTS = (0, 1, 2)
HOUR_MS = 3_600_000

PRINTS = [b"f" * 12, b"g" * 12]
STEPS = [b"a" * 8, b"b" * 8, b"c" * 8]
SKETCHES = [(0b1111).to_bytes(8), (0b1).to_bytes(8), (2**60 - 1).to_bytes(8)]


def a_mark(kind: str, fingerprint: bytes, limit: int, **fields: Any) -> Mark:
    """In a window of two hours around the present."""
    now = now_ms()
    places = (f"{HOUR_MS}.{now // HOUR_MS}", f"{HOUR_MS}.{now // HOUR_MS - 1}")
    fields = {"places": places, "begins_ms": now - HOUR_MS, "expires_ms": now + 3 * HOUR_MS} | fields
    return mark(kind, fingerprint, limit=limit, **fields)


limits = st.integers(1, 3)
retries = st.fixed_dictionaries(
    {
        "attempt": st.sampled_from([0, 0, 0, 1, 2, 11]),
        "token": st.sampled_from([bytes(7), bytes(7), b"turn-1.", b"turn-2."]),
    }
)
same = st.builds(
    lambda kind, fingerprint, limit, refuses, retry: a_mark(kind, fingerprint, limit, refuses=refuses, **retry),
    st.sampled_from(["exact", "normalized"]),
    st.sampled_from(PRINTS),
    limits,
    st.booleans(),
    retries,
)
lent = st.builds(
    lambda how, limit, retry: a_mark("exact", PRINTS[0], limit, lends=how, answer="n1", **retry),
    st.sampled_from(["replay", "join", "join", "lead"]),
    limits,
    retries,
)
work = st.builds(
    lambda task, limit, refuses: a_mark("task", PRINTS[0], limit, token=task * 7, refuses=refuses),
    st.sampled_from([b"a", b"b", b"c"]),
    limits,
    st.booleans(),
)
loop = st.builds(
    lambda step, limit, rounds, refuses, attempt: a_mark(
        "loop", step, limit, rounds=rounds, refuses=refuses > 0, stops=refuses > 1, attempt=attempt
    ),
    st.sampled_from(STEPS),
    limits,
    st.sampled_from([1, 1, 1, 3]),
    st.sampled_from([0, 1, 2, 2]),
    st.sampled_from([0, 0, 0, 1]),
)
like = st.builds(lambda sketch, limit: a_mark("similar", sketch, limit), st.sampled_from(SKETCHES), limits)
marks = st.lists(
    st.one_of(same, same, lent, work, loop, like), min_size=1, max_size=4, unique_by=lambda one: one.frame.kind
)

steps = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from(SLOTS), marks, st.integers(-70, 0), st.booleans()),
    st.tuples(
        st.just("settle"), st.sampled_from(SLOTS), st.sampled_from(["ok", "ok", "failed", "client_gone"]), st.booleans()
    ),
    st.tuples(st.just("forget"), st.sampled_from(SLOTS)),
    st.tuples(st.just("release"), st.sampled_from(SLOTS)),
)


class Pair:
    """The specification and the store, step by step."""

    def __init__(self, store: CallStore, client: Client) -> None:
        self.store, self.client = store, client
        self.model = Twins()
        self.number = 0
        self.running: dict[int, tuple[str, list[Mark]]] = {}

    async def reserve(self, slot: int, marks: list[Mark], minutes: int, waits: bool) -> None:
        if slot in self.running:
            return
        self.number += 1
        name = call_id(self.number, at_ms=now_ms() + minutes * 60_000)
        since_ms = now_ms() - 1000 if waits else 0
        who = {"user": f"user{slot}" * 20, "task": f"Ü{slot}"}
        expected = self.model.reserve(name, marks, waiting_since_ms=since_ms, user=who["user"][:60], task=who["task"])
        marked = Marked(marks, waiting_since_ms=since_ms, user=who["user"], task=who["task"])
        reserved = await self.store.reserve(a_record(name), (), marked)
        assert reserved.looked is not None
        answer = reserved.looked.answer
        assert reserved.looked == Looked(
            expected.admitted, expected.seen, expected.blocked, expected.replays, expected.joins, answer
        )
        assert reserved.admitted is expected.admitted
        assert answer == (b"sealed" if expected.replays else b"")
        if expected.admitted:
            self.running[slot] = (name, marks)

    async def settle(self, slot: int, result: Any, answers: bool) -> None:
        if slot not in self.running:
            return
        name, marks = self.running.pop(slot)
        at_ms = now_ms()
        kept = result == "ok"
        for each in marks:
            if each.answer and answers and kept:
                await self.client.call("SET", ACME.answer(each.answer), kept_answer(at_ms, name, b"sealed"))
        self.model.settle(name, kept=kept, answered_ms=at_ms if answers else 0)
        await self.store.settle(a_record(name, result=result))

    async def forget(self, slot: int) -> None:
        """Its caller is gone while it runs on."""
        if slot in self.running:
            name, _ = self.running[slot]
            self.model.forget(name)
            await self.store.forget(name, "acme")

    async def release(self, slot: int) -> None:
        if slot in self.running:
            name, _ = self.running.pop(slot)
            self.model.settle(name, kept=False)
            await self.store.release(name, "acme")


async def drive(url: str, folder: Path, sequence: list[Any]) -> None:
    async with open_client(url) as client:
        await client.call("FLUSHALL")
        await ensure_epochs(client, ledger_position={})
        calls = CallStore(Client(url, command_timeout_s=PATIENT_S), Spool(folder), clock_ms=now_ms, renew_s=100)
        await calls.open()
        try:
            pair = Pair(calls, client)
            for name, *arguments in sequence:
                await getattr(pair, name)(*arguments)
            for slot in list(pair.running):
                await pair.settle(slot, "failed", False)
            assert await client.call("KEYS", "*leader*") == []
            assert await client.call("HLEN", ACME.drafts) == 0
        finally:
            await calls.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=1, max_size=25))
def test_scripts_do_what_the_specification_says(valkey_server: RunningServer, sequence: list[Any]) -> None:
    folder = short_folder()
    try:
        asyncio.run(drive(valkey_server.url, folder, sequence))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


circles = st.builds(
    lambda cycle, times, other: [*cycle * times, *other],
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=4),
    st.integers(1, 5),
    st.lists(st.sampled_from(STEPS), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(circles, min_size=1, max_size=3),
    limits,
    st.lists(st.integers(0, 20), max_size=3, unique=True),
    st.sets(st.integers(0, 20), max_size=3),
)
def test_cycles_are_stopped_as_the_specification_says(
    valkey_server: RunningServer, turns: list[list[bytes]], limit: int, lasting: list[int], retried: set[int]
) -> None:
    """In circles for long, with a few calls among them that run for two steps more and fail then."""
    sequence: list[Any] = []
    for number, step in enumerate([step for turn in turns for step in turn]):
        slot = 1 + lasting.index(number) if number in lasting else 0
        retry = {"attempt": 1 if number in retried else 0}
        marks = [a_mark("loop", step, limit, rounds=1, refuses=True, stops=True, **retry)]
        sequence.append(("reserve", slot, marks, 0, False))
        sequence.append(("settle", 0, "ok", False))
        if number - 2 in lasting:
            sequence.append(("settle", 1 + lasting.index(number - 2), "failed", False))
    folder = short_folder()
    try:
        asyncio.run(drive(valkey_server.url, folder, sequence))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("minutes_ago", "count"), [(50, 1), (70, 0)])
async def test_a_rolling_window_goes_along_with_the_stores_clock(
    valkey_server: RunningServer, tmp_path: Path, minutes_ago: int, count: int
) -> None:
    window = {"length_ms": HOUR_MS, "begins_ms": now_ms() // HOUR_MS * HOUR_MS}
    kinds = [a_mark("exact", PRINTS[0], 9, **window), a_mark("loop", STEPS[0], 9, **window)]
    async with open_client(valkey_server.url) as client:
        await client.call("FLUSHALL")
        await ensure_epochs(client, ledger_position={})
        calls = CallStore(Client(valkey_server.url), Spool(tmp_path), clock_ms=now_ms, renew_s=100)
        await calls.open()
        try:
            earlier = call_id(1, at_ms=now_ms() - minutes_ago * 60_000)
            await calls.reserve(a_record(earlier), (), Marked(kinds, user="ada", task="PAY-7"))
            now = await calls.reserve(a_record(call_id(2, at_ms=now_ms())), (), Marked(kinds, user="ada", task="PAY-7"))
        finally:
            await calls.close()
    assert now.looked is not None
    assert [seen.count for seen in now.looked.seen] == [count, count]
