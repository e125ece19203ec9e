"""Company: 200 developers in teams, their repositories and agents, and what everything costs. All from one seed."""

from __future__ import annotations

from random import Random

import msgspec

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
MONDAY_MS = 1_794_787_200_000
"""2026-11-16T00:00Z."""
DEVELOPERS = 200
WORDS = tuple(
    """
    account amount answer batch border bucket buffer cache carrier cart charge check client clock column config
    cost country coupon credit cursor customer date debit delivery detail discount document driver entry event
    export field file filter format gateway group handler header history host import index input invoice item job
    journal key label ledger limit line list loader lock margin market measure member merge message method model
    month name note notice number offer order owner package page parcel parser partner path payment period person
    plan policy price product profile quantity query queue quota range rate reader reason receipt record refund
    region report request reserve result retry return route row rule sample scale schedule schema search section
    segment sender series session shelf shipment signal site size slot source stage state status step stock store
    stream style subject sum supplier table target tariff tax term text thread ticket timer token total trace
    track unit user value vendor version view visit voucher wallet warehouse window worker writer zone
    """.split()  # noqa: SIM905 - one long list of words is easier to read and to change
)
THINGS = (
    "partial refunds",
    "the export to the tax office",
    "two-step login",
    "search by colour",
    "delivery to lockers",
    "instalments",
    "the weekly digest",
    "price alerts",
    "bulk import",
    "the audit trail",
    "gift cards",
    "returns without a receipt",
)
DAYS = ("Monday", "Wednesday", "Thursday", "the 20th", "the 23rd", "next Friday", "2026-11-27", "month end")


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A program that calls models. Rates in nano-USD a token: input, input from the provider's cache, output."""

    name: str
    dialect: str
    upstream: str
    path: str
    user_agent: str
    model: str
    small_model: str
    rates: tuple[int, int, int]
    small_rates: tuple[int, int, int]


CLAUDE = Agent(
    name="claude-code",
    dialect="messages",
    upstream="anthropic",
    path="/v1/messages",
    user_agent="claude-cli/2.1.330 (external, cli)",
    model="claude-sonnet-4-5",
    small_model="claude-haiku-4-5",
    rates=(3000, 300, 15000),
    small_rates=(1000, 100, 5000),
)
CODEX = Agent(
    name="codex",
    dialect="responses",
    upstream="openai",
    path="/v1/responses",
    user_agent="codex_cli_rs/0.169.0 (Debian 12.0.0; x86_64)",
    model="gpt-5-codex",
    small_model="gpt-5-mini",
    rates=(1250, 125, 10000),
    small_rates=(250, 25, 2000),
)
OPENCODE = Agent(
    name="opencode",
    dialect="chat",
    upstream="openai",
    path="/v1/chat/completions",
    user_agent="opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3",
    model="gpt-5",
    small_model="gpt-5-nano",
    rates=(1250, 125, 10000),
    small_rates=(50, 5, 400),
)
GEMINI = Agent(
    name="gemini-cli",
    dialect="gemini",
    upstream="gemini",
    path="/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
    user_agent="GeminiCLI/0.42.0/gemini-2.5-pro (linux; x64)",
    model="gemini-2.5-pro",
    small_model="gemini-2.5-flash",
    rates=(1250, 125, 10000),
    small_rates=(300, 30, 2500),
)
SCRIPT = Agent(
    name="openai-python",
    dialect="chat",
    upstream="openai",
    path="/v1/chat/completions",
    user_agent="OpenAI/Python 2.8.0",
    model="gpt-5-mini",
    small_model="gpt-5-nano",
    rates=(250, 25, 2000),
    small_rates=(50, 5, 400),
)
AGENTS = (CLAUDE, CODEX, OPENCODE, GEMINI)


class Repository(msgspec.Struct):
    """Code that people work on. `instructions` are what agents are told of it at every call; files are a few KB."""

    name: str
    ticket_prefix: str
    instructions: str
    files: dict[str, str]
    symbols: list[str]


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """`starts_ms` is when their day begins, in UTC; `names_tasks` how their calls come to a task."""

    user: str
    team: str
    key_id: str
    agent: Agent
    repository: int
    starts_ms: int
    names_tasks: str
    """key | header | path: by ticket; agent: the agent's session is the task; none: no task at all."""


class Company(msgspec.Struct):
    people: list[Person]
    repositories: list[Repository]


def founded(random: Random) -> Company:
    repositories = [repository(random, number) for number in range(12)]
    people = [person(random, number) for number in range(DEVELOPERS)]
    return Company(people, repositories)


def person(random: Random, number: int) -> Person:
    team = number % 20
    return Person(
        user=f"dev-{number:03d}",
        team=f"team-{team:02d}",
        key_id=f"k{number:03d}aaaaaaaaa",
        agent=AGENTS[random.choices(range(4), (40, 25, 20, 15))[0]],
        repository=team % 12,
        starts_ms=random.randint(6 * 60, 15 * 60) * MINUTE_MS,
        names_tasks=random.choices(("key", "header", "path", "agent", "none"), (35, 10, 10, 35, 10))[0],
    )


def repository(random: Random, number: int) -> Repository:
    name = f"{random.choice(WORDS)}-{random.choice(WORDS)}"
    symbols = [f"{random.choice(WORDS)}_{random.choice(WORDS)}" for _ in range(120)]
    files = {}
    for _ in range(60):
        path = f"{name}/{random.choice(WORDS)}/{random.choice(WORDS)}_{random.choice(WORDS)}.py"
        files[path] = code(random, symbols, random.randint(12, 60))
    rules = [f"* {sentence(random)}" for _ in range(36)]
    commands = f"Tests: `make test-{name}`. Lint: `make lint`. Never push to main."
    instructions = f"# {name}\n\n{commands}\n\n" + "\n".join(rules)
    return Repository(name, f"{name[:3].upper()}{number}", instructions, files, symbols)


def code(random: Random, symbols: list[str], lines: int) -> str:
    """Something that looks like a module."""
    text = [f"from {random.choice(WORDS)} import {random.choice(WORDS)}", ""]
    for _ in range(lines):
        left, call = random.choice(WORDS), random.choice(symbols)
        text.append(f"    {left} = {call}({random.choice(WORDS)}, {random.randint(0, 99)})")
        if random.random() < 0.12:
            text.append(f"\n\ndef {random.choice(symbols)}({random.choice(WORDS)}, {random.choice(WORDS)}):")
    return "\n".join(text)


def sentence(random: Random) -> str:
    return " ".join(random.choices(WORDS, k=random.randint(6, 14))).capitalize() + "."


def slots(random: Random, place: Repository) -> dict[str, str]:
    """What fills a wording in: a file of the repository, a function, and the like."""
    return {
        "file": random.choice(list(place.files)),
        "symbol": random.choice(place.symbols),
        "service": f"{random.choice(WORDS)}-service",
        "thing": random.choice(THINGS),
        "day": random.choice(DAYS),
    }


def ticket(random: Random, place: Repository) -> str:
    return f"{place.ticket_prefix}-{random.randint(100, 49999)}"
