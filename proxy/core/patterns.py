"""Regular expressions of policies. They meet texts that anybody may have written, so they run in an engine whose time
is linear in the text, whatever the expression; what such an engine cannot do is refused when a policy is loaded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

PATTERN_BYTES_MAX = 1 << 20
"""Memory of one compiled expression: the largest that is sensible needs a hundredth."""
COMPILED_MAX = 256


class PatternInvalid(ValueError):
    """A sentence about an expression that cannot be used."""


@lru_cache(maxsize=COMPILED_MAX)
def compiled(pattern: str) -> Any:
    """Raises PatternInvalid with a sentence for a person."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        told = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise PatternInvalid(
            f"cannot be used: {told}; it is read by RE2, which has no look-around and no back-references, so that no "
            "text can make it slow"
        ) from None


def found_in(pattern: str, text: str, characters_max: int) -> str:
    """What the expression finds first in a text, or its first group of that; empty where it finds nothing."""
    clean = text[:characters_max].encode("utf-8", "replace").decode()  # half of a pair of surrogates is no text
    found = compiled(pattern).search(clean)
    if found is None:
        return ""
    return str((found.group(1) if found.re.groups else found.group(0)) or "")
