"""The proxy under the accuracy test: started with the budgets of its loads, broken on purpose, and read afterwards."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from .callmeter import announced
from .processes import STOP_S_MAX, children

NUSD_PER_USD = 1_000_000_000
INPUT_NUSD, OUTPUT_NUSD = 400, 1_600
"""What a token costs here, by a price rule of the policy."""

POLICY = """\
upstreams:
  openai: {{dialect: openai, url: "http://127.0.0.1:{port}", key: bench}}
prices:
  - {{match: {{provider: openai, model: "bench-*"}}, input_per_mtok: "0.40", output_per_mtok: "1.60"}}
budgets:
"""
BUDGET = (
    '  - {{name: {name}, match: {{user: "{name}-*"}}, per: user, limit: $1, every: ever, limits: {limits}, {how}}}\n'
)
KINDS = {
    "worst": "reserve: worst_case, store_outage: refuse",
    "finish": "reserve: expected, when_outgrown: finish, store_outage: refuse",
    "cut": "reserve: expected, when_outgrown: cut, store_outage: refuse",
}
"""How a load's budget holds, by the beginning of its user's name."""


class Ledger(msgspec.Struct):
    """What the ledger has of one load. `ids`: of the calls that were let pass; `refusals` counts folded ones singly."""

    ids: set[str]
    cost_nusd: int
    refusals: int
    lost: int
    need_nusd: int
    """The most that one of its calls could come to, as the records explain it; 0 where nobody asked for a bound."""
    hold_min_nusd: int


class Counter(msgspec.Struct):
    """What a load's counter stands at."""

    spent_nusd: int = 0
    held_nusd: int = 0


class House(msgspec.Struct):
    """A running `callmeter serve`."""

    process: subprocess.Popen[str]
    data: Path
    port: int
    admin_url: str
    token: str

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        asked = urllib.request.Request(
            self.admin_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def key(self, user: str) -> str:
        """A new key."""
        key: str = self.admin("POST", "/api/keys", {"user": user})["key"]
        return key

    def counters(self) -> dict[str, Counter]:
        """The counters of all loads by user, those of nothing left out."""
        rows = self.admin("GET", "/api/budgets")["budgets"]
        return {row["scope"]["user"]: Counter(row["spent_nusd"], row["held_nusd"]) for row in rows}

    def ledger(self, user: str) -> Ledger:
        """Read from the file, so that nobody has to work for the answer."""
        with closing(sqlite3.connect(f"file:{self.data / 'ledger.db'}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                'select call_id, result, cost_nusd, record from calls where "user" = ?', (user,)
            ).fetchall()
        passed = [row for row in rows if row[1] != "refused"]
        held = [json.loads(row[3]) for row in passed]
        return Ledger(
            ids={row[0] for row in passed},
            cost_nusd=sum(row[2] or 0 for row in rows),
            refusals=sum(json.loads(row[3]).get("count", 1) for row in rows if row[1] == "refused"),
            lost=sum(row[1] == "lost" for row in rows),
            need_nusd=max((record["estimate"].get("worst_nusd", 0) for record in held), default=0),
            hold_min_nusd=min((record["hold_nusd"] for record in held), default=0),
        )

    def settled(self, users: Sequence[str], within_s: float) -> float:
        """Waits until nothing is held any more and counters and ledger stand still; how long that took, in s."""
        begun_s = time.monotonic()
        before: Any = None
        while True:
            counters = self.counters()
            now = {user: (counters.get(user, Counter()), self.ledger(user)) for user in users}
            held = sum(counter.held_nusd for counter, _ in now.values())
            agree = all(counter.spent_nusd == ledger.cost_nusd for counter, ledger in now.values())
            waited_s = time.monotonic() - begun_s
            if (not held and agree and now == before) or waited_s > within_s:
                return waited_s
            before = now
            time.sleep(1)

    # -- faults ---------------------------------------------------------------------------------------------------

    def send_signal(self, kind: str, number: signal.Signals) -> None:
        """To its worker (one of them) or its store."""
        if process_id := children(self.process.pid).get(kind):
            os.kill(process_id, number)


@contextmanager
def serving(directory: Path, provider_port: int, limits: dict[str, int], workers: int) -> Iterator[House]:
    """Serves until the block ends. `limits` are nano-USD by user."""
    policies = directory / "policies"
    policies.mkdir(parents=True)
    text = POLICY.format(port=provider_port)
    for name, how in KINDS.items():
        mine = {user: f"${nusd / NUSD_PER_USD:.9f}" for user, nusd in limits.items() if user.startswith(name + "-")}
        text += BUDGET.format(name=name, limits=json.dumps(mine), how=how)
    (policies / "accuracy.yaml").write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CALLMETER_", "OTEL_"))}
    flags = {"port": 0, "admin-port": 0, "workers": workers, "policies": policies, "data": directory / "data"}
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", *(f"--{name}={value}" for name, value in flags.items())],
            env=clean,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        found = announced(process, directory)
        token = (found.data / "admin.token").read_text().strip()
        yield House(process, found.data, found.port, found.admin_url, token)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)
