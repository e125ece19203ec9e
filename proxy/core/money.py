"""Money: integers in nano-USD (`_nusd`), read from and written as dollars without ever being a float.

One dollar is 1,000,000,000 nano-USD. Price rates are pico-USD per unit, a thousand times finer, so that the
cheapest cached token still has an exact rate; a call's cost is rounded up once, to a whole nano-USD.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

NUSD_PER_USD = 1_000_000_000
PUSD_PER_NUSD = 1_000
NUSD_MAX = 2**53 - 1
"""The largest amount: a Lua number holds it exactly, so that the store and Python always agree."""

_AMOUNT = re.compile(r"\$\s?(\d{1,9}(?:_?\d{3})*)(?:\.(\d{1,9}))?\Z")


def parse_usd(text: str) -> int:
    """`"$25"` or `"$0.05"` -> nano-USD. Raises ValueError with a sentence for a person."""
    found = _AMOUNT.match(text.strip())
    if found is None:
        raise ValueError(f"`{text}` is no amount of money; write dollars like `$25` or `$0.05`")
    whole, part = found.group(1).replace("_", ""), (found.group(2) or "").ljust(9, "0")
    amount = int(whole) * NUSD_PER_USD + int(part)
    if amount > NUSD_MAX:
        raise ValueError(f"`{text}` is more than the largest amount, ${NUSD_MAX // NUSD_PER_USD}")
    return amount


def nusd_from_usd(dollars: Decimal) -> int:
    """Dollars that a provider reported -> nano-USD, rounded to the nearest (it is their figure, not ours)."""
    return int((dollars * NUSD_PER_USD).to_integral_value(ROUND_HALF_UP))


def round_up_pusd(amount_pusd: int) -> int:
    """Pico-USD -> nano-USD, rounded up: the one place where a cost is rounded."""
    return -(-amount_pusd // PUSD_PER_NUSD)


def format_usd(amount_nusd: int, *, places: int | None = None) -> str:
    """Nano-USD -> `$24.97`. Small amounts keep the digits that matter: `$0.000041`; `places` fixes their number."""
    sign = "-" if amount_nusd < 0 else ""
    whole, part = divmod(abs(amount_nusd), NUSD_PER_USD)
    digits = f"{part:09d}"
    if places is None:
        leading = len(digits) - len(digits.lstrip("0"))
        places = 2 if whole or not part else min(9, max(2, leading + 2))
    scale = 10 ** (9 - places)
    rounded = (abs(amount_nusd) + scale // 2) // scale
    whole, part = divmod(rounded, 10**places)
    return f"{sign}${whole:,}.{part:0{places}d}" if places else f"{sign}${whole:,}"


def decimal_usd(amount_nusd: int) -> str:
    """Nano-USD -> plain dollars for headers and exports: `0.000041`, never an exponent."""
    digits = str(abs(amount_nusd)).zfill(10)
    sign = "-" if amount_nusd < 0 else ""
    return f"{sign}{digits[:-9]}.{digits[-9:]}".rstrip("0").rstrip(".")
