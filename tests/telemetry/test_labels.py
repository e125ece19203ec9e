from __future__ import annotations

from proxy.telemetry.labels import BoundedNames, ModelNames
from tests.support.telemetry_records import record


def test_the_first_names_keep_themselves_and_later_ones_are_other() -> None:
    labels = BoundedNames(2)
    assert [labels.label(name) for name in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


def test_a_name_that_is_not_proven_takes_no_place() -> None:
    labels = BoundedNames(1)
    assert labels.label("made-up", proven=False) == "other"
    assert labels.label("real") == "real"


def test_a_model_has_its_label_once_a_provider_has_answered_for_it() -> None:
    labels = ModelNames()
    asked = record(model=None, model_asked="gpt-5-mini", usage_source="none")
    assert labels.label(asked) == "other"
    assert labels.label(record(model="gpt-5-mini")) == "gpt-5-mini"
    assert labels.label(asked) == "gpt-5-mini"


def test_a_call_without_a_model_is_none() -> None:
    assert ModelNames().label(record(model=None, model_asked=None)) == "none"
