"""Judge: what the rules of a policy make of each call of the week, by the pure parts of the proxy alone.

A call goes the way that it goes in a worker: `wire` reads it, `fingerprint` says what it is, the duplicate rules mark
it, and the memory of the store, here its model in Python, says what was there before. Nothing is sent anywhere.
"""

from __future__ import annotations

import heapq
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from proxy import wire
from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.duplicate_refusals import Finding, weigh
from proxy.core.duplicates import DuplicateIndex, Mark, Prints, marks_for, retry_of
from proxy.core.fingerprint import Fingerprinter
from proxy.core.matching import Upstream
from proxy.core.policy import Policy
from proxy.core.twins import Looked, Twins, exceeded
from proxy.wire.conversations import read_conversation
from proxy.wire.request import json_fields

from .made import Made

Fate = Literal["refused", "prevented", "answered", "warned", "signalled", "listed", "passed"]
"""refused    by a rule
prevented  not made, since a call of its conversation had been refused
answered   from its twin
warned     of, and let through
signalled  as a repeat or a loop in its record, though no rule spoke
listed     as part of a task that repeats another one, in `callmeter twins`
passed     without a word"""
FATES: tuple[Fate, ...] = ("refused", "prevented", "answered", "warned", "signalled", "listed", "passed")
Work = tuple[str, str, str]
"""Task, user, and the session where the agent tells it."""


class Verdict(msgspec.Struct, frozen=True):
    """`kinds` are those of the rules that the call went beyond the limit of, or that it is signalled by; `refused_by`
    those of the rules that refused it, or the call that it would have followed."""

    fate: Fate
    cost_nusd: int
    kinds: frozenset[str] = frozenset()
    refused_by: frozenset[str] = frozenset()
    work: Work | None = None


class Judge:
    """One org's memory, and the rules that speak. Calls come in the order of time."""

    def __init__(self, policy: Policy) -> None:
        self._upstreams = policy.upstreams
        self._index = DuplicateIndex([msgspec.structs.replace(rule, mode="enforce") for rule in policy.duplicates])
        self._maker = Fingerprinter(b"the secret of the simulated company")
        self._twins = Twins()
        self._running: list[tuple[int, str, bool]] = []
        self._number = 0
        self._ended: dict[str, frozenset[str]] = {}
        """Conversations that ended with a refusal, and the kinds of the rules that refused."""
        self._work_of: dict[str, Work] = {}
        self.repeats: set[Work] = set()
        """Work with a call whose twin belongs to other work: what `callmeter twins` lists beside the first of it."""

    def judge(self, made: Made) -> Verdict:
        while self._running and self._running[0][0] <= made.at_ms:
            ended_ms, call_id, kept = heapq.heappop(self._running)
            self._twins.settle(call_id, kept=kept, answered_ms=ended_ms if kept else 0)
        body = made.body()
        cost_nusd = made.cost_nusd(len(body))
        upstream = self._upstreams[made.upstream]
        call = call_of(made, body, upstream)
        caller = Caller(
            org="default",
            team=made.team,
            user=made.user,
            key_id=made.key_id,
            task=made.task,
            task_source=made.task_source,  # type: ignore[arg-type]
            agent=made.agent,
            session=made.session or None,
        )
        if call.free:
            return Verdict("passed", cost_nusd)
        if made.follows in self._ended:
            return Verdict("prevented", cost_nusd, self._ended[made.follows], self._ended[made.follows])
        conversation = read_conversation(call, json_fields(body, route=call.route, content_type="application/json"))
        assert conversation is not None, "every call of the week that costs anything is a conversation"
        token, attempt = retry_of(made.headers)
        marks, met = marks_for(
            self._index.scopes(caller, call, upstream),
            conversation,
            self._maker,
            caller=caller,
            call=call,
            upstream=upstream,
            now_ms=made.at_ms,
            prints=Prints(),
            token=token,
            attempt=attempt,
            form="events" if call.stream else "plain",
        )
        self._number += 1
        call_id = f"{made.at_ms:012x}7000{self._number:016x}"
        looked = self._twins.reserve(call_id, marks, user=made.user, task=made.task or "")
        finding = weigh(met, marks, looked.seen, caller=caller, now_ms=made.at_ms)
        spoke = [mark for mark, seen in zip(marks, looked.seen, strict=True) if exceeded(mark, seen)]
        work = (made.task, made.user, made.session) if made.task else None
        if work is not None:
            self._work_of[call_id] = work
            twins_work = self._work_of.get(finding.twin_of or "")
            if twins_work is not None and twins_work != work:
                self.repeats.add(work)
        refused_by = frozenset(mark.frame.kind for mark in spoke if mark.frame.refuses)
        if looked.blocked and made.follows:
            self._ended[made.follows] = refused_by
        if looked.admitted:
            heapq.heappush(self._running, (made.at_ms + made.ms, call_id, made.result == "ok"))
        became = fate(looked, finding, spoke)
        kinds = frozenset([finding.kind or ""] if became == "signalled" else [mark.frame.kind for mark in spoke])
        return Verdict(became, cost_nusd, kinds, refused_by, work)


def call_of(made: Made, body: bytes, upstream: Upstream) -> Call:
    place = urlsplit(made.path)
    return wire.read_call(
        method=made.method,
        path=place.path,
        query=place.query,
        headers=made.headers,
        body=body,
        dialect=upstream.dialect,
        provider=upstream.provider,
    )


def fate(looked: Looked, finding: Finding, spoke: list[Mark]) -> Fate:
    if looked.replays or looked.joins:
        return "answered"
    if not looked.admitted:
        return "refused"
    if spoke:
        return "warned"
    return "signalled" if finding.twin_of or finding.repeats or finding.loop > 1 else "passed"
