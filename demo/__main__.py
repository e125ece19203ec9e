"""`./dev demo`: a simulated provider, a proxy before it, a day of two teams, and what Callmeter knows of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import aiohttp

from . import simulator, story

START_S_MAX = 60.0
SETTLE_S = 3.0
"""A record is readable within a second of the end of its call; the outcomes of the story are decided soon after."""

COMMANDS = (
    ("calls",),
    ("outcome", "list"),
    ("twins",),
    ("report", "--by", "team"),
    ("report", "--by", "task"),
)
"""What is shown at the end."""


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def callmeter(*arguments: str, environ: dict[str, str]) -> None:
    """Runs the command as a person would, showing the line first."""
    say(f"$ callmeter {' '.join(arguments)}")
    subprocess.run([sys.executable, "-m", "proxy", *arguments], env=environ, check=False)


async def start_proxy(directory: Path, environ: dict[str, str]) -> tuple[asyncio.subprocess.Process, str, str]:
    """`callmeter serve` on free ports; gives the process and the URLs of both ports once it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "--workers", "1", "--port", "0", "--admin-port", "0"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=(directory / "log").open("w"),
        start_new_session=True,
    )
    assert process.stdout is not None
    urls: list[str] = []
    try:
        async with asyncio.timeout(START_S_MAX):
            while len(urls) < 2:
                line = (await process.stdout.readline()).decode()
                if not line:
                    break
                urls += [word.rstrip(";") for word in line.split() if word.startswith("http://")][:1]
    except TimeoutError:
        pass
    if len(urls) < 2:
        print((directory / "log").read_text(), file=sys.stderr)
        raise SystemExit("demo: the proxy did not start; what it said stands above")
    return process, urls[0], urls[1]


async def demo() -> None:
    begun_s = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="callmeter-demo-"))
    runner, port = await simulator.serve()
    policies = directory / "policies"
    policies.mkdir()
    policy = story.POLICY.format(url=f"http://127.0.0.1:{port}", secret=story.WEBHOOK_SECRET)
    (policies / "simulated.yaml").write_text(policy)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CALLMETER_", "OTEL_"))}
    environ |= {"CALLMETER_DATA": str(directory / "data"), "CALLMETER_POLICIES": str(policies)}
    say("Starting a simulated provider and Callmeter in front of it ...")
    process, url, admin_url = await start_proxy(directory, environ)
    try:
        token = (directory / "data" / "admin.token").read_text().strip()
        say(f"Two teams and their agents make {len(story.STORY)} calls ...")
        async with aiohttp.ClientSession() as session:
            refused = await story.tell(session, url, await story.make_keys(session, admin_url, token))
            print("  what agents were told that were stopped:")
            for sentence in dict.fromkeys(refused):
                print(textwrap.fill(sentence, 116, initial_indent="  * ", subsequent_indent="    "))
            say("GitHub reports three merged changes, and that one of them was reverted ...")
            await story.ship(session, admin_url)
        await asyncio.sleep(SETTLE_S)
        for command in COMMANDS:
            await asyncio.to_thread(callmeter, *command, environ=environ)
        say(
            "What it shows: every call has a user, a task and its exact cost, also of the stream that broke off. A\n"
            "budget and a loop ended before they were paid for. Two changes held, and have a price each; the one that\n"
            "was reverted and the farm of copied tasks cost money too, and came to nothing. Nobody is ranked.\n"
            f"`./dev run` serves the real providers. (The demo took {time.monotonic() - begun_s:.0f} s.)"
        )
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
        await runner.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(demo())
