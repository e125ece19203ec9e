"""Amounts: limits read from and written as people say them: `$25`, `2M tokens`, `500 calls`, `4 concurrent`."""

from __future__ import annotations

import re
from difflib import get_close_matches

from .admission import Unit
from .money import NUSD_MAX, format_usd, parse_usd

_NUMBER = re.compile(r"([0-9][0-9_,]{0,24})(?:\.([0-9]{1,9}))? ?([kKMB]?)(?: ([a-zA-Z]+)( calls)?)?\Z")
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
_UNITS: dict[str, Unit] = {
    "token": "tokens",
    "tokens": "tokens",
    "call": "calls",
    "calls": "calls",
    "concurrent": "concurrent",
}

EXAMPLES = "`$25`, `2M tokens`, `500 calls` or `4 concurrent`"

LIMIT_PATTERN = (
    r"^(\$ ?[0-9][0-9_]*(\.[0-9]{1,9})?|[0-9][0-9_,]*(\.[0-9]{1,9})? ?[kKMB]? (tokens?|calls?|concurrent( calls)?))$"
)
"""The same for editors, as JSON Schema."""


def parse_limit(text: str) -> tuple[Unit, int]:
    """A limit and its unit. Raises ValueError with a sentence for a person."""
    text = " ".join(text.split())
    if text.startswith("-"):
        raise ValueError(f"`{text[:60]}` is negative; write a limit like {EXAMPLES}")
    if text.startswith("$"):
        unit: Unit = "nusd"
        amount = parse_usd(text)
    else:
        unit, amount = _parse_count(text)
    if amount == 0:
        raise ValueError(f"`{text}` would refuse every call; to do that, write an `access` rule")
    return unit, amount


def _parse_count(text: str) -> tuple[Unit, int]:
    found = _NUMBER.match(text)
    if found is None:
        raise ValueError(f"`{text[:60]}` is no limit; write one like {EXAMPLES}")
    whole, part, factor, word, calls = found.groups()
    if word is None:
        raise ValueError(f"`{text}` does not say of what; write a limit like {EXAMPLES}")
    unit = _UNITS.get(word)
    if unit is None or (calls and unit != "concurrent"):
        close = get_close_matches(word, _UNITS, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"`{word}` is no unit; write a limit like {EXAMPLES}{hint}")
    digits = part or ""
    scaled = int(whole.replace("_", "").replace(",", "") + digits) * _FACTORS[factor]
    amount, rest = divmod(scaled, 10 ** len(digits))
    if rest:
        raise ValueError(f"`{text}` is not a whole number of {unit}")
    if amount > NUSD_MAX:
        raise ValueError(f"`{text}` is more than the largest limit, {NUSD_MAX:,}")
    return unit, amount


def told_amount(unit: Unit, amount: int) -> str:
    """`$24.97`, `2,000,000 tokens`, `1 call`, `4 concurrent calls`."""
    if unit == "nusd":
        return format_usd(amount)
    what = "concurrent call" if unit == "concurrent" else unit.removesuffix("s")
    return f"{amount:,} {what}{'' if amount == 1 else 's'}"
