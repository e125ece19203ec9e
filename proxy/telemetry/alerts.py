"""Alerts on their way out: to a webhook, signed as Standard Webhooks has it, or to a Slack channel.

One attempt each; that a message is sent until it is taken, and no more often, is the outbox's work. A receiver that
gets one twice (its answer was lost) knows it by its `webhook-id`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlsplit

import msgspec
import requests

TIMEOUT_SECONDS = 10.0
SLACK_HOST = "hooks.slack.com"
SECRET_NAME = b"callmeter alerts"
"""Sets the key that signs alerts apart from all others that are derived from CALLMETER_SECRET."""


class AlertNotTaken(RuntimeError):
    """The receiver did not take a message. The text says why, without the URL, which may hold a secret."""


class _Body(msgspec.Struct):
    type: str
    data: dict[str, object]


class AlertSender:
    """Posts messages. Blocking, safe to call from one thread at a time."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is the one that signs keys; alerts are signed with a key derived from it."""
        self._key = hmac.digest(secret, SECRET_NAME, "sha256")
        self._session = requests.Session()

    @property
    def signing_secret(self) -> str:
        """What a receiver checks signatures with, as libraries for Standard Webhooks take it."""
        return f"whsec_{base64.b64encode(self._key).decode()}"

    def send(self, to: str, message_id: str, body: str, *, now_s: int) -> None:
        """Raises AlertNotTaken unless the receiver answers 2xx."""
        if urlsplit(to).hostname == SLACK_HOST:
            data, headers = slack_body(body), {}
        else:
            data, headers = body.encode(), self.signed(message_id, body, now_s)
        headers["content-type"] = "application/json"
        try:
            # A redirect would carry the message to a place that nobody named.
            answer = self._session.post(
                to, data=data, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True
            )
            answer.close()
        except requests.RequestException as error:
            raise AlertNotTaken(f"{type(error).__name__} at {urlsplit(to).hostname}") from None
        if not 200 <= answer.status_code < 300:
            raise AlertNotTaken(f"{urlsplit(to).hostname} answered {answer.status_code}")

    def signed(self, message_id: str, body: str, now_s: int) -> dict[str, str]:
        """The headers that prove who sent a message, and when."""
        content = f"{message_id}.{now_s}.{body}".encode()
        signature = base64.b64encode(hmac.new(self._key, content, hashlib.sha256).digest()).decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": f"v1,{signature}",
        }

    def close(self) -> None:
        self._session.close()


def slack_body(body: str) -> bytes:
    """The message as Slack's incoming webhooks take it."""
    read = msgspec.json.decode(body, type=_Body)
    text = f"Callmeter: {read.data.get('sentence', read.type)}"
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # else names could link or call people
        text = text.replace(sign, written)
    return msgspec.json.encode({"text": text})
