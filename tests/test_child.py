"""Children: what they say to a parent that may be gone."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_child_that_is_ready_when_its_parent_is_gone_says_nothing_and_does_not_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from proxy.child import say_ready; say_ready(admin_port=1)"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_child_tells_its_facts_in_one_line() -> None:
    command = [sys.executable, "-c", "from proxy.child import say_ready; say_ready(admin_port=1)"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=True).stdout == b'{"admin_port":1}\n'
