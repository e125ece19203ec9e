"""The Gemini dialect, on fixtures of our own writing. Numbers in docstrings are those of the wire reference."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import wire
from proxy.core.call import Call
from proxy.core.usage import Usage
from proxy.wire import gemini
from proxy.wire.reader import BodyInvalid
from proxy.wire.reading import Reading

GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
EMBED = "/v1beta/models/gemini-embedding-2:batchEmbedContents"
BASE64 = "QUJD" * 2_000


def read(path: str, body: Any = b"", method: str = "POST", query: str = "", **headers: str) -> Call:
    route = gemini.match(method, path)
    assert route is not None
    return gemini.read(route, method=method, query=query, headers=headers, body=body)


def read_answer(answer: Any, path: str = GENERATE) -> Reading:
    reader = gemini.reader(read(path, {"contents": []}), provider="google", request_body=b"")
    reader.answer(json.dumps(answer).encode())
    return reader.reading


def read_chunks(*chunks: dict[str, Any], path: str = STREAM) -> Reading:
    reader = gemini.reader(read(path, {"contents": []}, query="alt=sse"), provider="google", request_body=b"")
    for chunk in chunks:
        reader.event("", json.dumps(chunk).encode())
    return reader.reading


def chunk(text: str = "Hi", finish: Any = None, model: str = "gemini-2.5-flash", **usage: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "r1"}


def details(**tokens: int) -> list[dict[str, Any]]:
    return [{"modality": name.upper(), "tokenCount": number} for name, number in tokens.items()]


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "api", "free"),
        [
            ("POST", "/v1beta/models/gemini-2.5-flash:generateContent", "gemini.generate", False),
            ("POST", "/v1/models/gemini-2.5-flash:streamGenerateContent", "gemini.generate", False),
            ("POST", "/gateway/v1beta/models/gemini-2.5-flash%3AgenerateContent", "gemini.generate", False),
            ("POST", "/v1beta/models/gemini-2.5-flash:countTokens", "gemini.count_tokens", True),
            ("POST", "/v1beta/models/gemini-embedding-001:embedContent", "gemini.embed", False),
            ("POST", "/v1beta/models/gemini-embedding-001:batchEmbedContents", "gemini.embed", False),
            ("POST", "/v1beta/models/gemini-2.5-flash:batchGenerateContent", "gemini.generate", False),
            ("POST", "/v1beta/models/veo-3.1:predictLongRunning", "unknown", False),
            ("GET", "/v1beta/models/veo-3.1/operations/op1", "free", True),
            ("POST", "/v1beta/models/imagen-4.0:predict", "gemini.generate", False),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
                "gemini.embed",
                False,
            ),
            ("POST", "/v1/projects/p/locations/l/endpoints/99:predict", "unknown", False),
            ("GET", "/v1beta/models", "free", True),
            ("GET", "/v1/models/gemini-2.5-pro", "free", True),
            ("POST", "/v1beta/cachedContents", "unknown", False),
            ("PATCH", "/v1beta/cachedContents/c1", "unknown", False),
            ("GET", "/v1beta/cachedContents/c1", "free", True),
            ("DELETE", "/v1beta1/projects/p/locations/l/cachedContents/8", "free", True),
            ("POST", "/upload/v1beta/files", "free", True),
            ("GET", "/v1beta/files/f1", "free", True),
            ("POST", "/v1beta/interactions", "gemini.generate", False),
            ("GET", "/v1beta/interactions/i1", "gemini.generate", True),
            ("POST", "/v1beta/interactions/i1/cancel", "free", True),
            ("GET", "/v1beta/batches/b1", "gemini.generate", True),
            ("POST", "/v1beta/batches/b1:cancel", "free", True),
        ],
    )
    def test_a_known_path_has_its_api_and_says_whether_it_is_free(
        self, method: str, path: str, api: str, free: bool
    ) -> None:
        """33: counting and listing are free; keeping content in a cache bills its storage and is not."""
        route = gemini.match(method, path)
        assert route is not None
        assert (route.api, route.free, route.dialect) == (api, free, "gemini")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v1beta/openai/chat/completions"),
            ("POST", "/v1beta/models/gemini-2.5-flash:tuneModel"),
            ("GET", "/v1beta/models/gemini-2.5-flash:generateContent"),
            ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-5:rawPredict"),
            ("POST", "/v1/chat/completions"),
        ],
    )
    def test_other_paths_are_not_taken_for_gemini(self, method: str, path: str) -> None:
        assert gemini.match(method, path) is None

    @pytest.mark.parametrize(
        ("path", "model"),
        [
            ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
            ("/v1beta/tunedModels/mine-1:generateContent", "tunedModels/mine-1"),
            ("/v1/projects/p/locations/l/endpoints/123:generateContent", "endpoints/123"),
            ("/v1/publishers/google/models/gemini-2.0-flash:generateContent", "gemini-2.0-flash"),
        ],
    )
    def test_the_model_stands_in_the_path(self, path: str, model: str) -> None:
        assert read(path, {"contents": []}).model == model

    def test_vertex_names_the_region_and_no_project_is_kept(self) -> None:
        path = "/v1beta1/projects/acme/locations/europe-west4/publishers/google/models/gemini-2.5-pro:generateContent"
        call = read(path, {"contents": []})
        assert call.region == "europe-west4"
        assert call.route == (
            "/v1beta1/projects/{project}/locations/{location}/publishers/google/models/{model}:generateContent"
        )
        reading = gemini.reader(call, provider="google", request_body=b"").reading
        assert reading.region == "europe-west4"


class TestRequests:
    @pytest.mark.parametrize(
        ("query", "json_array"), [("alt=sse", False), ("key=k&alt=sse", False), ("%24alt=sse", False), ("", True)]
    )
    def test_a_stream_is_one_of_events_or_an_array(self, query: str, json_array: bool) -> None:
        """13: without `alt=sse` the answer is one JSON array."""
        call = read(STREAM, {"contents": []}, query=query)
        assert (call.stream, call.json_array) == (True, json_array)
        assert not read(GENERATE, {"contents": []}, query=query).stream

    @pytest.mark.parametrize(
        "body",
        [
            {"generationConfig": {"maxOutputTokens": 800, "candidateCount": 2}, "serviceTier": "flex"},
            {"generation_config": {"max_output_tokens": 800, "candidate_count": 2}, "service_tier": "flex"},
        ],
    )
    def test_the_configuration_is_read_in_both_spellings(self, body: dict[str, Any]) -> None:
        call = read(GENERATE, body)
        assert (call.max_output_tokens, call.choices, call.service_tier) == (800, 2, "flex")

    def test_vertex_asks_for_a_tier_in_a_header(self) -> None:
        call = read(GENERATE, {}, **{"x-vertex-ai-llm-shared-request-type": "priority"})
        assert call.service_tier == "priority"

    def test_inline_data_is_counted_decoded_or_not(self) -> None:
        contents = [{"parts": [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": BASE64}}]}]
        body = {"contents": contents, "generationConfig": {"maxOutputTokens": 5}}
        raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}
        assert read(GENERATE, body).inline_bytes == len(BASE64)
        assert read(GENERATE, raw) == read(GENERATE, body) == read(GENERATE, json.dumps(body).encode())

    @pytest.mark.parametrize("body", [b"", b"nonsense", b"[]"])
    def test_a_body_that_is_no_object_is_refused(self, body: bytes) -> None:
        for path in (GENERATE, STREAM, EMBED, "/v1beta/interactions", "/v1beta/models/m:countTokens"):
            with pytest.raises(BodyInvalid, match="JSON object"):
                read(path, body)

    def test_what_is_free_and_has_no_body_is_read_without_one(self) -> None:
        assert read("/v1beta/models", method="GET").free
        assert read("/upload/v1beta/files", b"\x89PNG").free

    def test_a_cache_names_its_model_in_the_body(self) -> None:
        call = read("/v1beta/cachedContents", {"model": "models/gemini-2.5-flash", "contents": []})
        assert (call.api, call.model, call.free) == ("unknown", "gemini-2.5-flash", False)


class TestUsage:
    def test_thoughts_and_tool_results_lie_beside_and_the_cache_within(self) -> None:
        """26: prompt 19 of which 8 from the cache, tools 69, candidates 47, thoughts 117: in all 252."""
        reading = read_answer(
            chunk(
                finish="STOP",
                promptTokenCount=19,
                cachedContentTokenCount=8,
                cacheTokensDetails=details(text=8),
                toolUsePromptTokenCount=69,
                candidatesTokenCount=47,
                thoughtsTokenCount=117,
                totalTokenCount=252,
                serviceTier="standard",
            )
        )
        assert reading.usage == Usage(input=11 + 69, cached_input=8, output=47 + 117, reasoning=117)
        assert reading.usage.tokens == 252
        assert (reading.model, reading.upstream_call_id) == ("gemini-2.5-flash", "r1")
        assert (reading.finish_reasons, reading.service_tier, reading.complete) == (["STOP"], "standard", True)
        assert reading.hidden_reasoning

    def test_pictures_and_sound_have_fields_of_their_own(self) -> None:
        reading = read_answer(
            chunk(
                promptTokenCount=272,
                promptTokensDetails=details(text=4, image=200, audio=60, video=5, document=3),
                candidatesTokenCount=1300,
                candidatesTokensDetails=details(text=10, image=1290),
            )
        )
        assert reading.usage == Usage(input=12, image_input=200, audio_input=60, output=10, image_output=1290)

    def test_speech_is_audio_output(self) -> None:
        reading = read_answer(
            chunk(promptTokenCount=9, candidatesTokenCount=50, candidatesTokensDetails=details(audio=50))
        )
        assert reading.usage == Usage(input=9, audio_output=50)

    def test_what_was_cached_is_taken_from_the_modality_it_came_from(self) -> None:
        prompt = {"promptTokenCount": 100, "promptTokensDetails": details(text=30, image=50, audio=20)}
        told = {"cachedContentTokenCount": 60, "cacheTokensDetails": details(text=10, image=50)}
        assert read_answer(chunk(**prompt, **told)).usage == Usage(input=20, audio_input=20, cached_input=60)

    def test_what_was_cached_without_details_is_text_first(self) -> None:
        prompt = {"promptTokenCount": 100, "promptTokensDetails": details(text=30, image=50, audio=20)}
        usage = read_answer(chunk(**prompt, cachedContentTokenCount=85)).usage
        assert usage == Usage(audio_input=15, cached_input=85)

    def test_a_cache_larger_than_the_prompt_takes_nothing_below_zero(self) -> None:
        """27: never subtract blindly."""
        assert read_answer(chunk(promptTokenCount=7, cachedContentTokenCount=161)).usage == Usage(cached_input=161)

    def test_details_never_add_to_their_count(self) -> None:
        usage = read_answer(chunk(promptTokenCount=10, promptTokensDetails=details(audio=99, image=99))).usage
        assert usage == Usage(audio_input=10)

    def test_names_may_come_as_numbers(self) -> None:
        """`enum-encoding=int` at Vertex: modality 1 is text and 4 audio, traffic 1 on demand, finish 1 stop."""
        numbered = [{"modality": 1, "tokenCount": 6}, {"modality": 4, "tokenCount": 5}]
        reading = read_answer(
            chunk(finish=1, promptTokenCount=11, promptTokensDetails=numbered, candidatesTokenCount=17, trafficType=1)
        )
        assert reading.usage == Usage(input=6, audio_input=5, output=17)
        assert (reading.service_tier, reading.finish_reasons) == ("ON_DEMAND", ["STOP"])

    def test_a_blocked_prompt_counts_its_prompt_alone(self) -> None:
        """26: `candidatesTokenCount` is missing where there are no candidates."""
        reading = read_answer(
            {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 14}}
        )
        assert reading.usage == Usage(input=14)
        assert (reading.finish_reasons, reading.complete) == (["PROHIBITED_CONTENT"], True)

    def test_an_answer_that_counts_no_prompt_counts_the_rest(self) -> None:
        usage = read_answer(chunk(candidatesTokenCount=18, thoughtsTokenCount=58)).usage
        assert usage == Usage(output=76, reasoning=58)

    @pytest.mark.parametrize(("model", "billed"), [("gemini-2.5-flash", 1), ("gemini-3.5-flash", 2), (None, 1)])
    def test_searches_are_billed_by_prompt_or_by_query(self, model: str | None, billed: int) -> None:
        """31: Gemini 2 bills a grounded prompt, Gemini 3 each query that is not empty."""
        answer = chunk(promptTokenCount=5, candidatesTokenCount=5)
        answer["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["a", "b", ""]}
        answer["modelVersion"] = model
        assert read_answer(answer).usage == Usage(input=5, output=5, requests={"web_search": billed})

    def test_pages_without_a_search_are_no_search(self) -> None:
        answer = chunk(promptTokenCount=5, candidatesTokenCount=5)
        answer["candidates"][0]["groundingMetadata"] = {"groundingChunks": [{"web": {"uri": "u"}}]}
        assert read_answer(answer).usage == Usage(input=5, output=5)

    @pytest.mark.parametrize("usage", [None, [], {}, {"trafficType": "ON_DEMAND"}, {"totalTokenCount": 1090}])
    def test_an_answer_that_counts_nothing_has_no_usage(self, usage: Any) -> None:
        """33: `totalTokenCount` alone is what a cache stores."""
        assert read_answer({"usageMetadata": usage}).usage is None

    def test_counting_tokens_is_no_usage(self) -> None:
        """33: countTokens answers `totalTokens`."""
        path = "/v1beta/models/gemini-2.5-flash:countTokens"
        assert read_answer({"totalTokens": 12, "promptTokensDetails": details(text=12)}, path).usage is None

    @pytest.mark.parametrize("as_list", [False, True])
    def test_an_error_names_its_status(self, as_list: bool) -> None:
        """42: `error.code` and `error.status`; for an array the error comes in an array."""
        error = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}
        reading = read_answer([error] if as_list else error)
        assert (reading.error, reading.usage) == ("RESOURCE_EXHAUSTED", None)
        assert read_answer({"error": {"code": 500}}).error == "500"


class TestEmbeddings:
    def test_the_details_are_spelt_otherwise(self) -> None:
        """20: `promptTokenDetails`, singular."""
        usage = {"promptTokenCount": 9, "promptTokenDetails": details(text=4, image=5)}
        reading = read_answer({"embeddings": [{"values": [0.1, 0.2]}], "usageMetadata": usage}, EMBED)
        assert reading.usage == Usage(input=4, image_input=5)

    def test_embeddings_of_old_report_nothing(self) -> None:
        """20, 22: v1 embeddings have no usage."""
        reading = read_answer({"embedding": {"values": [0.1, -2e-3]}}, "/v1beta/models/text-embedding-004:embedContent")
        assert (reading.usage, reading.complete) == (None, True)

    def test_vertex_tells_tokens_for_each_text(self) -> None:
        """20: `predictions[].embeddings.statistics.token_count`."""
        predictions = [
            {"embeddings": {"statistics": {"truncated": False, "token_count": number}, "values": [0.5]}}
            for number in (10, 7.0)
        ]
        path = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict"
        assert read_answer({"predictions": predictions}, path).usage == Usage(input=17)

    def test_pictures_are_billed_by_the_piece(self) -> None:
        predictions = [{"mimeType": "image/png", "bytesBase64Encoded": "QUJD"}] * 2
        path = "/v1beta/models/imagen-4.0-generate-001:predict"
        assert read_answer({"predictions": predictions}, path).usage == Usage(images=2)

    def test_an_error_is_found_there_too(self) -> None:
        assert read_answer({"error": {"code": 404, "status": "NOT_FOUND"}}, EMBED).error == "NOT_FOUND"
        assert read_answer([{"error": {"code": 404, "status": "NOT_FOUND"}}], EMBED).error == "NOT_FOUND"
        assert read_answer({"predictions": "none", "usageMetadata": {"promptTokenCount": 3}}, EMBED).usage == Usage(
            input=3
        )


class TestStreams:
    def test_the_last_count_holds_also_when_it_is_lower(self) -> None:
        """12: prompt 5 -> 4; each chunk repeats the running total."""
        reading = read_chunks(
            chunk(promptTokenCount=5, candidatesTokenCount=1, totalTokenCount=6),
            chunk(finish="STOP", promptTokenCount=4, candidatesTokenCount=11, totalTokenCount=15),
        )
        assert reading.usage == Usage(input=4, output=11)
        assert (reading.complete, reading.seen_bytes) == (True, 4)

    def test_chunks_with_only_a_traffic_type_count_nothing(self) -> None:
        """12: the first chunks at Vertex."""
        first = chunk(trafficType="ON_DEMAND")
        assert read_chunks(first).usage is None
        reading = read_chunks(
            first, chunk(finish="STOP", promptTokenCount=8, candidatesTokenCount=9, thoughtsTokenCount=20)
        )
        assert reading.usage == Usage(input=8, output=29, reasoning=20)
        assert reading.service_tier == "ON_DEMAND"

    def test_a_chunk_that_tells_less_takes_nothing_back(self) -> None:
        reading = read_chunks(
            chunk(promptTokenCount=427, candidatesTokenCount=10, thoughtsTokenCount=40), chunk(promptTokenCount=427)
        )
        assert reading.usage == Usage(input=427, output=50, reasoning=40)
        assert not reading.complete

    def test_arguments_of_functions_are_seen(self) -> None:
        part = {"functionCall": {"name": "weather", "args": {"city": "Köln"}}}
        reading = read_chunks({"candidates": [{"content": {"parts": [part]}}]})
        assert reading.seen_bytes == len('{"city":"Köln"}'.encode())

    def test_a_model_that_thinks_unasked_is_taken_to_do_so_until_it_tells(self) -> None:
        assert read_chunks().hidden_reasoning
        assert not read_chunks(chunk(promptTokenCount=5, candidatesTokenCount=1)).hidden_reasoning
        assert not read_chunks(path="/v1beta/models/gemini-2.0-flash:streamGenerateContent").hidden_reasoning

    def test_an_error_in_the_stream_is_an_error(self) -> None:
        """41: an error object under status 200."""
        reading = read_chunks(
            chunk(promptTokenCount=5, candidatesTokenCount=1), {"error": {"code": 503, "status": "UNAVAILABLE"}}
        )
        assert (reading.error, reading.complete) == ("UNAVAILABLE", False)
        assert reading.usage == Usage(input=5, output=1)

    def test_several_candidates_have_a_reason_each(self) -> None:
        candidates = [{"index": 1, "finishReason": "MAX_TOKENS"}, {"index": 0, "finishReason": "STOP"}]
        assert read_chunks({"candidates": candidates}).finish_reasons == ["STOP", "MAX_TOKENS"]

    @pytest.mark.parametrize("json_array", [False, True])
    def test_a_stream_reads_the_same_wherever_it_is_cut(self, json_array: bool) -> None:
        """13, 35: one array over many pieces, or events that end with CRLF, by way of the relay's meter."""
        chunks = [
            json.dumps(each, indent=2 if json_array else None).encode()
            for each in (
                chunk("a{[", promptTokenCount=5, candidatesTokenCount=1),
                chunk('"]}', finish="STOP", promptTokenCount=4, candidatesTokenCount=2),
            )
        ]
        events = b"".join(b"data: " + each + b"\r\n\r\n" for each in chunks)
        body = b"[" + b"\r\n,".join(chunks) + b"]\r\n" if json_array else events
        call = wire.read_call(
            method="POST",
            path=STREAM,
            query="" if json_array else "alt=sse",
            headers={"content-type": "application/json"},
            body=b'{"contents": []}',
            dialect="gemini",
            provider="google",
        )
        content_type = "application/json" if json_array else "text/event-stream"
        for cut in range(len(body)):
            meter = wire.open_meter(call, provider="google", status=200, content_type=content_type, content_encoding="")
            meter.feed(body[:cut])
            meter.feed(body[cut:])
            reading = meter.close()
            assert reading.usage == Usage(input=4, output=2)
            assert (reading.seen_bytes, reading.complete) == (6, True)


FIELDS = [
    *("candidates", "content", "parts", "text", "functionCall", "args", "usageMetadata"),
    *("promptTokenCount", "promptTokensDetails", "modality", "tokenCount", "error", "predictions"),
    *("embeddings", "statistics", "token_count", "groundingMetadata", "webSearchQueries"),
    *("finishReason", "interaction", "usage", "step", "delta", "response", "metadata"),
    *("generationConfig", "batch", "inputConfig", "requests"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
PATHS = [GENERATE, STREAM, EMBED, "/v1beta/interactions", "/v1beta/models/m:batchGenerateContent"]


class TestAnything:
    @given(st.sampled_from(PATHS), st.dictionaries(st.sampled_from(FIELDS), JSON))
    def test_a_body_is_read_or_refused_and_no_answer_makes_a_reader_raise(
        self, path: str, document: dict[str, Any]
    ) -> None:
        try:
            call = read(path, document)
        except BodyInvalid:
            call = Call(api="gemini.generate", route=path, later="batch" in path)
        reader = gemini.reader(call, provider="google", request_body=b"")
        reader.event("step.delta", json.dumps(document).encode())
        reader.answer(json.dumps([document]).encode())
        reader.answer(json.dumps(document).encode())
        assert reader.reading.usage is None or reader.reading.usage.tokens >= 0

    @given(st.sampled_from(PATHS), st.binary(max_size=30))
    def test_no_bytes_make_a_reader_raise(self, path: str, body: bytes) -> None:
        reader = gemini.reader(Call(api="gemini.embed", route=path), provider="google", request_body=b"")
        reader.answer(body)
        reader.event("", body)


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "number", "status"),
        [
            ("budget_spent", 402, "FAILED_PRECONDITION"),
            ("budget_held", 429, "RESOURCE_EXHAUSTED"),
            ("upstream_timeout", 504, "DEADLINE_EXCEEDED"),
            ("upstream_unreachable", 502, "UNAVAILABLE"),
            ("anything", 500, "INTERNAL"),
        ],
    )
    def test_a_broken_stream_of_events_ends_with_an_error_chunk(self, code: str, number: int, status: str) -> None:
        end = gemini.end_of_stream(read(STREAM, {}, query="alt=sse"), code, 'It "broke"')
        assert end.startswith(b"\r\n\r\ndata: ")
        assert end.endswith(b"\r\n\r\n")
        error = json.loads(end.split(b"data: ", 1)[1])["error"]
        assert (error["code"], error["status"], error["message"]) == (number, status, 'It "broke"')
        assert error["details"][0]["reason"] == code.upper()

    def test_a_broken_array_is_closed_and_stays_json(self) -> None:
        """13: cut between two elements, as they are sent."""
        end = gemini.end_of_stream(read(STREAM, {}), "upstream_timeout", "too slow")
        array = json.loads(b'[{"candidates": []}\r\n' + end)
        assert array[1]["error"]["message"] == "too slow"

    def test_a_plain_answer_has_no_such_end(self) -> None:
        assert gemini.end_of_stream(read(GENERATE, {}), "upstream_timeout", "x") == b""
