"""Callmeter: a metering proxy for AI agents. The map of the house; imports point inwards, towards `core`.

core        decides, counts, prices; pure: no I/O, no clock, no async
wire        reads requests and answers of each dialect, and webhooks; pure: bytes in, facts out
edge        the data port: takes a call from the agent to the provider and back (`relay.py` is the walk of one call)
store       Valkey or Redis: holds of running calls, the stream of records, the spool for when it is away
ledger      SQL: rows, roll-ups, reports, keys
telemetry   OpenTelemetry and Prometheus, rebuilt from records
admin       the admin port: API, health, metrics
commands    what `callmeter` can do, one file a command

app.py builds a worker, bookkeeper.py the process that follows the records, supervisor.py starts and restarts both.
"""

__version__ = "0.1.0"
