"""`python -m bench.instructions`: how many instructions of its own a call takes, through a worker under each policy of
`bench.budgets` and through the floor, as callgrind counts them (needs valgrind). The kernel's are not among them.

On a machine that others share, CPU times of two runs differ by half; these counts differ by a hundredth. They say
nothing of how fast an instruction is. Hashes count too much: under valgrind there are no SHA instructions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from proxy.app import Worker
from proxy.child import keep_what_is_there
from proxy.settings import Settings, read_secrets
from proxy.store.embedded import EmbeddedServer

from .budgets import VARIANTS
from .callmeter import callmeter
from .exchange import Kind
from .load import Order, Result
from .processes import helper

CONNECTIONS = 16
WARM_UP_S = 8.0
COUNTED_S = 12.0
"""Some 500 calls: under callgrind everything takes fifty times as long."""
_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


class Target(msgspec.Struct, frozen=True):
    """A process under callgrind, and how it is called."""

    process: subprocess.Popen[str]
    port: int
    key: str
    out: Path
    varied: bool = False

    def load(self, kind: Kind, seconds: float) -> int:
        """Calls that were answered well in so many seconds."""
        order = Order(
            port=self.port, key=self.key, kind=kind, connections=CONNECTIONS, seconds=seconds, varied=self.varied
        )
        command = [sys.executable, "-m", "bench.load", msgspec.json.encode(order).decode()]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        result = msgspec.json.decode(done.stdout, type=Result)
        if result.bad:
            raise SystemExit(f"bench: {result.bad} answers were not good: {result.complaint}")
        return result.good

    def count(self, kind: Kind) -> float:
        """Thousands of instructions a call."""
        self.load(kind, WARM_UP_S)
        self._tell("-i", "on")
        self.load(kind, 1.0)
        self._tell("-z")
        calls = self.load(kind, COUNTED_S)
        self._tell("-d")
        time.sleep(2)  # until it is written
        counts = [int(_TOTAL.findall(path.read_text())[0]) for path in self.out.glob("*") if path.stat().st_size]
        return max(counts) / calls / 1000

    def _tell(self, *what: str) -> None:
        command = ["callgrind_control", *what, str(self.process.pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def under_callgrind(*arguments: str, key: str, varied: bool = False) -> Iterator[Target]:
    """A module of this package that prints its port."""
    with tempfile.TemporaryDirectory(prefix="cm-") as out:
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}/%p"]
        process = subprocess.Popen(
            [*valgrind, sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield Target(process, int(process.stdout.readline()), key, Path(out), varied)
        finally:
            process.kill()
            process.communicate()


async def work(data: Path) -> None:
    """A worker beside the house that is served from this directory, as it is in a process of its own."""
    settings = Settings(
        data=data,
        policies=data.parent / "policies",
        redis_url=EmbeddedServer(data).url,
        secrets=read_secrets({}, data),
        ledger_url=f"sqlite:///{data / 'ledger.db'}",
        port=free_port(),
    )
    await Worker(settings).open()
    keep_what_is_there()
    print(settings.port, flush=True)
    await asyncio.Event().wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="chat", choices=["chat", "agent"], help="load of the main job  [chat]")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        uvloop.run(work(asked.worker))
        return
    if shutil.which("callgrind_control") is None:
        raise SystemExit("bench: this needs valgrind; install it (apt install valgrind)")
    print("| policy | thousand instructions a call | to the floor |\n| --- | --- | --- |")
    with helper("provider") as (_, provider_port):
        with under_callgrind("bench.floor", f"http://127.0.0.1:{provider_port}", key="none") as target:
            floor = target.count(asked.kind)
        print(f"| the floor | {floor:.0f} | 1 |", flush=True)
        for variant in VARIANTS:
            if variant.users:
                continue  # the worker does not know how many there are
            with contextlib.ExitStack() as house:
                directory = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="cm-")))
                served = house.enter_context(callmeter(directory, upstream_port=provider_port, budgets=variant.budgets))
                module = ("bench.instructions", "--worker", str(served.data))
                target = house.enter_context(under_callgrind(*module, key=served.key, varied=variant.varied))
                counted = target.count(asked.kind)
            print(f"| {variant.name} | {counted:.0f} | {counted / floor:.2f} |", flush=True)


if __name__ == "__main__":
    main()
