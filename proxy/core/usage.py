"""Usage: the billable units of one call, each in exactly one field."""

from __future__ import annotations

import msgspec

TOKEN_FIELDS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "output",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)
"""The fields that add up to all tokens of a call. `reasoning` is missing on purpose: it is a part of `output`."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Units of one call. The fields are disjoint, except `reasoning`, which is a part of `output`.

    `input` and `output` are text (and whatever has no field of its own, such as video and documents); audio_* and
    image_* lie outside them. `cached_input` covers every modality. `cache_write` leaves out `cache_write_1h`.
    `requests` counts what is paid by the piece, by name (`web_search`); `seconds` is audio time.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    requests: dict[str, int] = {}
    seconds: float = 0
    images: int = 0
    characters: int = 0

    @property
    def tokens(self) -> int:
        """All tokens of the call, each counted once."""
        return sum(self.token_counts)

    @property
    def token_counts(self) -> tuple[int, ...]:
        """The counts of TOKEN_FIELDS, in their order. Asked for several times a call, and by name in a third of the
        time that `getattr` takes."""
        return (
            self.input,
            self.cached_input,
            self.cache_write,
            self.cache_write_1h,
            self.output,
            self.audio_input,
            self.audio_output,
            self.image_input,
            self.image_output,
        )

    def __add__(self, other: Usage) -> Usage:
        """The usage of both together, as for a stream of parts that are billed one by one."""
        requests = dict(self.requests)
        for name, count in other.requests.items():
            requests[name] = requests.get(name, 0) + count
        numbers = {f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__ if f != "requests"}
        return Usage(requests=requests, **numbers)


NO_USAGE = Usage()
