"""The command as a whole: what no subcommand can tell by itself is told in a sentence as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | bytes, output: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CALLMETER_ADMIN_URL": "http://127.0.0.1:9", "CALLMETER_ADMIN_TOKEN": "t"}
    with (output or Path(os.devnull)).open("wb") as file:
        result = subprocess.run(
            [sys.executable, "-m", "proxy", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "Traceback" not in result.stderr
    return result


def test_an_argument_that_is_no_utf_8_is_told() -> None:
    result = run("explain", b"\xff")
    assert result.returncode == 1
    assert result.stderr == "Error: an argument is not text in UTF-8; write it in UTF-8\n"


def test_an_output_without_room_is_told() -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    result = run("--version", output=full)
    assert result.returncode == 1
    assert "the output cannot be written: No space left on device" in result.stderr
