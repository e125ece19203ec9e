"""What can go wrong with the store. The text of each is a sentence for a person and names no password."""

from __future__ import annotations


class StoreError(Exception):
    """The store answered with an error that waiting does not cure: a wrong command, a key of another kind."""


class StoreUnavailable(StoreError):
    """The store cannot be used now: away, silent, full, loading, or too much is under way. Waiting may help."""


class StoreRebuilding(StoreUnavailable):
    """The store was emptied or replaced by an older copy; it takes nothing until its epoch is set again."""


class StoreRefused(StoreError):
    """The store will not have us: it needs a password, refuses ours, or belongs to another ledger or secret."""


class StoreForeign(StoreRefused):
    """The store belongs to another ledger or secret. It never becomes ours: the process must end, not try again."""


class ScriptMissing(StoreError):
    """The store has forgotten a script (SCRIPT FLUSH, a restart); it has to be sent in full."""


AWAY_CODES = frozenset(
    {
        "OOM",
        "MISCONF",
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "BUSY",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MOVED",
        "ASK",
    }
)
"""First words of error replies that say "not now"."""

REFUSED_CODES = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})


def error_from_reply(text: str) -> StoreError:
    """An error reply, such as `OOM command not allowed ...`, as the exception it means."""
    code = text.partition(" ")[0]
    if code == "NOSCRIPT":
        return ScriptMissing(text)
    if code == "REBUILDING":
        return StoreRebuilding("The store was emptied or replaced and is being rebuilt; try again in a moment.")
    if code == "OOM" or "OOM command not allowed" in text:
        return StoreUnavailable("The store is full (its `maxmemory` is reached); give it more memory.")
    if code in AWAY_CODES:
        return StoreUnavailable(f"The store takes nothing at the moment: {text}")
    if code in REFUSED_CODES or text.startswith("ERR AUTH"):
        return StoreRefused(f"The store refused us: {text}")
    return StoreError(f"The store answered with an error: {text}")
