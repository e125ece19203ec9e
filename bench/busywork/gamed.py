"""Gamed: what pretends to be work. Each function is a game as people play it who are measured by use.

The first copy of anything is `first`: taken alone it is what honest work looks like. All that follows is `gamed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

import msgspec

from .bodies import uuid
from .company import DAY_MS, HOUR_MS, MINUTE_MS, MONDAY_MS, Company, Person, Repository, sentence, slots, ticket
from .honest import rounds, use
from .made import Made, Session
from .wording import Phrasing, wanted

Calls = Iterator[Made]
Disguise = Callable[[Random, str, int], str]
"""Random, a prompt and the number of the copy -> the prompt as it is sent."""


def moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


DISGUISES: dict[str, Disguise] = {
    "a uuid before": lambda random, text, _: f"[{uuid(random)}] {text}",
    "a uuid after": lambda random, text, _: f"{text}\n\nref: {uuid(random)}",
    "a time": lambda random, text, _: f"{moment(MONDAY_MS + random.randint(0, 5 * DAY_MS))} {text}",
    "a hash within": lambda random, text, _: text.replace(". ", f". (build {random.getrandbits(48):012x}) ", 1),
    "a long number": lambda random, text, _: f"{text} Request {random.randint(10**8, 10**12)}.",
    "a made-up ticket": lambda random, text, _: f"{text} (see REF-{random.randint(1000, 99999)})",
    "a counter": lambda random, text, copy: f"{text} (run {copy})",
    "spacing": lambda random, text, _: text.replace(" ", " " * random.randint(2, 4), random.randint(1, 9)) + "\n",
    "case and stops": lambda random, text, _: (
        text.replace(". ", random.choice(("! ", " - ", "; ", ".\n")), 2).upper()
        if random.random() < 0.3
        else text.replace(".", random.choice(("!", "...", ";")))
    ),
    "nothing": lambda random, text, _: text,
}
"""How copies are made to look new, by its name in the table."""


def begun(random: Random, person: Person, latest_hour: int = 6) -> int:
    """Some moment of somebody's working week."""
    return MONDAY_MS + random.randint(0, 4) * DAY_MS + person.starts_ms + random.randint(0, latest_hour * HOUR_MS)


def copies(random: Random, company: Company, phrasing: Phrasing, person: Person, disguise: str) -> Calls:
    """One prompt, some forty times in a new conversation each, with a nonce: the plainest way to look busy."""
    place = company.repositories[person.repository]
    prompt = wanted(random, phrasing, slots(random, place)).said()
    session = Session(
        random,
        person,
        place,
        at_ms=begun(random, person),
        task=ticket(random, place),
        story=f"copies with {disguise}",
        truth="first",
    )
    for copy in range(random.randint(30, 50)):
        if copy:
            session.truth = "gamed"
            session.begin()
        sent = DISGUISES[disguise](random, prompt, copy)
        yield from hollow(session, sent, random.randint(0, 2))
        session.think(5, 90)


def hollow(session: Session, prompt: str, count: int) -> Calls:
    """A conversation that goes through the motions: the prompt, some tools, an end."""
    session.user(prompt)
    if (title := session.title(prompt)) is not None:
        yield title
    yield from rounds(session, count)


def reworded(random: Random, company: Company, phrasing: Phrasing, person: Person) -> Calls:
    """The same task many times over, told in other words each time, under another ticket."""
    place = company.repositories[person.repository]
    request = wanted(random, phrasing, slots(random, place))
    at_ms = begun(random, person)
    for copy in range(random.randint(25, 40)):
        session = Session(
            random,
            person,
            place,
            at_ms=at_ms,
            task=ticket(random, place),
            story="reworded prompts",
            truth="gamed" if copy else "first",
        )
        yield from hollow(session, request.reworded(random, phrasing) if copy else request.said(), random.randint(1, 4))
        at_ms = session.at_ms + random.randint(10, 240) * 1000


def loop(random: Random, company: Company, phrasing: Phrasing, person: Person, length: int, noise: str) -> Calls:
    """One tool call, or a cycle of some, over and over for an hour, in a conversation that grows.

    noise  what differs from round to round: nothing, the time in the result, a nonce in the arguments, or what the
           model says before it calls the tool
    """
    place = company.repositories[person.repository]
    story = f"a loop of {length}" + (f", with {noise}" if noise else "")
    session = Session(
        random, person, place, at_ms=begun(random, person), task=ticket(random, place), story=story, truth="first"
    )
    session.user(wanted(random, phrasing, slots(random, place)).said())
    yield from rounds(session, random.randint(2, 5))
    session.user("Keep checking until it is right.")
    cycle = [step(random, place) for _ in range(length)]
    end_ms = session.at_ms + HOUR_MS
    turn = 0
    while session.at_ms < end_ms and turn < 70 * length and turn < 130:
        session.truth = "gamed" if turn >= length else "first"
        yield session.call()
        tool, arguments, result = cycle[turn % length]
        if noise == "a nonce in the arguments":
            arguments = {**arguments, next(iter(arguments)): f"{next(iter(arguments.values()))} # {uuid(random)}"}
        if noise == "a time in the result":
            result = f"{moment(session.at_ms)} {result}"
        words = sentence(random) if noise == "new words before" else ""
        session.body.answer(words, tool, arguments)
        session.body.result(result)
        session.think(1, 40)
        turn += 1


def step(random: Random, place: Repository) -> tuple[str, dict[str, str], str]:
    """A tool call and what it gives, always the same."""
    path = random.choice(list(place.files))
    text = place.files[path][:700]
    return random.choice(
        (
            ("read_file", {"path": path}, text),
            ("shell", {"command": f"make check-{random.choice(place.symbols)}"}, "nothing to be done"),
            ("search", {"pattern": random.choice(place.symbols), "path": place.name}, f"{path}:12"),
        )
    )


def restarting_loop(random: Random, company: Company, phrasing: Phrasing, person: Person) -> Calls:
    """A loop that begins a new conversation every few rounds, so that no single one looks long."""
    place = company.repositories[person.repository]
    prompt = wanted(random, phrasing, slots(random, place)).said()
    tool, arguments, result = step(random, place)
    session = Session(
        random,
        person,
        place,
        at_ms=begun(random, person),
        task=ticket(random, place),
        story="a loop that starts anew",
        truth="first",
    )
    for conversation in range(24):
        if conversation:
            session.truth = "gamed"
            session.begin()
        session.user(prompt)
        for _ in range(5):
            yield session.call()
            session.body.answer("", tool, arguments)
            session.body.result(result)
            session.think(1, 20)


def farm(random: Random, company: Company, phrasing: Phrasing, people: list[Person], tasks: int, story: str) -> Calls:
    """One task under many names: each copy has a ticket of its own, and a real piece of an agent's work behind it."""
    place = company.repositories[people[0].repository]
    prompt = wanted(random, phrasing, slots(random, place)).said()
    at_ms = begun(random, people[0])
    for copy in range(tasks):
        person = people[copy % len(people)]
        session = Session(
            random,
            person,
            place,
            at_ms=at_ms,
            task=ticket(random, place),
            story=story,
            truth="gamed" if copy else "first",
        )
        disguise = random.choice(("nothing", "a uuid after", "a time", "spacing", "a hash within"))
        yield from hollow(session, DISGUISES[disguise](random, prompt, copy), random.randint(3, 7))
        at_ms = session.at_ms + random.randint(1, 25) * MINUTE_MS


def many_keys(random: Random, company: Company, phrasing: Phrasing, person: Person) -> Calls:
    """One user, eight keys, so that each of them looks idle."""
    place = company.repositories[person.repository]
    prompt = wanted(random, phrasing, slots(random, place)).said()
    at_ms = begun(random, person)
    for copy in range(64):
        session = Session(
            random,
            person,
            place,
            at_ms=at_ms,
            task=None,
            story="many small keys of one user",
            truth="gamed" if copy else "first",
            key_id=f"{person.key_id[:-1]}{copy % 8}",
        )
        disguise = random.choice(("nothing", "a uuid before", "a time", "a long number"))
        yield from hollow(session, DISGUISES[disguise](random, prompt, copy), random.randint(0, 2))
        at_ms = session.at_ms + random.randint(5, 200) * 1000


def at_once(random: Random, company: Company, phrasing: Phrasing, person: Person) -> Calls:
    """Every call of a task is sent three times at the same moment."""
    place = company.repositories[person.repository]
    session = Session(
        random,
        person,
        place,
        at_ms=begun(random, person),
        task=ticket(random, place),
        story="every call three times at once",
        truth="first",
    )
    for _ in range(12):
        session.begin()
        session.user(wanted(random, phrasing, slots(random, place)).said())
        for _ in range(8):
            call = session.call()
            yield call
            for copy, delay_ms in (("second", 3), ("third", 7)):
                follows = f"{call.follows} {copy}"
                yield msgspec.structs.replace(call, at_ms=call.at_ms + delay_ms, truth="gamed", follows=follows)
            path = random.choice(list(place.files))
            use(session, "read_file", {"path": path}, place.files[path])
            session.think(1, 20)
