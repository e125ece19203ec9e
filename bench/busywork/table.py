"""Table: what became of the week, summed by what was going on and by the kinds of rules, in the order of names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from proxy.core.money import format_usd

from .judge import FATES, Verdict, Work
from .made import Made

KINDS = ("exact", "normalized", "loop", "task", "similar")


class Sum:
    """Calls, and what they cost, by what became of them."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = defaultdict(int)
        self.nusd: dict[str, int] = defaultdict(int)

    def add(self, fate: str, nusd: int) -> None:
        self.calls[fate] += 1
        self.nusd[fate] += nusd

    @property
    def all_calls(self) -> int:
        return sum(self.calls.values())

    @property
    def all_nusd(self) -> int:
        return sum(self.nusd.values())

    def share(self, *fates: str) -> float:
        """Of the money."""
        return sum(self.nusd[fate] for fate in fates) / (self.all_nusd or 1)


class Results:
    """Filled call by call."""

    def __init__(self) -> None:
        self.stories: dict[tuple[str, str], Sum] = defaultdict(Sum)
        self.truths: dict[str, Sum] = defaultdict(Sum)
        self.caught: dict[str, int] = defaultdict(int)
        self.caught_alone: dict[str, int] = defaultdict(int)
        self.warned_wrongly: dict[str, int] = defaultdict(int)
        self.refused_wrongly: dict[str, int] = defaultdict(int)
        self._waiting: list[tuple[str, str, Work, int]] = []

    def add(self, made: Made, verdict: Verdict) -> None:
        if verdict.fate == "passed" and verdict.work is not None:
            self._waiting.append((made.truth, made.story, verdict.work, verdict.cost_nusd))
        else:
            self._add(made.truth, made.story, verdict.fate, verdict.cost_nusd)
        for kind in verdict.kinds:
            if made.truth == "gamed":
                self.caught[kind] += verdict.cost_nusd
                self.caught_alone[kind] += verdict.cost_nusd if len(verdict.kinds) == 1 else 0
            elif verdict.fate == "warned":
                self.warned_wrongly[kind] += 1
            elif kind in verdict.refused_by:
                self.refused_wrongly[kind] += 1

    def end(self, repeats: set[Work]) -> None:
        """Adds the calls of which nothing was said when they were made: only now is known which work repeats other."""
        for truth, story, work, nusd in self._waiting:
            self._add(truth, story, "listed" if work in repeats else "passed", nusd)
        self._waiting.clear()

    def _add(self, truth: str, story: str, fate: str, nusd: int) -> None:
        self.stories[truth, story].add(fate, nusd)
        self.truths[truth].add(fate, nusd)

    @property
    def caught_share(self) -> float:
        """Of the money of games, beyond first copies: what some rule or signal caught."""
        return 1 - self.truths["gamed"].share("passed")

    @property
    def wrong_share(self) -> float:
        """Of calls that are no game, first copies among them: those that were refused, or could not follow."""
        honest = [self.truths["honest"], self.truths["first"]]
        return sum(each.calls["refused"] + each.calls["prevented"] for each in honest) / (
            sum(each.all_calls for each in honest) or 1
        )


def by_kind(results: Results) -> Iterable[list[str]]:
    """A row for each kind of rule, and one for all together."""
    gamed = results.truths["gamed"].all_nusd
    yield ["kind of rule", "caught", "caught by it alone", "missed", "honest calls refused", "honest calls warned of"]
    for kind in KINDS:
        caught, wrong = results.caught[kind], results.refused_wrongly[kind]
        told = results.warned_wrongly[kind]
        alone = format_usd(results.caught_alone[kind])
        yield [kind, percent(caught, gamed), alone, percent(gamed - caught, gamed), f"{wrong:,}", f"{told:,}"]


def by_story(results: Results) -> Iterable[list[str]]:
    """A row for each game and each kind of honest work."""
    yield ["what went on", "", "calls", "cost", *FATES]
    for (truth, story), found in sorted(results.stories.items(), key=lambda each: (TRUTHS.index(each[0][0]), each[0])):
        shares = [percent(found.calls[fate], found.all_calls) if found.calls[fate] else "-" for fate in FATES]
        yield [story, truth, f"{found.all_calls:,}", format_usd(found.all_nusd), *shares]


TRUTHS = ("honest", "first", "gamed")


def percent(part: int, whole: int) -> str:
    share = part * 100 / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %" if share >= 0.1 else f"{share:.2g} %"


def markdown(rows: Iterable[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
