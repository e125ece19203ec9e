"""Policy files: the texts of a directory -> one policy, or every fault that keeps it from being one.

All files are read before anything is said, so that a person mends them in one go. Nothing here reads a disk; the
environment is a parameter. What an upstream's `key` holds never reaches a message, a repr or the policy's version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .alerts import AlertRule
from .budgets import MAX_COST_RULE
from .known_models import known_model_of
from .policy import UNKNOWN_CALLS_RULE, AccessRule, Defaults, Mode, Policy, Telemetry, Upstream
from .policy_budgets import (
    Written,
    budget_of,
    check_budget,
    check_globs,
    check_other_models,
    check_tasks_are_bounded,
    match_of,
)
from .policy_duplicates import check_duplicate, duplicate_of
from .policy_outcomes import check_outcome, check_team, check_unproven, outcome_of, team_of, unproven_of
from .policy_schema import POLICY_FILE, PROVIDER_BY_DIALECT, RESERVED_UPSTREAM_NAMES, json_schema, key_table
from .policy_values import Report
from .price_rules import PriceRule
from .price_tables import PriceBook
from .yaml_nodes import Fault, Node, Scalar, Table, read_yaml, shown

__all__ = ["Fault", "Loaded", "json_schema", "key_table", "load"]

RESERVED_RULE_NAMES = {
    UNKNOWN_CALLS_RULE: "`defaults: unknown_calls`",
    MAX_COST_RULE: "the `max_cost` of task keys",
}
"""Rules that no file writes -> what is called so in records."""

SECRET_KEYS = (("upstreams", "key"), ("alerts", "to"), ("outcomes", "secret"))
"""What stands in a file, or in its environment, and is no part of the policy's version."""

VERSION_DIGITS = 12
"""Of the hash that names a policy: enough that two policies of one house never share a name."""


class Loaded(msgspec.Struct, frozen=True):
    """What came of reading. `policy` is None exactly when there are faults; warnings never stand in its way."""

    policy: Policy | None
    faults: list[Fault]
    warnings: list[Fault]


def load(
    files: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    book: PriceBook | None = None,
) -> Loaded:
    """`files`: name as people know it -> text. Never raises: whatever the texts hold ends as faults.

    Files count in the order of their names, which is the order of the rules in them. With a price book, rules are
    warned of whose models have no price there nor in `prices`.
    """
    loader = _Loader(environ, book)
    if not files:
        return Loaded(None, [Fault("policies", 1, 1, "there is no policy file")], [])
    for file in sorted(files):
        loader.read(file, files[file])
    return loader.loaded()


class _Loader:
    """Gathers what the files say, one after the other."""

    def __init__(self, environ: Mapping[str, str], book: PriceBook | None) -> None:
        self._environ = environ
        self._book = book
        self._faults: list[Fault] = []
        self._warnings: list[Fault] = []
        self._version = hashlib.sha256()
        self._upstreams: dict[str, Upstream] = {}
        self._places: dict[tuple[str, str], str] = {}
        self._short_form_places: dict[str, tuple[Report, Node]] = {}
        self._defaults: dict[str, Any] = {}
        self._access: list[Written] = []
        self._budgets: list[Written] = []
        self._duplicates: list[Written] = []
        self._outcomes: list[Written] = []
        self._teams: list[tuple[Scalar, Written]] = []
        self._unproven: list[Written] = []
        self._reports: list[Report] = []
        self._prices: list[PriceRule] = []
        self._telemetry: dict[str, Any] = {}
        self._alerts: list[AlertRule] = []
        self._sections = 0
        self._first_file = ""

    def read(self, file: str, text: str) -> None:
        """One file, whatever is in it."""
        self._first_file = self._first_file or file
        if not text.strip():
            # An editor that saves in place leaves an empty file for a moment; taking it would drop all its rules.
            self._faults.append(Fault(file, 1, 1, "the file is empty; delete it, or leave a comment in it"))
            return
        root, faults = read_yaml(file, text)
        self._faults += faults
        if root is None:
            return
        report = Report(file, self._environ)
        self._reports.append(report)
        values = POLICY_FILE.read(root, report)
        if values is not None:
            self._take(values, root, report)
        self._version.update(json.dumps(_canonical(root, report)).encode())

    def _take(self, values: dict[str, Any], root: Node, report: Report) -> None:
        assert isinstance(root, Table)
        self._sections += len(root.entries)
        for key, node in root.entries:
            section, value = key.text, values.get(key.text)
            if value is None:
                continue
            if section == "upstreams":
                for name, fields in value:
                    self._take_upstream(name, fields, report.under("upstreams"))
            elif section == "access":
                for item, fields in value:
                    self._take_access(item, fields, report.under("access"))
            elif section == "budgets":
                for item, fields in value:
                    self._take_rule(item, fields, report.under("budgets"), check_budget, self._budgets)
            elif section == "duplicates":
                for item, fields in value:
                    self._take_rule(item, fields, report.under("duplicates"), check_duplicate, self._duplicates)
            elif section == "outcomes":
                for item, fields in value:
                    self._take_rule(item, fields, report.under("outcomes"), check_outcome, self._outcomes)
            elif section == "teams":
                for name, fields in value:
                    self._take_team(name, node, fields, report.under("teams"))
            elif section == "unproven":
                for item, fields in value:
                    self._take_rule(item, fields, report.under("unproven"), check_unproven, self._unproven)
            elif section == "prices":
                for item, fields in value:
                    self._take_price(item, fields, report.under("prices"))
            elif section == "alerts":
                for item, fields in value:
                    self._take_alert(item, fields, report.under("alerts"))
            elif section == "defaults":
                self._take_once("defaults", node, value, self._defaults, report)
            elif section == "telemetry":
                self._take_once("telemetry", node, value, self._telemetry, report)

    def _new(self, kind: str, name: str, node: Node, report: Report) -> bool:
        """Whether a name is used for the first time in all files; a fault where it is not."""
        first = self._places.get((kind, name))
        if first is not None:
            report.fault(node, f"{kind} `{shown(name)}` is already set at {first}")
            return False
        self._places[kind, name] = f"{report.file}:{node.line}"
        return True

    def _take_once(self, section: str, node: Node, value: dict[str, Any], into: dict[str, Any], report: Report) -> None:
        assert isinstance(node, Table)
        for key, _ in node.entries:
            if key.text in value and self._new(f"{section} key", key.text, key, report):
                into[key.text] = value[key.text]

    def _take_upstream(self, name: Scalar, fields: dict[str, Any] | None, report: Report) -> None:
        if name.text in RESERVED_UPSTREAM_NAMES:
            report.fault(name, f"`{name.text}` cannot be an upstream's name: paths of the data port begin with it")
        if not self._new("upstream", name.text, name, report) or fields is None:
            return
        dialect = fields.get("dialect") or ""
        self._upstreams[name.text] = Upstream(
            name=name.text,
            dialect=dialect,
            provider=fields.get("provider") or PROVIDER_BY_DIALECT.get(dialect, name.text),
            url=fields.get("url") or "",
            key=fields.get("key"),
            billing=fields.get("billing") or "metered",
        )
        self._short_form_places[name.text] = (report, name)

    def _take_access(self, item: Node, fields: dict[str, Any] | None, report: Report) -> None:
        if fields is None or not self._new_rule(item, fields, report):
            return
        written = Written(fields, item, report)
        if (fields.get("match") or {}).get("not") == {}:
            report.fault(written.at("match", "not"), "an empty `not` never lets the rule apply")
        self._access.append(written)

    def _take_rule(
        self,
        item: Node,
        fields: dict[str, Any] | None,
        report: Report,
        check: Callable[[Written], None],
        into: list[Written],
    ) -> None:
        if fields is None or not self._new_rule(item, fields, report):
            return
        written = Written(fields, item, report)
        check(written)
        into.append(written)

    def _take_team(self, name: Scalar, section: Node, fields: dict[str, Any] | None, report: Report) -> None:
        if not self._new("team", name.text, name, report) or fields is None:
            return
        inner = report.under(name.text)
        node = next((value for key, value in getattr(section, "entries", ()) if key is name), name)
        self._teams.append((name, Written(fields, node, inner)))

    def _new_rule(self, item: Node, fields: dict[str, Any], report: Report) -> bool:
        """Whether a rule has a name of its own; a fault where it has another's."""
        name = fields.get("name")
        if name is None:
            return True
        place = Written(fields, item, report).at("name")
        if name in RESERVED_RULE_NAMES:
            report.fault(place, f"`{name}` is what {RESERVED_RULE_NAMES[name]} is called in records; choose another")
            return True
        return self._new("rule", name, place, report)

    def _take_alert(self, item: Node, fields: dict[str, Any] | None, report: Report) -> None:
        name = fields.get("name") if fields is not None else None
        if fields is None or name is None:
            return
        if not self._new("alert", name, Written(fields, item, report).at("name"), report):
            return
        kinds = tuple(kind for _, kind in fields.get("on") or () if kind is not None)
        self._alerts.append(AlertRule(name=name, to=fields.get("to") or "", on=kinds))

    def _take_price(self, item: Node, fields: dict[str, Any] | None, report: Report) -> None:
        if fields is None or any(value is None for value in fields.values()):
            return
        rates: dict[str, Any] = {key: value for key, value in fields.items() if key not in ("match", "multiplier")}
        if "per_request" in rates:
            named = {name.text: rate for name, rate in rates["per_request"] if rate is not None}
            rates["per_request"] = named
        try:
            self._prices.append(PriceRule.read(fields.get("match") or {}, rates, fields.get("multiplier")))
        except ValueError as error:
            report.fault(item, str(error))

    def loaded(self) -> Loaded:
        """The policy of all files, or their faults."""
        if not self._faults and not self._sections:
            self._faults.append(Fault(self._first_file, 1, 1, "there is no policy here: no file holds any key"))
        self._check_short_forms()
        self._check_rules()
        for report in self._reports:
            self._faults += report.faults
            self._warnings += report.warnings
        if not self._faults and not self._upstreams:
            self._warnings.append(
                Fault(self._first_file, 1, 1, "no file names an upstream under `upstreams`, so no call can be relayed")
            )
        policy = self._policy() if not self._faults else None
        return Loaded(policy, sorted(set(self._faults)), sorted(set(self._warnings)))

    def _check_short_forms(self) -> None:
        """A path like /v1/messages names a dialect, not an upstream: which one is meant must be clear."""
        by_dialect: dict[str, list[Upstream]] = {}
        for upstream in self._upstreams.values():
            if upstream.dialect:
                by_dialect.setdefault(upstream.dialect, []).append(upstream)
        for dialect, speaking in by_dialect.items():
            if len(speaking) == 1 or any(upstream.name == dialect for upstream in speaking):
                continue
            report, node = self._short_form_places[speaking[1].name]
            names = ", ".join(f"`{upstream.name}`" for upstream in speaking)
            message = (
                f"{names} all speak `{dialect}` and none is named `{dialect}`, so that paths without an upstream "
                f"are ambiguous; name the one they shall go to `{dialect}`"
            )
            self._faults.append(Fault(report.file, node.line, node.column, f"upstreams: {message}"))

    def _check_rules(self) -> None:
        """What can only be said once all files are read."""
        upstreams = self._upstreams.values()
        known_model: Callable[[str], bool] | None = None
        if self._book is not None:
            ours = (pattern for price in self._prices for pattern in price.match.get("model", ()))
            known_model = known_model_of(self._book, ours)
        check_other_models(self._budgets, upstreams, known_model)
        check_tasks_are_bounded(self._budgets, self._unproven)
        check_globs([*self._access, *self._budgets, *self._duplicates, *self._unproven], upstreams, known_model)
        for name, team in self._teams:
            check_team(name, team, self._outcomes)

    def _policy(self) -> Policy:
        defaults = _defaults(self._defaults)
        telemetry = Telemetry()
        if "profiles" in self._telemetry:
            profiles = tuple(word for _, word in self._telemetry["profiles"])
            telemetry = msgspec.structs.replace(telemetry, profiles=profiles)
        if "join" in self._telemetry:
            telemetry = msgspec.structs.replace(telemetry, join=self._telemetry["join"])
        return Policy(
            version=self._version.hexdigest()[:VERSION_DIGITS],
            upstreams=self._upstreams,
            defaults=defaults,
            access=tuple(_access_rule(written.fields, defaults.mode) for written in self._access),
            budgets=tuple(budget_of(written, defaults.mode) for written in self._budgets),
            duplicates=tuple(duplicate_of(written, defaults.mode) for written in self._duplicates),
            outcomes=tuple(outcome_of(written) for written in self._outcomes),
            teams=tuple(team_of(name.text, written.fields) for name, written in self._teams),
            unproven=tuple(unproven_of(written, defaults.mode) for written in self._unproven),
            prices=tuple(self._prices),
            telemetry=telemetry,
            alerts=tuple(self._alerts),
        )


def _defaults(fields: dict[str, Any]) -> Defaults:
    named = dict(fields)
    if "max_body" in named:
        named["max_body_bytes"] = named.pop("max_body")
    if isinstance(named.get("store_outage"), dict):
        named["store_outage"] = named["store_outage"]["allow_up_to"]
    return Defaults(**named)


def _access_rule(fields: dict[str, Any], mode: Mode) -> AccessRule:
    return AccessRule(
        name=fields["name"],
        match=match_of(fields.get("match")),
        then=fields.get("then", "refuse"),
        mode=fields.get("mode", mode),
        help=fields.get("help", ""),
    )


def _canonical(node: Node, report: Report, path: tuple[str, ...] = ()) -> Any:
    """What a file says, as plain values: without comments and layout, and with a mark in place of keys
    and of where alerts go."""
    if len(path) == 3 and (path[0], path[2]) in SECRET_KEYS:
        return "(key)"
    if isinstance(node, Scalar):
        return report.filled(node.text)[0]
    if isinstance(node, Table):
        return {key.text: _canonical(value, report, (*path, key.text)) for key, value in node.entries}
    items = getattr(node, "items", [])
    return [_canonical(item, report, (*path, "[]")) for item in items]
