"""The price book as plain data: providers, models, dated rates; found by name, carried as bytes.

A worker holds every provider as packed bytes and unpacks the few that it meets, so that the whole book costs a process
little more than its size on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from .price_match import Clause, matches, with_dashed_date

FORMAT = 1
"""Counts up whenever the meaning of the encoded bytes changes; a book of another format is refused."""
_MAGIC = b"callmeter price book "
_DIGEST_BYTES = 32

DAY_MS = 86_400_000
BEGINNING_MS = -(2**62)
FOREVER_MS = 2**62

MODEL_NAME_MAX = 256
"""No model has a longer name; what is longer is not searched for, since callers choose the names."""
FOUND_MAX = 4096
"""Remembered searches. Callers choose model names, so the memory is bounded and simply emptied when full."""

ALIASES = {
    "amazon": "aws",
    "azure-openai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "fireworks-ai": "fireworks",
    "gemini": "google",
    "github": "github-copilot",
    "hf": "huggingface",
    "moonshot": "moonshotai",
    "together.ai": "together",
    "togetherai": "together",
    "vertex": "google",
    "xai": "x-ai",
    "z-ai": "zai",
    "z.ai": "zai",
    "zhipu": "zhipuai",
}
"""Names that people give an upstream's provider, where the book's own clauses would not find it, or find another."""
HUGGINGFACE = "huggingface"
"""Routes to many providers, each with a table of its own: `huggingface_novita`, asked for as `MODEL:novita`."""

Rate = tuple[int, ...]
"""Pico-USD per unit: the base rate, then for each tier its threshold in input tokens and its rate."""


class Price(msgspec.Struct, frozen=True, array_like=True):
    """Rates by unit, and when they hold: from a moment on, or daily between two times of day (UTC, in ms).

    `when` is empty for standard prices; for a variant it names what must be known of the call: `processing: batch`.
    """

    rates: dict[str, Rate]
    from_ms: int | None = None
    daily_ms: tuple[int, int] | None = None
    when: dict[str, str] = {}

    def span(self, at_ms: int) -> tuple[bool, int, int]:
        """Whether the price holds at a moment; since when and until when that answer stays the same."""
        if self.from_ms is not None:
            if at_ms >= self.from_ms:
                return True, self.from_ms, FOREVER_MS
            return False, BEGINNING_MS, self.from_ms
        if self.daily_ms is not None:
            start, end = self.daily_ms
            midnight, time = at_ms - at_ms % DAY_MS, at_ms % DAY_MS
            holds = start <= time < end if start <= end else time >= start or time < end
            turns = [midnight + turn + day for turn in (start, end) for day in (-DAY_MS, 0, DAY_MS)]
            return holds, max(turn for turn in turns if turn <= at_ms), min(turn for turn in turns if turn > at_ms)
        return True, BEGINNING_MS, FOREVER_MS


class ModelPrices(msgspec.Struct, frozen=True, array_like=True):
    """All prices of one model. Of the standard prices the last that holds counts, else the first; of the variants
    that hold and fit the call the first that has a rate for a unit gives it."""

    name: str
    standard: tuple[Price, ...]
    variants: tuple[Price, ...] = ()
    deprecated: bool = False
    seconds_min: int = 0
    """The least that is billed for any audio at all."""

    def rates_at(self, at_ms: int, context: dict[str, str]) -> tuple[dict[str, Rate], int, int]:
        """The rates in force for a call with this context; since when and until when they are."""
        since_ms, until_ms = BEGINNING_MS, FOREVER_MS
        rates = self.standard[0].rates
        for price in self.standard:
            holds, since, until = price.span(at_ms)
            since_ms, until_ms = max(since_ms, since), min(until_ms, until)
            if holds:
                rates = price.rates
        special: dict[str, Rate] = {}
        for variant in self.variants if context else ():
            holds, since, until = variant.span(at_ms)
            since_ms, until_ms = max(since_ms, since), min(until_ms, until)
            if holds and all(context.get(key) == value for key, value in variant.when.items()):
                special = variant.rates | special
        return rates | special, since_ms, until_ms


class ProviderTable(msgspec.Struct, frozen=True, array_like=True):
    """The models of one provider in the order in which they are matched; `exact` and `patterns` hold positions."""

    models: tuple[ModelPrices, ...]
    exact: dict[str, int]
    patterns: tuple[tuple[int, Clause], ...]
    fallback: tuple[str, ...] = ()
    """Providers whose models and standard prices this one offers too."""

    def find(self, name: str) -> ModelPrices | None:
        """The first model, in the order of the table, that a lower-case name means."""
        exact = self.exact.get(name, len(self.models))
        for position, clause in self.patterns:
            if position >= exact:
                break
            if matches(clause, name):
                return self.models[position]
        return self.models[exact] if exact < len(self.models) else None


class ProviderEntry(msgspec.Struct, frozen=True, array_like=True):
    """What is kept at hand of every provider: clauses for its own names and its models' names, its table packed."""

    provider_id: str
    table: msgspec.Raw
    names: Clause | None = None
    model_names: Clause | None = None


class Found(msgspec.Struct, frozen=True):
    """A model in the book. `own`: of the provider itself, not one whose models it offers too."""

    provider_id: str
    model: ModelPrices
    own: bool


class _Book(msgspec.Struct, array_like=True):
    version: str
    entries: tuple[ProviderEntry, ...]


_encoder = msgspec.msgpack.Encoder()
_book_decoder = msgspec.msgpack.Decoder(_Book)
_table_decoder = msgspec.msgpack.Decoder(ProviderTable)


class PriceBook:
    """A compiled price book. Treat it as immutable; inside it remembers what it has unpacked and found."""

    def __init__(self, version: str, entries: Iterable[ProviderEntry]) -> None:
        self.version = version
        self.entries = {entry.provider_id: entry for entry in entries}
        self._tables: dict[str, ProviderTable] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        self._found: dict[tuple[str, str], Found | None] = {}

    def table(self, provider_id: str) -> ProviderTable:
        """The models of a provider by the book's own id of it. Raises KeyError for another."""
        table = self._tables.get(provider_id)
        if table is None:
            table = self._tables[provider_id] = _table_decoder.decode(self.entries[provider_id].table)
        return table

    def provider_ids(self, provider: str) -> tuple[str, ...]:
        """The book's ids for a provider as an upstream names it: usually one, none where the book does not know it."""
        ids = self._ids.get(provider)
        if ids is None:
            ids = self._find_provider(provider.lower().strip())
            if len(self._ids) < FOUND_MAX:
                self._ids[provider] = ids
        return ids

    def _find_provider(self, name: str) -> tuple[str, ...]:
        name = ALIASES.get(name, name)
        if name in self.entries:
            return (name,)
        if name == HUGGINGFACE:
            return tuple(provider_id for provider_id in self.entries if provider_id.startswith(f"{HUGGINGFACE}_"))
        for provider_id, entry in self.entries.items():
            if entry.names is not None and matches(entry.names, name):
                return (provider_id,)
        return ()

    def find(self, provider: str, model: str | None) -> Found | None:
        """The model that a provider calls `model`, None where the book does not know it."""
        if not model or len(model) > MODEL_NAME_MAX:
            return None
        key = (provider, model)
        if key in self._found:
            return self._found[key]
        if len(self._found) >= FOUND_MAX:
            self._found.clear()
        found = self._found[key] = self._search(self.provider_ids(provider), model.lower())
        return found

    def _search(self, provider_ids: tuple[str, ...], name: str) -> Found | None:
        if len(provider_ids) > 1 and ":" in name:
            name, _, routed = name.rpartition(":")
            narrowed = f"{HUGGINGFACE}_{routed}"
            provider_ids = (narrowed,) if narrowed in provider_ids else provider_ids
        for spelling in dict.fromkeys((name, with_dashed_date(name))):
            for provider_id in provider_ids:
                table = self.table(provider_id)
                for table_id in (provider_id, *table.fallback):
                    model = self.table(table_id).find(spelling)
                    if model is not None:
                        return Found(table_id, model, own=table_id == provider_id)
        return None

    def find_by_maker(self, model: str | None) -> Found | None:
        """The model at the provider that its name tells: `anthropic/claude-...`, `gpt-...`. A guess, to be marked so:
        gateways that the book does not know resell it at about that price."""
        if not model or len(model) > MODEL_NAME_MAX:
            return None
        maker, slash, rest = model.lower().partition("/")
        if slash and (found := self.find(maker, rest)):
            return found
        for provider_id, entry in self.entries.items():
            if entry.model_names is not None and matches(entry.model_names, model.lower()):
                return self.find(provider_id, model)
        return None

    def models(self, provider_ids: Iterable[str]) -> Iterator[tuple[str, ModelPrices]]:
        """Every model of these providers, with the provider's id."""
        for provider_id in provider_ids:
            for model in self.table(provider_id).models:
                yield provider_id, model


def pack_table(table: ProviderTable) -> msgspec.Raw:
    """A provider's table as an entry carries it."""
    return msgspec.Raw(_encoder.encode(table))


def encode_book(book: PriceBook) -> bytes:
    """The book as bytes for a file: a line with the format, a digest, the data."""
    payload = _encoder.encode(_Book(book.version, tuple(book.entries.values())))
    return _MAGIC + b"%d\n" % FORMAT + hashlib.sha256(payload).digest() + payload


def decode_book(data: bytes) -> PriceBook:
    """Raises ValueError with a sentence for bytes that are no book, a damaged one, or one of another format."""
    first, newline, rest = data.partition(b"\n")
    if not first.startswith(_MAGIC) or not newline:
        raise ValueError("this is no Callmeter price book; compile it again")
    found_format = first.removeprefix(_MAGIC)
    if found_format != b"%d" % FORMAT:
        shown = found_format[:20].decode("ascii", "replace")
        raise ValueError(f"the price book has format {shown}, this version reads format {FORMAT}; compile it again")
    digest, payload = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("the price book is damaged (its digest does not match); compile it again")
    book = _book_decoder.decode(payload)
    return PriceBook(book.version, book.entries)
