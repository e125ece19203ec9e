"""Labels: keep the number of time series bounded, whatever callers write into their calls."""

from __future__ import annotations

from ..core.record import Record

MODELS_MAX = 200
"""Model names with series of their own. A model costs some 40 series in `/metrics`, and hardly a house uses 200."""
TEAMS_MAX = 500
PROVIDERS_MAX = 100
RULES_MAX = 1000
"""Teams, providers and rules are named by admins; these only guard against a mistake in an import or a template."""
OTHER = "other"


class BoundedNames:
    """The first `names_max` names keep themselves; all later ones are `other`."""

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._known: set[str] = set()

    def label(self, name: str, *, proven: bool = True) -> str:
        """The label for `name`. One that is not `proven` does not take a place of its own."""
        if name in self._known:
            return name
        if not proven or len(self._known) >= self._names_max:
            return OTHER
        self._known.add(name)
        return name


class ModelNames:
    """Labels for the models of records. A name that a caller made up and no provider answered for takes no place."""

    def __init__(self, models_max: int = MODELS_MAX) -> None:
        self._names = BoundedNames(models_max)

    def label(self, record: Record) -> str:
        """The model that answered, else the one that was asked for, else `none`; `other` beyond the bound."""
        name = record.model or record.model_asked
        if not name:
            return "none"
        return self._names.label(name, proven=record.usage_source == "reported")
