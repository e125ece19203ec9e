"""Forgetting: a record with nobody in it. What it cost, for which task and team, stays; who made it does not."""

from __future__ import annotations

import hashlib

import msgspec

from .record import Record

FORGOTTEN = "forgotten"
"""The one name that all who were forgotten have: sums by user still add up, and tell nobody apart."""


def forgotten(record: Record) -> Record:
    """The record without its person: user, key, session, labels and user agent; fingerprints of what was asked; the ids
    of the caller's trace, in whose place come others, which follow from the id of the call; and the sentences of
    warnings, which may name the user."""
    ids = hashlib.blake2b(record.call_id.encode(), digest_size=32, person=b"forgotten").hexdigest()
    return msgspec.structs.replace(
        record,
        user=FORGOTTEN,
        key_id="",
        session=None,
        labels={},
        user_agent="",
        max_cost_nusd={},
        fingerprint=None,
        work=None,
        warnings=[warning.partition(";")[0] for warning in record.warnings],
        trace_id=ids[:32],
        span_id=ids[32:48],
        client_span_id=ids[48:],
        parent_span_id=None,
    )
