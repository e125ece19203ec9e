"""Every key of the policy files, with its shape, its meaning and its default. The JSON Schema and the table in
docs/policy-files.md are written from here, and the loader reads by it.
"""

from __future__ import annotations

from typing import Any, get_args

from .alert_values import Webhook
from .alerts import EventKind
from .budget_values import Limit, Per, Percent, Timezone, Window, WordOrMoney, YesNo
from .matching import FIELDS, LABEL
from .policy_schema_outcomes import TEAM, outcome_keys, unproven_keys
from .policy_shapes import Either, Key, Keys, ListOf, MapOf, Shape
from .policy_values import Choice, GlobList, Money, Rate, Secret, Size, Text, Url, Whole
from .price_rules import MATCH_KEYS, PER_REQUEST, UNITS

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
PROVIDER_PATTERN = "[a-z0-9][a-z0-9._-]{0,63}"

UPSTREAM_NAME = Text(
    "[a-z][a-z0-9-]{0,63}",
    told="name",
    what="a name for an upstream: small letters, digits and dashes, beginning with a letter",
)

RESERVED_UPSTREAM_NAMES = ("task", "callmeter", "v1", "v1beta", "model", "healthz", "readyz")
"""First segments of the data port's own paths and of the short forms."""

PROVIDER_BY_DIALECT = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
"""Whom a dialect's inventor is in the price book. An upstream without a dialect is its own provider."""

OUTPUT_TOKENS_MAX = 10_000_000
"""Far above what any model gives in one answer; more is a slip of the finger."""

_rule_name = Text(NAME_PATTERN, told="name", what="a name for a rule: letters, digits, `-` and `_`, up to 64")
_mode = Choice("enforce", "shadow")
_help = Key(Text(), "what to do, at the end of each sentence that this rule says")
_store_outage = Either(
    Choice("refuse", "allow"),
    Keys({"allow_up_to": Key(Money(), "how much each process may let pass meanwhile", required=True)}),
)

UPSTREAM = Keys(
    {
        "dialect": Key(
            Choice("openai", "anthropic", "gemini"),
            "the wire format that the provider speaks; without it calls are relayed, recorded and not understood",
        ),
        "provider": Key(
            Text(PROVIDER_PATTERN, told="name", what="a provider's name: small letters, digits, `.`, `-` and `_`"),
            "who is paid, for prices and traces: by default `openai`, `anthropic` or `google`, by the dialect; "
            "without a dialect the name of the upstream",
            otherwise="by dialect",
        ),
        "url": Key(Url(), "where the provider is; what stands before the provider's own paths", required=True),
        "key": Key(Secret(), "the provider's key; without it the caller's own credential passes"),
        "billing": Key(
            Choice("metered", "plan"),
            "`plan`: a subscription; the list cost is kept and the billed cost is 0",
            "metered",
        ),
    }
)

DEFAULTS = Keys(
    {
        "mode": Key(_mode, "the mode of rules that do not name one; `shadow` decides and records, no more", "enforce"),
        "unknown_calls": Key(
            Choice("record", "refuse"), "paths that Callmeter does not know: recorded as unpriced, or refused", "record"
        ),
        "unknown_price": Key(
            Choice("assume", "refuse", "record"),
            "models without a price: `assume` the dearest rate of the provider, marked; `refuse`; `record` without one",
            "assume",
        ),
        "store_outage": Key(
            _store_outage,
            "what happens while the store is away",
            "{allow_up_to: $5}",
        ),
        "max_body": Key(Size(), "the largest body of a call", "32MiB"),
        "client_gone": Key(
            Choice("cancel", "drain"),
            "streams whose reader has gone: cancelled, or read to their end; other calls always are",
            "cancel",
        ),
        "max_output_tokens": Key(
            Whole(OUTPUT_TOKENS_MAX), "the output that is assumed of a model whose maximum is not known", "32000"
        ),
    }
)

_FIELD_MEANINGS = {
    "org": "the org of the key",
    "team": "the team of the key",
    "user": "the user of the key, or for whom a service key acts",
    "key": "the id of the key",
    "task": "the task, proven or not",
    "task_source": "where the task comes from: `key` (proven), `path`, `header`, `baggage`, `agent`, or `none`",
    "agent": "the agent, as its user agent tells",
    "upstream": "the upstream's name",
    "provider": "the upstream's provider",
    "api": "the endpoint, as records name it: `openai.chat`",
    "model": "the model as asked for",
}
_fields = {name: Key(GlobList(), _FIELD_MEANINGS[name]) for name in FIELDS}
_labels = {LABEL: Key(GlobList(), "the label of that name on the caller's key")}
_inverted = Keys(_fields, open_keys=_labels)

ACCESS_MATCH = Keys(
    {**_fields, "not": Key(_inverted, "the same keys; the rule applies where they do not all match")},
    open_keys=_labels,
)

ACCESS = Keys(
    {
        "name": Key(_rule_name, "unique in the whole policy", required=True),
        "match": Key(ACCESS_MATCH, "which calls; all keys must match", "{}"),
        "then": Key(Choice("refuse", "warn"), "what happens to them; `warn` lets them pass with a header", "refuse"),
        "mode": Key(_mode, "`shadow`: recorded as one that would have refused", otherwise="`defaults.mode`"),
        "help": _help,
    }
)

_model_name = Text("[^\\s*?,]{1,200}", told="model", what="the name of one model")

BUDGET = Keys(
    {
        "name": Key(_rule_name, "unique in the whole policy; a part of its counters' identity", required=True),
        "match": Key(ACCESS_MATCH, "which calls, by the keys of `access[].match`; all must match", "{}"),
        "per": Key(
            Per(),
            "what is counted apart: one counter for each value, or each combination; calls without a task count by "
            "user where `task` is named. `org` is one counter for all, and orgs are always apart",
            "org",
        ),
        "limit": Key(Limit(), "how much, of what", required=True),
        "limits": Key(
            MapOf(Text(told="value"), Limit()),
            "other limits for some values of `per`; with several fields, their values joined by `/`",
        ),
        "every": Key(
            Window(),
            "how often it starts anew; `ever` never does. Required, but for `concurrent`",
            otherwise="required",
        ),
        "timezone": Key(Timezone(), "whose clock and calendar count; weeks begin on Monday", "UTC"),
        "reserve": Key(
            WordOrMoney(Choice("expected", "worst_case"), Money()),
            "what a call holds while it runs: what calls like it made, the most that it can cost, or a fixed amount",
            "expected",
        ),
        "unbounded": Key(
            Money(),
            "what a call holds at least whose cost nothing in it bounds (background, server tools, files by reference)",
            otherwise="`$0.25`, at most a tenth of the limit",
        ),
        "when_outgrown": Key(
            Choice("finish", "cut"),
            "a stream that needs more than the budget can still give: it ends as it would, or is cut",
            "finish",
        ),
        "trim": Key(YesNo(), "lower the call's `max_tokens` to what is left, rather than refuse", "false"),
        "warn_at": Key(ListOf(Percent(), unique=True), "shares of the limit from which answers carry a warning", "[]"),
        "then": Key(
            Either(
                Choice("refuse", "warn"),
                Keys(
                    {
                        "use": Key(
                            Keys(
                                {
                                    dialect: Key(_model_name, f"the model to go on with in the dialect `{dialect}`")
                                    for dialect in PROVIDER_BY_DIALECT
                                }
                            ),
                            "go on with another model, where that fits; dialects without one are refused",
                            required=True,
                        )
                    }
                ),
            ),
            "what happens to a call that does not fit; `warn` lets it pass with a header",
            "refuse",
        ),
        "mode": Key(_mode, "`shadow`: recorded as one that would have refused", otherwise="`defaults.mode`"),
        "store_outage": Key(_store_outage, "what happens while the store is away", otherwise="`defaults.store_outage`"),
        "help": _help,
    }
)

DUPLICATE = Keys(
    {
        "name": Key(_rule_name, "unique in the whole policy; a part of its memory's identity", required=True),
        "kind": Key(
            Choice("exact", "normalized", "loop", "similar", "task"),
            "what is the same: the call; the call but for ids and times; its last tool calls and their results; most "
            "of its words (`warn` only); what another task was asked to do",
            required=True,
        ),
        "match": Key(ACCESS_MATCH, "which calls, by the keys of `access[].match`; all must match", "{}"),
        "per": Key(
            Per(),
            "whose calls are compared with one another: those with the same values. Orgs are always apart",
            otherwise="`user`; of `kind: task` `org`",
        ),
        "limit": Key(
            Limit(),
            "how many calls with one fingerprint may pass, like `3 calls`; of `loop` equal rounds, of `task` tasks. "
            "The next one meets `then`",
            otherwise="required; with `replay` and `join` `1 calls`",
        ),
        "every": Key(Window(), "how far back calls count; at most 31 days, and not `ever`", "rolling 10m"),
        "timezone": Key(Timezone(), "whose clock and calendar count", "UTC"),
        "then": Key(
            Choice("warn", "refuse", "replay", "join"),
            "`warn`: a header; `replay`: the first call's answer again, for nothing; `join`: wait for the same call "
            "that is running, then give its answer. The last two only with `exact`",
            "warn",
        ),
        "mode": Key(_mode, "`shadow`: recorded as one that would have refused", otherwise="`defaults.mode`"),
        "share": Key(
            Choice("user", "org"),
            "whose answers `replay` and `join` may give, and who is named in a refusal: the user's own, or anybody's "
            "in the org",
            "user",
        ),
        "samples": Key(
            YesNo(),
            "calls with a temperature above 0, or with another seed, are samples on purpose and no twins",
            "false",
        ),
        "help": _help,
    }
)

_OTHER_RATE_MEANINGS = {
    "characters_per_million": "USD for a million characters",
    "audio_per_hour": "USD for an hour of audio",
    "per_image": "USD for an image",
    "per_call": "USD for each call, besides its units",
}


def _rate_meaning(key: str) -> str:
    if key.endswith("_per_mtok"):
        return f"USD for a million `{key.removesuffix('_per_mtok')}` tokens"
    return _OTHER_RATE_MEANINGS[key]


_request_name = Text("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", told="name", what="a name for a kind of request")

PRICE = Keys(
    {
        "match": Key(
            Keys({name: Key(GlobList(), _FIELD_MEANINGS[name]) for name in MATCH_KEYS}),
            "which calls; all keys must match",
            "{}",
        ),
        "multiplier": Key(Rate("multiplier"), "what the price book says times this; beside no rate"),
        **{key: Key(Rate(key), _rate_meaning(key)) for key in UNITS},
        "per_request": Key(
            MapOf(_request_name, Rate(f"{PER_REQUEST}NAME")), "USD for each request of a kind, such as `web_search`"
        ),
    }
)

TELEMETRY = Keys(
    {
        "profiles": Key(
            ListOf(Choice("semconv", "langfuse", "openinference", "mlflow"), unique=True),
            "for which tools spans carry attributes, beside the OpenTelemetry conventions",
            "[semconv, langfuse, openinference, mlflow]",
        ),
        "join": Key(
            Choice("parent", "link", "new"),
            "our spans in the caller's trace: as children, as a trace of their own with a link, or without one",
            "parent",
        ),
    }
)

ALERT = Keys(
    {
        "name": Key(_rule_name, "unique among the alerts", required=True),
        "to": Key(Webhook(), "a webhook, or an incoming webhook of Slack", required=True),
        "on": Key(ListOf(Choice(*get_args(EventKind)), unique=True), "what is told", required=True),
    }
)

OUTCOME = outcome_keys(_rule_name)
TEAM_NAME = Text(told="team", what="a team")
UNPROVEN = unproven_keys(_rule_name, ACCESS_MATCH, _mode, _help)

SECTIONS: dict[str, Key] = {
    "upstreams": Key(MapOf(UPSTREAM_NAME, UPSTREAM), "providers, by the first segment of the path"),
    "defaults": Key(DEFAULTS, "what holds where no rule says otherwise"),
    "access": Key(ListOf(ACCESS), "who may call what; without a rule everything with a valid key"),
    "budgets": Key(ListOf(BUDGET), "limits in money, tokens, calls and calls at once; any number may meet a call"),
    "duplicates": Key(ListOf(DUPLICATE), "calls and tasks that were made before, and loops"),
    "outcomes": Key(ListOf(OUTCOME), "what tasks come to, told by sources that sign"),
    "teams": Key(MapOf(TEAM_NAME, TEAM), "what teams deliver, and how many people they are"),
    "unproven": Key(ListOf(UNPROVEN), "what a task may cost without an outcome"),
    "prices": Key(ListOf(PRICE), "prices of your own, matched in order before the price book"),
    "alerts": Key(ListOf(ALERT), "whom to tell of what, at most once for each rule, scope and window"),
    "telemetry": Key(TELEMETRY, "how spans are written"),
}

POLICY_FILE = Keys(SECTIONS)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one policy file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Callmeter policy file",
        "description": "One of the files in policies/; all of them together are one policy. "
        "`${NAME}` in any text reads the environment.",
    } | POLICY_FILE.json_schema()


def key_table() -> str:
    """Every key as a Markdown table, in the order of a file."""
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    listed: list[Shape] = []
    for name, section in SECTIONS.items():
        lines.append(f"| **`{name}`** | {section.shape.told} | | {section.about} |")
        lines += _rows(name, section.shape, listed)
    return "\n".join(lines) + "\n"


def _rows(path: str, shape: Shape, listed: list[Shape]) -> list[str]:
    """The rows of the keys inside a value. What is `listed` already, as the keys of `match`, is not listed again."""
    if any(shape is other for other in listed):
        return []
    if isinstance(shape, MapOf):
        return _rows(f"{path}.NAME", shape.shape, listed)
    if isinstance(shape, ListOf):
        return _rows(f"{path}[]", shape.shape, listed)
    if isinstance(shape, Either):
        return _rows(path, shape.keys, listed)
    if not isinstance(shape, Keys):
        return []
    listed.append(shape)
    lines: list[str] = []
    for name, key in (shape.keys | {f"{start}NAME": key for start, key in shape.open_keys.items()}).items():
        default = "required" if key.required else f"`{key.default}`" if key.default is not None else key.otherwise
        lines.append(f"| `{path}.{name}` | {key.shape.told} | {default} | {key.about} |")
        # `not` takes the keys of `match` again; a second listing would only hide the rest.
        if name != "not":
            lines += _rows(f"{path}.{name}", key.shape, listed)
    return lines
