"""Claiming: `POST /callmeter/claims`, by which a user gives a session of theirs that ran without a task one."""

from __future__ import annotations

import msgspec

from ..core.caller import Caller
from ..core.keys import TAG_CHARS_MAX, is_tag
from ..core.record import rfc3339
from ..core.refusal import Refusal
from ..store.claims import ask, new_claim
from ..store.client import Client
from ..store.errors import StoreError
from .answers import WholeAnswer, json_answer

CLAIM_FORM = '`{"session": ..., "task": ...}`'
AWAY = "claims are taken when store and ledger are both there; try again"


class Claim(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /callmeter/claims`."""

    session: str
    task: str


class Claims:
    """Takes claims of callers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def take(self, caller: Caller, body: bytes) -> WholeAnswer | Refusal:
        """200 `{"session", "task", "calls", "cost_nusd", "claimed_at"}`, 404 where there is nothing to claim, 409 where
        it cannot be claimed any more."""
        if caller.task_source == "key":
            sentence = "a task key works on its own task alone; claim with the key that it was made from"
            return Refusal(code="not_allowed", sentence=sentence)
        try:
            claim = msgspec.json.decode(body, type=Claim)
        except (msgspec.MsgspecError, ValueError) as error:
            return Refusal(code="body_invalid", sentence=f'send `{{"session": ..., "task": ...}}`: {error}')
        if not is_tag(claim.session) or not is_tag(claim.task):
            sentence = f"`session` and `task` need 1 to {TAG_CHARS_MAX} printable characters"
            return Refusal(code="body_invalid", sentence=sentence)
        try:
            answered = await ask(self._client, new_claim(caller.org, caller.user, claim.session, claim.task))
        except StoreError:
            return Refusal(code="store_unavailable", sentence=AWAY)
        if answered is None or answered.status == 503:
            return Refusal(code="store_unavailable", sentence=AWAY)
        if answered.status != 200:
            told = {"status": answered.status, "detail": answered.sentence}
            return json_answer(told, answered.status, b"application/problem+json")
        return json_answer(
            {
                "session": claim.session,
                "task": claim.task,
                "calls": answered.calls,
                "cost_nusd": answered.cost_nusd,
                "claimed_at": rfc3339(answered.at_ms),
            }
        )
