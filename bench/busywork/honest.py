"""Honest: people and their agents at work. Each function is one piece of work, as the calls that it makes.

What looks like a repeat and is none is here on purpose: failures and what follows them, prompts sent again after a
false start, a file read twice, a test run until it passes, waiting for a build, saved prompts that differ in a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from .company import DAY_MS, HOUR_MS, MINUTE_MS, MONDAY_MS, WORDS, Company, Person, Repository, sentence, slots, ticket
from .made import Made, Session
from .wording import Phrasing, wanted

Calls = Iterator[Made]

SMALL_TALK = ("hi", "hello", "test", "ping", "hey there", "are you there?", "what can you do?", "Say hello.")
WELCOME = (
    "I am new here. Set up this repository on my machine: install what is needed, run the tests once, and show me the "
    "three files that I should read first. Then explain in ten sentences what this service does and who uses it."
)
"""On the page for new colleagues, to be copied. Those who begin this week do."""


def working_day(random: Random, company: Company, phrasing: Phrasing, person: Person, day: int) -> Calls:
    """What one person does in a day: some tasks, one after the other."""
    place = company.repositories[person.repository]
    at_ms = MONDAY_MS + day * DAY_MS + person.starts_ms + random.randint(0, HOUR_MS)
    end_ms = at_ms + 8 * HOUR_MS
    if random.random() < 0.06:
        chat = Session(random, person, place, at_ms=at_ms, task=None, story="small talk")
        yield from small_talk(chat)
        at_ms = chat.at_ms
    about = slots(random, place)
    while at_ms < end_ms:
        session = Session(random, person, place, at_ms=at_ms, task=ticket(random, place), story="work on a task")
        kind = random.random()
        if kind < 0.72:
            # Often more than one thing is wanted of the same function: fix it, test it, document it.
            if random.random() < 0.8:
                about = slots(random, place)
            else:
                session.story = "another task on the same function"
            yield from task(session, phrasing, wanted(random, phrasing, about).said())
        elif kind < 0.86:
            session.story = "a saved prompt with a ticket number"
            yield from task(session, phrasing, phrasing.command.format(ticket=ticket(random, place)))
        elif kind < 0.95:
            session.story = "a line that names a ticket"
            yield from task(session, phrasing, random.choice(phrasing.errand).format(ticket=ticket(random, place)))
        else:
            yield from campaign(session, phrasing)
        at_ms = session.at_ms + random.randint(40, 260) * MINUTE_MS


def task(session: Session, phrasing: Phrasing, prompt: str) -> Calls:
    """One task from its first prompt to its end: some prompts, each with some rounds of tools."""
    random = session.random
    session.user(prompt)
    if (title := session.title(prompt)) is not None:
        yield title
    for _ in range(false_starts(random)):
        # Cut off by its reader, thrown away, and the same prompt pasted into a new conversation.
        yield session.call(result="client_gone", ms=2500, output_tokens=40)
        session.think(4, 90)
        session.begin()
        session.user(prompt)
    yield from rounds(session, random.randint(2, 12))
    for _ in range(random.choices((0, 1, 2, 3), (45, 30, 15, 10))[0]):
        session.think(20, 600)
        follow = random.choice(phrasing.replies) if random.random() < 0.55 else sentence(random)
        session.user(follow)
        yield from rounds(session, random.randint(1, 6))


def false_starts(random: Random) -> int:
    return random.choices((0, 1, 2), (960, 33, 7))[0]


def rounds(session: Session, count: int) -> Calls:
    """The model works with tools, `count` times, and then answers."""
    random, place = session.random, session.place
    read: list[str] = []
    for _ in range(count):
        yield from answered(session)
        kind = random.random()
        if kind < 0.40:
            # Now and then a file that was read before, in good faith.
            again = bool(read) and random.random() < 0.12
            path = random.choice(read) if again else random.choice(list(place.files))
            read.append(path)
            use(session, "read_file", {"path": path}, place.files[path])
        elif kind < 0.55:
            hits = "\n".join(f"{path}:{random.randint(1, 90)}" for path in random.sample(list(place.files), 5))
            pattern = random.choice(place.symbols)
            use(session, "search", {"pattern": pattern, "path": place.name}, hits if random.random() < 0.8 else "")
        elif kind < 0.78:
            edited(session)
        elif kind < 0.93:
            yield from tests_until_green(session)
        elif kind < 0.96:
            yield from build(session)
        else:
            use(session, "shell", {"command": "git status --short"}, f" M {random.choice(list(place.files))}\n")
        session.think(0.1, 20)
    yield from answered(session)
    session.body.answer("Done. " + sentence(random))
    if (asked := session.next_speaker()) is not None:
        yield asked


def answered(session: Session) -> Calls:
    """The next call. One in 40 fails first and is tried again, for some of them often."""
    if session.random.random() < 0.025:
        failures = session.random.choices((1, 2, 4, 8), (60, 25, 10, 5))[0]
        yield from session.retried(session.call(), failures)
    else:
        yield session.call()


def use(session: Session, tool: str, arguments: dict[str, str], result: str) -> None:
    words = sentence(session.random) if session.random.random() < 0.3 else ""
    session.body.answer(words, tool, arguments)
    session.body.result(result)


def edited(session: Session) -> None:
    """A file changes, for everybody who reads it from now on."""
    random, place = session.random, session.place
    path = random.choice(list(place.files))
    lines = place.files[path].split("\n")
    spot = random.randrange(len(lines))
    old, new = lines[spot], f"    {random.choice(WORDS)} = {random.choice(place.symbols)}({random.randint(0, 99)})"
    lines[spot] = new
    place.files[path] = "\n".join(lines)
    use(session, "edit_file", {"path": path, "old": old, "new": new}, "ok")


def tests_until_green(session: Session) -> Calls:
    """The same command again and again; its results differ: something is changed between, or the test is flaky."""
    random = session.random
    command = f"make test-{session.place.name}"
    tries = random.choices((1, 2, 3, 6, 10), (50, 22, 14, 10, 4))[0]
    flaky = random.random() < 0.2
    for attempt in range(tries):
        failed = 0 if attempt == tries - 1 else random.randint(1, 4)
        summary = f"{failed} failed, {random.randint(80, 90)} passed in {random.uniform(2, 9):.2f}s"
        traces = "\n".join(f"FAILED test_{random.choice(WORDS)} - {sentence(random)}" for _ in range(failed))
        use(session, "shell", {"command": command}, f"{traces}\n{summary}")
        session.think(3, 30)
        if attempt < tries - 1:
            yield from answered(session)
            if not flaky:
                edited(session)
                yield from answered(session)


def build(session: Session) -> Calls:
    """Waiting for a build: the same command and, until it ends, the same answer, for a quarter of an hour at times."""
    random = session.random
    command = f"sleep 60; gh run view {random.randint(10**9, 10**10)}"
    for _ in range(random.choices((1, 2, 4, 7, 15), (35, 33, 20, 9, 3))[0]):
        use(session, "shell", {"command": command}, "build: in progress")
        session.think(61, 64)
        yield from answered(session)
    use(session, "shell", {"command": command}, f"build: passed in {random.randint(2, 9)}m {random.randint(0, 59)}s")


def campaign(session: Session, phrasing: Phrasing) -> Calls:
    """One request for many places, the same words each time: short conversations that are distinct work."""
    random, place = session.random, session.place
    session.story = "one request for many files"
    request = wanted(random, phrasing, {})
    filled = slots(random, place)
    for path in random.sample(list(place.files), random.randint(5, 18)):
        session.begin()
        prompt = " ".join(idea[0] for idea in request.ideas).format_map({**filled, "file": path})
        session.user(prompt)
        if (title := session.title(prompt)) is not None:
            yield title
        use_first = random.randint(1, 3)
        yield from answered(session)
        use(session, "read_file", {"path": path}, place.files[path])
        yield from rounds(session, use_first)
        session.think(5, 60)


def series(random: Random, person: Person, place: Repository) -> Calls:
    """The parts of one long text, one after the other, in the same words but for a number."""
    at_ms = MONDAY_MS + 2 * DAY_MS + person.starts_ms
    session = Session(random, person, place, at_ms=at_ms, task=ticket(random, place), story="the same for each part")
    parts = random.randint(8, 20)
    for part in range(1, parts + 1):
        session.begin()
        session.user(
            f"Translate part {part} of {parts} of the handbook to German, keep its terms, and check its links."
        )
        yield from answered(session)
        path = f"handbook/part-{part}.md"
        use(session, "read_file", {"path": path}, "\n".join(sentence(random) for _ in range(30)))
        yield from answered(session)
        use(session, "write_file", {"path": path, "text": "\n".join(sentence(random) for _ in range(30))}, "ok")
        yield session.call()
        session.think(10, 60)


def small_talk(session: Session) -> Calls:
    """Trying whether it works, as everybody does."""
    for _ in range(session.random.randint(1, 3)):
        session.begin()
        session.user(session.random.choice(SMALL_TALK))
        yield session.call(output_tokens=12)
        session.think(2, 40)


def welcomed(random: Random, person: Person, place: Repository) -> Calls:
    """A new colleague sends the prompt of the welcome page, as all of them do."""
    at_ms = MONDAY_MS + random.randint(0, 4) * DAY_MS + person.starts_ms + random.randint(0, 5 * HOUR_MS)
    session = Session(random, person, place, at_ms=at_ms, task="welcome", story="the prompt of the welcome page")
    session.user(WELCOME)
    yield from rounds(session, random.randint(3, 8))


def investigation(random: Random, person: Person, place: Repository, day: int) -> Calls:
    """Somebody on duty asks about several requests by their ids, each in a conversation of its own."""
    at_ms = MONDAY_MS + day * DAY_MS + person.starts_ms + random.randint(0, 6 * HOUR_MS)
    session = Session(random, person, place, at_ms=at_ms, task=f"duty-{day}", story="one question for many ids")
    for _ in range(random.randint(3, 8)):
        session.begin()
        trace = f"{random.getrandbits(128):032x}"
        session.user(f"Why did the request with trace {trace} fail? Look into its logs.")
        yield from answered(session)
        log = "\n".join(sentence(random) for _ in range(12))
        use(session, "shell", {"command": f"logs --trace {trace}"}, log)
        yield from rounds(session, random.randint(1, 3))
        session.think(20, 200)
