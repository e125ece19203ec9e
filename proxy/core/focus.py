"""FOCUS: what calls came to as rows of the FinOps Open Cost and Usage Specification 1.2. Pure; money never is a float.

A row is one hour of one task, agent and model: its charge period is the hour, its billing period the month. The
columns of unit prices stay empty, because one row holds tokens of several kinds at several rates. The columns of
version 1.0 that later versions made optional are there as well, since many tools still ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .money import decimal_usd
from .record import rfc3339
from .usage import TOKEN_FIELDS

COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
"""Every FOCUS column that we write, in the order of their names."""

VALIDATOR_COLUMNS = ("InvoiceIssuer", "Provider", "Publisher", "ResourceID")
"""How the public validator (focus-validator 1.0) spells four of them: without these it takes no file."""

OWN_COLUMNS = (
    "x_team",
    "x_task",
    "x_outcome",
    "x_outcome_status",
    "x_agent",
    "x_upstream",
    "x_api",
    "x_calls",
    "x_unpriced_calls",
    "x_assumed_calls",
    "x_cost_nusd",
    "x_list_nusd",
    *(f"x_{name}_tokens" for name in TOKEN_FIELDS),
)
USER_COLUMN = "x_user"

PROVIDER_NAMES = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "google": "Google",
    "gemini": "Google",
    "azure": "Microsoft",
    "aws": "AWS",
    "bedrock": "AWS",
    "groq": "Groq",
    "mistral": "Mistral AI",
    "cohere": "Cohere",
    "deepseek": "DeepSeek",
    "openrouter": "OpenRouter",
}
"""As invoices spell them; any other provider keeps the name that the policy gives it."""

NO_PROVIDER = "unknown"
"""Provider of calls that never got as far as one: the column must not be empty."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whose charge a row is. Absent values are the empty text; `user` is empty where users are left out."""

    org: str
    team: str
    user: str = ""
    task: str = ""
    agent: str = ""
    provider: str = ""
    model: str = ""
    upstream: str = ""
    api: str = ""
    outcome: str = ""
    outcome_status: str = ""


class Period(msgspec.Struct, frozen=True):
    """A time from `start_ms` to before `end_ms`."""

    start_ms: int
    end_ms: int


def head(with_users: bool) -> list[str]:
    """The first line of the file."""
    return [*COLUMNS, *VALIDATOR_COLUMNS, *OWN_COLUMNS, *([USER_COLUMN] if with_users else ())]


def line(place: Place, sums: Mapping[str, int], charged: Period, billed: Period, *, with_users: bool) -> list[str]:
    """One row. `sums` are those of roll-ups, by name. Nulls are empty cells."""
    provider = PROVIDER_NAMES.get(place.provider, place.provider) or NO_PROVIDER
    quantity, unit = consumed(sums)
    cost, listed = decimal(sums["cost_nusd"]), decimal(sums["list_nusd"])
    what = f"{place.model or 'calls'} by {place.api or 'unknown'}"
    tags = {name: value for name in ("agent", "task", "team") if (value := getattr(place, name))}
    cells = {
        "BilledCost": cost,
        "BillingAccountId": place.org,
        "BillingAccountName": place.org,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": moment(billed.end_ms),
        "BillingPeriodStart": moment(billed.start_ms),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{provider}: {what}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": moment(charged.end_ms),
        "ChargePeriodStart": moment(charged.start_ms),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": provider,
        "ListCost": listed,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": place.model,
        "ResourceName": place.model,
        "ResourceType": "Model" if place.model else "",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{provider} API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{place.provider or NO_PROVIDER}/{place.model}" if place.model else "",
        "SkuMeter": unit,
        "SubAccountId": place.team,
        "SubAccountName": place.team,
        "SubAccountType": "Team",
        "Tags": msgspec.json.encode(tags).decode(),
        "x_team": place.team,
        "x_task": place.task,
        "x_outcome": place.outcome,
        "x_outcome_status": place.outcome_status,
        "x_agent": place.agent,
        "x_upstream": place.upstream,
        "x_api": place.api,
        "x_calls": str(sums["calls"]),
        "x_unpriced_calls": str(sums["unpriced_calls"]),
        "x_assumed_calls": str(sums["assumed_calls"]),
        "x_cost_nusd": str(sums["cost_nusd"]),
        "x_list_nusd": str(sums["list_nusd"]),
        "x_user": place.user,
    }
    cells |= {"InvoiceIssuer": provider, "Provider": provider, "Publisher": provider, "ResourceID": place.model}
    cells |= {f"x_{name}_tokens": str(sums[name]) for name in TOKEN_FIELDS}
    return [cells.get(name, "") for name in head(with_users)]


def consumed(sums: Mapping[str, int]) -> tuple[str, str]:
    """How much of what was used. Whatever is not counted in tokens has one unit of its own."""
    tokens = sum(sums[name] for name in TOKEN_FIELDS)
    if tokens:
        return f"{tokens}.0", "Tokens"
    for name, unit in (("images", "Images"), ("characters", "Characters"), ("requests", "Requests")):
        if sums[name]:
            return f"{sums[name]}.0", unit
    if sums["audio_ms"]:
        return decimal(sums["audio_ms"] * 1_000_000), "Seconds"
    return f"{sums['calls']}.0", "Requests"


def decimal(amount_nusd: int) -> str:
    """Nano-USD -> dollars, exactly, and always with a point: readers that guess types take `0` for another one."""
    text = decimal_usd(amount_nusd)
    return text if "." in text else f"{text}.0"


def is_charge(sums: Mapping[str, int]) -> bool:
    """Whether there is anything to say of it in a bill: refused calls alone are none."""
    used: Sequence[str] = ("cost_nusd", "list_nusd", "unpriced_calls", *TOKEN_FIELDS)
    return any(sums[name] for name in used)


def moment(at_ms: int) -> str:
    """`2026-11-01T00:00:00Z`: FOCUS wants UTC with seconds."""
    return rfc3339(at_ms)[:19] + "Z"
