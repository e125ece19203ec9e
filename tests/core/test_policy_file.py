"""Policy files: what they come to, and every fault at its place."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import yaml_nodes
from proxy.core.call import Call
from proxy.core.caller import Caller
from proxy.core.policy import FIELDS, Defaults, Policy, Telemetry, Upstream
from proxy.core.policy_file import Loaded, json_schema, load
from proxy.core.policy_schema import ACCESS, DEFAULTS, RESERVED_UPSTREAM_NAMES, SECTIONS, TELEMETRY
from proxy.core.yaml_nodes import DEPTH_MAX, FILE_CHARACTERS_MAX, Fault

OPENAI = "upstreams: {openai: {dialect: openai, url: https://api.openai.com}}\n"


def loaded(*texts: str, **environ: str) -> Loaded:
    return load({f"{place}.yaml": text for place, text in enumerate(texts)}, environ)


def good(*texts: str, **environ: str) -> Policy:
    found = loaded(*texts, **environ)
    assert found.faults == []
    assert found.policy is not None
    return found.policy


def faults(*texts: str, **environ: str) -> list[str]:
    found = loaded(*texts, **environ)
    assert (found.policy is None) == bool(found.faults)
    return [str(fault) for fault in found.faults]


def test_a_whole_policy_over_several_files() -> None:
    policy = good(
        """
        upstreams:
          openai: {dialect: openai, url: "https://api.openai.com/", key: "${OPENAI_API_KEY}"}
          groq: {dialect: openai, provider: groq, url: "https://api.groq.com/openai"}
          gemini: {dialect: gemini, url: "http://[::1]:9000"}
          brave: {url: "https://search.example"}
        """,
        """
        upstreams:
          claude-max: {dialect: anthropic, url: "https://api.anthropic.com", billing: plan}
        defaults: {store_outage: refuse, max_body: 500KB}
        """,
        """
        defaults: {mode: shadow, max_output_tokens: 8000}
        access:
          - {name: no-frontier, match: {user: "ci-*", model: ["*opus*", o4]}, then: refuse, mode: enforce, help: ask}
          - {name: tasks, match: {label.cost: red, not: {task_source: key}}}
        prices:
          - {match: {provider: openai, model: "acme-*"}, input_per_mtok: "1.10", output_per_mtok: "4.40"}
          - {match: {provider: anthropic}, multiplier: "0.85"}
          - {per_request: {web_search: "0.01"}}
        telemetry: {profiles: [semconv], join: link}
        """,
        OPENAI_API_KEY="sk-1",
    )
    assert list(policy.upstreams.values()) == [
        Upstream(name="openai", dialect="openai", provider="openai", url="https://api.openai.com", key="sk-1"),
        Upstream(name="groq", dialect="openai", provider="groq", url="https://api.groq.com/openai"),
        Upstream(name="gemini", dialect="gemini", provider="google", url="http://[::1]:9000"),
        Upstream(name="brave", provider="brave", url="https://search.example"),
        Upstream(
            name="claude-max",
            dialect="anthropic",
            provider="anthropic",
            url="https://api.anthropic.com",
            billing="plan",
        ),
    ]
    assert policy.defaults == Defaults(
        mode="shadow", store_outage="refuse", max_body_bytes=500_000, max_output_tokens=8000
    )
    assert [(rule.name, rule.mode, rule.help) for rule in policy.access] == [
        ("no-frontier", "enforce", "ask"),
        ("tasks", "shadow", ""),
    ]
    assert len(policy.prices) == 3
    assert policy.telemetry == Telemetry(profiles=("semconv",), join="link")
    decision = policy.decide(
        Caller(org="o", team="t", user="ci-7", key_id="k"), Call(model="o4"), policy.upstreams["openai"]
    )
    assert decision.rule == "no-frontier"


def test_the_defaults_in_the_table_are_those_of_the_product() -> None:
    lines = "".join(f"  {name}: {key.default}\n" for name, key in DEFAULTS.keys.items())
    assert good(f"{OPENAI}defaults:\n{lines}").defaults == good(OPENAI).defaults == Defaults()
    lines = "".join(f"  {name}: {key.default}\n" for name, key in TELEMETRY.keys.items())
    assert good(f"{OPENAI}telemetry:\n{lines}").telemetry == good(OPENAI).telemetry == Telemetry()
    assert ACCESS.keys["then"].default == good(f"{OPENAI}access: [{{name: a}}]").access[0].then


@pytest.mark.parametrize(
    ("text", "allowance"),
    [
        ("refuse", "refuse"),
        ("allow", "allow"),
        ("{allow_up_to: $5}", 5_000_000_000),
        ("{allow_up_to: $0.05}", 50_000_000),
    ],
)
def test_store_outage_is_a_word_or_an_amount(text: str, allowance: str | int) -> None:
    assert good(f"{OPENAI}defaults: {{store_outage: {text}}}").defaults.store_outage == allowance


@pytest.mark.parametrize(("text", "size"), [("32MiB", 2**25), ("1 GiB", 2**30), ("10KB", 10_000), ("1B", 1)])
def test_sizes_carry_their_unit(text: str, size: int) -> None:
    assert good(f"{OPENAI}defaults: {{max_body: {text}}}").defaults.max_body_bytes == size


FAULTY = [
    # a file as a whole
    ("", "0.yaml:1:1: the file is empty; delete it, or leave a comment in it"),
    ("# nothing\n", "0.yaml:1:1: there is no policy here: no file holds any key"),
    ("- a\n", "0.yaml:1:1: must be a table of keys, not a list"),
    ("hello", "0.yaml:1:1: must be a table of keys, not text"),
    ("access:\n", "0.yaml:1:8: access: must be a list, not empty"),
    ("upstreams: [a]", "0.yaml:1:12: upstreams: must be a table of names, not a list"),
    ("wishes: []", "0.yaml:1:1: unknown key `wishes`; known here: `upstreams`, `defaults`"),
    ("acces: []", "0.yaml:1:1: unknown key `acces`; did you mean `access`?"),
    # YAML
    (
        "access: [1",
        "not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that begins on line 1",
    ),
    ("defaults: {mode: ${MODE}}", "inside braces `${NAME}` must be in quotes"),
    ("access:\n\t- a", "0.yaml:2:1: not valid YAML: found character that cannot start any token"),
    ("access: []\n---\naccess: []", "0.yaml:2:1: a second document (`---`) begins here; write one in each file"),
    ("access: \x07", "0.yaml:1:9: not valid YAML: a character that may not stand here"),
    ("a: b\nc: \ud800", "0.yaml:2:4: not valid YAML: a character that may not stand here"),
    ("access: []\naccess: []", "0.yaml:2:1: duplicate key `access`, already on line 1"),
    ("access: !!seq []", "0.yaml:1:9: tags such as `tag:yaml.org,2002:seq` are not used"),
    ("access: *a", "0.yaml:1:9: alias `*a` stands before its anchor, or has none"),
    ("access: &a [*a]", "0.yaml:1:13: alias `*a` stands before its anchor, or has none"),
    ("x: &a {b: c}\ny: {<<: *a}", "0.yaml:2:5: merge keys (`<<`) are not used"),
    ("{a: b}: c", "0.yaml:1:1: a key must be text"),
    ("[" * 40 + "]" * 40, f"0.yaml:1:{DEPTH_MAX + 1}: more than {DEPTH_MAX} levels of nesting"),
    ("#" * (FILE_CHARACTERS_MAX + 1), "0.yaml:1:1: the file has more than 2,097,152 characters"),
    # the environment
    ("defaults: {mode: '${MODE}'}", "0.yaml:1:18: defaults: mode: the environment variable `MODE` is not set"),
    ("defaults: {mode: '${EMPTY}'}", "0.yaml:1:18: defaults: mode: the environment variable `EMPTY` is not set"),
    ("defaults: {mode: '${no name}'}", "0.yaml:1:18: defaults: mode: `${` must be followed by the name"),
    ("defaults: {mode: '${MODE'}", "0.yaml:1:18: defaults: mode: `${` must be followed by the name"),
    # upstreams
    (
        "upstreams: {a: {url: ftp://x}}",
        "0.yaml:1:22: upstreams: a: url: must begin with `http://` or `https://` and a host",
    ),
    ("upstreams: {a: {url: 'http://'}}", "upstreams: a: url: must begin with `http://` or `https://` and a host"),
    ("upstreams: {a: {url: 'http://x:0'}}", "upstreams: a: url: must begin with `http://` or `https://` and a host"),
    ("upstreams: {a: {url: 'http://x:99999'}}", "upstreams: a: url: is not a URL; write one like"),
    ("upstreams: {a: {url: 'http://[x'}}", "upstreams: a: url: is not a URL; write one like"),
    ("upstreams: {a: {url: 'http://x/?y=1'}}", "upstreams: a: url: must end with the path"),
    ("upstreams: {a: {url: 'http://x/#y'}}", "upstreams: a: url: must end with the path"),
    ("upstreams: {a: {url: 'http://x /'}}", "upstreams: a: url: holds a space or a character that no URL has"),
    ("upstreams: {a: {url: 'http://u:hush@x'}}", "upstreams: a: url: holds a user or a password"),
    ("upstreams: {a: {dialect: openai}}", "0.yaml:1:16: upstreams: a: the key `url` is missing"),
    (
        "upstreams: {a: {url: 'http://x', dialect: opnai}}",
        "dialect: `opnai` is not one of `openai`, `anthropic`, `gemini`; did you mean `openai`?",
    ),
    ("upstreams: {a: {url: 'http://x', billing: free}}", "billing: `free` is not one of `metered`, `plan`"),
    ("upstreams: {a: {url: 'http://x', provider: 'A B'}}", "provider: `A B` is not a provider's name"),
    (
        "upstreams: {a: {url: 'http://x', kay: hush}}",
        "0.yaml:1:34: upstreams: a: unknown key `kay`; did you mean `key`?",
    ),
    ("upstreams: {a: {url: 'http://x', key: [hush]}}", "0.yaml:1:39: upstreams: a: key: must be text, not a list"),
    ("upstreams: {a: {url: 'http://x', key: }}", "upstreams: a: key: has no value; give it one or leave the key out"),
    (
        "upstreams: {a: {url: 'http://x', key: $HUSH}}",
        "upstreams: a: key: looks like an environment variable; write it as `${NAME}`",
    ),
    ("upstreams: {a: {url: 'http://x', key: cm_hush}}", "upstreams: a: key: is a Callmeter key"),
    (
        'upstreams: {a: {url: "http://x", key: "hush\\r\\nx: y"}}',
        "upstreams: a: key: holds a space or a character that no key has",
    ),
    ("upstreams: {a: {url: 'http://x', key: '${hush'}}", "upstreams: a: key: `${` must be followed by the name"),
    ("upstreams: {Big: {url: 'http://x'}}", "0.yaml:1:13: upstreams: `Big` is not a name for an upstream"),
    # defaults
    ("defaults: {max_body: 32}", "0.yaml:1:22: defaults: max_body: `32` is not a size"),
    ("defaults: {max_body: 0MiB}", "max_body: `0MiB` is out of range: from 1B to 1GiB"),
    ("defaults: {max_body: 2GiB}", "max_body: `2GiB` is out of range: from 1B to 1GiB"),
    ("defaults: {max_output_tokens: 0}", "max_output_tokens: `0` is not a whole number from 1 to 10,000,000"),
    ("defaults: {max_output_tokens: 1e5}", "max_output_tokens: `1e5` is not a whole number"),
    (
        "defaults: {store_outage: {allow_up_to: 5}}",
        "0.yaml:1:40: defaults: store_outage: allow_up_to: `5` is not an amount of money",
    ),
    ("defaults: {store_outage: {}}", "defaults: store_outage: the key `allow_up_to` is missing"),
    ("defaults: {store_outage: [refuse]}", "defaults: store_outage: must be text, not a list"),
    ("defaults: {mode: shado}", "`shado` is not one of `enforce`, `shadow`; did you mean `shadow`?"),
    # access
    ("access: [a]", "0.yaml:1:10: access: must be a table of keys, not text"),
    ("access: [{then: refuse}]", "0.yaml:1:10: access: the key `name` is missing"),
    ("access: [{name: 'a b'}]", "access: name: `a b` is not a name for a rule"),
    ("access: [{name: unknown-calls}]", "0.yaml:1:17: access: `unknown-calls` is what"),
    ("access: [{name: a, then: deny}]", "access: then: `deny` is not one of `refuse`, `warn`"),
    ("access: [{name: a, match: {usr: x}}]", "0.yaml:1:28: access: match: unknown key `usr`; did you mean `user`?"),
    ("access: [{name: a, match: {label.: x}}]", "unknown key `label.`"),
    ("access: [{name: a, match: {user: []}}]", "access: match: user: an empty list matches nothing"),
    ("access: [{name: a, match: {user: {x: y}}}]", "access: match: user: must be text, not a table of keys"),
    ("access: [{name: a, match: {user: [[x]]}}]", "access: match: user: must be text, not a list"),
    ("access: [{name: a, match: {not: {not: {}}}}]", "access: match: not: unknown key `not`"),
    ("access: [{name: a, match: {not: {}}}]", "0.yaml:1:33: access: an empty `not` never lets the rule apply"),
    ("access: [{name: a, help: " + "x" * 501 + "}]", "access: help: is longer than 500 characters"),
    ("access:\n- {name: a}\n- {name: a}", "0.yaml:3:10: access: rule `a` is already set at 0.yaml:2"),
    ("access: [&r {name: a}, *r]", "0.yaml:1:20: access: rule `a` is already set at 0.yaml:1"),
    # prices
    ("prices: [{input_per_mtok: 1.10}]", "0.yaml:1:27: prices: input_per_mtok: write `1.10` in quotes"),
    ("prices: [{input_per_mtok: '-1'}]", "0.yaml:1:27: prices: input_per_mtok: is `-1`; write a decimal number"),
    ("prices: [{input_per_mtok: [x]}]", "0.yaml:1:27: prices: input_per_mtok: must be text, not a list"),
    ("prices: [{multiplier: 'x'}]", "0.yaml:1:23: prices: multiplier: is `x`; write a decimal number"),
    ("prices: [{match: {provider: x}}]", "0.yaml:1:10: prices: a price gives neither a rate nor a `multiplier`"),
    ("prices: [{multiplier: '1', input_per_mtok: '1'}]", "0.yaml:1:10: prices: a price gives either rates or"),
    ("prices: [{match: {user: x}, multiplier: '1'}]", "0.yaml:1:19: prices: match: unknown key `user`"),
    ("prices: [{per_request: {'a b': '1'}}]", "prices: per_request: `a b` is not a name"),
    ("prices: [{per_request: {web_search: x}}]", "prices: per_request: web_search: write `x` in quotes"),
    # telemetry
    ("telemetry: {profiles: semconv}", "telemetry: profiles: must be a list, not text"),
    ("telemetry: {profiles: [semconv, semconv]}", "0.yaml:1:33: telemetry: profiles: `semconv` is already in the list"),
    ("telemetry: {join: sideways}", "telemetry: join: `sideways` is not one of"),
]


@pytest.mark.parametrize(("text", "message"), FAULTY)
def test_a_fault_is_told_with_its_place(text: str, message: str) -> None:
    found = faults(text, EMPTY="")
    assert any(message in fault for fault in found), found
    assert "hush" not in "".join(found)
    assert all(re.match(r"0\.yaml:\d+:\d+: \S", fault) and "\n" not in fault for fault in found)


@pytest.mark.parametrize("name", RESERVED_UPSTREAM_NAMES)
def test_names_that_the_data_port_uses_are_reserved(name: str) -> None:
    found = faults(f"upstreams: {{{name}: {{url: 'http://x'}}}}")
    assert len(found) == 1
    assert f"`{name}` cannot be an upstream's name" in found[0]


def test_all_faults_of_all_files_come_at_once_in_the_order_of_places() -> None:
    found = faults(
        "defaults: {mode: x, max_body: y}\naccess: [{name: a, then: z}]",
        "not: [valid",
        "access: [{name: a}]\ndefaults: {mode: shadow}\nupstreams: {v1: {}}",
    )
    assert [fault.split(" ")[0] for fault in found] == [
        "0.yaml:1:18:",
        "0.yaml:1:31:",
        "0.yaml:2:26:",
        "1.yaml:2:1:" if yaml_nodes.Loader is not yaml.SafeLoader else "1.yaml:1:12:",
        "2.yaml:1:17:",
        "2.yaml:2:12:",
        "2.yaml:3:13:",
        "2.yaml:3:17:",
    ]


def test_what_two_files_both_say_is_a_fault_in_the_second() -> None:
    assert faults(OPENAI + "defaults: {mode: shadow}", OPENAI + "defaults: {mode: enforce}") == [
        "1.yaml:1:13: upstreams: upstream `openai` is already set at 0.yaml:1",
        "1.yaml:2:12: defaults key `mode` is already set at 0.yaml:2",
    ]


def test_no_file_at_all_is_a_fault() -> None:
    assert load({}, {}) == Loaded(None, [Fault("policies", 1, 1, "there is no policy file")], [])


def test_a_policy_without_an_upstream_is_only_warned_of() -> None:
    found = loaded("access: [{name: a}]")
    assert found.policy is not None
    assert [str(warning) for warning in found.warnings] == [
        "0.yaml:1:1: no file names an upstream under `upstreams`, so no call can be relayed"
    ]


def test_several_upstreams_of_a_dialect_need_one_that_is_named_like_it() -> None:
    groq = "upstreams: {groq: {dialect: openai, url: 'https://groq.example'}}"
    mistral = "upstreams: {mistral: {dialect: openai, url: 'https://mistral.example'}}"
    assert good(groq).short_form("openai") is not None
    found = faults(groq, mistral)
    assert len(found) == 1
    assert found[0].startswith("1.yaml:1:13: upstreams: `groq`, `mistral` all speak `openai` and none is named")
    assert good(groq, mistral, OPENAI).short_form("openai") is not None
    assert faults(groq, mistral.replace("dialect: openai, ", "")) == []


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_an_upstream_without_its_key_is_only_warned_of(environ: dict[str, str]) -> None:
    found = loaded("upstreams:\n  a: {url: 'http://x', key: '${KEY}'}", **environ)
    assert found.policy is not None
    assert found.policy.upstreams["a"].key is None
    assert [str(warning) for warning in found.warnings] == [
        "0.yaml:2:29: upstreams: a: key: `KEY` is not set, so this upstream has no key: callers must bring their own"
    ]


def test_a_url_that_ends_in_v1_is_warned_of() -> None:
    found = loaded("upstreams: {a: {url: 'http://x/v1/'}}")
    assert found.policy is not None
    assert "ends in `/v1`" in found.warnings[0].message


def test_the_environment_fills_any_text() -> None:
    policy = good(
        "upstreams: {a: {url: 'https://${HOST}:${PORT}/x', key: 'Bearer-${TOKEN}'}}\n"
        "defaults:\n  max_output_tokens: ${TOKENS}\n  store_outage: {allow_up_to: '${CAP}'}\n"
        "prices:\n- multiplier: ${FACTOR}",
        HOST="h.example",
        PORT="81",
        TOKEN="123",
        TOKENS="5",
        CAP="$7",
        FACTOR="0.5",
    )
    assert policy.upstreams["a"].url == "https://h.example:81/x"
    assert policy.upstreams["a"].key == "Bearer-123"
    assert (policy.defaults.max_output_tokens, policy.defaults.store_outage) == (5, 7_000_000_000)


def test_words_that_yaml_reads_as_something_else_stay_as_written() -> None:
    policy = good("access: [{name: 'no', match: {user: [no, 007, 1.10, 2026-11-24, null-1, on]}}]")
    globs = policy.access[0].match.conditions[0].globs
    assert globs.patterns == ("no", "007", "1.10", "2026-11-24", "null-1", "on")


def test_anchors_work_and_bombs_do_not() -> None:
    policy = good("access:\n- {name: a, match: &m {user: x}}\n- {name: b, match: *m}")
    assert policy.access[0].match.fields == policy.access[1].match.fields == ("user",)
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "more than 200,000 values, with aliases written out" in faults(bomb)[0]


def test_the_version_names_what_the_files_say_and_nothing_else() -> None:
    text = "upstreams: {a: {url: 'http://x', key: hush-1}}"
    version = good(text).version
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert version == good("# why\n" + text.replace("hush-1", "hush-2")).version
    assert version != good(text.replace("http://x", "http://y")).version
    assert good("telemetry: {join: '${JOIN}'}", JOIN="link").version == good("telemetry: {join: link}").version


def test_keys_never_show() -> None:
    found = loaded("upstreams: {a: {url: 'http://x', key: hush}, b: {url: 'http://y', key: '${K}'}}", K="hush")
    assert "hush" not in repr(found)
    assert "hush" not in repr(loaded("upstreams: {a: {url: 1, key: hush}}"))


PIECES = r"""
refuse ' " &a *a !!x << - : , { } [ ] # --- | > ? % \ ~ x "\UFFFFFFFF" "\uD800" ${X} ${ $5 1 name match not url key
"""
INVISIBLE = ["\n", "\n  ", " ", "\t", "- ", ": ", ", ", "\ud800", "\x00", "\ufeff", "\u2028"]
words = st.sampled_from([*SECTIONS, *FIELDS, *PIECES.split(), *INVISIBLE])


@given(texts=st.lists(st.one_of(st.text(max_size=60), st.lists(words, max_size=25).map("".join)), max_size=3))
def test_no_text_makes_the_loader_raise(texts: list[str]) -> None:
    found = loaded(*texts, X="a value")
    assert (found.policy is None) == bool(found.faults)
    assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in found.faults + found.warnings)


def test_the_parser_of_pure_python_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "Loader", yaml.SafeLoader)
    assert good(OPENAI).upstream_for("openai") is not None
    for text in ("a: [1", '"\\UFFFFFFFF"', "a: \x07", "a:\n\t- b"):
        assert faults(text)[0].startswith("0.yaml:")


def keys_of(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", {}))
    for inner in schema.values():
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict):
                found |= keys_of(part)
    return found


def test_the_json_schema_knows_every_key_of_the_contract() -> None:
    named = "upstreams dialect provider url key billing defaults mode unknown_calls unknown_price store_outage"
    named += " allow_up_to max_body client_gone max_output_tokens access name match then help prices telemetry profiles"
    named += " join org team user task task_source agent upstream api model not multiplier input_per_mtok per_request"
    assert set(named.split()) <= keys_of(json_schema())
    assert json_schema()["additionalProperties"] is False
