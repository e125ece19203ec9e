"""Telemetry: what leaves the house for dashboards and trace tools, rebuilt from records. Nothing here decides.

names          every attribute and metric name
spans          record -> SERVER and CLIENT span; figures.py counts, profiles.py adds what single backends read
otlp, senders  spans -> bytes -> a collector over HTTP or gRPC, or a file
exporter       follows the ledger by a cursor that waits for the collector
prometheus     `/metrics`; genai_metrics.py the histograms of the GenAI conventions; labels.py bounds both
logs, redact   structured lines, without keys
"""
