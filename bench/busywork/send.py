"""Sends busywork to a running proxy, to see what its rules make of it: one task under five names, and a loop.

python -m bench.busywork.send --key cm_... [--url http://127.0.0.1:8080] [--upstream sim-openai]
"""

from __future__ import annotations

import argparse
import urllib.error
import urllib.request
from collections.abc import Iterator
from random import Random

from .bodies import ChatBody, uuid
from .company import OPENCODE

PROMPT = (
    "Fix the rounding fault in loan/rates.py: `settle_all` loses a cent on negative amounts. Add a test that fails "
    "without your change, and run all tests before you finish."
)
COPIES = 5
ROUNDS = 24
ANSWER_S = 30.0


def copied_task(random: Random, model: str) -> Iterator[tuple[str, bytes]]:
    """Task and body of each call: the same prompt under one name after the other, with an id that is new."""
    for copy in range(1, COPIES + 1):
        body = ChatBody(random, model, "You are an agent for the command line.")
        body.user(f"[{uuid(random)}] {PROMPT}")
        yield f"COPY-{copy}", body.whole()


def loop(random: Random, model: str) -> Iterator[tuple[str, bytes]]:
    """Task and body of each call: a conversation that reads the same file again and again."""
    body = ChatBody(random, model, "You are an agent for the command line.")
    body.user(f"Keep checking until it is right. {PROMPT}")
    for _ in range(ROUNDS):
        yield "LOOP-1", body.whole()
        body.answer("", "read_file", {"path": "loan/rates.py"})
        body.result("def settle_all(amounts): return sum(amounts)")


def send(url: str, key: str, body: bytes) -> str:
    """Status and what Callmeter said of the call."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "user-agent": OPENCODE.user_agent}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            answer.read()
            return f"{answer.status}  {answer.headers.get('x-callmeter-warning', '')}"
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{refused.code}  {refused.read(600).decode('utf-8', 'replace')}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.busywork.send", description=__doc__)
    parser.add_argument("--key", required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--upstream", default="sim-openai")
    parser.add_argument("--model", default="gpt-5-mini")
    given = parser.parse_args()
    for story in (copied_task, loop):
        for task, body in story(Random(1), given.model):
            place = f"{given.url}/task/{task}/{given.upstream}/v1/chat/completions"
            print(f"{task}  {send(place, given.key, body)}")


if __name__ == "__main__":
    main()
