"""What can go wrong with the ledger, in words for a person. Free of SQLAlchemy, so that workers can import it."""

from __future__ import annotations


class LedgerUnavailable(RuntimeError):
    """The database cannot be reached or cannot take the work now. Nothing was written; try again later."""


class LedgerRefused(RuntimeError):
    """The database must not be used by this version or with this URL. Trying again does not help."""


class PositionMoved(RuntimeError):
    """Another bookkeeper moved the stream position under us. Nothing was written; read `positions()` again."""


class SegmentsUnavailable(RuntimeError):
    """The segments on disk cannot be written. What was being appended is not in them."""
