"""Jobs: honest machines. They repeat themselves on purpose, which is what tells them from nobody at first sight."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from .bodies import ChatBody
from .company import CLAUDE, DAY_MS, HOUR_MS, MINUTE_MS, MONDAY_MS, SCRIPT, Company, Person, Repository, sentence
from .honest import answered, rounds, use
from .made import Made, Session

Calls = Iterator[Made]

COMPLAINTS = (
    "cancel my subscription",
    "help",
    "where is my order",
    "hi",
    "refund please",
    "I cannot log in",
    "wrong size, want to return it",
    "thanks!",
)
"""What customers write that many others have written word for word."""


def machine(random: Random, name: str, agent: object = SCRIPT) -> Person:
    """A service account."""
    return Person(
        user=name,
        team="platform",
        key_id=f"k{name[:12]}",
        agent=agent,  # type: ignore[arg-type]
        repository=random.randrange(12),
        starts_ms=0,
        names_tasks="header",
    )


def session_of(random: Random, person: Person, place: Repository, at_ms: int, task: str, story: str) -> Session:
    return Session(random, person, place, at_ms=at_ms, task=task, story=story)


def nightly(random: Random, company: Company, number: int) -> Calls:
    """The same prompt every night, to an agent with tools. Every other job has the day in the name of their task."""
    person = machine(random, f"nightly-{number}", CLAUDE)
    place = company.repositories[person.repository]
    prompt = f"Go through the errors that {place.name} logged since yesterday and write a report. {sentence(random)}"
    for day in range(7):
        at_ms = MONDAY_MS + day * DAY_MS + 2 * HOUR_MS + number * 7 * MINUTE_MS
        task = f"nightly-{number}" + (f"-{day}" if number % 2 else "")
        session = session_of(random, person, place, at_ms, task, "a job that runs every night")
        session.user(prompt)
        yield from answered(session)
        use(session, "shell", {"command": "errors --since yesterday"}, "\n".join(sentence(random) for _ in range(20)))
        yield from rounds(session, random.randint(2, 6))


def evaluation(random: Random, company: Company, number: int) -> Calls:
    """The same 40 questions at temperature 0 for every candidate of a release, three times a working day."""
    person = machine(random, f"evaluation-{number}")
    questions = [f"{sentence(random)} {sentence(random)} Is it `{word}`? Answer yes or no." for word in "abcdefgh" * 5]
    for day in range(5):
        for hour in (9, 13, 17):
            at_ms = MONDAY_MS + day * DAY_MS + hour * HOUR_MS + random.randint(0, 20) * MINUTE_MS
            task = f"evaluation-{random.getrandbits(28):07x}"
            session = session_of(
                random, person, company.repositories[0], at_ms, task, "an evaluation on every candidate"
            )
            for question in questions:
                session.begin()
                session.body = ChatBody(random, SCRIPT.model, "Judge strictly.", tools=False, temperature=0)
                session.user(question)
                yield session.call(ms=900, output_tokens=8)


def triage(random: Random, company: Company, number: int) -> Calls:
    """A batch that sorts messages of customers. Some of them are word for word alike."""
    person = machine(random, f"triage-{number}")
    for day in range(7):
        at_ms = MONDAY_MS + day * DAY_MS + 6 * HOUR_MS
        task = f"triage-{number}-{day}"
        session = session_of(random, person, company.repositories[1], at_ms, task, "a batch of short messages")
        for _ in range(130):
            text = random.choice(COMPLAINTS) if random.random() < 0.12 else sentence(random) + " " + sentence(random)
            session.begin()
            session.body = ChatBody(random, SCRIPT.model, "Which team is this for?", tools=False, temperature=0)
            session.user(f"Message:\n{text}\n\nAnswer with one of billing, delivery, login, other.")
            yield session.call(ms=random.randint(300, 900), output_tokens=4)


def backfill(random: Random, company: Company) -> Calls:
    """A report for each of the last 30 days, one after the other: prompts that differ in a date alone."""
    person = machine(random, "reports")
    at_ms = MONDAY_MS + 3 * DAY_MS + 10 * HOUR_MS
    session = session_of(random, person, company.repositories[2], at_ms, "backfill", "reports for many dates")
    for day in range(1, 31):
        session.begin("You write reports from the tables that you are given.")
        session.user(f"Write the report on returns for 2026-10-{day:02d}. Use the tool to read the table.")
        yield from answered(session)
        table = "\n".join(f"{random.randint(1, 900)} {sentence(random)}" for _ in range(10))
        use(session, "shell", {"command": f"returns 2026-10-{day:02d}"}, table)
        yield session.call()


def samples(random: Random, company: Company, number: int) -> Calls:
    """Several answers to one question, asked for on purpose: by seed, by `n`, or by temperature."""
    person = company.people[number * 7 % len(company.people)]
    place = company.repositories[person.repository]
    for day in range(5):
        at_ms = MONDAY_MS + day * DAY_MS + 14 * HOUR_MS + number * MINUTE_MS
        session = Session(
            random, person, place, at_ms=at_ms, task=f"study-{day}", story="samples on purpose", agent=SCRIPT
        )
        question = f"Name a product that {sentence(random)}"
        for attempt in range(16):
            ways: list[dict[str, object]] = [{"seed": attempt}, {"n": 4, "seed": attempt}, {"temperature": 0.9}]
            options = ways[number % len(ways)]
            session.begin()
            session.body = ChatBody(random, SCRIPT.model, "Be inventive.", tools=False, **options)
            session.user(question)
            yield session.call(ms=1200, output_tokens=80)


def counting(random: Random, company: Company, number: int) -> Calls:
    """Calls that cost nothing, over and over: how many tokens would this be, and which models are there."""
    person = company.people[number * 11 % len(company.people)]
    place = company.repositories[person.repository]
    session = Session(
        random,
        person,
        place,
        at_ms=MONDAY_MS + 9 * HOUR_MS,
        task="meter",
        story="polling what is free",
        agent=CLAUDE,
    )
    session.user("How long is this?")
    for _ in range(60):
        yield session.call(path="/v1/messages/count_tokens", free=True, output_tokens=0, ms=200)
        listing = session.call(method="GET", path="/v1/models", free=True, output_tokens=0, ms=100, body=lambda: b"")
        listing.headers["anthropic-version"] = "2023-06-01"
        yield listing
        session.think(30, 60)
