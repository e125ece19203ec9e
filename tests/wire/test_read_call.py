"""What a request asks for: by the end of its path, and by the few fields of its body that matter."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.core.call import Call
from proxy.wire import BodyInvalid
from proxy.wire.values import CHOICES_MAX, OUTPUT_TOKENS_MAX, PARTS_MAX
from tests.support.answers import call_to


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/openai/v1/chat/completions",
        "/api/v1/chat/completions",
        "/compatible-mode/v1/chat/completions",
        "/api/coding/paas/v4/chat/completions",
        "/v1beta/openai/chat/completions",
        "/api/v2/cortex/v1/chat/completions",
        "/v1/chat/completions/",
        "/models/chat/completions",
    ],
)
def test_chat_is_known_under_every_prefix(path: str) -> None:
    call = call_to(path, {"model": "m", "messages": []})
    assert (call.api, call.dialect, call.model) == ("openai.chat", "openai", "m")
    assert call.route == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/completions", "openai.completions"),
        ("/v1/fim/completions", "openai.completions"),
        ("/v1/agents/completions", "openai.chat"),
        ("/v1/chat", "openai.chat"),
        ("/openai/v1/responses", "openai.responses"),
        ("/v1/embeddings", "openai.embeddings"),
        ("/v1/images/generations", "openai.images"),
        ("/v1/audio/speech", "openai.audio"),
        ("/v1/rerank", "cohere.rerank"),
    ],
)
def test_every_endpoint_has_its_name(path: str, api: str) -> None:
    assert call_to(path, {"model": "m"}).api == api


def test_the_model_of_an_azure_call_is_the_deployment_in_its_path_whatever_its_body_says() -> None:
    path = "//openai/deployments/my-gpt/chat/completions"
    call = call_to(path, {"messages": []}, query="api-version=2024-10-21", provider="azure")
    assert (call.model, call.api_version) == ("my-gpt", "2024-10-21")
    assert call.route == "/openai/deployments/{model}/chat/completions"
    assert call_to(path, {"messages": [], "model": "gpt-4o"}).model == "my-gpt"
    assert call_to("/openai/deployments/emb/embeddings", {"input": "x"}).model == "emb"


def test_the_fields_that_matter_are_read() -> None:
    call = call_to(
        "/v1/chat/completions",
        {
            "model": "gpt-4o",
            "stream": True,
            "stream_options": {"include_usage": False},
            "max_tokens": 10,
            "max_completion_tokens": 20,
            "n": 3,
            "service_tier": "flex",
            "user": "ada",
            "metadata": {"task_id": "FIX-1", "session_id": "s-9"},
            "messages": [{"role": "user", "content": "x"}],
        },
    )
    assert (call.stream, call.usage_asked, call.max_output_tokens, call.choices) == (True, False, 20, 3)
    assert (call.service_tier, call.task, call.session) == ("flex", "FIX-1", "s-9")
    assert call.body_bytes > 100


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"usage_asked": None, "choices": 1, "max_output_tokens": None, "stream": False}),
        ({"stream_options": {"include_usage": True}, "stream": True}, {"usage_asked": True, "stream": True}),
        ({"stream_options": None, "n": None, "metadata": None}, {"usage_asked": None, "choices": 1}),
        ({"stream": "yes", "n": 0, "max_tokens": -1}, {"stream": False, "choices": 1, "max_output_tokens": None}),
        ({"metadata": {"task": "a", "task.id": "b"}}, {"task": "a"}),
        ({"metadata": {"task.id": "b"}}, {"task": "b"}),
        ({"metadata": {"task": 7, "session": "s"}}, {"task": None, "session": "s"}),
        ({"prompt_cache_key": "k"}, {"session": "k"}),
        ({"prompt_cache_key": "k", "metadata": {"session": "s"}}, {"session": "s"}),
        ({"max_output_tokens": 5}, {"max_output_tokens": 5}),
        ({"background": True}, {"later": True}),
    ],
)
def test_fields_may_be_missing_or_odd(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    call = call_to("/v1/responses", {"model": "m"} | fields)
    assert {name: getattr(call, name) for name in expected} == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {}},
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 60_000}},
        {"generation_config": {"candidateCount": 1, "candidate_count": 8}},
    ],
)
def test_what_google_spells_in_two_ways_is_said_in_one(fields: dict[str, Any]) -> None:
    with pytest.raises(BodyInvalid, match="twice, as"):
        call_to("/v1beta/models/gemini-2.5-flash:generateContent", {"contents": []} | fields, dialect="gemini")


def test_two_models_are_not_looked_for_among_millions_of_lists() -> None:
    body = b'{"model": "m",           "messages": [{"model": 1}%b]}' % (b",[]" * PARTS_MAX)
    with pytest.raises(BodyInvalid, match="more lists and objects"):
        read("/v1/chat/completions", body, "application/json")


@pytest.mark.parametrize("word", ["batch", "BATCH"])
def test_no_call_is_a_batch_because_it_says_so(word: str) -> None:
    chat = call_to("/v1/chat/completions", {"model": "m", "messages": [], "service_tier": word})
    path, told = "/v1beta/models/gemini-2.5-flash:generateContent", {"x-vertex-ai-llm-shared-request-type": word}
    gemini = wire.read_call(
        method="POST", path=path, query="", headers=told, body=b'{"contents":[]}', dialect="gemini", provider="google"
    )
    assert (chat.service_tier, gemini.service_tier) == (None, None)


def test_best_of_several_completions_counts_them_all() -> None:
    assert call_to("/v1/completions", {"model": "m", "prompt": "x", "n": 2, "best_of": 5}).choices == 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("x", 2), (["x"], 2), (["x"] * 300, 600), ([1, 2, 3], 2), ([[1, 2], [3]], 4), ([], 2), (None, 2)],
)
def test_each_prompt_of_a_completion_is_answered(prompt: Any, expected: int) -> None:
    assert call_to("/v1/completions", {"model": "m", "prompt": prompt, "n": 2}).choices == expected


PICTURE = "iVBORw0KGgo" * 900


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": PICTURE}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PICTURE}"}},
    ],
)
def test_base64_in_a_body_is_measured(part: dict[str, Any]) -> None:
    words = {"type": "text", "text": "a long talk about base64, input_audio and such; " * 400}
    fields = {"model": "m", "messages": [{"role": "user", "content": [words, part, words, part]}]}
    assert call_to("/v1/chat/completions", fields).inline_bytes == 2 * len(PICTURE)


@pytest.mark.parametrize(
    "fields",
    [
        {"models": ["m", "other", "third"]},
        {"providerOptions": {"gateway": {"models": ["m", "other", "third"], "order": ["a"]}}},
        {"models": ["m", "other"], "providerOptions": {"gateway": {"models": ["third", 7, None, ""]}}},
    ],
)
def test_the_models_to_fall_back_on_are_read_and_leave_the_cost_without_a_bound(fields: dict[str, Any]) -> None:
    call = call_to("/v1/chat/completions", {"model": "m", "messages": [], **fields})
    assert call.other_models == ("m", "other", "third")
    assert "other_models" in call.unbounded
    alone = call_to("/v1/chat/completions", {"model": "m", "messages": [], "models": ["m"]})
    assert "other_models" not in alone.unbounded


def test_more_models_to_fall_back_on_than_any_provider_takes_are_refused() -> None:
    with pytest.raises(wire.BodyInvalid, match="names 65 models; name 64 at most"):
        call_to("/v1/chat/completions", {"model": "m", "messages": [], "models": [f"m{n}" for n in range(65)]})


def test_a_body_without_base64_measures_none() -> None:
    text = 'say ";base64," and "input_audio": {"data": "x"} ' * 500
    assert call_to("/v1/chat/completions", {"model": "m", "messages": [{"content": text}]}).inline_bytes == 0


def read(path: str, body: bytes, content_type: str = "application/json", **headers: str) -> Call:
    return wire.read_call(
        method="POST",
        path=path,
        query="",
        headers={"content-type": content_type} | headers,
        body=body,
        dialect="openai",
        provider="openai",
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is empty; send a JSON object"),
        (b"  \n", "is empty"),
        (b"hello", "is not JSON"),
        (b'{"model": "m"', "is not JSON"),
        (b'{"model": "m"} trailing', "is not JSON"),
        (b'{"model": "m", "temperature": NaN}', "is not JSON"),
        (b"[1, 2]", "is JSON, but not an object"),
        (b'"model"', "is JSON, but not an object"),
        (b"null", "is JSON, but not an object"),
        (b'{"model": "m", "messages": "\xff\xfe"}', "is not UTF-8"),
        (b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"messages": []}', "names no model; add `model`"),
        (b'{"model": null, "messages": []}', "names no model"),
        (b'{"model": 7, "messages": []}', "`model` in the body of `/v1/chat/completions` is not a name"),
        (b'{"model": "", "messages": []}', "is not a name"),
        (b'{"messages": [], "model": "%b"}' % (b"m" * 257), "longer than any name"),
        (b'{"model": "cheap", "messages": [], "model": "dear"}', "names `model` twice"),
        (b'{"mod\\u0065l": "cheap", "messages": [], "model": "dear"}', "names `model` twice"),
        (b'{"model": "cheap", "messages": [], "\\u006D\\u006Fdel": "dear"}', "names `model` twice"),
        (b'{"model": "m",            "tools": {"model": ' + b"9" * 5000 + b"}}", "number too long"),
    ],
)
def test_a_body_that_cannot_be_is_refused_in_one_clear_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(BodyInvalid, match=sentence) as refused:
        read("/v1/chat/completions", body)
    assert "/v1/chat/completions" in str(refused.value)
    assert len(str(refused.value)) < 250


def test_a_model_named_elsewhere_in_the_body_is_no_second_model() -> None:
    fields = {"model": "m", "tools": [{"parameters": {"model": {"type": "string"}}}], "messages": ['"model"']}
    assert read("/v1/chat/completions", json.dumps(fields, indent=4).encode()).model == "m"


def test_the_content_type_only_matters_where_the_body_is_no_json() -> None:
    good = b'{"model": "m", "messages": []}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"):
        assert read("/v1/chat/completions", good, content_type).model == "m"
    with pytest.raises(BodyInvalid, match="has content-type `application/x-www-form-urlencoded`"):
        read("/v1/chat/completions", b"model=m", "application/x-www-form-urlencoded")


def test_a_byte_order_mark_before_a_body_is_let_through() -> None:
    assert read("/v1/chat/completions", b'\xef\xbb\xbf{"model": "m", "messages": []}').model == "m"


def test_a_compressed_request_is_unpacked_once_and_read_as_text() -> None:
    text = b'{"model": "m", "messages": []}'
    packed = gzip.compress(text)
    assert wire.plain_body({"content-encoding": "gzip"}, packed) == text
    assert read("/v1/chat/completions", text, **{"content-encoding": "gzip"}).model == "m"
    with pytest.raises(BodyInvalid, match="cannot be decoded"):
        wire.plain_body({"content-encoding": "gzip"}, text)
    with pytest.raises(BodyInvalid, match="cannot be decoded"):
        wire.plain_body({"content-encoding": "compress"}, packed)


def form(*parts: tuple[str, bytes], boundary: str = "b0undary") -> bytes:
    written = b""
    for head, value in parts:
        written += f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
    return written + f"--{boundary}--\r\n".encode()


SOUND = ('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF\r\n\r\n--b0und" + b"\0" * 5000)


@pytest.mark.parametrize(
    "quoted", ['multipart/form-data; boundary="b0undary"', "multipart/form-data; boundary=b0undary"]
)
def test_a_form_is_read_without_its_files(quoted: str) -> None:
    body = form(SOUND, ('name="model"', b"whisper-1"), ("name=stream", b"true"))
    call = read("/v1/audio/transcriptions", body, quoted)
    assert (call.api, call.model, call.stream) == ("openai.audio", "whisper-1", True)
    assert call.inline_bytes == len(SOUND[1])
    assert call.body_bytes == len(body)


def test_forms_of_images_are_read() -> None:
    body = form(('name="image[]"; filename="a.png"', b"\x89PNG"), ('name="n"', b"4"), ('name="user"', b"ada"))
    call = read("/v1/images/edits", body, "multipart/form-data; boundary=b0undary")
    assert (call.choices, call.model) == (4, None)


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (form(SOUND), "multipart/form-data; boundary=b0undary", "names no model"),
        (form(SOUND), "multipart/form-data", "has no boundary"),
        (b"nothing of a form", "multipart/form-data; boundary=b0undary", "does not hold its boundary"),
        (b"RIFF....", "audio/wav", "takes a JSON object"),
    ],
)
def test_a_form_that_cannot_be_is_refused(body: bytes, content_type: str, sentence: str) -> None:
    with pytest.raises(BodyInvalid, match=sentence):
        read("/v1/audio/transcriptions", body, content_type)


@pytest.mark.parametrize(
    ("method", "path", "retrieves"),
    [
        ("GET", "/v1/responses/resp_1", "resp_1"),
        ("POST", "/v1/responses/resp_1/cancel", "resp_1"),
        ("GET", "/v1/batches/batch_1", "batch_1"),
        ("POST", "/v1/batches/batch_1/cancel", "batch_1"),
        ("GET", "/v1/files/file-1/content", "file-1"),
        ("GET", "/v1/models", None),
        ("GET", "/v1/files", None),
        ("DELETE", "/v1/files/file-1", None),
        ("DELETE", "/v1/responses/resp_1", None),
        ("GET", "/v1/responses/resp_1/input_items", None),
    ],
)
def test_what_only_looks_costs_nothing(method: str, path: str, retrieves: str | None) -> None:
    call = call_to(path, method=method)
    assert call.free
    assert not call.later
    assert call.retrieves == retrieves
    assert "resp_1" not in call.route


def test_an_upload_is_free_whatever_its_body_holds() -> None:
    call = read("/v1/files", form(SOUND), "multipart/form-data; boundary=b0undary")
    assert (call.api, call.free) == ("free", True)


@pytest.mark.parametrize("path", ["/v1/files", "/openai/v1/files", "/upload/v1beta/files"])
def test_a_file_of_json_lines_is_uploaded_as_it_is(path: str) -> None:
    dialect = "gemini" if "v1beta" in path else "openai"
    for body in (b'{"a": 1}\n{"a": 2}\n', b'{"not": "whole', b"{\xff"):
        call = wire.read_call(
            method="POST",
            path=path,
            query="",
            headers={"content-type": "application/jsonl"},
            body=body,
            dialect=dialect,
            provider="",
        )
        assert (call.api, call.free, call.body_bytes) == ("free", True, len(body))


def test_variable_parts_of_a_path_are_known_without_their_escapes() -> None:
    model = "org/model:8b"
    assert call_to("/openai/deployments/org%2Fmodel%3A8b/chat/completions", {"messages": []}).model == model
    for colon in (":", "%3A", "%3a"):
        path = f"/v1beta/models/org%2Fmodel%3A8b{colon}generateContent"
        assert call_to(path, {"contents": []}, dialect="gemini").model == model
    vertex = "/v1/projects/p/locations/global/publishers/anthropic/models/claude%40a:rawPredict"
    assert call_to(vertex, {"messages": [], "max_tokens": 5}, dialect="gemini").model == "claude@a"
    assert call_to("/v1/models/claude%40a", method="GET", dialect="anthropic").model == "claude@a"
    assert call_to("/v1/responses/a%3Ab", method="GET").retrieves == "a:b"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/deployments/dear%2Fchat%2Fcompletions"),
        ("POST", "/models/v1%2Fmessages"),
    ],
)
def test_a_path_that_is_known_only_once_its_slashes_are_decoded_is_refused(method: str, path: str) -> None:
    with pytest.raises(BodyInvalid, match="`%2F`"):
        call_to(path, {"model": "cheap", "messages": []}, method=method, dialect="")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/openai/Deployments/gpt/Chat/Completions", "/openai/deployments/{model}/chat/completions"),
        ("/V1/Messages", "/v1/messages"),
        ("/v1/messages/", "/v1/messages"),
        ("/v1beta/models/gemini-2.5-pro:generateContent/", "/v1beta/models/{model}:generateContent"),
    ],
)
def test_what_a_lenient_server_takes_for_a_known_path_is_known_here(path: str, route: str) -> None:
    assert call_to(path, {"model": "m", "messages": [], "contents": []}, dialect="").route == route


@pytest.mark.parametrize(
    ("body", "content_type", "model"),
    [
        (b'{"model": "claude-opus-5"}', "application/json", "claude-opus-5"),
        (b'\xef\xbb\xbf {"model": "m"}', "", "m"),
        (b'{"model": "m", "other": [1]}', "text/plain", "m"),
        (
            b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nsora\r\n--b--',
            "multipart/form-data; boundary=b",
            "sora",
        ),
        (b"--c\r\n", "multipart/form-data; boundary=b", None),
        (b"--c\r\n", "multipart/form-data", None),
        (b'{"model": 5}', "application/json", None),
        (b'{"model": ""}', "application/json", None),
        (b'{"model": "' + b"m" * 257 + b'"}', "application/json", None),
        (b'["model", "m"]', "application/json", None),
        (b'{"model": "m"', "application/json", None),
        (b'{"model": "\xff"}', "application/json", None),
        (b"{" + b'"a":[' * 5000, "application/json", None),
        (b"\x00\x01", "", None),
        (b"", "", None),
    ],
)
def test_the_model_of_a_call_that_nobody_knows_is_read_from_its_body(
    body: bytes, content_type: str, model: str | None
) -> None:
    call = read("/v1/something/new", body, content_type)
    assert (call.api, call.free, call.model) == ("unknown", False, model)


def test_a_call_that_nobody_knows_may_not_name_two_models() -> None:
    with pytest.raises(BodyInvalid, match="twice"):
        read("/v1/something/new", b'{"model": "cheap", "model": "dear"}')


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b'{"model": ' + data + b"}"))
def test_any_body_may_be_sent_to_a_path_that_nobody_knows(body: bytes) -> None:
    try:
        model = read("/v1/something/new", body).model
    except BodyInvalid:
        assert body.count(b'"model"') > 1
    else:
        assert model is None or model


HUGE = [10**12, 10**15, 10**30, 1e300, "1000000000000"]


@pytest.mark.parametrize("huge", HUGE)
def test_an_absurd_number_of_answers_or_tokens_is_bounded_for_estimates(huge: Any) -> None:
    chat = call_to("/v1/chat/completions", {"model": "m", "n": huge, "max_completion_tokens": huge, "messages": []})
    gemini = call_to(
        "/v1beta/models/m:generateContent",
        {"contents": [], "generationConfig": {"candidateCount": huge, "maxOutputTokens": huge}},
        dialect="gemini",
    )
    anthropic = call_to("/v1/messages", {"model": "m", "messages": [], "max_tokens": huge}, dialect="anthropic")
    assert (chat.choices, chat.max_output_tokens) == (CHOICES_MAX, OUTPUT_TOKENS_MAX)
    assert (gemini.choices, gemini.max_output_tokens) == (CHOICES_MAX, OUTPUT_TOKENS_MAX)
    assert anthropic.max_output_tokens == OUTPUT_TOKENS_MAX


def test_best_of_and_the_n_of_a_form_are_bounded_too() -> None:
    assert call_to("/v1/completions", {"model": "m", "prompt": "x", "best_of": 10**12}).choices == CHOICES_MAX
    body = form(('name="image[]"; filename="a.png"', b"\x89PNG"), ('name="n"', b"1000000000000"))
    assert read("/v1/images/edits", body, "multipart/form-data; boundary=b0undary").choices == CHOICES_MAX


@pytest.mark.parametrize(
    "path", ["/v1/fine_tuning/jobs", "/v2/chat", "/v1/vector_stores/vs_1/files", "/", "/v1/containers"]
)
@pytest.mark.parametrize("dialect", ["openai", ""])
def test_an_unknown_path_is_no_free_call(path: str, dialect: str) -> None:
    call = call_to(path, {"anything": 1}, dialect=dialect)
    assert (call.api, call.free, call.dialect) == ("unknown", False, dialect)
    meter = wire.open_meter(call, provider="", status=200, content_type="application/json", content_encoding="")
    meter.feed(b'{"usage": {"prompt_tokens": 5}}')
    assert meter.close().usage is None
    assert wire.end_of_stream(call, "upstream_timeout", "x") == b""


def test_an_unmistakable_path_is_known_on_an_upstream_of_another_dialect_or_of_none() -> None:
    for dialect in ("", "anthropic", "gemini"):
        assert call_to("/v1/chat/completions", {"model": "m"}, dialect=dialect).dialect == "openai"
    message = {"model": "claude", "messages": [], "max_tokens": 5}
    assert call_to("/v1/messages", message, dialect="openai").dialect == "anthropic"
    generate = "/v1beta/models/gemini-2.5-flash:generateContent"
    assert call_to(generate, {"contents": []}, dialect="").dialect == "gemini"
    assert call_to("/v1/rerank", {"model": "m"}, dialect="").api == "unknown"


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/responses", "openai"),
        ("/v1/responses/resp_1", "openai"),
        ("/v1/embeddings", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini"),
        ("/v1/models/gemini-2.5-flash:streamGenerateContent", "gemini"),
        ("/v1beta/models", "gemini"),
        ("/model/anthropic.claude/converse", "bedrock"),
        ("/model/anthropic.claude-v1%3A0/converse-stream", "bedrock"),
        ("/v1/models", "openai"),
        ("/v1/models/gpt-4o", "openai"),
        ("/v2/chat", None),
        ("/", None),
        ("/openai/v1/chat/completions", None),
    ],
)
def test_the_short_form_names_a_dialect(path: str, dialect: str | None) -> None:
    assert wire.short_form_dialect(path, {}) == dialect


def test_the_list_of_models_is_anthropics_for_anthropics_clients() -> None:
    assert wire.short_form_dialect("/v1/models", {"anthropic-version": "2023-06-01"}) == "anthropic"
    assert wire.short_form_dialect("/v1/chat/completions", {"anthropic-version": "2023-06-01"}) == "openai"


def test_a_broken_chat_stream_ends_in_an_error_the_sdk_raises() -> None:
    call = call_to("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
    end = wire.end_of_stream(call, "upstream_timeout", "The provider went silent.")
    assert end.startswith(b"\n\ndata: ")
    error = json.loads(end.strip().removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"]) == ("upstream_timeout", "The provider went silent.")
    assert end.endswith(b"\n\n")
    plain = call_to("/v1/chat/completions", {"model": "m", "messages": []})
    assert wire.end_of_stream(plain, "upstream_timeout", "x") == b""


def test_a_broken_responses_stream_ends_as_openai_ends_it() -> None:
    call = call_to("/v1/responses", {"model": "m", "input": "x", "stream": True})
    end = wire.end_of_stream(call, "budget_spent", "The budget is spent.")
    first, failed = (block.partition(b"\ndata: ") for block in end.strip().split(b"\n\n"))
    assert (first[0], failed[0]) == (b"event: error", b"event: response.failed")
    assert json.loads(first[2])["code"] == "insufficient_quota"
    response = json.loads(failed[2])["response"]
    assert (response["status"], response["error"]["message"]) == ("failed", "The budget is spent.")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    for content_type in ("application/json", "multipart/form-data; boundary=x"):
        for path in ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/responses"):
            try:
                read(path, body, content_type)
            except BodyInvalid:
                pass


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=4
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "stream", "n", "metadata", "stream_options", "user", "max_tokens"]), values
    )
)
def test_fields_of_any_type_are_read_or_refused_and_nothing_else(fields: dict[str, Any]) -> None:
    try:
        call_to("/v1/chat/completions", fields)
    except BodyInvalid:
        pass
