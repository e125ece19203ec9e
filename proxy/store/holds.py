"""How long holds live and settled calls are remembered. All in ms."""

from __future__ import annotations

HOLD_LIFE_MS = 30_000
"""A hold that is not renewed for this long belongs to a process that is gone."""

RENEW_MS = 10_000
"""Holds are renewed this often, so that two renewals may fail before one expires."""

SETTLED_MEMORY_MS = 15 * 60 * 1000
"""How long the store knows that a call is settled: repeats come within seconds, from the spool within minutes. What
comes even later is caught by the ledger, which knows every call."""

UNUSUAL_MEMORY_MS = 32 * 24 * 3600 * 1000
"""How long it knows of calls that were lost, or settled by a later revision: those are few, and a spool on a host that
was switched off may come back after weeks."""
