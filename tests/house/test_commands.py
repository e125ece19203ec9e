"""The callmeter command against a running house, as a developer and an admin use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.house import REPOSITORY, Caller, House, clean_environ

CALLMETER = f"{sys.executable} -m proxy"
RUN_S_MAX = 50.0
SCRIPT = """\
import os
from openai import OpenAI
answer = OpenAI().chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "hi"}])
print(answer.choices[0].message.content, "and no key of the admin:", "CALLMETER_ADMIN_TOKEN" not in os.environ)
"""
GOOD = "word0 word1 word2 word3 word4  and no key of the admin: True\n"


@pytest.fixture
def ada(house: House) -> Caller:
    return house.caller("ada")


def run(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=clean_environ() | environ,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )


def test_callmeter_run_starts_a_program_whose_calls_belong_to_the_task(ada: Caller, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT)
    command = [*CALLMETER.split(), "run", "--task", "PAY-7", "--", sys.executable, str(script)]
    done = run(command, CALLMETER_URL=ada.house.url, CALLMETER_KEY=ada.key)
    assert (done.returncode, done.stdout) == (0, GOOD), done.stderr
    assert "PAY-7" in done.stderr
    assert ada.key not in done.stderr
    record = ada.record()
    assert (record["task"], record["task_source"], record["user"]) == ("PAY-7", "key", ada.user)


def test_callmeter_task_prints_lines_for_a_shell_whose_calls_belong_to_the_task(ada: Caller, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT)
    line = f"eval \"$({CALLMETER} task PAY-8 --max-cost '$5' --expires 8h --shell)\" && {sys.executable} {script}"
    done = run(["sh", "-c", line], CALLMETER_URL=ada.house.url, CALLMETER_KEY=ada.key)
    assert (done.returncode, done.stdout) == (0, GOOD), done.stderr
    record = ada.record()
    assert (record["task"], record["task_source"]) == ("PAY-8", "key")


def test_an_admin_makes_a_key_and_sees_its_calls_and_their_cost(house: House) -> None:
    admin = {"CALLMETER_ADMIN_URL": house.admin_url, "CALLMETER_ADMIN_TOKEN": house.token}
    made = run([*CALLMETER.split(), "keys", "create", "--user", "eve", "--team", "red"], **admin)
    assert made.returncode == 0, made.stderr
    eve = Caller(house, "eve", made.stdout.strip())
    call_id = eve.post("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9}).headers["x-callmeter-call"]
    record = eve.record(call_id)
    shown = run([*CALLMETER.split(), "calls", "--user", "eve", "--format", "jsonl"], **admin)
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [record]
    report = run([*CALLMETER.split(), "report", "--by", "team", "--format", "json"], **admin)
    [red] = [row for row in json.loads(report.stdout)["rows"] if row["team"] == "red"]
    assert red["cost_nusd"] == record["cost_nusd"]
