"""Estimates: what a call used where nobody reports it. What it will use, before it is made: `expected.py`.

Learned per provider and model from calls that were reported in full, in the memory of one process. Estimates are
marked as such in the record and never mixed with reported figures.
"""

from __future__ import annotations

import msgspec

from .call import Call
from .expected import INLINE_BYTES_PER_TOKEN
from .usage import NO_USAGE, Usage

BYTES_PER_INPUT_TOKEN = 3.0
"""Before anything is learned: between prose (4.5) and code, JSON or Asian text (2.2 to 3.3), rather low than high."""
BYTES_PER_OUTPUT_TOKEN = 4.0
OUTPUT_TOKENS_PER_S = 50.0
MODELS_MAX = 2_000
"""Models remembered; beyond it nothing more is learned, so that made-up names cannot grow the memory."""
SPEED_TOKENS_MIN = 50
SPEED_S_MIN = 0.5
"""A shorter answer says more of the way there and back than of the model's speed."""
SPEED_BAND = (5.0, 500.0)
"""Tokens a second that any model was seen to make; what lies outside is taken for its edge."""
WEIGHT = 0.1
"""Of the newest call in each moving average."""


class Habits(msgspec.Struct):
    """What a model's calls were like lately, as moving averages."""

    bytes_per_input_token: float = BYTES_PER_INPUT_TOKEN
    bytes_per_output_token: float = BYTES_PER_OUTPUT_TOKEN
    output_tokens_per_s: float = OUTPUT_TOKENS_PER_S


class Estimator:
    """Learns from calls that were reported in full; answers for those that were not. What calls to come will use is
    told by `expected.py`."""

    def __init__(self) -> None:
        self._habits: dict[tuple[str, str], Habits] = {}

    def learn(self, provider: str, call: Call, usage: Usage, *, seen_bytes: int, answer_s: float) -> None:
        """Take in one call whose usage was reported. `answer_s` is the time from sending to the last byte."""
        key = (provider, call.model or "")
        habits = self._habits.get(key)
        if habits is None:
            if len(self._habits) >= MODELS_MAX:
                return
            habits = self._habits[key] = Habits()
        text_bytes = call.body_bytes - call.inline_bytes
        read = usage.input + usage.cached_input + usage.cache_write + usage.cache_write_1h
        if read and text_bytes > 0 and not call.inline_bytes:
            habits.bytes_per_input_token += WEIGHT * (text_bytes / read - habits.bytes_per_input_token)
        if usage.output:
            if usage.output >= SPEED_TOKENS_MIN and answer_s >= SPEED_S_MIN:
                speed = min(max(usage.output / answer_s, SPEED_BAND[0]), SPEED_BAND[1])
                habits.output_tokens_per_s += WEIGHT * (speed - habits.output_tokens_per_s)
            if seen_bytes and not usage.reasoning:
                habits.bytes_per_output_token += WEIGHT * (seen_bytes / usage.output - habits.bytes_per_output_token)

    def cut(
        self, provider: str, call: Call, seen: Usage | None, *, seen_bytes: int, answer_s: float, hidden: bool
    ) -> Usage:
        """What a call used that was cut short: its input in full, and output not below what was seen.

        seen      what the provider reported up to the cut, if anything
        hidden    the model may have reasoned unseen: then not below what the time and its usual speed suggest
        """
        habits = self._habits.get((provider, call.model or "")) or Habits()
        seen = seen or NO_USAGE
        output = max(seen.output, -(-seen_bytes // max(1, int(habits.bytes_per_output_token))))
        if hidden:
            by_time = int(answer_s * habits.output_tokens_per_s)
            if call.max_output_tokens is not None:
                by_time = min(by_time, call.max_output_tokens * call.choices)
            output = max(output, by_time)
        if seen.tokens - seen.output > 0:
            return msgspec.structs.replace(seen, output=output)
        return msgspec.structs.replace(seen, input=input_tokens(call, habits), output=output)


def input_tokens(call: Call, habits: Habits) -> int:
    text_bytes = max(0, call.body_bytes - call.inline_bytes)
    return max(1, int(text_bytes / habits.bytes_per_input_token + call.inline_bytes / INLINE_BYTES_PER_TOKEN))
