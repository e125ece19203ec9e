"""Exporting: traces leave through one bookkeeper at a time, the active one, and as the policy in force says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.policy import Policy
from ..store.lease import Lease
from ..telemetry.exporter import TraceExporter

LOOK_S = 0.2
"""How often lease and policy are looked at: both change rarely, and looking costs nothing."""


async def export_while_active(export: TraceExporter, lease: Lease, policy: Callable[[], Policy]) -> None:
    """Runs the export while the lease is held. Returns when the exporter was stopped."""
    noted: Policy | None = None
    running: asyncio.Task[None] | None = None
    try:
        while running is None or not running.done():
            if (now := policy()) is not noted:
                export.use(profiles=now.telemetry.profiles, join=now.telemetry.join)
                noted = now
            if lease.held and running is None:
                running = asyncio.create_task(export.run())
            elif not lease.held and running is not None:
                await export.rest()
                running = None
            await asyncio.sleep(LOOK_S)
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
