"""Statements: the usage and cost exports of providers, as files. Bytes in, lines by day and model out; pure.

What is read: OpenAI's Costs and Usage API as JSON (one page, a list of pages, or a page a line) and the CSV files of
its dashboard; Anthropic's cost and usage reports as JSON and the CSV files of its Console. Days are those of UTC, as
both bill. Money is exact: JSON numbers are read as decimals, never as floats.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from .money import nusd_from_usd

Provider = Literal["openai", "anthropic"]
Kind = Literal["cost", "usage"]
Fields = Mapping[str, Any]

BYTES_MAX = 256 * 1024 * 1024
"""A year of days, models, keys and projects is a tenth of this."""
TOKENS = ("input", "cached_input", "cache_write", "cache_write_1h", "output")
"""How both providers count, in the words of our usage: each token once."""

_DATE_SUFFIX = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6})\Z")
KNOWN = (
    "the JSON of OpenAI's /v1/organization/costs or /v1/organization/usage/..., the CSV files of its usage dashboard, "
    "the JSON of Anthropic's /v1/organizations/cost_report or /v1/organizations/usage_report/messages, or the CSV "
    "files of its Console"
)


class StatementInvalid(ValueError):
    """A file that is no statement, or holds something that cannot be counted. The sentence says where."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of one day and model. `model` is as it wrote it, empty where the file is not by model."""

    day: str
    model: str
    cost_nusd: int = 0
    tokens: dict[str, int] = {}


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A file: whose it is, what it tells, and its lines, one for each day and model, in that order."""

    provider: Provider
    kind: Kind
    lines: list[Line]

    @property
    def by_model(self) -> bool:
        return any(line.model for line in self.lines)


def read_statement(data: bytes) -> Statement:
    """Raises StatementInvalid."""
    text = decoded(data)
    found = _read_json(text) if text.lstrip()[:1] in ("{", "[") else _read_csv(text)
    if not found.lines:
        raise StatementInvalid("the file has no line with a cost or a use in it")
    return found


def same_model(name: str) -> str:
    """What two names of one model have in common: `Claude Sonnet 4.5` and `claude-sonnet-4-5-20250929`."""
    plain = re.sub(r"[\s.]+", "-", name.strip().lower())
    return _DATE_SUFFIX.sub("", plain)


def decoded(data: bytes) -> str:
    if len(data) > BYTES_MAX:
        raise StatementInvalid(f"the file is larger than {BYTES_MAX // 2**20} MiB; export fewer days")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise StatementInvalid(f"the file is no text; give {KNOWN}") from None


class _Sums:
    """Lines by day and model while they are read."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Decimal, dict[str, int]]] = {}

    def add(self, day: str, model: str, cost_usd: Decimal = Decimal(0), **tokens: int) -> None:
        cost, known = self._found.get((day, model), (Decimal(0), {}))
        for name, count in tokens.items():
            known[name] = known.get(name, 0) + count
        self._found[(day, model)] = (cost + cost_usd, known)

    def lines(self) -> list[Line]:
        return [
            Line(day=day, model=model, cost_nusd=nusd_from_usd(cost), tokens=tokens)
            for (day, model), (cost, tokens) in sorted(self._found.items())
        ]


# -- JSON -------------------------------------------------------------------------------------------------------------


def _read_json(text: str) -> Statement:
    results = list(_results(text))
    if not results:
        raise StatementInvalid(f"the JSON has no results in it; give {KNOWN}")
    _, first, _ = results[0]
    for provider, kind, fits, take in _JSON_KINDS:
        if fits(first):
            sums = _Sums()
            for day, result, where in results:
                if not fits(result):
                    raise StatementInvalid(f"{where} is of another kind than the first; give one kind in a file")
                with _placed(where):
                    take(sums, day, result)
            return Statement(provider=provider, kind=kind, lines=sums.lines())
    raise StatementInvalid(f"the JSON is no statement that is known here; give {KNOWN}")


def _results(text: str) -> Iterator[tuple[str, Fields, str]]:
    """Each result of each bucket of each page: its day, what it says, and where it stands."""
    try:
        pages = json.loads(text, parse_float=Decimal)
    except ValueError:
        pages = _json_lines(text)
    for page_number, page in enumerate(pages if isinstance(pages, list) else [pages], 1):
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            raise StatementInvalid(f"page {page_number} of the JSON has no list `data`; give {KNOWN}")
        for number, bucket in enumerate(buckets, 1):
            where = f"page {page_number}, bucket {number}"
            if not isinstance(bucket, dict) or not isinstance(bucket.get("results"), list):
                raise StatementInvalid(f"{where} of the JSON has no list `results`; give {KNOWN}")
            with _placed(where):
                day = _day(bucket.get("starting_at") or bucket.get("start_time"))
            for result_number, result in enumerate(bucket["results"], 1):
                if not isinstance(result, dict):
                    raise StatementInvalid(f"{where}, result {result_number} is no object")
                yield day, result, f"{where}, result {result_number}"


def _json_lines(text: str) -> list[Any]:
    try:
        return [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise StatementInvalid(f"the file is no JSON: {error}") from None


def _openai_cost(sums: _Sums, day: str, result: Fields) -> None:
    amount = result["amount"]
    _in_dollars(amount.get("currency"))
    sums.add(day, _item_model(result.get("line_item")), _decimal(amount.get("value")))


def _openai_usage(sums: _Sums, day: str, result: Fields) -> None:
    _add_openai_tokens(sums, day, result)


def _anthropic_cost(sums: _Sums, day: str, result: Fields) -> None:
    _in_dollars(result.get("currency"))
    # "in lowest currency units (e.g. cents) as a decimal string"
    sums.add(day, str(result.get("model") or result.get("description") or ""), _decimal(result["amount"]) / 100)


def _anthropic_usage(sums: _Sums, day: str, result: Fields) -> None:
    written = result.get("cache_creation") or {}
    sums.add(
        day,
        str(result.get("model") or ""),
        input=_count(result.get("uncached_input_tokens")),
        cached_input=_count(result.get("cache_read_input_tokens")),
        cache_write=_count(written.get("ephemeral_5m_input_tokens")),
        cache_write_1h=_count(written.get("ephemeral_1h_input_tokens")),
        output=_count(result.get("output_tokens")),
    )


_JSON_KINDS: tuple[tuple[Provider, Kind, Callable[[Fields], bool], Callable[[_Sums, str, Fields], None]], ...] = (
    ("openai", "cost", lambda result: isinstance(result.get("amount"), dict), _openai_cost),
    ("anthropic", "usage", lambda result: "uncached_input_tokens" in result, _anthropic_usage),
    ("anthropic", "cost", lambda result: isinstance(result.get("amount"), str), _anthropic_cost),
    ("openai", "usage", lambda result: "input_tokens" in result, _openai_usage),
)


# -- CSV --------------------------------------------------------------------------------------------------------------


def _read_csv(text: str) -> Statement:
    lines = text.splitlines()
    separator = "\t" if lines and "\t" in lines[0] else ","
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=separator)
        head = {name.strip() for name in reader.fieldnames or ()}
        for provider, kind, needed, take in _CSV_KINDS:
            if needed <= head:
                return Statement(provider=provider, kind=kind, lines=_csv_lines_of(reader, take))
    except csv.Error as error:
        raise StatementInvalid(f"the file is no CSV: {error}") from None
    shown = ", ".join(sorted(head)[:8]) or "nothing that can be read"
    raise StatementInvalid(f"the file begins with `{shown}`, which no statement does that is known here; give {KNOWN}")


def _csv_lines_of(rows: Iterable[Fields], take: Callable[[_Sums, Fields], None]) -> list[Line]:
    sums = _Sums()
    for number, row in enumerate(rows, 2):
        with _placed(f"line {number}"):
            take(sums, {(name or "").strip(): value for name, value in row.items()})
    return sums.lines()


def _openai_cost_row(sums: _Sums, row: Fields) -> None:
    if row["amount_value"]:  # a day without a cost has a line all the same
        _in_dollars(row.get("amount_currency"))
        sums.add(_row_day(row), _item_model(row.get("line_item")), _decimal(row["amount_value"]))


def _openai_usage_row(sums: _Sums, row: Fields) -> None:
    if row["input_tokens"] or row.get("model"):
        _add_openai_tokens(sums, _row_day(row), row)


def _anthropic_usage_row(sums: _Sums, row: Fields) -> None:
    sums.add(
        _day(row["usage_date_utc"]),
        row["model_version"] or "",
        input=_count(row["usage_input_tokens_no_cache"]),
        cached_input=_count(row.get("usage_input_tokens_cache_read")),
        cache_write=_count(row.get("usage_input_tokens_cache_write_5m")),
        cache_write_1h=_count(row.get("usage_input_tokens_cache_write_1h")),
        output=_count(row["usage_output_tokens"]),
    )


def _anthropic_cost_row(sums: _Sums, row: Fields) -> None:
    sums.add(_day(row["usage_date_utc"]), row.get("model") or row.get("token_type") or "", _decimal(row["cost_usd"]))


_CSV_KINDS: tuple[tuple[Provider, Kind, set[str], Callable[[_Sums, Fields], None]], ...] = (
    ("anthropic", "usage", {"usage_date_utc", "model_version", "usage_input_tokens_no_cache"}, _anthropic_usage_row),
    ("anthropic", "cost", {"usage_date_utc", "cost_usd"}, _anthropic_cost_row),
    ("openai", "cost", {"start_time", "amount_value"}, _openai_cost_row),
    ("openai", "usage", {"start_time", "model", "input_tokens", "output_tokens"}, _openai_usage_row),
)


# -- values -----------------------------------------------------------------------------------------------------------


def _add_openai_tokens(sums: _Sums, day: str, told: Fields) -> None:
    """Its `input_tokens` contain the cached ones."""
    whole, cached = _count(told.get("input_tokens")), _count(told.get("input_cached_tokens"))
    model = str(told.get("model") or "")
    sums.add(day, model, input=whole - cached, cached_input=cached, output=_count(told.get("output_tokens")))


def _item_model(item: Any) -> str:
    """`gpt-4o-2024-08-06, cached input` -> its model."""
    return str(item or "").partition(",")[0].strip()


def _row_day(row: Fields) -> str:
    return _day(row.get("start_time_iso") or row.get("start_time"))


def _day(told: Any) -> str:
    """Seconds since the epoch, a date, or a time in RFC 3339 -> `2026-11-01` in UTC."""
    text = str(told).strip()
    try:
        if re.fullmatch(r"\d{9,11}(\.0+)?", text):
            return f"{datetime.fromtimestamp(int(text.partition('.')[0]), UTC):%Y-%m-%d}"
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        raise ValueError(f"`{text[:40]}` is no day") from None
    return f"{(moment if moment.tzinfo is None else moment.astimezone(UTC)):%Y-%m-%d}"


def _decimal(told: Any) -> Decimal:
    try:
        found = Decimal(str(told).replace(",", "").strip())
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or abs(found) > 10**9:
        raise ValueError(f"`{str(told)[:40]}` is no amount of dollars")
    return found


def _count(told: Any) -> int:
    """Some exports write counts as `59200.0`; an empty one is 0."""
    if told in (None, ""):
        return 0
    found = _decimal(told)
    if found != found.to_integral_value() or found < 0:
        raise ValueError(f"`{str(told)[:40]}` is no number of tokens")
    return int(found)


def _in_dollars(currency: Any) -> None:
    if currency and str(currency).lower() != "usd":
        raise ValueError(f"the amounts are in `{str(currency)[:10]}`, and the ledger counts in dollars")


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Says where a value stands that cannot be read."""
    try:
        yield
    except KeyError as error:
        raise StatementInvalid(f"{where}: {error} is missing") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise StatementInvalid(f"{where}: {error}") from None
