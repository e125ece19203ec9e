"""The refusals that the edge itself finds cause for, each saying what, where and what to do."""

from __future__ import annotations

from ..core.call import Call
from ..core.policy import Policy, Upstream
from ..core.refusal import Refusal, quoted
from .paths import Target

WEBSOCKET = Refusal(
    code="unknown_call",
    sentence="Callmeter relays no WebSockets, which could not be metered; use the provider's API over HTTP",
)


def unknown_upstream(target: Target, policy: Policy, dialect: str) -> Refusal:
    """No upstream has the name, and the path alone does not say which one is meant. `dialect` is that of a path in
    the short form, "" for any other path."""
    names = ", ".join(f"`{name}`" for name in sorted(policy.upstreams))
    if dialect:
        sentence = f"the policy has no upstream for the {dialect} dialect; use `/<upstream>/...` with one of {names}"
    elif not target.segment:
        sentence = f"the path names no upstream: call `/<upstream>/...` with one of {names}"
    else:
        sentence = f"there is no upstream {quoted(target.segment)}; the policy has {names}"
    return Refusal(code="unknown_call", sentence=sentence)


def body_too_large(bytes_max: int) -> Refusal:
    return Refusal(
        code="body_too_large",
        sentence=f"the body is larger than the {bytes_max / 2**20:g} MiB that the policy lets through (`max_body`); "
        "send less, or ask your admin to raise it",
    )


def price_unknown(upstream: Upstream, call: Call) -> Refusal:
    return Refusal(
        code="price_unknown",
        sentence=f"model {quoted(call.model)} of `{upstream.provider}` has no known price and the policy refuses such "
        "calls; use another model, or ask your admin to add it to `prices`",
    )


def store_away(reason: str) -> Refusal:
    told = reason.removesuffix(".")
    if "try again" not in told:
        told += "; try again in a moment"
    return Refusal(code="store_unavailable", sentence=told, retry_after_s=2.0)


def upstream_broken(name: str, sentence: str, *, timeout: bool) -> Refusal:
    code = "upstream_timeout" if timeout else "upstream_unreachable"
    return Refusal(code=code, sentence=f"upstream `{name}`: {sentence}")
