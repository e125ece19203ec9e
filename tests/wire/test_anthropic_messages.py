"""The Anthropic dialect, on fixtures of our own writing. Numbers in docstrings are those of the wire reference."""

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
from proxy.wire import anthropic_messages as anthropic
from proxy.wire.reader import BodyInvalid
from proxy.wire.reading import Part, Reading

BASE64 = "QUJD" * 2_000


def read(path: str, body: Any = None, method: str = "POST") -> Call:
    route = anthropic.match(method, path)
    assert route is not None
    return anthropic.read(route, method=method, query="", headers={}, body=b"" if body is None else body)


def message(**usage: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }


def read_plain(answer: Any, path: str = "/v1/messages") -> Reading:
    reader = anthropic.MessageReader(Call(route=path))
    reader.answer(json.dumps(answer).encode())
    return reader.reading


def read_events(*events: dict[str, Any], padding: str = "", names: bool = True) -> Reading:
    reader = anthropic.MessageReader(Call(stream=True))
    for event in events:
        reader.event(event["type"] if names else "", (json.dumps(event) + padding).encode())
    return reader.reading


def start(model: str = "claude-sonnet-5", message_id: str = "msg_1", **usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": message_id, "model": model, "content": [], "usage": usage}}


def text_delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def delta(stop_reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}


STOP = {"type": "message_stop"}


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "api", "free"),
        [
            ("POST", "/v1/messages", "anthropic.messages", False),
            ("POST", "/some/gateway/v1/messages", "anthropic.messages", False),
            ("POST", "/v1/messages/count_tokens", "anthropic.count_tokens", True),
            ("POST", "/v1/messages/batches", "anthropic.batches", False),
            ("GET", "/v1/messages/batches", "anthropic.batches", True),
            ("GET", "/v1/messages/batches/msgbatch_1", "anthropic.batches", True),
            ("DELETE", "/v1/messages/batches/msgbatch_1", "anthropic.batches", True),
            ("POST", "/v1/messages/batches/msgbatch_1/cancel", "anthropic.batches", True),
            ("GET", "/v1/messages/batches/msgbatch_1/results", "anthropic.batches", True),
            ("GET", "/v1/models", "free", True),
            ("GET", "/v1/models/claude-opus-5", "free", True),
            ("POST", "/v1/files", "free", True),
            ("GET", "/v1/files/file_1/content", "free", True),
            ("POST", "/v1/complete", "unknown", False),
        ],
    )
    def test_a_known_path_has_its_api_and_says_whether_it_is_free(
        self, method: str, path: str, api: str, free: bool
    ) -> None:
        route = anthropic.match(method, path)
        assert route is not None
        assert (route.api, route.free, route.dialect) == (api, free, "anthropic")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/messages"),
            ("POST", "/v1/threads/thread_1/messages"),
            ("POST", "/v1/messages/x"),
            ("POST", "/v1/organizations/usage"),
            ("POST", "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent"),
        ],
    )
    def test_other_paths_are_not_taken_for_anthropic(self, method: str, path: str) -> None:
        assert anthropic.match(method, path) is None

    @pytest.mark.parametrize(("verb", "stream"), [("rawPredict", False), ("streamRawPredict", True)])
    def test_vertex_names_model_and_region_in_the_path(self, verb: str, stream: bool) -> None:
        path = f"/v1/projects/acme/locations/us-east5/publishers/anthropic/models/claude-opus-5@20260101:{verb}"
        call = read(path, {"anthropic_version": "vertex-2023-10-16", "messages": [], "max_tokens": 9})
        assert call.api == "anthropic.messages"
        assert call.model == "claude-opus-5@20260101"
        assert call.region == "us-east5"
        assert call.stream is stream
        assert "acme" not in call.route
        assert anthropic.reader(call, provider="google", request_body=b"").reading.region == "us-east5"

    def test_counting_tokens_at_vertex_is_free(self) -> None:
        path = "/v1/projects/p/locations/global/publishers/anthropic/models/count-tokens:rawPredict"
        call = read(path, {"model": "claude-opus-5", "messages": []})
        assert (call.api, call.free, call.model) == ("anthropic.count_tokens", True, "claude-opus-5")


class TestRequests:
    def test_a_message_is_read_from_its_body(self) -> None:
        body = {
            "model": "claude-opus-5",
            "max_tokens": 4096,
            "stream": True,
            "service_tier": "standard_only",
            "messages": [{"role": "user", "content": "Hi"}],
        }
        call = read("/v1/messages", body)
        assert call.model == "claude-opus-5"
        assert call.stream is True
        assert call.max_output_tokens == 4096
        assert call.service_tier == "standard_only"
        assert call.route == "/v1/messages"
        assert not call.free

    def test_undecoded_parts_are_read_like_decoded_ones(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}
        body = {
            "model": "claude-opus-5",
            "max_tokens": 10,
            "metadata": {"user_id": "ada"},
            "messages": [{"role": "user", "content": [image]}],
        }
        raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}
        assert read("/v1/messages", raw) == read("/v1/messages", body)
        assert read("/v1/messages", raw).inline_bytes == len(BASE64)
        assert read("/v1/messages", json.dumps(body).encode()) == read("/v1/messages", body)

    def test_only_base64_counts_as_inline_and_not_a_document_of_text(self) -> None:
        words = "these are the words of a document that is not encoded " * 100
        source = {"type": "text", "media_type": "text/plain", "data": words}
        body = {"model": "m", "messages": [{"content": [{"type": "document", "source": source}]}]}
        raw = {"model": "m", "messages": msgspec.Raw(json.dumps(body["messages"]).encode())}
        assert read("/v1/messages", body).inline_bytes == 0
        assert read("/v1/messages", raw).inline_bytes == 0

    @pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 5}, {"model": None}, b"[]", b"not json", b""])
    def test_a_body_without_a_model_is_refused_with_a_sentence(self, body: Any) -> None:
        with pytest.raises(BodyInvalid, match="model"):
            read("/v1/messages", body)

    @pytest.mark.parametrize("limit", [-1, "many", None, True, [5]])
    def test_a_limit_that_is_none_is_left_to_the_provider(self, limit: Any) -> None:
        assert read("/v1/messages", {"model": "m", "max_tokens": limit}).max_output_tokens is None

    def test_fast_mode_is_told_as_a_tier(self) -> None:
        assert read("/v1/messages", {"model": "m", "speed": "fast"}).service_tier == "fast"
        assert read_plain(message(input_tokens=1, output_tokens=1, speed="fast")).service_tier == "fast"

    def test_claude_code_names_its_session_in_a_json_text(self) -> None:
        user_id = json.dumps({"device_id": "d1", "account_uuid": "", "session_id": "5b0e-77"})
        call = read("/v1/messages", {"model": "m", "metadata": {"user_id": user_id}})
        assert (call.session, call.task) == ("5b0e-77", None)

    def test_older_claude_code_names_its_session_at_the_end_of_a_word(self) -> None:
        user_id = "user_0abc_account_1-2_session_9f-8e"
        call = read("/v1/messages", {"model": "m", "metadata": {"user_id": user_id}})
        assert call.session == "9f-8e"

    def test_any_other_user_id_is_no_session(self) -> None:
        assert read("/v1/messages", {"model": "m", "metadata": {"user_id": "ada"}}).session is None

    def test_a_task_in_the_metadata_is_found(self) -> None:
        assert read("/v1/messages", {"model": "m", "metadata": {"task": "PAY-7"}}).task == "PAY-7"
        user_id = json.dumps({"user_id": "ada", "task_id": "PAY-8"})
        call = read("/v1/messages", {"model": "m", "metadata": {"user_id": user_id}})
        assert call.task == "PAY-8"

    @pytest.mark.parametrize(
        "metadata", [None, [], "x", {"user_id": 5}, {"user_id": "{broken"}, {"user_id": "a" * 999}]
    )
    def test_metadata_that_is_not_as_expected_is_passed_over(self, metadata: Any) -> None:
        call = read("/v1/messages", {"model": "m", "metadata": metadata})
        assert (call.session, call.task) == (None, None)


class TestUsage:
    def test_caches_lie_outside_the_input(self) -> None:
        """23: input 4, read 1,165, written 2,070 of which 2,056 for an hour."""
        reading = read_plain(
            message(
                input_tokens=4,
                cache_read_input_tokens=1165,
                cache_creation_input_tokens=2070,
                cache_creation={"ephemeral_5m_input_tokens": 14, "ephemeral_1h_input_tokens": 2056},
                output_tokens=459,
            )
        )
        assert reading.usage == Usage(input=4, cached_input=1165, cache_write=14, cache_write_1h=2056, output=459)
        assert reading.complete
        assert reading.finish_reasons == ["end_turn"]
        assert (reading.model, reading.upstream_call_id) == ("claude-sonnet-5", "msg_1")

    def test_a_split_of_zeros_does_not_hide_what_was_written_to_the_cache(self) -> None:
        """32: cache_creation_input_tokens 1,200 beside a split of 0 and 0."""
        split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
        reading = read_plain(
            message(input_tokens=31, cache_creation_input_tokens=1200, cache_creation=split, output_tokens=5)
        )
        assert reading.usage == Usage(input=31, cache_write=1200, output=5)

    def test_a_split_without_a_total_is_taken(self) -> None:
        split = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
        reading = read_plain(message(input_tokens=1, cache_creation=split, output_tokens=5))
        assert reading.usage == Usage(input=1, cache_write=3, cache_write_1h=4, output=5)

    def test_thinking_is_a_part_of_the_output(self) -> None:
        reading = read_plain(message(input_tokens=13, output_tokens=44, output_tokens_details={"thinking_tokens": 33}))
        assert reading.usage == Usage(input=13, output=44, reasoning=33)

    def test_server_tools_are_counted_by_the_piece(self) -> None:
        """31: server_tool_use.web_search_requests; a zero is no request."""
        tools = {"web_search_requests": 2, "web_fetch_requests": 0, "code_execution_requests": 1}
        reading = read_plain(message(input_tokens=10, output_tokens=5, server_tool_use=tools))
        assert reading.usage == Usage(input=10, output=5, requests={"web_search": 2, "code_execution": 1})

    def test_tier_and_region_are_those_of_the_answer(self) -> None:
        """32: service_tier and inference_geo; `not_available` is no region."""
        reading = read_plain(message(input_tokens=1, output_tokens=1, service_tier="priority", inference_geo="us"))
        assert (reading.service_tier, reading.region) == ("priority", "us")
        reading = read_plain(message(input_tokens=1, output_tokens=1, inference_geo="not_available"))
        assert (reading.service_tier, reading.region) == (None, None)

    def test_compaction_is_used_too(self) -> None:
        """11: the top level says 229/5; with the compaction it is 329/136 and 55,096 written to the cache."""
        iterations = [
            {
                "type": "compaction",
                "input_tokens": 100,
                "output_tokens": 131,
                "cache_creation_input_tokens": 55096,
                "cache_creation": {"ephemeral_5m_input_tokens": 55096, "ephemeral_1h_input_tokens": 0},
            },
            {"type": "message", "input_tokens": 229, "output_tokens": 5},
        ]
        reading = read_plain(message(input_tokens=229, output_tokens=5, iterations=iterations))
        assert reading.usage == Usage(input=329, cache_write=55096, output=136)
        assert reading.parts == []

    def test_an_advisor_is_billed_as_the_model_it_is(self) -> None:
        """11: an advisor of another, dearer model works under the answer of this one."""
        iterations = [
            {"type": "message", "input_tokens": 1128, "output_tokens": 110},
            {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2518, "output_tokens": 22},
            {"type": "message", "input_tokens": 1262, "output_tokens": 11},
        ]
        reading = read_plain(
            message(
                input_tokens=2390,
                output_tokens=121,
                output_tokens_details={"thinking_tokens": 28},
                server_tool_use={"web_search_requests": 1},
                iterations=iterations,
            )
        )
        own = Usage(input=2390, output=121, reasoning=28, requests={"web_search": 1})
        advisor = Usage(input=2518, output=22)
        assert reading.parts == [
            Part(model="claude-sonnet-5", usage=own),
            Part(model="claude-opus-4-8", usage=advisor),
        ]
        assert reading.usage == own + advisor

    def test_iterations_that_tell_less_than_the_top_are_not_the_whole_list(self) -> None:
        reading = read_plain(
            message(input_tokens=50, output_tokens=20, iterations=[{"type": "message", "output_tokens": 7}])
        )
        assert reading.usage == Usage(input=50, output=20)

    @pytest.mark.parametrize("usage", [None, {}, [], "x", {"service_tier": "standard"}])
    def test_an_answer_that_counts_nothing_has_no_usage(self, usage: Any) -> None:
        assert read_plain({**message(), "usage": usage}).usage is None

    @pytest.mark.parametrize("number", [-5, "x", None, 1e99, True, [1], 10**30])
    def test_a_count_that_is_none_is_zero(self, number: Any) -> None:
        assert read_plain(message(input_tokens=number, output_tokens=3)).usage == Usage(output=3)

    def test_counting_tokens_is_no_usage(self) -> None:
        """33: `{"input_tokens": n}` is shaped like usage and is none."""
        assert read_plain({"input_tokens": 588}).usage is None

    def test_an_error_body_names_its_type(self) -> None:
        """42: `{"type": "error", "error": {...}}`."""
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"}
        reading = read_plain(error)
        assert (reading.error, reading.usage) == ("overloaded_error", None)

    def test_a_completion_of_old_reports_no_usage(self) -> None:
        """22: `/v1/complete` tells the text and why it ended."""
        reading = read_plain(
            {
                "type": "completion",
                "id": "compl_1",
                "completion": " Hello!",
                "stop_reason": "stop_sequence",
                "model": "c",
            }
        )
        assert reading.usage is None
        assert (reading.seen_bytes, reading.finish_reasons, reading.complete) == (7, ["stop_sequence"], True)


class TestStreams:
    def test_the_delta_wins_and_the_start_fills_what_it_leaves_out(self) -> None:
        """9: a delta of old tells the output only."""
        reading = read_events(
            start(input_tokens=4, cache_read_input_tokens=1165, output_tokens=1, service_tier="standard"),
            {"type": "ping"},
            text_delta("Grüße"),
            delta(output_tokens=221),
            STOP,
        )
        assert reading.usage == Usage(input=4, cached_input=1165, output=221)
        assert reading.service_tier == "standard"
        assert reading.seen_bytes == len("Grüße".encode())
        assert reading.finish_reasons == ["end_turn"]
        assert reading.complete

    def test_with_server_tools_the_delta_tells_more_input_than_the_start(self) -> None:
        """10: input 2,039 -> 10,423, cache read 0 -> 6,289, written 3,068 -> 3,337."""
        split = {"ephemeral_5m_input_tokens": 3068, "ephemeral_1h_input_tokens": 0}
        reading = read_events(
            start(input_tokens=2039, cache_creation_input_tokens=3068, cache_creation=split, output_tokens=1),
            delta(
                input_tokens=10423,
                cache_creation_input_tokens=3337,
                cache_read_input_tokens=6289,
                output_tokens=341,
                server_tool_use={"web_search_requests": 1},
            ),
            STOP,
        )
        assert reading.usage == Usage(
            input=10423, cached_input=6289, cache_write=3337, output=341, requests={"web_search": 1}
        )

    def test_input_told_only_at_the_end_counts(self) -> None:
        """After C: input tokens only in `message_delta`; a null hides nothing."""
        reading = read_events(start(), delta(input_tokens=61, output_tokens=2), STOP)
        assert reading.usage == Usage(input=61, output=2)
        reading = read_events(start(input_tokens=61, output_tokens=1), delta(input_tokens=None, output_tokens=2), STOP)
        assert reading.usage == Usage(input=61, output=2)

    def test_a_second_start_of_the_same_message_is_not_added(self) -> None:
        """After C: `message_start` sent twice."""
        reading = read_events(
            start(input_tokens=17, output_tokens=1),
            start(input_tokens=17, output_tokens=1),
            delta(output_tokens=227),
            STOP,
        )
        assert reading.usage == Usage(input=17, output=227)

    def test_a_start_of_another_message_in_the_middle_of_one_takes_its_place(self) -> None:
        """After C: `message_start` of another message spliced in, here even under another event's name."""
        reader = anthropic.MessageReader(Call(stream=True))
        for name, event in (
            ("message_start", start(message_id="msg_1", input_tokens=10, output_tokens=1)),
            ("content_block_delta", text_delta("first")),
            ("content_block_delta", start(message_id="msg_2", input_tokens=20, output_tokens=1)),
            ("content_block_delta", text_delta("second")),
            ("message_delta", delta(output_tokens=30)),
            ("message_stop", STOP),
        ):
            reader.event(name, json.dumps(event).encode())
        assert reader.reading.usage == Usage(input=20, output=30)
        assert reader.reading.upstream_call_id == "msg_2"
        assert reader.reading.complete

    def test_a_message_after_one_that_has_stopped_is_a_new_answer(self) -> None:
        reading = read_events(
            start(input_tokens=699, output_tokens=5),
            delta("tool_use", input_tokens=1630, output_tokens=158, server_tool_use={"web_search_requests": 1}),
            STOP,
            start(message_id="msg_2", input_tokens=1040, output_tokens=1),
        )
        assert reading.usage == Usage(input=1040, output=1)
        assert not reading.complete

    def test_padding_after_the_data_changes_nothing(self) -> None:
        """38: `}          }` and blanks at the end of data lines."""
        events = (start(input_tokens=3, output_tokens=1), text_delta("Hi"), delta(output_tokens=4), STOP)
        assert read_events(*events, padding=" " * 20) == read_events(*events)

    def test_events_without_a_name_are_read_by_their_type(self) -> None:
        events = (start(input_tokens=3, output_tokens=1), text_delta("Hi"), delta(output_tokens=4), STOP)
        assert read_events(*events, names=False) == read_events(*events)

    def test_tool_arguments_and_thoughts_are_seen(self) -> None:
        block = {"type": "content_block_delta", "index": 1}
        reading = read_events(
            start(model="claude-3-7-sonnet-20250219", input_tokens=3, output_tokens=1),
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {**block, "delta": {"type": "thinking_delta", "thinking": "hmm"}},
            {**block, "delta": {"type": "signature_delta", "signature": "c2ln"}},
            {**block, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
            {**block, "delta": {"type": "text_delta", "text": None}},
        )
        assert reading.seen_bytes == 3 + 7
        assert not reading.hidden_reasoning
        assert not reading.complete

    @pytest.mark.parametrize(
        "block", [{"type": "redacted_thinking", "data": "x"}, {"type": "thinking", "thinking": "", "signature": ""}]
    )
    def test_reasoning_out_of_sight_is_told(self, block: dict[str, Any]) -> None:
        reading = read_events(
            start(input_tokens=3, output_tokens=1), {"type": "content_block_start", "content_block": block}
        )
        assert reading.hidden_reasoning

    def test_an_error_in_the_stream_is_an_error_and_no_end(self) -> None:
        """41: `overloaded_error` under status 200; what was counted so far stays."""
        reading = read_events(
            start(input_tokens=9, output_tokens=1),
            text_delta("Hel"),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        )
        assert reading.error == "overloaded_error"
        assert reading.usage == Usage(input=9, output=1)
        assert (reading.complete, reading.seen_bytes) == (False, 3)

    def test_a_fallback_passes_the_message_to_another_model(self) -> None:
        reading = read_events(
            start(model="claude-fable-5", input_tokens=10, output_tokens=0),
            {
                "type": "content_block_start",
                "content_block": {
                    "type": "fallback",
                    "from": {"model": "claude-fable-5"},
                    "to": {"model": "claude-opus-5"},
                },
            },
            delta(
                output_tokens=70,
                iterations=[
                    {"type": "message", "model": "claude-fable-5", "input_tokens": 10, "output_tokens": 40},
                    {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 12, "output_tokens": 30},
                ],
            ),
            STOP,
        )
        assert reading.model == "claude-opus-5"
        assert {part.model: part.usage for part in reading.parts} == {
            "claude-fable-5": Usage(input=10, output=40),
            "claude-opus-5": Usage(input=12, output=30),
        }
        assert reading.usage == Usage(input=22, output=70)

    def test_a_streamed_completion_of_old_is_read(self) -> None:
        """22, 35: events named `completion`, padded, without usage."""
        event = {
            "type": "completion",
            "id": "compl_1",
            "model": "claude-2.1",
            "completion": " Light",
            "stop_reason": None,
        }
        reading = read_events(event, {"type": "ping"}, {**event, "completion": "", "stop_reason": "stop_sequence"})
        assert (reading.usage, reading.model, reading.seen_bytes) == (None, "claude-2.1", 6)
        assert reading.complete

    def test_a_stream_reads_the_same_wherever_it_is_cut(self) -> None:
        """C: padded data lines, a comment, pings and Unicode, by way of the meter that the relay uses."""
        events = (
            start(input_tokens=4, cache_read_input_tokens=11, output_tokens=1),
            {"type": "ping"},
            text_delta("Grüße 日本"),
            delta(output_tokens=221),
            STOP,
        )
        body = b": hello\n\n" + b"".join(
            b"event: %s\ndata: %s      \n\n" % (event["type"].encode(), json.dumps(event, ensure_ascii=False).encode())
            for event in events
        )
        call = wire.read_call(
            method="POST",
            path="/v1/messages",
            query="beta=true",
            headers={"content-type": "application/json"},
            body=b'{"model": "claude-sonnet-5", "stream": true, "messages": []}',
            dialect="anthropic",
            provider="anthropic",
        )
        for cut in range(len(body)):
            meter = wire.open_meter(
                call, provider="anthropic", status=200, content_type="text/event-stream", content_encoding=""
            )
            meter.feed(body[:cut])
            meter.feed(body[cut:])
            reading = meter.close()
            assert reading.usage == Usage(input=4, cached_input=11, output=221)
            assert (reading.seen_bytes, reading.complete) == (len("Grüße 日本".encode()), True)


FIELDS = [
    *("type", "message", "delta", "usage", "input_tokens", "output_tokens", "iterations", "model"),
    *("error", "content_block", "content", "cache_creation", "server_tool_use", "a_requests"),
    *("text", "input", "stop_reason"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
KINDS = ["message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta", "error", "x"]


class TestAnything:
    @given(st.lists(st.tuples(st.sampled_from(KINDS), JSON), max_size=5))
    def test_no_event_makes_the_reader_raise(self, events: list[tuple[str, Any]]) -> None:
        reader = anthropic.MessageReader(Call())
        for kind, document in events:
            if isinstance(document, dict):
                document = {"type": kind, **document}
            reader.event(kind, json.dumps(document).encode())
        assert reader.reading.usage is None or reader.reading.usage.tokens >= 0

    @given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_no_body_makes_the_reader_raise(self, body: bytes) -> None:
        anthropic.MessageReader(Call()).answer(body)
        anthropic.MessageReader(Call()).event("content_block_delta", body)

    @given(st.dictionaries(st.sampled_from(["model", "metadata", "messages", "stream", "max_tokens", "speed"]), JSON))
    def test_a_body_is_read_or_refused_and_nothing_else(self, body: dict[str, Any]) -> None:
        try:
            read("/v1/messages", body)
        except BodyInvalid:
            assert not isinstance(body.get("model"), str) or not body["model"]

    def test_deep_nesting_is_survived(self) -> None:
        anthropic.MessageReader(Call()).answer(b"[" * 100_000)


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("budget_spent", "billing_error"),
            ("upstream_timeout", "timeout_error"),
            ("upstream_unreachable", "api_error"),
            ("budget_held", "rate_limit_error"),
            ("anything", "api_error"),
        ],
    )
    def test_a_broken_stream_ends_with_an_error_event(self, code: str, kind: str) -> None:
        end = anthropic.end_of_stream(Call(stream=True), code, "It \u201cbroke\u201d.\nSorry")
        assert end.startswith(b"\n\nevent: error\ndata: ")
        assert end.endswith(b"\n\n")
        data = json.loads(end.split(b"data: ", 1)[1])
        assert data["type"] == "error"
        assert data["error"]["type"] == kind
        assert data["error"]["message"] == "It \u201cbroke\u201d.\nSorry"
        assert data["error"]["details"] == {"error_code": code}

    def test_a_plain_answer_has_no_such_end(self) -> None:
        assert anthropic.end_of_stream(Call(stream=False), "upstream_timeout", "x") == b""
