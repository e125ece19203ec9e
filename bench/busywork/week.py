"""Week: everything that the company's agents do from Monday to Sunday, in the order of time, from one seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from operator import attrgetter
from random import Random

from . import gamed, honest, jobs
from .company import Company, founded
from .made import Made
from .wording import Phrasing

LOOPS = (
    (1, ""),
    (1, ""),
    (1, "a time in the result"),
    (1, "a nonce in the arguments"),
    (1, "new words before"),
    (2, ""),
    (3, ""),
    (4, ""),
    (3, "a time in the result"),
    (2, "new words before"),
)


def week(seed: int, phrasing: Phrasing) -> Iterator[Made]:
    """The calls, oldest first. The body of each must be asked for before the next is drawn."""
    company = founded(Random(f"{seed} company"))
    return heapq.merge(*stories(seed, company, phrasing), key=attrgetter("at_ms"))


def stories(seed: int, company: Company, phrasing: Phrasing) -> Iterator[Iterator[Made]]:
    """Every piece of work and every game. Each has randomness of its own: one more changes none of the others."""

    def own(name: str) -> Random:
        return Random(f"{seed} {name}")

    for person in company.people:
        for day in range(5):
            yield honest.working_day(own(f"{person.user} {day}"), company, phrasing, person, day)
    for number in range(30):
        person = company.people[number * 6 + 1]
        yield honest.welcomed(own(f"welcome {number}"), person, company.repositories[3])
    for number in range(10):
        person = company.people[number * 13 + 2]
        place = company.repositories[person.repository]
        yield honest.investigation(own(f"duty {number}"), person, place, number % 5)
    for number in range(6):
        person = company.people[number * 31 + 3]
        yield honest.series(own(f"series {number}"), person, company.repositories[person.repository])
    yield from machines(own, company)
    yield from games(own, company, phrasing)


def machines(own: Callable[[str], Random], company: Company) -> Iterator[Iterator[Made]]:
    for number in range(12):
        yield jobs.nightly(own(f"nightly {number}"), company, number)
    for number in range(2):
        yield jobs.evaluation(own(f"evaluation {number}"), company, number)
        yield jobs.triage(own(f"triage {number}"), company, number)
    yield jobs.backfill(own("backfill"), company)
    for number in range(6):
        yield jobs.samples(own(f"samples {number}"), company, number)
    for number in range(4):
        yield jobs.counting(own(f"counting {number}"), company, number)


def games(own: Callable[[str], Random], company: Company, phrasing: Phrasing) -> Iterator[Iterator[Made]]:
    """Some 70 of 200 people play. What they do beside it is as honest as everybody's."""
    people = iter(company.people[(number * 37 + 5) % len(company.people)] for number in range(len(company.people)))
    for disguise in gamed.DISGUISES:
        for turn in range(2):
            yield gamed.copies(own(f"copies {disguise} {turn}"), company, phrasing, next(people), disguise)
    for number in range(4):
        yield gamed.reworded(own(f"reworded {number}"), company, phrasing, next(people))
    for number, (length, noise) in enumerate(LOOPS):
        yield gamed.loop(own(f"loop {number}"), company, phrasing, next(people), length, noise)
    for number in range(4):
        yield gamed.restarting_loop(own(f"restarting {number}"), company, phrasing, next(people))
    for number in range(3):
        farmer = [next(people)]
        yield gamed.farm(own(f"farm {number}"), company, phrasing, farmer, 35, "one task under many names, one user")
    for number in range(2):
        farmers = [next(people) for _ in range(12)]
        yield gamed.farm(
            own(f"farms {number}"), company, phrasing, farmers, 60, "one task under many names, many users"
        )
    for number in range(2):
        yield gamed.many_keys(own(f"keys {number}"), company, phrasing, next(people))
    for number in range(2):
        yield gamed.at_once(own(f"at once {number}"), company, phrasing, next(people))
