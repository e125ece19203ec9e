"""Other model: path and body of a request turned to another model of the same dialect."""

from __future__ import annotations

import pytest

from proxy import wire
from proxy.core.call import Call
from proxy.wire.other_model import takes_other_model, with_other_model


def read(path: str, body: str) -> Call:
    return wire.read_call(
        method="POST", path=path, query="", headers={}, body=body.encode(), dialect="", provider="openai"
    )


def turned(path: str, body: str, model: str = "small") -> tuple[str, str] | None:
    found = with_other_model(read(path, body), path, body.encode(), model)
    return None if found is None else (found[0], found[1].decode())


VERTEX = "/v1/projects/p/locations/us-east5/publishers"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", '{"messages":[], "model" : "large"}',
         ("/v1/chat/completions", '{"messages":[], "model" : "small"}')),
        ("/v1/responses", '{"model":"large"}', ("/v1/responses", '{"model":"small"}')),
        ("/v1/messages", '{"model":"large","max_tokens":5}', ("/v1/messages", '{"model":"small","max_tokens":5}')),
        ("/v1beta/models/large:generateContent", '{"contents":[]}',
         ("/v1beta/models/small:generateContent", '{"contents":[]}')),
        ("/v1beta/models/large%3AstreamGenerateContent", "{}", ("/v1beta/models/small%3AstreamGenerateContent", "{}")),
        ("/openai/deployments/large/chat/completions", '{"messages":[]}',
         ("/openai/deployments/small/chat/completions", '{"messages":[]}')),
        ("/openai/deployments/large/chat/completions", '{"model":"large"}',
         ("/openai/deployments/small/chat/completions", '{"model":"small"}')),
        (VERTEX + "/anthropic/models/large@1:rawPredict", '{"max_tokens":1}',
         (VERTEX + "/anthropic/models/small:rawPredict", '{"max_tokens":1}')),
        (VERTEX + "/google/models/large:generateContent", "{}",
         (VERTEX + "/google/models/small:generateContent", "{}")),
    ],
)  # fmt: skip
def test_the_model_is_changed_where_it_stands(path: str, body: str, expected: tuple[str, str]) -> None:
    assert turned(path, body) == expected


def test_a_name_with_marks_stays_one_segment_of_the_path() -> None:
    assert turned("/v1beta/models/large:generateContent", "{}", "a/b?c") == (
        "/v1beta/models/a%2Fb%3Fc:generateContent",
        "{}",
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", '{"model":"large"}'),
        ("/v1/images/generations", '{"model":"large"}'),
        ("/v1/messages/batches", '{"requests":[{"custom_id":"1","params":{"model":"m","max_tokens":5}}]}'),
        ("/v1/messages/count_tokens", '{"model":"large"}'),
        ("/v1/responses", '{"model":"large","background":true}'),
        ("/v1/threads/t/runs", '{"model":"large","assistant_id":"a"}'),
        ("/v1beta/models/m:batchGenerateContent", '{"batch":{"inputConfig":{"fileName":"f"}}}'),
        ("/v1beta/interactions", '{"agent":"deep-research"}'),
        ("/v1/responses", '{"prompt":{"id":"p"}}'),
    ],
)
def test_what_must_keep_its_model_keeps_it(path: str, body: str) -> None:
    assert turned(path, body) is None
    assert not takes_other_model(read(path, body))
