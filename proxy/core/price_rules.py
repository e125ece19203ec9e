"""Admin prices: the entries under `prices` in the policy files, checked and turned into integers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import msgspec

from .globs import Globs
from .price_rates import CALL, INPUT_FIELDS, OUTPUT_FIELDS
from .price_tables import Rate

PUSD_PER_USD = 10**12
PER_REQUEST = "per_request."

UNITS: dict[str, tuple[str, int]] = {
    "input_per_mtok": ("input", 1_000_000),
    "cached_input_per_mtok": ("cached_input", 1_000_000),
    "cache_write_per_mtok": ("cache_write", 1_000_000),
    "cache_write_1h_per_mtok": ("cache_write_1h", 1_000_000),
    "output_per_mtok": ("output", 1_000_000),
    "reasoning_per_mtok": ("reasoning", 1_000_000),
    "audio_input_per_mtok": ("audio_input", 1_000_000),
    "audio_output_per_mtok": ("audio_output", 1_000_000),
    "image_input_per_mtok": ("image_input", 1_000_000),
    "image_output_per_mtok": ("image_output", 1_000_000),
    "characters_per_million": ("characters", 1_000_000),
    "audio_per_hour": ("audio_hour", 1),
    "per_image": ("images", 1),
    "per_call": (CALL, 1),
}
"""Key of a rule -> our unit, and how many units its price in USD is for. Besides: `per_request.NAME`, for one piece."""

MATCH_KEYS = ("provider", "model", "upstream")

MULTIPLIER_ONE = 1_000_000
"""Multipliers are integers in millionths."""
MULTIPLIER_MAX = 1_000
RATE_USD_MAX = 1_000_000
"""Far above any price; what is dearer is a slip, and would not fit the amounts that the store can count."""
DIGITS_MAX = 40


@dataclass(frozen=True)
class PriceRule:
    """One admin price. `match`: globs for provider, model and upstream, all of which must fit; `rates`: prices in USD
    as decimal strings; or `multiplier`: what the price book says times this, for a negotiated discount.

    Raises ValueError with a sentence for a person when made from anything that cannot be meant.
    """

    match: dict[str, list[str]]
    rates: dict[str, str] = field(default_factory=dict)
    multiplier: str | None = None
    unit_rates: dict[str, Rate] = field(init=False, repr=False, compare=False)
    multiplier_millionths: int | None = field(init=False, repr=False, compare=False)
    _globs: dict[str, Globs] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for key in self.match:
            if key not in MATCH_KEYS:
                raise ValueError(f"a price cannot match on `{key}`; it matches on {', '.join(MATCH_KEYS)}")
        if self.multiplier is not None and self.rates:
            raise ValueError("a price gives either rates or a `multiplier`, not both; write two entries")
        if self.multiplier is None and not self.rates:
            raise ValueError("a price gives neither a rate nor a `multiplier`; add one, such as `input_per_mtok`")
        unit_rates = dict(_unit_rate(key, text) for key, text in self.rates.items())
        object.__setattr__(self, "unit_rates", unit_rates)
        object.__setattr__(self, "multiplier_millionths", _multiplier(self.multiplier))
        object.__setattr__(self, "_globs", {key: Globs(patterns) for key, patterns in self.match.items()})

    @classmethod
    def read(
        cls,
        match: Mapping[str, str | Sequence[str]],
        rates: Mapping[str, str | Mapping[str, str]] | None = None,
        multiplier: str | None = None,
    ) -> PriceRule:
        """As written in a policy file: a glob or a list of them, and `per_request` as a mapping. Raises ValueError."""
        flat: dict[str, str] = {}
        for key, value in (rates or {}).items():
            if isinstance(value, Mapping):
                flat |= {f"{key}.{name}": text for name, text in value.items()}
            else:
                flat[key] = value
        globs = {key: [value] if isinstance(value, str) else list(value) for key, value in match.items()}
        return cls(globs, flat, multiplier)

    def fits(self, *, provider: str, models: Iterable[str | None], upstream: str | None) -> bool:
        """Whether the rule is for a call: of its models (as answered, as asked) one must fit."""
        for key, globs in self._globs.items():
            if key == "provider" and not globs.matches(provider):
                return False
            if key == "upstream" and not globs.matches(upstream):
                return False
            if key == "model" and not any(globs.matches(model) for model in models):
                return False
        return True

    @property
    def prices_alone(self) -> bool:
        """Whether the rule prices a model that the book does not know, more than a fee for pieces."""
        return any(unit == CALL or not unit.startswith("requests.") for unit in self.unit_rates)

    def over(self, book: Mapping[str, Rate]) -> dict[str, Rate]:
        """The rule's rates over the book's. An `input` or `output` rate replaces all that the book says of its
        direction (the book's cached rate is of no use beside another input rate); where neither says anything of
        a direction the other direction's rate holds, so that nothing is free by omission."""
        kept = dict(book)
        for base, fields in (("input", INPUT_FIELDS), ("output", OUTPUT_FIELDS)):
            if base in self.unit_rates:
                kept = {unit: rate for unit, rate in kept.items() if unit not in fields}
        kept |= self.unit_rates
        for base, other in (("input", "output"), ("output", "input")):
            if base not in kept and other in self.unit_rates:
                kept[base] = self.unit_rates[other]
        return kept


def rules_hash(rules: Sequence[PriceRule]) -> str:
    """A short name for a list of rules, for the price version of a record."""
    plain = [[rule.match, rule.rates, rule.multiplier] for rule in rules]
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()[:8]


def _decimal(key: str, text: str, most: int) -> Decimal:
    try:
        value = Decimal(text) if len(text) <= DIGITS_MAX else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value < 0:
        raise ValueError(f'`{key}` is `{text[:DIGITS_MAX]}`; write a decimal number from 0 on, such as "1.10"')
    if value > most:
        raise ValueError(f"`{key}` is `{text}`; the most it can be is {most}")
    return value


def _unit_rate(key: str, text: str) -> tuple[str, Rate]:
    if key.startswith(PER_REQUEST) and len(key) > len(PER_REQUEST):
        unit, per = f"requests.{key.removeprefix(PER_REQUEST)}", 1
    elif key in UNITS:
        unit, per = UNITS[key]
    else:
        raise ValueError(f"`{key}` is no rate; rates are {', '.join(UNITS)} and {PER_REQUEST}NAME")
    exact = _decimal(key, text, RATE_USD_MAX) * PUSD_PER_USD / per
    if exact != exact.to_integral_value():
        raise ValueError(f"`{key}` is `{text}`; a rate cannot be finer than a millionth of a millionth dollar a unit")
    return unit, (int(exact),)


def _multiplier(text: str | None) -> int | None:
    if text is None:
        return None
    exact = _decimal("multiplier", text, MULTIPLIER_MAX) * MULTIPLIER_ONE
    if exact != exact.to_integral_value():
        raise ValueError(f"`multiplier` is `{text}`; it can have six decimal places at most")
    return int(exact)
