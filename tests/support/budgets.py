"""Callers, calls and budgets for tests that decide nothing but what they are about."""

from __future__ import annotations

from typing import Any

from proxy.core.admission import Reserved, State, Take
from proxy.core.budgets import Budget, Scope
from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.expected import Estimate
from proxy.core.matching import Upstream
from proxy.core.takes import takes_for
from proxy.core.usage import Usage
from proxy.core.windows import Every

USD = 10**9
NOON_MS = 1_795_780_800_000  # 2026-11-27T12:00Z
OPENAI = Upstream(name="openai", dialect="openai", provider="openai", url="https://api.openai.com")


def caller(**fields: Any) -> Caller:
    return Caller(**({"org": "acme", "team": "payments", "user": "ada", "key_id": "k1"} | fields))


def call(**fields: Any) -> Call:
    given = {"api": "openai.chat", "dialect": "openai", "route": "/v1/chat/completions", "model": "gpt-5-mini"}
    return Call(**(given | {"body_bytes": 4_000} | fields))


def budget(every: str = "day", timezone: str = "UTC", **fields: Any) -> Budget:
    given: dict[str, Any] = {"name": "person-day", "per": ("user",), "limit": 25 * USD}
    return Budget(every=Every.parse(every, timezone), **(given | fields))


def estimate(expected_nusd: int = 0, tokens: int = 0, **fields: Any) -> Estimate:
    return Estimate(usage=Usage(input=tokens), expected_nusd=expected_nusd, expected_tokens=tokens, **fields)


def scope_of(one: Budget, who: Caller | None = None, what: Call | None = None) -> Scope:
    return Scope(one, *one.counter(who or caller(), what or call(), OPENAI))


def taken(
    one: Budget, foreseen: Estimate, *, spent: int, held: int = 0, now_ms: int = NOON_MS, who: Caller | None = None
) -> tuple[list[Scope], list[Take], Reserved]:
    """A call of one budget that was weighed and did not get in, unless it fits."""
    scopes = [scope_of(one, who)]
    takes = takes_for(scopes, foreseen, now_ms)
    fits = spent + held + takes[0].amount <= takes[0].limit
    blocked = [] if fits or not takes[0].enforce else [0]
    return scopes, takes, Reserved(not blocked, 0, [State(spent, held)], blocked, now_ms)
