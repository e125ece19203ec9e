"""A real PostgreSQL server for tests, where one is installed: started once, and emptied for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

START_S = 20.0
USERS = ("postgres", "nobody")
"""Who may run the server when the tests run as root, which it refuses."""


class NoPostgresql(RuntimeError):
    """No server can run here; the sentence says why."""


class Postgresql:
    """A running server with one database. `fresh_url()` empties it, which is quicker than making another."""

    def __init__(self, directory: Path, user: str) -> None:
        self._directory = directory
        self._user = user

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@/postgres?host={self._directory}"

    def fresh_url(self) -> str:
        with psycopg.connect(self.url, autocommit=True, options="-c client_min_messages=error") as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url


@contextmanager
def running_postgresql() -> Iterator[Postgresql]:
    """Raises NoPostgresql where there is no server or nobody who may run it."""
    binaries = find_binaries()
    runner = find_runner()
    # Not in pytest's own directory: that one is closed to the user who runs the server.
    directory = Path(tempfile.mkdtemp(prefix="callmeter-postgresql-"))
    user = runner.pw_name if runner is not None else pwd.getpwuid(os.getuid()).pw_name
    process: subprocess.Popen[bytes] | None = None
    identity = {} if runner is None else {"user": runner.pw_uid, "group": runner.pw_gid, "extra_groups": []}
    try:
        if runner is not None:
            os.chown(directory, runner.pw_uid, runner.pw_gid)
        data = directory / "data"
        make = [binaries / "initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-U", user]
        made = subprocess.run(make, cwd=directory, capture_output=True, text=True, check=False, **identity)  # type: ignore[call-overload]
        if made.returncode:
            raise NoPostgresql(f"initdb failed: {made.stderr.strip()[-300:]}")
        run = [binaries / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"]
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen(run, cwd=directory, stdout=log, stderr=log, **identity)  # type: ignore[call-overload]
        server = Postgresql(directory, user)
        wait_until_ready(server, process)
        yield server
    finally:
        if process is not None:
            process.terminate()
            process.wait(START_S)
        shutil.rmtree(directory, ignore_errors=True)


def find_binaries() -> Path:
    """The newest installed server whose initdb lies beside it."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
    found = shutil.which("initdb")
    if found is not None:
        places.append(Path(found).resolve().parent)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise NoPostgresql("no PostgreSQL server is installed")


def find_runner() -> pwd.struct_passwd | None:
    """The user to run the server as; None: ourselves."""
    if os.getuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresql("the tests run as root, and there is no other user who could run PostgreSQL")


def wait_until_ready(server: Postgresql, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg.connect(server.url).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise NoPostgresql("PostgreSQL did not start")
