"""What keeps `callmeter serve` from serving is told in a sentence, all of it at once; and what comes later changes the
policy or leaves the last good one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.store.embedded import find_programs
from tests.support.house import REPOSITORY, House, clean_environ, eventually
from tests.support.valkey import short_folder

GOOD = 'upstreams: {openai: {dialect: openai, url: "http://127.0.0.1:9", key: sk}}\n'
START_S_MAX = 50.0
CHAT = "/openai/v1/chat/completions"
PLAIN = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    (made / "policies").mkdir()
    (made / "policies" / "a.yaml").write_text(GOOD)
    yield made
    shutil.rmtree(made)


def serve(folder: Path, *flags: str, **environ: str) -> tuple[int, str]:
    """Exit status and standard error of a `callmeter serve` that cannot serve."""
    told = {"port": "0", "admin-port": "0", "policies": str(folder / "policies"), "data": str(folder / "data")}
    asked = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", *(f"--{name}={value}" for name, value in (told | asked).items())],
        cwd=REPOSITORY,
        env=clean_environ() | environ,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Callmeter serves" not in done.stdout
    return done.returncode, done.stderr


def test_settings_that_cannot_be_are_told_all_at_once(folder: Path) -> None:
    (folder / "file").write_text("")
    status, said = serve(
        folder,
        "--port=http",
        "--workers=0",
        "--only=half",
        "--redis-url=localhost:6379",
        f"--data={folder / 'file' / 'data'}",
        CALLMETER_DRAIN_SECONDS="soon",
    )
    assert status == 2
    for word in ("--port", "--workers", "--only", "--redis-url", "--data", "CALLMETER_DRAIN_SECONDS"):
        assert word in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "data").mkdir(mode=0o500)
    status, said = serve(folder)
    assert status == 2
    assert f"cannot write to {folder / 'data'}" in said


def test_a_secret_that_could_be_guessed_is_refused(folder: Path) -> None:
    status, said = serve(folder, CALLMETER_SECRET="short")
    assert (status, "CALLMETER_SECRET" in said, "short" in said.replace("shorter", "")) == (2, True, False)


@pytest.mark.parametrize("which", ["port", "admin-port"])
def test_a_port_in_use_is_an_error_and_no_silent_share(folder: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, said = serve(folder, f"--{which}={taken.getsockname()[1]}")
    assert status == 1
    assert "Address already in use" in said
    assert "--admin-port" in said


def test_one_port_for_both_is_told_rather_than_shared(folder: Path, unused_tcp_port: int) -> None:
    status, said = serve(folder, f"--port={unused_tcp_port}", f"--admin-port={unused_tcp_port}")
    assert status == 1
    assert f"the data port and the admin port are both {unused_tcp_port}" in said


def test_a_host_that_is_not_of_this_machine_is_told_with_its_option(folder: Path) -> None:
    status, said = serve(folder, "--host=192.0.2.1")
    assert status == 1
    assert "cannot listen on 192.0.2.1:0 for the data port" in said
    assert "--host" in said


def test_every_fault_of_every_policy_file_is_told_with_its_place(folder: Path) -> None:
    policies = folder / "policies"
    (policies / "b.yaml").write_text("acess: []\ndefaults:\n  max_body: huge\n")
    (policies / "c.yaml").write_text("upstreams:\n  Bad Name: {dialect: openai}\n")
    status, said = serve(folder)
    assert status == 1
    assert f"{policies / 'b.yaml'}:1:1: " in said
    assert f"{policies / 'b.yaml'}:3:13: " in said
    assert f"{policies / 'c.yaml'}:2:3: " in said


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_policy_directory_that_holds_nothing_is_told(folder: Path, state: str) -> None:
    shutil.rmtree(folder / "policies")
    if state == "empty":
        (folder / "policies").mkdir()
    status, said = serve(folder)
    assert status == 1
    assert str(folder / "policies") in said


def test_a_redis_that_needs_a_password_is_told_without_any_password(folder: Path) -> None:
    place = folder / "redis.sock"
    programs = find_programs()
    options = ("--port", "0", "--unixsocket", str(place), "--requirepass", "open-sesame", "--save", "")
    server = subprocess.Popen([str(programs[0]), *options], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        eventually(place.exists, "the server did not start")
        status, said = serve(folder, f"--redis-url=unix://{place}")
        assert status == 1
        assert "password" in said
        status, said = serve(folder, f"--redis-url=unix://:wrong-guess@{place}")
        assert status == 1
        assert "wrong-guess" not in said
    finally:
        server.terminate()
        server.wait()


def test_a_policy_that_breaks_leaves_the_last_good_one_and_says_so_until_it_is_mended(house: House) -> None:
    ada = house.caller()
    eventually(lambda: house.admin("GET", "/readyz").status == 200, "it is not ready to begin with")
    try:
        house.write_policy("upstreams:\n  newcomer: {dialect: openai, url: nonsense\n", "broken.yaml")
        readiness = eventually(lambda: not_ready(house), "nobody noticed the fault")
        assert " in the policy files; the last good set is in force" in readiness
        [fault] = house.admin("GET", "/api/policy").json["faults"]
        assert f"{house.policies / 'broken.yaml'}:" in fault
        assert b"callmeter_policy_faults" in house.admin("GET", "/metrics").body
        assert ada.post(CHAT, PLAIN).status == 200
    finally:
        (house.policies / "broken.yaml").unlink()
    eventually(lambda: house.admin("GET", "/readyz").status == 200, "the mended policy is not taken")


def not_ready(house: House) -> str:
    answer = house.admin("GET", "/readyz")
    faults: dict[str, str] = answer.json["faults"]
    return faults.get("policy", "") if answer.status == 503 else ""


def test_a_changed_policy_is_in_force_without_a_restart(house: House) -> None:
    ada = house.caller()
    assert ada.post("/late/v1/chat/completions", PLAIN).status == 403
    line = f'upstreams: {{late: {{dialect: openai, url: "{house.providers.simulator_url}", key: sk}}}}\n'
    house.write_policy(line, "late.yaml")
    try:
        eventually(lambda: ada.post("/late/v1/chat/completions", PLAIN).status == 200, "it is not in force")
    finally:
        (house.policies / "late.yaml").unlink()
    eventually(lambda: ada.post("/late/v1/chat/completions", PLAIN).status == 403, "it is in force for ever")
