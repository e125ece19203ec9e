"""More of OpenAI: embeddings, images, sound, moderation, reranking and documents, of OpenAI and those like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core.call import Call
from ..core.usage import NO_USAGE, Usage
from .errors import error_code_in
from .openai_chat import DONE, raw_usage
from .openai_usage import provider_cost, usage_of
from .providers import provider_named
from .reader import Reader
from .reading import Reading
from .values import count, decode, mapping, text, text_bytes

SPEECH_PAID_IN_TOKENS = ("gpt-", "gemini-")
"""Beginnings of the names of models whose speech is paid in tokens; all others are paid by the characters spoken."""

_NOTHING = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    """What is read of a plain answer; vectors, pictures and texts are skipped."""

    id: Any = None
    model: Any = None
    service_tier: Any = None
    usage: msgspec.Raw = _NOTHING
    usage_info: Any = None
    meta: Any = None
    data: msgspec.Raw = _NOTHING


_answer = msgspec.json.Decoder(_Answer)
_entries = msgspec.json.Decoder(list[msgspec.Raw])


def reader(call: Call, *, provider: str) -> Reader:
    """The reader for every endpoint that is neither a conversation nor a batch."""
    if call.free and call.retrieves is None:
        return SilentReader()
    if call.api == "openai.images":
        return ImagesReader(call, provider=provider)
    if call.route == "/v1/audio/speech":
        return SpeechReader(call, provider=provider)
    return MeasuredReader(call, provider=provider)


class SilentReader:
    """Reads answers that tell no usage, of free calls and of paths that nobody knows: only whether they failed."""

    def __init__(self) -> None:
        self.reading = Reading()

    def event(self, name: str, data: bytes) -> None:
        """Nothing of interest."""

    def answer(self, body: bytes) -> None:
        """A whole plain answer."""
        self.reading.complete = True


class MeasuredReader:
    """Reads answers that are plain but for their usage: embeddings, transcripts, moderation, reranking, documents.

    Transcripts may be streamed; the event that ends them holds the usage.
    """

    def __init__(self, call: Call, *, provider: str) -> None:
        self.reading = Reading()
        self.provider = provider_named(provider)
        self._generates = call.api == "openai.audio"

    def event(self, name: str, data: bytes) -> None:
        """One event of a transcript or of a picture in the making."""
        if data.startswith(DONE):
            self.reading.complete = True
            return
        document = mapping(decode(data))
        kind = text(document, "type") or name
        if kind.endswith(".delta"):
            self.reading.seen_bytes += text_bytes(document.get("delta"))
        elif document.get("error"):
            self.reading.error = error_code_in(document)
            self.reading.complete = True
        if document.get("usage"):
            self.take_usage(raw_usage(data))
        if kind.endswith((".done", ".completed")):
            self.reading.complete = True

    def answer(self, body: bytes) -> None:
        """A whole plain answer."""
        try:
            answer = _answer.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        reading = self.reading
        reading.complete = True
        reading.upstream_call_id = answer.id if isinstance(answer.id, str) else None
        reading.model = answer.model if isinstance(answer.model, str) else None
        reading.service_tier = answer.service_tier if isinstance(answer.service_tier, str) else None
        if answer.usage != _NOTHING:
            self.take_usage(bytes(answer.usage))
        if pages := count(mapping(answer.usage_info), "pages_processed"):
            self.add(Usage(requests={"pages": pages}))
        if units := count(mapping(mapping(answer.meta).get("billed_units")), "search_units"):
            self.add(Usage(requests={"search_units": units}))
        self.take_entries(answer.data)
        if reading.usage is None and answer.data == _NOTHING:
            reading.error = error_code_in(mapping(decode(body)))

    def take_usage(self, raw: bytes) -> None:
        """The usage as the provider wrote it."""
        reported = mapping(decode(raw))
        usage = usage_of(reported, self.provider, generates=self._generates)
        if usage is not None:
            self.reading.usage = self.adjusted(usage, reported)
        self.reading.provider_cost_usd = provider_cost(raw)
        tier = text(reported, "service_tier")
        if tier is not None:
            self.reading.service_tier = tier

    def adjusted(self, usage: Usage, reported: Mapping[str, Any]) -> Usage:
        """Room for endpoints whose numbers mean something of their own."""
        return usage

    def take_entries(self, data: msgspec.Raw) -> None:
        """Room for endpoints that are paid by the entries of their answer."""

    def add(self, usage: Usage) -> None:
        """Units that stand elsewhere in the answer."""
        self.reading.usage = (self.reading.usage or NO_USAGE) + usage


class ImagesReader(MeasuredReader):
    """Reads pictures: their number, and their tokens where they are paid in tokens, all of which are pictures' unless
    the answer tells text apart."""

    def adjusted(self, usage: Usage, reported: Mapping[str, Any]) -> Usage:
        if "output_tokens_details" in reported or usage.image_output:
            return usage
        return msgspec.structs.replace(usage, output=0, reasoning=0, image_output=usage.output)

    def event(self, name: str, data: bytes) -> None:
        """Pictures in the making are shown several times; only the finished one counts."""
        super().event(name, data)
        kind = text(mapping(decode(data)), "type") or name
        if kind.endswith(".completed"):
            self.add(Usage(images=1))

    def take_entries(self, data: msgspec.Raw) -> None:
        if data == _NOTHING:
            return
        try:
            self.add(Usage(images=len(_entries.decode(data))))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return


class SpeechReader(MeasuredReader):
    """Reads speech, which is sound and tells nothing, or events that end with the usage.

    Where characters are what is paid, the request has them all: they are the usage of any answer that is sound.
    """

    def __init__(self, call: Call, *, provider: str) -> None:
        super().__init__(call, provider=provider)
        model = (call.model or "").rpartition("/")[2]
        if call.characters and not model.startswith(SPEECH_PAID_IN_TOKENS):
            self.reading.usage = Usage(characters=call.characters)

    def adjusted(self, usage: Usage, reported: Mapping[str, Any]) -> Usage:
        """What the model put out is sound."""
        if usage.audio_output:
            return usage
        return msgspec.structs.replace(usage, output=0, reasoning=0, audio_output=usage.output)
