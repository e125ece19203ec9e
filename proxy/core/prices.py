"""Prices: usage -> cost, in integers from the rate to the record.

What a call is billed by, the first that there is:
1. an admin rule with rates (`policy`), or with a multiplier for what follows (`policy` too);
2. what the provider itself says the call cost (`provider`);
3. the price book, by the model that answered, else by the one asked for (`book`);
4. nothing of these: as `unknown_price` says, the dearest price of that provider (`assumed`) or none (`none`).

A call is rounded up once, to a nano-USD; the parts are then cut from the rounded sum, so that they add up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, Protocol

import msgspec

from .money import NUSD_MAX, PUSD_PER_NUSD, nusd_from_usd, round_up_pusd
from .price_rates import CALL, Rates, charge, dearest, piece_rate, ready
from .price_rules import MULTIPLIER_ONE, PriceRule, rules_hash
from .price_tables import BEGINNING_MS, FOREVER_MS, Found, PriceBook, decode_book, encode_book
from .record import CostSource
from .usage import Usage

__all__ = ["Cost", "PriceBook", "PriceRule", "Prices", "UnknownPrice", "decode_book", "encode_book"]

UnknownPrice = Literal["assume", "refuse", "record"]

MAINSTREAM = ("anthropic", "google")
"""Whose dearest model stands for a model that no one knows, at a provider that the book does not know. Without OpenAI,
whose dearest (`o1-pro`) costs eight times the others' and would empty any budget for a local model."""

QUOTES_MAX = 4096
"""Remembered price lists by provider, model and tier. Callers choose model names, so the memory is bounded."""

UNSPLIT = "total"
"""The one part of a cost that the provider reported for usage which the book cannot split."""

CONTEXTS: dict[str, dict[str, str]] = {
    "": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
"""What the price book must be told for a tier. A model without prices for the tier is billed at its standard ones."""

TIERS = {
    "batch": "batch",
    "flex": "flex",
    "priority": "priority",
    "fast": "fast",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
}
"""Providers' words for tiers with prices of their own. All others are standard: `default`, `standard`, `on_demand`,
`auto` (which is only ever asked for, and names no rate), and capacity bought beforehand, whose list price it is."""

REPORTED_TEXT_MAX = 64


class Part(Protocol):
    """A part of a call's usage that is billed as a model of its own; `wire.reading.Part` is one."""

    @property
    def model(self) -> str | None: ...

    @property
    def usage(self) -> Usage: ...


class Cost(msgspec.Struct, frozen=True):
    """What a call cost. `parts_nusd` is by usage field (`requests.web_search` for a piece, `requests.call` for a fee
    on the call) and adds up to `cost_nusd`; parts of 0 are left out. None: there is no price.

    `list_nusd` is before discounts and plans: what the book says, even where an admin rule gives other rates.
    """

    cost_nusd: int | None
    parts_nusd: dict[str, int]
    list_nusd: int | None
    source: CostSource
    version: str


class _Quote(msgspec.Struct, frozen=True):
    """The price list for calls alike, and the time in which it holds. `listed` where the list price is another."""

    rates: Rates | None
    source: CostSource
    multiplier: int
    since_ms: int
    until_ms: int
    listed: Rates | None = None
    by_rule: bool = False

    @property
    def plain(self) -> bool:
        """It is the list price."""
        return self.rates is not None and self.listed is None


class _Bill(msgspec.Struct, frozen=True):
    """Pico-USD by part, times the scale of the multipliers; pico-USD of the list price; where they come from."""

    scaled: dict[str, int]
    listed_pusd: int
    source: CostSource


class Prices:
    """All prices in force. Immutable but for what it remembers; made anew when the policy changes."""

    def __init__(
        self, book: PriceBook, rules: Sequence[PriceRule] = (), unknown_price: UnknownPrice = "assume"
    ) -> None:
        self.book = book
        self.rules = tuple(rules)
        self.unknown_price = unknown_price
        self.version = f"{book.version}+rules.{rules_hash(self.rules)}" if self.rules else book.version
        multiplied = any(rule.multiplier_millionths is not None for rule in self.rules)
        self._scale = MULTIPLIER_ONE if multiplied else 1
        self._mainstream = tuple(name for name in MAINSTREAM if name in book.entries) or tuple(book.entries)
        self._quotes: dict[tuple[str, str | None, str | None, str | None, str], _Quote] = {}
        self._dearest: dict[tuple[str, ...], tuple[Rates, int, int]] = {}

    def known(self, provider: str, model: str | None, *, upstream: str | None = None) -> bool:
        """Whether a model has a price of its own: what `unknown_price: refuse` asks before a call is made."""
        if self.book.find(provider, model) is not None:
            return True
        rule = self._rule(provider, (model,), upstream)
        return rule is not None and rule.prices_alone

    def cost(
        self,
        *,
        provider: str,
        model: str | None,
        usage: Usage,
        at_ms: int,
        service_tier: str | None = None,
        region: str | None = None,
        parts: Sequence[Part] = (),
        provider_cost_usd: str | None = None,
        billing: str = "metered",
        api: str = "",
        batch: bool = False,
        model_asked: str | None = None,
        upstream: str | None = None,
    ) -> Cost:
        """What a call cost.

        model, model_asked   as answered, and as asked for where the answer's is not known
        at_ms                the moment of the call; prices have dates and, rarely, times of day
        service_tier         in the provider's word; `batch` for an item of a batch
        region               makes no difference: the book prices regions by model name (Bedrock's `us.`, `global.`)
        parts                where parts are billed as different models, in place of `usage` (which is their sum)
        provider_cost_usd    what the provider said, as decimal text; what is no such amount is passed over
        """
        if api == "free":
            return Cost(0, {}, 0, "none", self.version)
        tier = "batch" if batch else tier_of(service_tier)
        quote = self._quote(provider, model, model_asked, upstream, tier, at_ms)
        if self._scale == 1 and quote.plain and provider_cost_usd is None and billing != "plan" and not parts:
            # The usual case: one price list, and nobody who knows better. The same as below in fewer steps.
            assert quote.rates is not None
            amounts, missing = charge(quote.rates, usage)
            if not missing:
                cost_nusd = round_up_pusd(sum(amounts.values()))
                return Cost(cost_nusd, share(cost_nusd, amounts), cost_nusd, quote.source, self.version)
        bill = self._bill(quote, provider, usage, at_ms) if not parts else None
        if parts:
            bills = []
            for part in parts:
                part_quote = quote
                if part.model not in (None, model):
                    part_quote = self._quote(provider, part.model, None, upstream, tier, at_ms)
                bills.append(self._bill(part_quote, provider, part.usage, at_ms))
            bill = _added(bills)
        if provider_cost_usd is not None and not quote.by_rule:
            reported = reported_nusd(provider_cost_usd)
            if reported is not None:
                return self._reported(quote, reported, bill, billing)
        if bill is None:
            cost = 0 if billing == "plan" or usage == Usage() else None
            return Cost(cost, {}, cost if usage == Usage() else None, "none", self.version)
        list_nusd = round_up_pusd(bill.listed_pusd)
        if billing == "plan":
            return Cost(0, {}, list_nusd, bill.source, self.version)
        scaled = sum(bill.scaled.values())
        cost_nusd = round_up_pusd(scaled if self._scale == 1 else -(-scaled // self._scale))
        return Cost(cost_nusd, share(cost_nusd, bill.scaled), list_nusd, bill.source, self.version)

    def _reported(self, quote: _Quote, reported: int, bill: _Bill | None, billing: str) -> Cost:
        """The provider's own figure, times a rule's multiplier. Its parts are in the proportions of the book."""
        if billing == "plan":
            return Cost(0, {}, reported, "provider", self.version)
        cost_nusd = -(-reported * quote.multiplier // self._scale)
        source: CostSource = "provider" if quote.multiplier == self._scale else "policy"
        weights = bill.scaled if bill is not None and bill.source != "assumed" else {}
        return Cost(cost_nusd, share(cost_nusd, weights), reported, source, self.version)

    def _bill(self, quote: _Quote, provider: str, usage: Usage, at_ms: int) -> _Bill | None:
        """None: there is no price for this usage, and none may be assumed."""
        if quote.rates is None:
            return None
        amounts, missing = charge(quote.rates, usage)
        source = quote.source
        if missing:
            if not self._assume(provider, usage, at_ms, amounts, missing):
                return None
            source = "assumed"
        listed_pusd = sum(amounts.values())
        if quote.listed is not None:
            listed, not_listed = charge(quote.listed, usage)
            listed_pusd = listed_pusd if not_listed else sum(listed.values())
        if self._scale != 1:
            amounts = {part: amount * quote.multiplier for part, amount in amounts.items()}
        return _Bill(amounts, listed_pusd, source)

    def _assume(
        self, provider: str, usage: Usage, at_ms: int, amounts: dict[str, int], missing: tuple[str, ...]
    ) -> bool:
        """Adds to `amounts` what a known model's rates are missing, at the dearest rates of the provider. False where
        nobody has such a rate. A fee for a piece that nobody knows stays out; the cost is marked all the same."""
        if self.unknown_price == "record":
            return False
        rates, _, _ = self._dearest_of(self.book.provider_ids(provider), at_ms)
        for name in missing:
            if name.startswith("requests."):
                piece = name.removeprefix("requests.")
                amounts[name] = usage.requests[piece] * (piece_rate(rates.requests, piece) or 0)
        if all(name.startswith("requests.") for name in missing):
            return True
        assumed, still_missing = charge(rates, msgspec.structs.replace(usage, requests={}))
        assumed.pop(CALL, None)
        amounts |= assumed
        return not still_missing

    def _quote(
        self, provider: str, model: str | None, asked: str | None, upstream: str | None, tier: str, at_ms: int
    ) -> _Quote:
        key = (provider, model, asked, upstream, tier)
        quote = self._quotes.get(key)
        if quote is not None and quote.since_ms <= at_ms < quote.until_ms:
            return quote
        if len(self._quotes) >= QUOTES_MAX:
            self._quotes.clear()
        quote = self._quotes[key] = self._make_quote(provider, model, asked, upstream, tier, at_ms)
        return quote

    def _make_quote(
        self, provider: str, model: str | None, asked: str | None, upstream: str | None, tier: str, at_ms: int
    ) -> _Quote:
        found = self.book.find(provider, model) or self.book.find(provider, asked)
        rule = self._rule(provider, (model, asked), upstream)
        multiplier = self._scale
        if rule is not None and rule.multiplier_millionths is not None:
            multiplier = rule.multiplier_millionths
        since, until = BEGINNING_MS, FOREVER_MS
        if found is not None:
            raw, since, until = found.model.rates_at(at_ms, CONTEXTS[tier] if found.own else {})
            listed = ready(raw, seconds_min=found.model.seconds_min)
            if rule is None:
                return _Quote(listed, "book", multiplier, since, until)
            if rule.multiplier_millionths is not None:
                return _Quote(listed, "policy", multiplier, since, until)
            rates = ready(rule.over(raw), seconds_min=found.model.seconds_min)
            return _Quote(rates, "policy", multiplier, since, until, listed=listed, by_rule=True)
        if rule is not None and rule.prices_alone:
            return _Quote(ready(rule.over({})), "policy", multiplier, since, until, by_rule=True)
        if self.unknown_price == "record":
            return _Quote(None, "none", multiplier, since, until)
        assumed, since, until = self._assumed(provider, model or asked, at_ms)
        return _Quote(assumed, "assumed", multiplier, since, until)

    def _rule(self, provider: str, models: tuple[str | None, ...], upstream: str | None) -> PriceRule | None:
        if not self.rules:
            return None
        named = tuple(model for model in models if model) or (None,)
        for rule in self.rules:
            if rule.fits(provider=provider, models=named, upstream=upstream):
                return rule
        return None

    def _assumed(self, provider: str, model: str | None, at_ms: int) -> tuple[Rates, int, int]:
        """The dearest rates of a provider; of one that the book does not know, the rates of the model's maker where
        the model's name tells it, since gateways resell at about that price, else the dearest of the mainstream."""
        ids = self.book.provider_ids(provider)
        guess: Found | None = None if ids else self.book.find_by_maker(model)
        if guess is None:
            return self._dearest_of(ids, at_ms)
        raw, since, until = guess.model.rates_at(at_ms, {})
        return ready(raw, seconds_min=guess.model.seconds_min), since, until

    def _dearest_of(self, ids: tuple[str, ...], at_ms: int) -> tuple[Rates, int, int]:
        """Among current models: those that the book calls deprecated are left out. Falls back to the mainstream for a
        provider without any price for tokens."""
        remembered = self._dearest.get(ids)
        if remembered is not None and remembered[1] <= at_ms < remembered[2]:
            return remembered
        candidates = []
        since, until = BEGINNING_MS, FOREVER_MS
        for _, model in self.book.models(ids):
            if model.deprecated:
                continue
            raw, model_since, model_until = model.rates_at(at_ms, {})
            since, until = max(since, model_since), min(until, model_until)
            candidates.append(ready(raw, seconds_min=model.seconds_min))
        rates = dearest(candidates)
        if not rates.bands and ids != self._mainstream:
            mainstream, since_too, until_too = self._dearest_of(self._mainstream, at_ms)
            rates = dearest([rates, mainstream])
            since, until = max(since, since_too), min(until, until_too)
        answer = self._dearest[ids] = (rates, since, until)
        return answer


def _added(bills: Sequence[_Bill | None]) -> _Bill | None:
    """The bills of all parts as one, with the weakest of their sources; None where one part has no price."""
    scaled: dict[str, int] = {}
    listed_pusd = 0
    sources: set[CostSource] = set()
    for bill in bills:
        if bill is None:
            return None
        for part, amount in bill.scaled.items():
            scaled[part] = scaled.get(part, 0) + amount
        listed_pusd += bill.listed_pusd
        sources.add(bill.source)
    source: CostSource = "assumed" if "assumed" in sources else "policy" if "policy" in sources else "book"
    return _Bill(scaled, listed_pusd, source)


def tier_of(service_tier: str | None) -> str:
    """A provider's word for a tier -> a key of CONTEXTS; standard prices, "", for every other word."""
    if service_tier is None:
        return ""
    return TIERS.get(service_tier) or TIERS.get(service_tier.lower(), "")


def reported_nusd(text: str) -> int | None:
    """A provider's amount in USD as decimal text -> nano-USD; None for what is no amount that a call can cost."""
    try:
        dollars = Decimal(text) if len(text) <= REPORTED_TEXT_MAX else None
    except InvalidOperation:
        return None
    # Compared as a Decimal first: an exponent like 1e999999999 must never become an integer.
    if dollars is None or not dollars.is_finite() or not 0 <= dollars <= NUSD_MAX // 10**9:
        return None
    return nusd_from_usd(dollars)


def share(total: int, weights: dict[str, int]) -> dict[str, int]:
    """Cuts a total into whole parts in proportion to weights (largest remainders first), adding up to it exactly.

    Parts of 0 are left out. Without any weight the total is one part, `total`.
    """
    whole = sum(weights.values())
    if not whole:
        return {UNSPLIT: total} if total else {}
    if total * PUSD_PER_NUSD == whole:
        # The usual case, a cost that came to whole nano-USD at plain rates: the same figures by smaller numbers.
        parts = {name: weight // PUSD_PER_NUSD for name, weight in weights.items() if weight}
    else:
        parts = {name: total * weight // whole for name, weight in weights.items() if weight}
    left = total - sum(parts.values())
    if not left and 0 not in parts.values():
        return parts
    by_remainder = sorted(parts, key=lambda name: (-(total * weights[name] % whole), name))
    for name in by_remainder[:left]:
        parts[name] += 1
    return {name: part for name, part in parts.items() if part}
