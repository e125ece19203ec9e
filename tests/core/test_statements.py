"""Statements of providers: each form that they come in, and files that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.statements import BYTES_MAX, Line, StatementInvalid, read_statement, same_model

DAY_S = 1_793_491_200
"""2026-11-01T00:00:00Z."""


def openai_page(*results: dict[str, Any]) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": DAY_S, "end_time": DAY_S + 86_400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None}


def openai_cost(value: Any, item: str | None = "gpt-5-mini-2025-08-07, input") -> dict[str, Any]:
    amount = {"value": value, "currency": "usd"}
    return {"object": "organization.costs.result", "amount": amount, "line_item": item, "project_id": None}


def anthropic_page(*results: dict[str, Any]) -> dict[str, Any]:
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": list(results)}
    return {"data": [bucket], "has_more": False, "next_page": None}


def test_costs_of_openai_are_summed_up_by_model_and_exact() -> None:
    page = openai_page(openai_cost(1.29e-05), openai_cost(0.1, "gpt-5-mini-2025-08-07, output"), openai_cost(2, None))
    found = read_statement(json.dumps([page, page]).encode())
    assert (found.provider, found.kind, found.by_model) == ("openai", "cost", True)
    assert found.lines == [
        Line(day="2026-11-01", model="", cost_nusd=4_000_000_000),
        Line(day="2026-11-01", model="gpt-5-mini-2025-08-07", cost_nusd=200_025_800),
    ]


def test_usage_of_openai_counts_each_token_once() -> None:
    result = {
        "object": "organization.usage.completions.result",
        "input_tokens": 1000,
        "output_tokens": 500,
        "input_cached_tokens": 800,
        "num_model_requests": 5,
        "model": "gpt-5",
    }
    lines = "\n".join(json.dumps(openai_page(result)) for _ in range(2))
    found = read_statement(lines.encode())
    assert (found.provider, found.kind) == ("openai", "usage")
    assert found.lines == [
        Line(day="2026-11-01", model="gpt-5", tokens={"input": 400, "cached_input": 1600, "output": 1000})
    ]


def test_costs_of_anthropic_are_in_cents() -> None:
    result = {
        "amount": "123.45",
        "currency": "USD",
        "cost_type": "tokens",
        "description": "Claude Sonnet 4.5 Usage - Input Tokens",
        "model": "claude-sonnet-4-5-20250929",
        "token_type": "uncached_input_tokens",
    }
    search = {"amount": "1.5", "currency": "USD", "cost_type": "web_search", "description": "Web Search", "model": None}
    found = read_statement(json.dumps(anthropic_page(result, search)).encode())
    assert (found.provider, found.kind) == ("anthropic", "cost")
    assert [(line.model, line.cost_nusd) for line in found.lines] == [
        ("Web Search", 15_000_000),
        ("claude-sonnet-4-5-20250929", 1_234_500_000),
    ]


def test_usage_of_anthropic_has_its_caches_apart() -> None:
    result = {
        "uncached_input_tokens": 10,
        "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 2},
        "cache_read_input_tokens": 100,
        "output_tokens": 7,
        "server_tool_use": {"web_search_requests": 1},
        "model": "claude-opus-4-5",
    }
    [line] = read_statement(json.dumps(anthropic_page(result)).encode()).lines
    assert line.tokens == {"input": 10, "cached_input": 100, "cache_write": 2, "cache_write_1h": 3, "output": 7}


@pytest.mark.parametrize(
    ("text", "provider", "kind", "line"),
    [
        (
            "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
            "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
            "usage_output_tokens,web_search_count,inference_geo,speed\n"
            "2026-11-01,claude-opus-4-5,app,Default,standard,≤ 200k,46981,15969,0,0,16932,0,global,\n",
            "anthropic",
            "usage",
            Line(
                day="2026-11-01",
                model="claude-opus-4-5",
                tokens={
                    "input": 46981,
                    "cached_input": 0,
                    "cache_write": 15969,
                    "cache_write_1h": 0,
                    "output": 16932,
                },
            ),
        ),
        (
            'usage_date_utc,model,workspace,token_type,cost_usd\n2026-11-01,Claude Opus 4.5,Default,output,"1,000.5"\n',
            "anthropic",
            "cost",
            Line(day="2026-11-01", model="Claude Opus 4.5", cost_nusd=1_000_500_000_000),
        ),
        (
            "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\n"
            f"{DAY_S},{DAY_S + 86_400},2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,0.8958740000000000,usd,,\n"
            f"{DAY_S + 86_400},{DAY_S + 172_800},2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,\n",
            "openai",
            "cost",
            Line(day="2026-11-01", model="", cost_nusd=895_874_000),
        ),
        (
            "start_time\tend_time\tmodel\tbatch\tinput_tokens\toutput_tokens\tinput_cached_tokens\n"
            f"{DAY_S}\t{DAY_S + 86_400}\tgpt-4o-2024-08-06\tFALSE\t59200.0\t10646.0\t5760.0\n",
            "openai",
            "usage",
            Line(
                day="2026-11-01",
                model="gpt-4o-2024-08-06",
                tokens={"input": 53440, "cached_input": 5760, "output": 10646},
            ),
        ),
    ],
)
def test_csv_files_are_known_by_their_head(text: str, provider: str, kind: str, line: Line) -> None:
    for data in (text.encode(), text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode("utf-16")):
        found = read_statement(data)
        assert (found.provider, found.kind, found.lines) == (provider, kind, [line])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "begins with `nothing`"),
        (b"\xff\x00\xfa\x80", "no text"),
        (b"PK\x03\x04zip", "begins with"),
        (b"name,spend\nada,1\n", "begins with `name, spend`"),
        (b"[]", "no results"),
        (b'{"data": 7}', "no list `data`"),
        (b'{"data": [{"start_time": 1}]}', "no list `results`"),
        (b'{"data": [{"start_time": "soon", "results": []}]}', "bucket 1: `soon` is no day"),
        (b"{not json", "no JSON"),
        (json.dumps(openai_page({"object": "x"})).encode(), "no statement that is known"),
        (json.dumps(openai_page(openai_cost("much"))).encode(), "bucket 1, result 1: `much` is no amount"),
        (json.dumps(openai_page(openai_cost(None))).encode(), "no amount of dollars"),
        (json.dumps(openai_page(openai_cost(1), {"input_tokens": 1})).encode(), "another kind than the first"),
        (json.dumps(openai_page(openai_cost(1))).replace("usd", "eur").encode(), "`eur`"),
        (b"usage_date_utc,cost_usd\nyesterday,1\n", "line 2: `yesterday` is no day"),
        (b"usage_date_utc,cost_usd\n2026-11-01,\n", "line 2: `` is no amount"),
        (b"usage_date_utc,cost_usd\n", "no line"),
        (b"start_time,model,input_tokens,output_tokens\n1,m,-5,1\n", "line 2"),
        (b"start_time,model,input_tokens,output_tokens\n1793491200,m,1.5,1\n", "no number of tokens"),
    ],
)
def test_a_file_that_cannot_be_counted_is_refused_with_its_place(data: bytes, sentence: str) -> None:
    with pytest.raises(StatementInvalid, match=sentence.replace("`", ".")):
        read_statement(data)


def test_a_file_of_any_size_is_not_read_for_ever() -> None:
    with pytest.raises(StatementInvalid, match="larger than"):
        read_statement(b" " * (BYTES_MAX + 1))


@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_garbage_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(StatementInvalid):
        read_statement(data)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Claude Sonnet 4.5", "claude-sonnet-4-5-20250929"),
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
        ("GPT-5", "gpt-5-2025-08-07"),
    ],
)
def test_names_of_one_model_are_one(one: str, other: str) -> None:
    assert same_model(one) == same_model(other)


def test_names_of_other_models_are_not() -> None:
    assert same_model("gpt-5") != same_model("gpt-5-mini")
