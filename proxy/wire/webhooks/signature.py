"""Signatures of webhooks: a delivery is taken from whom holds the secret of its rule. Compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from ...core.outcomes import STANDARD_SECRET, OutcomeRule, standard_secret

REPLAY_WINDOW_S = 300
"""How old a Standard Webhook may be, and how far ahead: what the specification recommends."""
SIGNATURES_MAX = 16
"""Signatures of one delivery that are tried: senders add one for each secret while they change them."""
DELIVERY_CHARACTERS_MAX = 128
_TIMESTAMP_DIGITS_MAX = 12


class SignatureInvalid(ValueError):
    """A sentence that says what is missing or wrong, and never what would be right."""


def check(rule: OutcomeRule, headers: Mapping[str, str], body: bytes, now_ms: int) -> str:
    """The id of the delivery, once its signature holds. Raises SignatureInvalid.

    What a source does not sign cannot do harm: a delivery with another id tells the same again.
    """
    if rule.origin == "github":
        _check_github(rule.secrets, headers, body)
        delivery = headers.get("x-github-delivery", "")
    elif rule.origin == "gitlab" and not all(secret.startswith(STANDARD_SECRET) for secret in rule.secrets):
        given = headers.get("x-gitlab-token", "")
        if not given:
            raise SignatureInvalid("the header `X-Gitlab-Token` is missing; set the secret token of the webhook")
        if not _among(given, rule.secrets):
            raise SignatureInvalid("`X-Gitlab-Token` is not the secret of this rule")
        delivery = headers.get("idempotency-key", "")
    else:
        delivery = _check_standard(rule.secrets, headers, body, now_ms)
    if delivery and len(delivery) <= DELIVERY_CHARACTERS_MAX and delivery.isprintable():
        return delivery
    return hashlib.blake2b(delivery.encode("utf-8", "replace") + b"\n" + body, digest_size=16).hexdigest()


def _check_github(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> None:
    scheme, _, given = headers.get("x-hub-signature-256", "").partition("=")
    if scheme != "sha256" or not given:
        raise SignatureInvalid("the header `X-Hub-Signature-256` is missing; set the secret of the webhook")
    if not _among(given.lower(), [hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() for secret in secrets]):
        raise SignatureInvalid("`X-Hub-Signature-256` does not fit the body and the secret of this rule")


def _check_standard(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now_ms: int) -> str:
    """Standard Webhooks, which GitLab's signing tokens follow too."""
    delivery, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not (delivery and timestamp and given):
        raise SignatureInvalid("`webhook-id`, `webhook-timestamp` and `webhook-signature` must all be there")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIMESTAMP_DIGITS_MAX):
        raise SignatureInvalid("`webhook-timestamp` is not a number of seconds since 1970")
    signed = f"{delivery}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    right = [base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode() for secret in secrets]
    # All are compared, so that the time tells nothing of which one was right.
    found = [
        _among(text, right)
        for version, _, text in (part.partition(",") for part in given.split()[:SIGNATURES_MAX])
        if version == "v1"
    ]
    if not any(found):
        raise SignatureInvalid("no `v1` of `webhook-signature` fits id, timestamp, body and the secret of this rule")
    if abs(now_ms // 1000 - int(timestamp)) > REPLAY_WINDOW_S:
        raise SignatureInvalid(
            f"`webhook-timestamp` is more than {REPLAY_WINDOW_S // 60} minutes from this machine's clock; sign each "
            "attempt anew, and check both clocks"
        )
    return delivery


def _key(secret: str) -> bytes:
    return standard_secret(secret) if secret.startswith(STANDARD_SECRET) else secret.encode()


def _among(given: str, right: Sequence[str]) -> bool:
    """Whether it is one of those; all are compared, each in constant time."""
    given_bytes = given.encode("utf-8", "surrogateescape")
    found = [hmac.compare_digest(given_bytes, each.encode()) for each in right]
    return any(found)
