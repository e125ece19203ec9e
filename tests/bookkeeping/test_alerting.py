"""Alerts are told, each once, signed, again where they were not taken, and none is lost with a process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from proxy.bookkeeping.alerting import ATTEMPTS_MAX, Alerting
from proxy.core.alerts import store_unavailable
from proxy.ledger.alerts import Message
from proxy.ledger.database import Ledger
from proxy.telemetry.alerts import AlertNotTaken, AlertSender, slack_body
from tests.support.ledger_calls import AT_MS, entries, made, refused
from tests.support.policies import policy_of


class Receiver:
    def __init__(self) -> None:
        self.status = 204
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            receiver.taken.append(({name.lower(): value for name, value in self.headers.items()}, data))
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: the tests look at `taken`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?token=hidden"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Desk:
    """An alerting over a ledger, with a clock that a test moves."""

    def __init__(self, ledger: Ledger, receiver: Receiver) -> None:
        self.now_ms = AT_MS
        self.events: list[Any] = []
        self.sender = AlertSender(b"secret of the tests")
        self.policy = policy_of(f"""
            budgets: [{{name: person-day, per: user, limit: $25, every: day}}]
            alerts: [{{name: ops, to: "{receiver.url}", on: [budget_spent, store_unavailable]}}]
        """)
        self.active = True
        self.alerting = Alerting(
            ledger,
            self.sender,
            policy=lambda: self.policy,
            active=lambda: self.active,
            may_tell=lambda: True,
            now_events=lambda: self.events,
            clock_ms=lambda: self.now_ms,
        )

    def round(self) -> None:
        while self.alerting.look():
            pass
        self.alerting.tell()


def spent(number: int, **changes: Any) -> Any:
    return refused(number, refusal="budget_spent", rule="person-day", **changes)


def test_what_happened_while_nobody_wanted_to_know_is_no_news(ledger: Ledger) -> None:
    with receiving() as receiver:
        desk = Desk(ledger, receiver)
        told, desk.policy = desk.policy, policy_of("budgets: []")
        desk.round()
        ledger.ingest(entries(spent(1)))
        desk.round()
        desk.policy = told
        desk.round()
        assert receiver.taken == []
        ledger.ingest(entries(spent(2, user="bob"), first=2))
        desk.round()
        assert [json.loads(data)["data"]["scope"] for _, data in receiver.taken] == [{"user": "bob"}]


def test_a_spent_budget_is_told_once_and_signed(ledger: Ledger) -> None:
    with receiving() as receiver:
        desk = Desk(ledger, receiver)
        desk.round()
        ledger.ingest(entries(spent(1), made(2), spent(3), spent(4, user="bob")))
        desk.round()
        desk.round()
        ledger.ingest(entries(spent(5), first=5))
        Desk(ledger, receiver).round()  # another process goes on where the first one stopped
        assert [json.loads(data)["data"]["scope"] for _, data in receiver.taken] == [{"user": "ada"}, {"user": "bob"}]
        headers, data = receiver.taken[0]
        body = json.loads(data)
        assert (body["type"], body["timestamp"][-1]) == ("budget_spent", "Z")
        key = base64.b64decode(desk.sender.signing_secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + data
        signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"


def test_what_is_not_taken_is_sent_again_later_with_the_same_id(ledger: Ledger) -> None:
    with receiving() as receiver:
        desk = Desk(ledger, receiver)
        desk.round()
        ledger.ingest(entries(spent(1)))
        receiver.status = 503
        desk.round()
        desk.round()
        assert len(receiver.taken) == 1
        desk.now_ms += 5_000
        receiver.status = 200
        desk.round()
        desk.now_ms += 3_600_000
        desk.round()
        assert len(receiver.taken) == 2
        assert len({headers["webhook-id"] for headers, _ in receiver.taken}) == 1


def test_a_receiver_that_never_answers_is_given_up(ledger: Ledger) -> None:
    with receiving() as receiver:
        desk = Desk(ledger, receiver)
        desk.round()
        receiver.status = 500
        ledger.alerts.put([Message(key="k", alert="ops", body='{"type": "x", "data": {}}', at_ms=desk.now_ms)], None)
        for _ in range(ATTEMPTS_MAX + 3):
            desk.round()
            desk.now_ms += 3_600_000
        assert len(receiver.taken) == ATTEMPTS_MAX


def test_an_away_store_is_told_although_nobody_is_active(ledger: Ledger) -> None:
    with receiving() as receiver:
        desk = Desk(ledger, receiver)
        desk.active = False
        desk.events = [store_unavailable(AT_MS, "connection refused")]
        desk.round()
        desk.round()
        assert len(receiver.taken) == 1
        assert b"connection refused" in receiver.taken[0][1]


def test_events_before_anybody_wanted_to_know_are_no_news(ledger: Ledger) -> None:
    with receiving() as receiver:
        ledger.ingest(entries(spent(1)))
        Desk(ledger, receiver).round()
        assert receiver.taken == []


def test_slack_gets_its_own_form_in_which_names_cannot_call_people() -> None:
    body = json.dumps({"type": "budget_spent", "data": {"sentence": "budget for `<!channel>` & co"}})
    assert json.loads(slack_body(body)) == {"text": "Callmeter: budget for `&lt;!channel&gt;` &amp; co"}


def test_what_goes_wrong_is_told_without_the_url() -> None:
    with pytest.raises(AlertNotTaken) as caught:
        AlertSender(b"x").send("http://127.0.0.1:1/secret-path", "id", "{}", now_s=1)
    assert "secret-path" not in str(caught.value)
