"""Output limit: put into a request at the one place where its endpoint reads it; all else stays as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.core.call import Call
from proxy.wire.body_edit import with_field
from proxy.wire.output_limit import takes_output_limit, with_output_limit

CHAT = "/v1/chat/completions"


def read(path: str, body: bytes) -> Call:
    return wire.read_call(method="POST", path=path, query="", headers={}, body=body, dialect="", provider="openai")


def limited(path: str, body: str, tokens: int = 500, provider: str = "openai") -> str | None:
    edited = with_output_limit(read(path, body.encode()), body.encode(), tokens, provider)
    return None if edited is None else edited.decode()


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, '{"model":"m", "messages":[]}', '{"max_completion_tokens":500,"model":"m", "messages":[]}'),
        (CHAT, '{ "model": "m",\n "max_tokens" : 9000 , "n": 1}', '{ "model": "m",\n "max_tokens" : 500 , "n": 1}'),
        (CHAT, '{"model":"m","max_tokens":null}', '{"model":"m","max_tokens":500}'),
        (CHAT, '{"model":"m","max_tokens":"9000"}', '{"model":"m","max_tokens":500}'),
        (CHAT, '{"max_tokens":9,"model":"m","max_completion_tokens":8}',
         '{"max_tokens":500,"model":"m","max_completion_tokens":500}'),
        ("/v1/completions", '{"model":"m"}', '{"max_tokens":500,"model":"m"}'),
        ("/v1/responses", '{"model":"m"}', '{"max_output_tokens":500,"model":"m"}'),
        ("/v1/threads/t/runs", '{"assistant_id":"a"}', '{"max_completion_tokens":500,"assistant_id":"a"}'),
        ("/v1/messages", '{"model":"m","max_tokens":9000}', '{"model":"m","max_tokens":500}'),
        ("/v1beta/models/m:generateContent", '{"contents":[]}',
         '{"generationConfig":{"maxOutputTokens":500},"contents":[]}'),
        ("/v1beta/models/m:generateContent", '{"generationConfig": {"temperature": 1}}',
         '{"generationConfig": {"maxOutputTokens":500,"temperature": 1}}'),
        ("/v1beta/models/m:generateContent", '{"generation_config": {"max_output_tokens": 9}}',
         '{"generation_config": {"max_output_tokens": 500}}'),
        ("/v1beta/models/m:generateContent", '{"generationConfig":null}',
         '{"generationConfig":{"maxOutputTokens":500}}'),
        ("/v1beta/interactions", '{"model":"m"}', '{"generation_config":{"max_output_tokens":500},"model":"m"}'),
        ("/api/chat", '{"model":"m"}', '{"options":{"num_predict":500},"model":"m"}'),
    ],
)  # fmt: skip
def test_each_endpoint_has_its_own_place(path: str, body: str, expected: str) -> None:
    assert limited(path, body) == expected


def test_providers_that_know_only_the_old_name_get_the_old_name() -> None:
    assert limited(CHAT, '{"model":"m"}', provider="mistral") == '{"max_tokens":500,"model":"m"}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", '{"model":"m"}'),
        ("/v1/responses/compact", '{"model":"m"}'),
        ("/v1/messages/count_tokens", '{"model":"m"}'),
        ("/v1/messages/batches", '{"requests":[{"custom_id":"1","params":{"model":"m","max_tokens":5}}]}'),
        ("/v1beta/models/m:batchGenerateContent", '{"batch":{"inputConfig":{"fileName":"f"}}}'),
        ("/v1/images/generations", '{"prompt":"p"}'),
    ],
)
def test_where_there_is_no_place_nothing_is_put(path: str, body: str) -> None:
    assert limited(path, body) is None
    assert not takes_output_limit(read(path, body.encode()))


def test_the_same_name_deep_inside_is_left_alone() -> None:
    body = '{"model":"m","metadata":{"max_tokens":1},"max_tokens":9000}'
    assert json.loads(limited(CHAT, body) or "") == {"model": "m", "metadata": {"max_tokens": 1}, "max_tokens": 500}
    quoted = '{"model":"m","messages":[{"content":"\\"max_tokens\\": 1"}],"max_tokens":9000}'
    assert limited(CHAT, quoted) == quoted.replace("9000", "500")


def test_a_limit_that_is_said_twice_is_said_once() -> None:
    edited = limited(CHAT, '{"max_tokens":1,"model":"m","max_tokens":9000}')
    assert edited is not None
    assert edited.count("max_tokens") == 1
    assert json.loads(edited)["max_tokens"] == 500


def test_a_name_spelled_with_escapes_is_the_same_name() -> None:
    edited = limited(CHAT, '{"model":"m","max\\u005ftokens":9000}')
    assert json.loads(edited or "") == {"model": "m", "max_tokens": 500}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=10,
)
field_names = st.one_of(st.sampled_from(["max_tokens", "model", "a"]), st.text(max_size=6))


@given(st.dictionaries(field_names, json_values, max_size=5), field_names, json_values, st.booleans())
def test_a_field_is_set_and_all_others_stay(fields: dict[str, Any], name: str, value: Any, spaced: bool) -> None:
    body = json.dumps(fields, indent=1 if spaced else None, ensure_ascii=spaced).encode()
    edited = with_field(body, name, msgspec.json.encode(value))
    assert edited is not None
    assert json.loads(edited) == fields | {name: value}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b'"x"', b"\xff"])
def test_what_is_no_object_is_not_edited(body: bytes) -> None:
    assert with_field(body, "a", b"1") is None
