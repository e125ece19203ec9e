"""Processes: started, pinned to a CPU, and weighed by what the kernel says of them. Linux only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROXY_CPU = 0
OTHER_CPU = 1
"""The proxy has a CPU to itself; provider, load, store and bookkeeper share the other one."""
PROC = Path("/proc")
STOP_S_MAX = 60.0


def pin(process_id: int, cpu: int) -> None:
    """Moves a process, all of its threads, to one CPU. With one CPU alone everything shares it."""
    if cpu in range(os.cpu_count() or 1):
        for thread in threads(process_id):
            os.sched_setaffinity(thread, {cpu})


def stand_back(process_id: int) -> None:
    """Lets everything else on its CPU go first. For what may be done a moment later."""
    for thread in threads(process_id):
        os.setpriority(os.PRIO_PROCESS, thread, 19)


def threads(process_id: int) -> list[int]:
    return [int(path.name) for path in (PROC / str(process_id) / "task").iterdir()]


def cpu_us(process_id: int) -> float:
    """CPU time of all threads so far, as the scheduler counts it: to the nanosecond, unlike the ticks of `stat`."""
    spent_ns = 0
    for thread in threads(process_id):
        try:
            spent_ns += int((PROC / str(process_id) / "task" / str(thread) / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue  # a thread that has just ended
    return spent_ns / 1000


def rss_mb(process_id: int) -> float:
    """Memory in use now."""
    for line in (PROC / str(process_id) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def children(process_id: int) -> dict[str, int]:
    """The processes that a `callmeter serve` has started: `worker`, `bookkeeper` and `valkey-server`."""
    found: dict[str, int] = {}
    for path in PROC.iterdir():
        if not path.name.isdigit():
            continue
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            name = (path / "comm").read_text().strip()
            words = (path / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == process_id:
            found[words[-2] if name.startswith("python") else name] = int(path.name)
    return found


@contextmanager
def helper(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A module of this package as a process that prints its port; it ends when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"bench.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(STOP_S_MAX)
        process.stdout.close()


def stats_of(port: int) -> dict[str, int]:
    """What a helper has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=60) as answer:
        stats: dict[str, int] = json.load(answer)
        return stats
