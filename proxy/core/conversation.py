"""Conversation: what a call says to its model, the same for every dialect. Read by `wire.conversations`, looked at by
`fingerprint`, and gone when the call is: nothing in here is ever written anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec


class Turn(msgspec.Struct, gc=False):
    """All that one side says before the other speaks. The caller's side is the user and the results of tools.

    texts     what is said, in order; media as a sample of their data, so that other media are another text
    calls     tools that the model calls: name and arguments, these as JSON with sorted keys
    results   what tools gave back, in order
    """

    by_model: bool
    texts: list[str]
    calls: list[tuple[str, str]]
    results: list[str]


class Conversation(msgspec.Struct, kw_only=True):
    """One conversation up to the answer that the call asks for.

    asked        the fields of the body that shape the answer, by name: decoded, or as `msgspec.Raw` where they were
                 left undecoded. Without what providers do not answer by: the streaming flag, metadata, end user, cache
                 hints, service tier
    beside       what shapes the answer and is not in the body, as `wire.beside` tells it
    system       system and developer texts
    tools        the names of the tools that are offered, in order
    turns        oldest first; the two sides alternate
    omitted      turns in the midst of a very long conversation that were left out
    kept_by      the id of earlier conversation that the provider keeps, and we do not see; "" where all is here
    max_output_tokens, temperature, seed   as the call gives them
    """

    asked: dict[str, Any] = {}
    beside: str = ""
    system: list[str] = []
    tools: list[str] = []
    turns: list[Turn] = []
    omitted: int = 0
    kept_by: str = ""
    max_output_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    normal: dict[str, bytes] = {}
    """Texts of it that were normalized already: rules look at the same ones."""

    @property
    def last_turn(self) -> Turn | None:
        """What the model is to answer; None where the model spoke last or nothing was said."""
        return self.turns[-1] if self.turns and not self.turns[-1].by_model else None

    def steps_backwards(self) -> Iterator[tuple[Turn, Turn]]:
        """The rounds of tool use, newest first: the model's turn that calls tools, and the caller's with the results.

        The newest one is the step that the conversation ends in; there is none where it ends in something else.
        """
        turns = self.turns
        for place in range(len(turns) - 1, 0, -1):
            if turns[place].results and turns[place - 1].calls:
                yield turns[place - 1], turns[place]
            elif not turns[place].by_model:
                return


class Talk:
    """Builds turns out of a dialect's messages: what the same side says in a row is one turn."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    def turn(self, by_model: bool) -> Turn:
        """The turn to add to."""
        turns = self.turns
        if turns and turns[-1].by_model is by_model:
            return turns[-1]
        turn = Turn(by_model, [], [], [])
        turns.append(turn)
        return turn
