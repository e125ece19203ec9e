"""Processes that die, stop and come back: nothing that was made is lost, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from proxy.core.record import Record
from proxy.ledger.database import open_ledger
from proxy.ledger.queries import Filters
from tests.support.house import Caller, House, Providers, children_of, eventually, own_house
from tests.support.otlp_sink import HttpSink, attributes_of
from tests.support.scripted import SSE_HEAD, agent, chunk, event, request_of, scripted

CHAT = "/openai/v1/chat/completions"
SCRIPTED = "/script-openai/v1/chat/completions"
PLAIN = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}
STREAM = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
CALLERS = 4
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
"""Of a caller who has not sampled its trace."""
pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def sturdy(providers: Providers) -> Iterator[House]:
    """A house whose processes are killed one after the other, and which serves on."""
    with own_house(providers, workers=2) as made:
        yield made


class Load:
    """Calls one after the other in a few threads. `answered` are the ids of those that were answered in full."""

    def __init__(self, caller: Caller) -> None:
        self.answered: list[str] = []
        self._caller = caller
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._caller.post(CHAT, PLAIN)
            except OSError:
                continue  # it was on its way to a worker that is no more
            if answer.status == 200:
                self.answered.append(answer.headers["x-callmeter-call"])

    def wait_for(self, more: int) -> None:
        wanted = len(self.answered) + more
        eventually(lambda: len(self.answered) >= wanted, "calls do not pass any more")


def recorded_exactly_once(caller: Caller, call_ids: list[str]) -> None:
    records = caller.records(len(call_ids), until=lambda found: set(call_ids) <= {one["call_id"] for one in found})
    counts = Counter(record["call_id"] for record in records)
    assert [call_id for call_id, count in counts.items() if count != 1] == []
    assert {record["result"] for record in records if record["call_id"] in call_ids} == {"ok"}


def test_a_killed_worker_is_replaced_while_the_other_serves_on(sturdy: House) -> None:
    ada = sturdy.caller()
    before = ada.post(CHAT, PLAIN).headers["x-callmeter-call"]
    ada.record(before)
    killed, other = sturdy.children("worker")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: passes(ada), "the other worker does not serve")
    eventually(
        lambda: len(sturdy.children("worker")) == 2 and killed not in sturdy.children("worker"), "no worker came back"
    )
    assert other in sturdy.children("worker")
    ada.record(before)
    eventually(lambda: "restarting it" in sturdy.log, "the log does not say that a worker ended")


def test_a_killed_bookkeeper_is_replaced_and_writes_what_was_made_without_it(sturdy: House) -> None:
    ada = sturdy.caller()
    [killed] = sturdy.children("bookkeeper")
    with Load(ada) as load:
        load.wait_for(20)
        os.kill(killed, signal.SIGKILL)
        load.wait_for(20)
    eventually(lambda: sturdy.children("bookkeeper") not in ([], [killed]), "no bookkeeper came back")
    eventually(lambda: serves(sturdy), "the admin port did not come back")
    recorded_exactly_once(ada, load.answered)


def test_a_store_killed_under_load_loses_no_record_and_doubles_none(sturdy: House) -> None:
    ada = sturdy.caller()
    killed = store_pid(sturdy)
    with Load(ada) as load:
        load.wait_for(30)
        os.kill(killed, signal.SIGKILL)
        load.wait_for(60)
        eventually(lambda: store_pid(sturdy) not in (0, killed), "no store came back")
        load.wait_for(30)
    recorded_exactly_once(ada, load.answered)
    assert [path.name for path in (sturdy.data / "spool").rglob("*bad*")] == []


def passes(caller: Caller) -> bool:
    try:
        return caller.post(CHAT, PLAIN).status == 200
    except OSError:
        return False  # it was on its way to the worker that was killed


def serves(house: House) -> bool:
    try:
        return house.admin("GET", "/api/policy").status == 200
    except OSError:
        return False


def store_pid(house: House) -> int:
    """The process id of the embedded store, 0 where none runs."""
    assert house.process is not None
    found = [pid for pid, command in children_of(house.process.pid) if "valkey" in command[0]]
    return found[0] if found else 0


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and was not waited for yet is there in name only.
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


async def test_sigterm_lets_a_stream_end_and_the_next_start_knows_its_record(sturdy: House) -> None:
    ada = sturdy.caller()
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(SSE_HEAD + chunk(event({"n": 1})))
        await go.wait()
        usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        last = event({"id": "c1", "model": "gpt-4.1-mini", "choices": [], "usage": usage})
        writer.write(chunk(last) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await reader.read()

    headers = {"authorization": f"Bearer {ada.key}"}
    async with (
        scripted(script, sturdy.script_port),
        agent(sturdy.address(), SCRIPTED, STREAM, headers) as running,
    ):
        await running.head()
        assert await running.chunk() == event({"n": 1})
        assert sturdy.process is not None
        sturdy.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(eventually, lambda: refuses(sturdy), "it still takes new connections")
        assert sturdy.process.poll() is None, "a stream still runs"
        go.set()
        assert (await running.rest()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(sturdy.wait) == 0
    sturdy.start()  # not in a thread: it would end with it
    record = await asyncio.to_thread(ada.record)
    assert (record["result"], record["usage"]["output"], record["cost_nusd"]) == ("ok", 4, 10_400)
    assert ada.post(CHAT, PLAIN).status == 200, "its keys are known"


def refuses(house: House) -> bool:
    try:
        house.request("GET", "/healthz", None, {})
    except ConnectionError:
        return True
    return False


def test_the_children_of_a_killed_supervisor_end_and_the_next_one_finds_everything(sturdy: House) -> None:
    ada = sturdy.caller()
    call_ids = [ada.post(CHAT, PLAIN).headers["x-callmeter-call"] for _ in range(5)]
    children = [*sturdy.children("worker"), *sturdy.children("bookkeeper")]
    store = store_pid(sturdy)
    assert len(children) == 3
    assert sturdy.process is not None
    sturdy.process.kill()
    sturdy.wait()
    eventually(lambda: not any(is_running(child) for child in children), "children outlive their parent")
    sturdy.start()
    recorded_exactly_once(ada, call_ids)
    assert ada.post(CHAT, PLAIN).status == 200
    assert is_running(store), "the store was taken over, or nothing of it"


def test_a_call_that_outlasts_the_drain_time_is_cut_and_in_the_ledger_and_at_the_collector_at_the_end(
    providers: Providers,
) -> None:
    collector = providers.collector()
    with own_house(
        providers, CALLMETER_DRAIN_SECONDS="0.2", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="meter"
    ) as house:
        ada = house.caller()
        store = store_pid(house)
        slow = threading.Thread(target=lambda: hear_out(ada))
        house.providers.simulator.seen.clear()
        slow.start()
        eventually(lambda: house.providers.simulator.seen, "the provider saw no call")
        time.sleep(0.2)
        assert house.stop() == 0
        slow.join()
        assert "still run" in house.log
        assert not is_running(store)
        ledger = open_ledger(f"sqlite:///{house.data / 'ledger.db'}")
        [record] = ledger.calls(Filters(user=ada.user)).records
        ledger.close()
    assert (record.result, record.usage_source) == ("client_gone", "partial")
    assert record.cost_nusd
    assert_traced(collector, record)


def hear_out(caller: Caller) -> None:
    """A stream that goes on for longer than anybody waits, and is cut."""
    with pytest.raises((OSError, http.client.HTTPException)):
        caller.post(CHAT, STREAM, {"x-sim": "chunks=3000, pause-ms=10", "traceparent": TRACEPARENT})


def assert_traced(collector: HttpSink, record: Record) -> None:
    """Two spans in the caller's trace, also when it was not sampled, and the metrics of the last minute."""
    server, client = collector.spans
    _, trace_id, parent_id, _ = TRACEPARENT.split("-")
    assert {span.trace_id.hex() for span in (server, client)} == {trace_id}
    assert (server.parent_span_id.hex(), client.parent_span_id) == (parent_id, server.span_id)
    assert (server.name, client.name) == ("POST /v1/chat/completions", "chat gpt-4.1-mini")
    shown = attributes_of(client)
    assert (shown["user.id"], shown["callmeter.usage.source"]) == (record.user, "partial")
    assert shown["callmeter.cost.nusd"] == record.cost_nusd
    [request] = collector.requests
    assert attributes_of(request.resource_spans[0].resource)["service.name"] == "meter"
    sent = {
        metric.name
        for report in collector.metrics
        for group in report.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    }
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= sent


def test_a_worker_that_is_restarted_while_the_policy_files_are_at_fault_serves_by_the_last_good_policy(
    providers: Providers,
) -> None:
    with own_house(providers) as house:
        ada = house.caller()
        house.write_policy("budgets: [{name: a, limit: $-1}]", "broken.yaml")
        eventually(lambda: "policy not taken" in house.log, "the faults were not noticed")
        for kind in ("worker", "bookkeeper"):
            os.kill(*house.children(kind), signal.SIGKILL)
        call_id = answered(ada)
        eventually(lambda: faults_told(house), "the bookkeeper was not restarted")
        assert ada.record(call_id)["result"] == "ok"
        assert house.stop() == 0
        with pytest.raises(AssertionError, match="the policy files have faults"):
            house.start()


def faults_told(house: House) -> list[str]:
    try:
        faults: list[str] = house.admin("GET", "/api/policy").json["faults"]
    except OSError:
        return []
    return faults


def answered(caller: Caller) -> str:
    """A call that is repeated until a process is there to take it."""

    def passes() -> str:
        try:
            answer = caller.post(CHAT, PLAIN)
        except OSError:
            return ""
        return answer.headers["x-callmeter-call"] if answer.status == 200 else ""

    eventually(passes, "calls do not pass any more")
    return passes()
