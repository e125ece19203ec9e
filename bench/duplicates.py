"""What duplicate rules cost: CPU time of reading a conversation and its fingerprints, of the marks on their way to the
store, and what a remembered call takes there.

    python -m bench.duplicates            # about half a minute, on an embedded Valkey

Prints tables as docs/duplicates.md has them: the best of several rounds, in microseconds of CPU time.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.duplicates import DuplicateIndex, DuplicateRule, Prints, marks_for
from proxy.core.fingerprint import Fingerprinter
from proxy.core.matching import Upstream
from proxy.core.record import Record
from proxy.core.windows import Every
from proxy.store.calls import CallStore
from proxy.store.client import Client
from proxy.store.embedded import EmbeddedServer
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.marks import Marked
from proxy.store.spool import Spool
from proxy.wire.conversations import read_conversation
from proxy.wire.request import json_fields
from tests.support.store import ensure_epochs

ROUNDS = 7
MAKER = Fingerprinter(b"secret")
CALLER = Caller(org="acme", team="payments", user="ada", key_id="k1", task="PAY-7")
CALL = Call(api="openai.chat", dialect="openai", model="gpt-5-mini")
UPSTREAM = Upstream(name="openai", dialect="openai", provider="openai", url="https://api.openai.com")
WHERE: dict[str, Any] = {"caller": CALLER, "call": CALL, "upstream": UPSTREAM}
HOUR = Every.parse("rolling 1h")
RULES = [
    DuplicateRule(name="same", kind="exact", limit=5, every=HOUR, then="refuse"),
    DuplicateRule(name="words", kind="normalized", limit=5, every=HOUR, then="refuse"),
    DuplicateRule(name="circle", kind="loop", per=("task",), limit=8, every=HOUR, then="refuse"),
]
REMEMBERED = 20_000

_random = random.Random(1)
WORDS = "the quick brown fox jumps over lazy dog import def return class self value parse error 17 42 file".split()  # noqa: SIM905


def text(size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        word = _random.choice(WORDS)
        words.append(word)
        length += len(word) + 1
    return " ".join(words)


def chat(size: int, turns: int) -> bytes:
    """An agent's conversation of about so many bytes: a system text, rounds of tools, and a last result."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": text(size // 5)}]
    messages.append({"role": "user", "content": text(min(400, size // 5))})
    for number in range(turns):
        function = {"name": "bash", "arguments": json.dumps({"command": f"{text(40)} {number}"})}
        calls = [{"id": f"call_{number}", "type": "function", "function": function}]
        messages.append({"role": "assistant", "content": text(60), "tool_calls": calls})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": text(size * 3 // 5 // turns)})
    return json.dumps({"model": "gpt-5-mini", "messages": messages, "temperature": 0.2}).encode()


ODD = {
    "one turn of 64 KB": json.dumps({"messages": [{"role": "user", "content": text(64_000)}]}).encode(),
    "10 MB of one word": b'{"messages":[{"role":"user","content":"' + b"w" * 10_000_000 + b'"}]}',
    "10,000 turns": json.dumps(
        {"messages": [{"role": "assistant" if n % 2 else "user", "content": f"turn {n}"} for n in range(10_001)]}
    ).encode(),
    "nested 900 deep": b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}",
}


def best_us(work: Callable[[], Any], times: int) -> float:
    found = []
    for _ in range(ROUNDS):
        begun_ns = time.process_time_ns()
        for _ in range(times):
            work()
        found.append((time.process_time_ns() - begun_ns) / times / 1000)
    return min(found)


def look(body: bytes) -> None:
    """All that a worker does for the three rules but the round trip, which is there without them."""
    conversation = read_conversation(CALL, json_fields(body, route="/bench", content_type=""))
    assert conversation is not None
    scopes = INDEX.scopes(CALLER, CALL, UPSTREAM)
    marks, _ = marks_for(scopes, conversation, MAKER, now_ms=now_ms(), prints=Prints(), **WHERE)
    if marks:
        Marked(marks, user="ada", task="PAY-7").packed("0" * 32, "acme")


INDEX = DuplicateIndex(RULES)


def print_cpu() -> None:
    print("| body | reading it once (there without rules) | with the three rules | more |")
    print("| --- | --- | --- | --- |")
    bodies = {"2 KB chat": chat(2_000, 1), "8 KB agent": chat(8_000, 4), "64 KB agent": chat(64_000, 20), **ODD}
    for name, body in bodies.items():
        times = max(1, 2_000_000 // len(body))
        fields_us = best_us(lambda: json_fields(body, route="/bench", content_type=""), times)  # noqa: B023
        all_us = best_us(lambda: look(body), times)  # noqa: B023
        print(f"| {name} | {fields_us:,.0f} µs | {all_us:,.0f} µs | {all_us - fields_us:,.0f} µs |")


async def print_memory(folder: Path) -> None:
    server = EmbeddedServer(folder, dies_with_parent=True)
    await server.open()
    client = Client(server.url, command_timeout_s=10)
    store = CallStore(client, Spool(folder / "spool"), clock_ms=now_ms)
    try:
        await client.open()
        await ensure_epochs(client, ledger_position={})
        await store.open()
        print("\n| rule | bytes in the store for a remembered call |\n| --- | --- |")
        for rule in RULES[:2]:
            print(f"| {rule.kind} | {await remembered_bytes(rule, store, client):,.0f} |")
    finally:
        await store.close()
        await client.close()
        await server.close()


async def remembered_bytes(rule: DuplicateRule, store: CallStore, client: Client) -> float:
    """What one call more takes of the store: of many different ones, in the hashes that remember them."""
    scopes = DuplicateIndex([rule]).scopes(CALLER, CALL, UPSTREAM)
    keys = KEYS[shard_of(CALLER.org)]
    for number in range(REMEMBERED):
        body = json.dumps({"messages": [{"role": "user", "content": f"question of {number % 9973} and {number // 7}"}]})
        conversation = read_conversation(CALL, json_fields(body.encode(), route="/bench", content_type=""))
        assert conversation is not None
        at_ms = now_ms()
        marks, _ = marks_for(scopes, conversation, MAKER, now_ms=at_ms, prints=Prints(), **WHERE)
        record = Record(call_id=f"{at_ms:012x}7000{number:016x}", at_ms=at_ms, org=CALLER.org, user="ada", key_id="k1")
        await store.reserve(record, (), Marked(marks, user="ada", task="PAY-7"))
    found = await client.call("KEYS", keys.twins(scopes[0].counter, "*"))
    sizes = await client.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 0) for key in found])
    return float(sum(sizes)) / REMEMBERED


def now_ms() -> int:
    return time.time_ns() // 10**6


def main() -> None:
    print_cpu()
    folder = Path(tempfile.mkdtemp(prefix="cm-"))
    try:
        asyncio.run(print_memory(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
