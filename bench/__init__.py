"""Benchmarks: what a call costs, measured beside the bare pass-through that nobody could do without.

main_job.py     the command: calls through Callmeter and through the floor, in turn, and what each of them costs
bookkeeper.py   the other command: how fast records go from the stream into the ledger and on to a collector
webhooks.py     how long the deliveries of a burst of webhooks wait for their answers
report.py       a third: ten million records, and how long reports over them take
floor.py        the floor: an aiohttp pass-through that does nothing but pass
provider.py     the provider behind both: prebuilt answers, as OpenAI writes them
load.py         the load before both: raw connections, every answer compared
exchange.py     the bytes that load and provider agree on
processes.py    starting, pinning and weighing processes
collector.py    an OTLP collector that counts spans

None of this is part of the test run: times are measured here and asserted nowhere.
"""
