"""Reading: what an answer has told so far. Every dialect's reader fills one; the relay asks for it at the end."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..core.usage import Usage


class Part(msgspec.Struct, kw_only=True):
    """A part of an answer's usage that is billed as another model (an advisor under another model's answer)."""

    model: str | None
    usage: Usage


class Item(msgspec.Struct, kw_only=True):
    """One settled item of a batch, as its results show it. `item_id` is the maker's `custom_id`."""

    item_id: str
    usage: Usage | None
    model: str | None = None
    upstream_call_id: str | None = None
    error: str | None = None


class Reading(msgspec.Struct, kw_only=True):
    """What was read of one answer.

    usage          None where the provider reported none (a reported zero is a Usage)
    parts          non-empty only where parts are billed as different models; their usages add up to `usage`
    model          as answered
    service_tier   as answered, in the provider's word; `region` likewise (`inference_geo`, regional endpoints)
    provider_cost_usd   what the provider says the call cost, as its decimal text in USD
    error          the provider's own error code or type, also when it came inside a 200 stream
    complete       the dialect's own end was seen; False at the end of bytes means that the stream was cut
    seen_bytes     bytes of generated text, tool arguments and visible reasoning seen so far (for cut streams)
    hidden_reasoning   the model reasons, and not in sight: output tokens may have run up unseen
    later          id under which the usage will be shown by a later retrieval; None: it is not to be waited for
    outcome_of     id of the earlier call or batch that this answer shows the usage of
    items          settled items of a batch
    files          ids of files that will hold a batch's results (OpenAI `output_file_id`)
    """

    usage: Usage | None = None
    parts: list[Part] = []
    model: str | None = None
    upstream_call_id: str | None = None
    finish_reasons: list[str] = []
    service_tier: str | None = None
    region: str | None = None
    provider_cost_usd: str | None = None
    error: str | None = None
    complete: bool = False
    seen_bytes: int = 0
    hidden_reasoning: bool = False
    later: str | None = None
    outcome_of: str | None = None
    items: list[Item] = []
    files: list[str] = []


class Meter(Protocol):
    """Reads an answer as it passes by. Fed what the provider sent, in pieces cut anywhere; never raises."""

    @property
    def seen_bytes(self) -> int:
        """Bytes of generated text seen so far, as in `Reading`."""

    @property
    def complete(self) -> bool:
        """The dialect's own end was seen, as in `Reading`."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body, still compressed where the answer is."""

    def read_whole(self, body: bytes) -> None:
        """Take a body that is all there, in place of feeding it."""

    def close(self) -> Reading:
        """End of bytes. May be called at any time, also in mid-answer; then gives what was seen."""
