from __future__ import annotations

from proxy.telemetry import names


def test_the_attributes_of_the_contract_have_their_names() -> None:
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("callmeter.")}
    assert {
        "callmeter.call.id",
        "callmeter.org",
        "callmeter.team",
        "callmeter.task",
        "callmeter.task.source",
        "callmeter.agent",
        "callmeter.key.id",
        "callmeter.decision",
        "callmeter.reason",
        "callmeter.rule",
        "callmeter.shadow",
        "callmeter.policy.version",
        "callmeter.degraded",
        "callmeter.usage.source",
        "callmeter.cost.nusd",
        "callmeter.cost.source",
        "callmeter.price.version",
    } <= ours


def test_no_two_constants_hold_the_same_name() -> None:
    values = [value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)]
    values.remove(names.SCOPE)
    assert len(values) == len(set(values))


def test_what_runs_no_model_has_no_operation() -> None:
    for api in ("free", "unknown", "anthropic.count_tokens", "gemini.count_tokens"):
        assert api not in names.OPERATIONS
