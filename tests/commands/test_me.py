"""`callmeter me` and `callmeter claim`: what they ask, what they print, and how they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.commands.claim import claim
from proxy.commands.me import me
from proxy.core.keys import make_key

KEY = make_key(b"a secret of the server", "abcdefgh2345")
ME: dict[str, Any] = {
    "user": "ada\x1b[31m",
    "team": "payments",
    "tasks": [
        {"task": "PAY-7", "task_source": "key", "last_at": "2026-11-24T09:00:00.000Z", "calls": 1200,
         "cost_nusd": 5_000_000_000, "outcomes": [{"kind": "merged", "state": "pending"}], "claimable": False,
         "link": None},
        {"task": "OPS-1", "task_source": "header", "last_at": "2026-11-23T09:00:00.000Z", "calls": 1, "cost_nusd": 5,
         "outcomes": [], "claimable": False, "link": "Task: OPS-1"},
    ],
    "sessions": [{"session": "s1", "last_at": "2026-11-24T08:00:00.000Z", "calls": 3, "cost_nusd": 7}],
    "budgets": [
        {"name": "person-day", "scope": {"user": "ada"}, "window": "day", "unit": "nusd", "limit_nusd": 25_000_000_000,
         "spent_nusd": 5_000_000_000, "held_nusd": 1_000_000_000, "left_nusd": 19_000_000_000,
         "resets_at": "2026-11-25T00:00:00.000Z", "mode": "enforce"},
        {"name": "nothing-shipped", "scope": {"task": "PAY-7"}, "window": "rolling 7d", "unit": "nusd",
         "limit_nusd": 20_000_000_000, "spent_nusd": 25_000_000_000, "held_nusd": 0, "left_nusd": 0,
         "resets_at": None, "mode": "enforce", "proven": True},
    ],
}  # fmt: skip


class Port(BaseHTTPRequestHandler):
    """A data port that answers what it was told to, and remembers what it was asked."""

    answer: tuple[int, Any] = (200, {})
    asked: list[tuple[str, str, dict[str, str], bytes]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, shown = self.answer
        data = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Port]]:
    with HTTPServer(("127.0.0.1", 0), Port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CALLMETER_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("CALLMETER_KEY", KEY)
        Port.asked = []
        yield Port
        server.shutdown()
        thread.join()


def run(command: Any, *words: str) -> Result:
    result = CliRunner().invoke(command, words)
    assert "Traceback" not in result.output
    return result


def test_me_shows_tasks_sessions_budgets_and_what_to_link(port: type[Port]) -> None:
    port.answer = (200, ME)
    lines = run(me).stdout.splitlines()
    assert lines[0] == "ada\ufffd[31m of team payments"
    assert [line.split()[-1] for line in lines if line.startswith(("PAY-7", "OPS-1"))] == ["$5.00", "$0.000000005"]
    assert any("merged: pending" in line for line in lines)
    assert any(line.startswith("s1 ") and line.endswith("$0.000000007") for line in lines)
    assert any(line.startswith("person-day") and line.split()[-3:] == ["$25.00", "$6.00", "$19.00"] for line in lines)
    assert any(line.startswith("nothing-shipped") and line.endswith("proven") for line in lines)
    assert "put its line into the commit or pull request: `Task: OPS-1`" in lines[-3]
    assert "`callmeter claim SESSION TASK`" in lines[-1]
    (asked,) = port.asked
    assert (asked[0], asked[1], asked[2]["x-callmeter-key"]) == ("GET", "/callmeter/me", KEY)


def test_me_without_anything_and_without_the_store(port: type[Port]) -> None:
    port.answer = (200, {"user": "ada", "team": "t", "tasks": [], "sessions": [], "budgets": None})
    assert run(me).stdout == "ada of team t\n\nBudgets\nthe store is away; what budgets have left is not known now\n"
    assert json.loads(run(me, "--format", "json").stdout)["budgets"] is None


def test_claim_sends_session_and_task_and_tells_what_moved(port: type[Port]) -> None:
    port.answer = (200, {"session": "s1", "task": "PAY-7", "calls": 1200, "cost_nusd": 5_000_000_000})
    assert run(claim, "s1", "PAY-7").stdout == "1,200 calls of session s1, $5.00, are of task PAY-7 now\n"
    assert json.loads(port.asked[0][3]) == {"session": "s1", "task": "PAY-7"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((409, {"detail": "session `s1` was claimed already"}), "session `s1` was claimed already"),
        ((500, b"<html>"), "the proxy answered 500"),
        ((302, {}), "the proxy answered 302"),
        ((200, b"<html>"), "does not answer like Callmeter"),
    ],
)
def test_a_no_is_told_in_its_own_words(port: type[Port], answer: tuple[int, Any], said: str) -> None:
    port.answer = answer
    result = run(claim, "s1", "PAY-7")
    assert (result.exit_code, said in result.stderr) == (1, True)
    assert KEY not in result.output


def test_a_proxy_that_is_not_there_and_a_missing_key_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLMETER_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CALLMETER_KEY", KEY)
    assert "http://127.0.0.1:1 cannot be reached" in run(me).stderr
    monkeypatch.delenv("CALLMETER_KEY")
    assert "CALLMETER_KEY is not set" in run(me).stderr
