"""Comparing: steps 4 and 5 of the walk for duplicate rules. What a call leaves under each, and what is made of what the
store found there. A call that meets no rule costs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..core.call import Call
from ..core.caller import Caller
from ..core.conversation import Conversation
from ..core.duplicate_refusals import Finding, weigh
from ..core.duplicates import DuplicateScope, Mark, Prints, marks_for
from ..core.fingerprint import Fingerprinter
from ..core.policy import Policy, Upstream
from ..core.record import Record
from ..core.twins import Looked
from ..store.marks import Marked
from ..wire.conversations import read_conversation
from .envelope import Envelope


class Compared(msgspec.Struct, kw_only=True):
    """A call as duplicate rules see it: what it says, and which attempt its client says it is.

    marks, met         what it leaves, and the rule of each, as of the last look at the clock
    lend               False: it goes upstream, whatever its twins have
    waiting_since_ms   since when it waits for a running twin; 0: it does not
    """

    scopes: tuple[DuplicateScope, ...]
    conversation: Conversation
    token: bytes
    attempt: int
    form: str
    prints: Prints = msgspec.field(default_factory=Prints)
    marks: Sequence[Mark] = ()
    met: Sequence[DuplicateScope] = ()
    waiting_since_ms: int = 0
    lend: bool = True


class Comparer:
    """One for each process. `secret`: the server's own, with which fingerprints are keyed."""

    def __init__(self, secret: bytes) -> None:
        self._maker = Fingerprinter(secret)

    def compare(
        self,
        policy: Policy,
        caller: Caller,
        call: Call,
        upstream: Upstream,
        *,
        envelope: Envelope,
        fields: Mapping[str, Any] | bytes,
    ) -> Compared | None:
        """4  None where no rule is about the call, or its body holds nothing to compare."""
        scopes = policy.duplicates_for(caller, call, upstream)
        if not scopes:
            return None
        conversation = read_conversation(call, fields)
        if conversation is None:
            return None
        conversation.beside = envelope.beside
        token, attempt = envelope.retry
        form = "plain"
        if call.stream:
            form = f"{'array' if call.json_array else 'events'}{' with usage' if call.usage_asked else ''}"
        return Compared(scopes=scopes, conversation=conversation, token=token, attempt=attempt, form=form)

    def marked(self, compared: Compared, caller: Caller, call: Call, upstream: Upstream, now_ms: int) -> Marked | None:
        """5  The marks at an instant, by the clock of the store; None where no rule finds anything to compare."""
        compared.marks, compared.met = marks_for(
            compared.scopes,
            compared.conversation,
            self._maker,
            caller=caller,
            call=call,
            upstream=upstream,
            now_ms=now_ms,
            prints=compared.prints,
            token=compared.token,
            attempt=compared.attempt,
            form=compared.form,
            lend=compared.lend,
        )
        if not compared.marks:
            return None
        return Marked(compared.marks, user=caller.user, task=caller.task, waiting_since_ms=compared.waiting_since_ms)


def found(compared: Compared, caller: Caller, looked: Looked, now_ms: int) -> Finding:
    """What the rules say of what the store found."""
    return weigh(compared.met, compared.marks, looked.seen, caller=caller, now_ms=now_ms)


def put_finding(record: Record, prints: Prints, finding: Finding) -> None:
    """The facts into the record, and what the caller is told beside them."""
    if prints.exact is not None:
        record.fingerprint = prints.exact.hex()
    if prints.opening is not None:
        record.work = prints.opening.hex()
    record.twin_of, record.twin_rule, record.twin_kind = finding.twin_of, finding.rule, finding.kind
    record.repeats, record.moved_on = finding.repeats, finding.moved_on
    record.loop = max(finding.loop, prints.rounds)
    if finding.warnings:
        record.warnings = [*record.warnings, *finding.warnings]
    if finding.shadow:
        record.shadow = [*record.shadow, *finding.shadow]
