"""Webhooks: who sent a delivery, and what it tells. One file a source; pure.

`check` says whether the signature is that of the rule's secret, `read` what happened. What a source sends beside that
is left out: nothing here keeps a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...core.happenings import Happening
from ...core.outcomes import OutcomeRule
from . import github, gitlab, standard
from .payload import PayloadInvalid
from .signature import SignatureInvalid, check

__all__ = ["PayloadInvalid", "SignatureInvalid", "check", "read"]

Read = Callable[[OutcomeRule, Mapping[str, str], bytes, int], Sequence[Happening]]

SOURCES: dict[str, Read] = {"github": github.read, "gitlab": gitlab.read, "standard": standard.read}


def read(rule: OutcomeRule, headers: Mapping[str, str], body: bytes, received_ms: int) -> Sequence[Happening]:
    """What a delivery tells; nothing where it is of no interest. Raises PayloadInvalid where it cannot be read."""
    return SOURCES[rule.origin](rule, headers, body, received_ms)
