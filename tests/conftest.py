"""For all tests: how Hypothesis goes about its work."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes to make says how busy the machine is, and nothing about the code under test.
settings.register_profile("callmeter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callmeter")
