"""The whole house for tests: a real `callmeter serve`, simulated and replayed providers behind it, callers before it.

Everything is as in production but the providers, which live in a thread of the test process. Starting a house takes
seconds, so most tests share one (the fixture `house`); those that kill or stop something start their own.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from aiohttp import web

from demo.simulator import Simulator
from proxy.core.keys import Caveat, attenuate
from proxy.store.embedded import die_with_parent
from tests.support.otlp_sink import HttpSink
from tests.support.replay import Replay
from tests.support.valkey import PATIENT_S, short_folder

REPOSITORY = Path(__file__).resolve().parents[2]
START_S_MAX = 90.0
LOOK_S = 0.02
PROVIDER_KEYS = {"openai": "sk-of-openai", "anthropic": "sk-ant-of-anthropic", "gemini": "AIza-of-gemini"}
"""What the providers must see in place of the callers' keys."""

POLICY = """\
upstreams:
  openai: {{dialect: openai, url: "{simulator}", key: sk-of-openai}}
  anthropic: {{dialect: anthropic, url: "{simulator}", key: sk-ant-of-anthropic}}
  gemini: {{dialect: gemini, url: "{simulator}", key: AIza-of-gemini}}
  bare: {{dialect: openai, url: "{simulator}"}}
  plan: {{dialect: anthropic, url: "{simulator}", key: sk-plan, billing: plan}}
  nameless: {{provider: somebody, url: "{simulator}", key: sk-nameless}}
  script-openai: {{dialect: openai, url: "{script}", key: sk-script}}
  script-anthropic: {{dialect: anthropic, url: "{script}", key: sk-script}}
  script-gemini: {{dialect: gemini, url: "{script}", key: sk-script}}
defaults: {{max_body: 1MiB}}
access:
  - {{name: no-frontier-for-interns, match: {{user: "intern*", model: "*opus*"}}, then: refuse, help: "ask in #ai"}}
  - {{name: task-needed, match: {{team: payments, not: {{task_source: key}}}}, then: refuse}}
"""

REPLAYED = {
    "openai": "alibaba azure cerebras deepseek groq huggingface local mistral openai openrouter perplexity together "
    "vercel-gateway xai zai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "": "ollama",
}
"""Dialect ("": none) -> providers whose recorded answers can be played back by an upstream `replay-<provider>`."""

MAY_REPEAT = {"set-cookie", "x-callmeter-warning", "vary", "link"}

_numbers = itertools.count(1)
_Result = TypeVar("_Result")


class Answer(NamedTuple):
    """An answer of the data or admin port. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Providers:
    """The simulated and the replaying provider, on an event loop in a thread of their own."""

    def __init__(self) -> None:
        self.simulator = Simulator()
        self.replay = Replay()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runners: list[web.AppRunner] = []
        self._collectors: list[HttpSink] = []

    def start(self) -> None:
        self._thread.start()
        self.simulator_url = self._run(self._serve(self.simulator.app))
        self.replay_url = self._run(self._serve(self.replay.app))

    def stop(self) -> None:
        for runner in self._runners:
            self._run(runner.cleanup())
        for collector in self._collectors:
            self._run(collector.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENT_S)
        self._loop.close()

    def seen(self, path: str) -> tuple[str, dict[str, str], bytes]:
        """The newest call that the simulated provider got on a path: path with query, headers in lower case, body."""
        for seen_path, headers, body in reversed(self.simulator.seen):
            if seen_path.partition("?")[0] == path:
                return seen_path, {name.lower(): value for name, value in headers.items()}, body
        raise AssertionError(f"the provider saw no call to {path}")

    def collector(self) -> HttpSink:
        """A collector on the providers' loop; it ends with them."""
        sink = HttpSink()
        self._run(sink.open())
        self._collectors.append(sink)
        return sink

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENT_S)


class Caller:
    """A user with a key, whom no other test knows."""

    def __init__(self, house: House, user: str, key: str) -> None:
        self.house = house
        self.user = user
        self.key = key

    def task_key(self, task: str, *more: Caveat) -> str:
        return attenuate(self.key, [Caveat("task", task), *more])

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """A POST with this key as bearer; a body that is not bytes goes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})}
        return self.house.request("POST", path, data, told)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.house.request("GET", path, None, {"authorization": f"Bearer {self.key}", **(headers or {})})

    def records(self, count: int = 1, until: Callable[[list[Any]], bool] | None = None) -> list[Any]:
        """The caller's records, oldest first, as soon as there are `count` and `until` holds of them."""
        deadline_s = time.monotonic() + PATIENT_S
        while True:
            found: list[Any] = self.house.admin("GET", f"/api/calls?user={self.user}&limit=1000").json["calls"]
            if len(found) >= count and (until is None or until(found)):
                return found
            assert time.monotonic() < deadline_s, f"{len(found)} of {count} records came: {found}"
            time.sleep(LOOK_S)

    def record(self, call_id: str | None = None) -> Any:
        """The only record of this caller, or that of one call."""
        if call_id is None:
            [only] = self.records()
            return only
        found = self.records(until=lambda records: any(record["call_id"] == call_id for record in records))
        return next(record for record in found if record["call_id"] == call_id)


class House:
    """One `callmeter serve` in folders of its own. `folder` is short enough for the store's socket."""

    def __init__(self, providers: Providers, *, workers: int = 1, policy: str = POLICY, **environ: str) -> None:
        self.folder = short_folder()
        self.data = self.folder / "data"
        self.policies = self.folder / "policies"
        self.policies.mkdir()
        self.log_path = self.folder / "log"
        self.providers = providers
        self.workers = workers
        # Bound and not listening: connections are refused there, until a test listens beside it.
        self._script_place = socket.socket()
        self._script_place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._script_place.bind(("127.0.0.1", 0))
        self.script_port: int = self._script_place.getsockname()[1]
        self.write_policy(policy.format(simulator=providers.simulator_url, script=self.script_url))
        self.environ = clean_environ() | environ
        self.process: subprocess.Popen[str] | None = None

    @property
    def script_url(self) -> str:
        return f"http://127.0.0.1:{self.script_port}"

    def write_policy(self, text: str, name: str = "policy.yaml") -> None:
        (self.policies / name).write_text(text)

    # -- the process ----------------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        flags = {"port": 0, "admin-port": 0, "workers": self.workers, "policies": self.policies, "data": self.data}
        return [sys.executable, "-m", "proxy", "serve", *(f"--{name}={value}" for name, value in flags.items())]

    def start(self) -> None:
        """Serves, or fails the test with what it said."""
        self.process = subprocess.Popen(
            self.command(),
            cwd=REPOSITORY,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log_path.open("a"),
            text=True,
            preexec_fn=die_with_parent(),  # also when the test run is killed
        )
        watchdog = threading.Timer(START_S_MAX, self.process.kill)
        watchdog.start()
        urls: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            urls += [word.rstrip(";") for word in line.split() if word.startswith("http://")]
            if len(urls) >= 2:
                break
        watchdog.cancel()
        assert len(urls) >= 2, f"it did not start: {self.log}"
        self.url, self.admin_url = urls[:2]
        self.token = (self.data / "admin.token").read_text().strip()

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        status = self.process.wait(START_S_MAX)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def remove(self) -> None:
        """Ends whatever still runs and removes the folders."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._script_place.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def children(self, kind: str) -> list[int]:
        """Process ids of its workers or its bookkeeper."""
        assert self.process is not None
        return [pid for pid, command in children_of(self.process.pid) if command[-1:] == [kind]]

    # -- its ports ------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        return request(self.url, method, path, body, headers)

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        return request(self.admin_url, method, path, data, headers)

    def caller(self, name: str = "ada", **fields: Any) -> Caller:
        """A new user with a key. `fields` are those of `POST /api/keys`."""
        user = f"{name}-{next(_numbers)}"
        made = self.admin("POST", "/api/keys", {"user": user, **fields})
        assert made.status == 201, made.body
        return Caller(self, user, made.json["key"])

    def address(self) -> tuple[str, int]:
        """Host and port of the data port, for raw connections."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Bytes to the data port, and all that comes back until it closes. `end` closes our side after sending."""
        with socket.create_connection(self.address(), timeout=PATIENT_S) as connection:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def answer_to(self, data: bytes) -> Answer:
        """Bytes to the data port, and the first answer to them."""
        with socket.create_connection(self.address(), timeout=PATIENT_S) as connection:
            connection.sendall(data)
            return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """The next answer on a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return Answer(answer.status, headers_of(answer), answer.read())


def headers_of(answer: http.client.HTTPResponse) -> dict[str, str]:
    """By their names in lower case. None comes twice that a client would join into a value that nobody sent."""
    told = [(name.lower(), value) for name, value in answer.getheaders()]
    repeated = {name for name, _ in told if sum(name == other for other, _ in told) > 1}
    assert repeated <= MAY_REPEAT, f"headers come twice: {told}"
    return dict(told)


def request(base: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=PATIENT_S)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, headers_of(answer), answer.read())
    finally:
        connection.close()


def clean_environ() -> dict[str, str]:
    """Ours without anything that would change what a house does."""
    strange = ("CALLMETER_", "OTEL_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


def children_of(parent: int) -> list[tuple[int, list[str]]]:
    """Process ids and command lines of a process' children (Linux)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().decode().split("\0")[:-1]
            except OSError:
                continue  # it ended meanwhile
            if int(status[1]) == parent and status[0] != "Z":
                found.append((int(folder.name), command))
    return found


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """Waits until `holds()` is true and gives what it was; fails when that never comes."""
    deadline_s = time.monotonic() + PATIENT_S
    while not (outcome := holds()):
        assert time.monotonic() < deadline_s, what
        time.sleep(LOOK_S)
    return outcome


@contextmanager
def own_house(providers: Providers, **options: Any) -> Iterator[House]:
    """A house for one test, which may treat it badly."""
    house = House(providers, **options)
    try:
        house.start()
        yield house
        assert "Traceback" not in house.log, house.log
    finally:
        house.remove()


@pytest.fixture(scope="session")
def providers() -> Iterator[Providers]:
    made = Providers()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def house(providers: Providers) -> Iterator[House]:
    """The house that tests share. Whatever they do to it, it never writes a traceback."""
    made = House(providers)
    made.write_policy(replaying_policy(providers), "replay.yaml")
    try:
        made.start()
        yield made
        assert made.stop() == 0
        assert "Traceback" not in made.log, made.log
    finally:
        made.remove()


def replaying_policy(providers: Providers) -> str:
    lines = ["upstreams:"]
    for dialect, names in REPLAYED.items():
        speaks = f"dialect: {dialect}, " if dialect else ""
        for name in names.split():
            place = f'provider: {name}, url: "{providers.replay_url}", key: sk-replay'
            lines.append(f"  replay-{name}: {{{speaks}{place}}}")
    return "\n".join(lines) + "\n"
