"""Callmeter as it is really served: `python -m proxy serve` with an embedded Valkey and SQLite in its own directory."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from .processes import STOP_S_MAX, children

POLICY = """\
upstreams:
  openai: {{dialect: openai, url: "http://127.0.0.1:{port}", key: bench}}
"""
READY_S_MAX = 60.0


class Callmeter(msgspec.Struct, kw_only=True):
    """A running `callmeter serve`. Process ids are 0 for kinds that were not asked for."""

    data: Path
    port: int
    admin_url: str
    key: str
    worker: int
    bookkeeper: int
    store: int

    def recorded(self) -> int:
        """Calls in the ledger, counted in its file so that nobody has to work for the answer."""
        with closing(sqlite3.connect(f"file:{self.data / 'ledger.db'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from calls").fetchone()[0])

    def until_recorded(self, calls: int, within_s: float) -> bool:
        """Waits until the ledger has so many calls."""
        deadline_s = time.monotonic() + within_s
        while self.recorded() < calls:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        return True

    def total(self) -> dict[str, Any]:
        """What the ledger's report adds up to."""
        token = (self.data / "admin.token").read_text().strip()
        asked = urllib.request.Request(
            f"{self.admin_url}/api/report?by=user&since=1d", headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            total: dict[str, Any] = json.load(answer)["total"]
            return total


@contextmanager
def callmeter(
    directory: Path,
    *,
    upstream_port: int = 9,
    only: str = "",
    environ: dict[str, str] | None = None,
    budgets: str = "",
) -> Iterator[Callmeter]:
    """Serves from `directory`, with one worker, until the block ends; then it is told to stop and waited for. `budgets`
    are lines of the policy."""
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "bench.yaml").write_text(POLICY.format(port=upstream_port) + budgets)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CALLMETER_", "OTEL_"))}
    settings = {"CALLMETER_DATA": str(directory / "data"), "CALLMETER_POLICIES": str(policies), "CALLMETER_ONLY": only}
    arguments = ["serve", "--workers", "1", "--port", "0", "--admin-port", "0"]
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", *arguments],
            env={**clean, **settings, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        yield announced(process, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


def announced(process: subprocess.Popen[str], directory: Path) -> Callmeter:
    """What it says of itself when it is ready."""
    assert process.stdout is not None
    port, admin_url, key = 0, "", ""
    for line in process.stdout:
        if line.startswith("Callmeter serves on "):
            port = int(line.rpartition(":")[2])
        elif line.startswith("The admin port is "):
            admin_url = line.split()[4].rstrip(";")
        elif line.startswith("  cm_"):
            key = line.strip()
        if admin_url and (key or not port):
            break
    else:
        raise SystemExit(f"bench: Callmeter did not start; see {directory / 'log'}")
    found = children(process.pid)
    return Callmeter(
        data=directory / "data",
        port=port,
        admin_url=admin_url,
        key=key,
        worker=found.get("worker", 0),
        bookkeeper=found.get("bookkeeper", 0),
        store=found.get("valkey-server", 0),
    )
