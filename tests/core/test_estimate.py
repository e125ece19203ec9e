"""What a call used that nobody reported."""

from __future__ import annotations

from proxy.core.call import Call
from proxy.core.estimate import Estimator
from proxy.core.usage import Usage

CALL = Call(api="openai.chat", model="m", body_bytes=3_000, stream=True)


def cut(
    estimator: Estimator, *, seen: Usage | None = None, seen_bytes: int = 0, answer_s: float = 0, hidden: bool = False
) -> Usage:
    return estimator.cut("openai", CALL, seen, seen_bytes=seen_bytes, answer_s=answer_s, hidden=hidden)


def test_the_input_of_a_cut_call_is_counted_in_full() -> None:
    assert cut(Estimator()).input == 1_000


def test_the_input_that_the_provider_reported_stands() -> None:
    usage = cut(Estimator(), seen=Usage(input=700, cached_input=50, output=1))
    assert (usage.input, usage.cached_input) == (700, 50)


def test_the_output_is_never_below_what_was_seen() -> None:
    assert cut(Estimator(), seen_bytes=401).output >= 100
    assert cut(Estimator(), seen=Usage(input=1, output=90), seen_bytes=4).output == 90


def test_a_model_that_reasons_unseen_is_charged_for_the_time_it_had() -> None:
    assert cut(Estimator(), answer_s=10, hidden=True).output == 500
    assert cut(Estimator(), answer_s=10).output == 0


def test_hidden_reasoning_is_bounded_by_the_limit_of_the_call() -> None:
    limited = Call(api="openai.chat", model="m", body_bytes=30, max_output_tokens=100)
    usage = Estimator().cut("openai", limited, None, seen_bytes=0, answer_s=60, hidden=True)
    assert usage.output == 100


def test_speed_is_learned_from_long_answers_alone_and_within_reason() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.learn("openai", CALL, Usage(input=1_000, output=5), seen_bytes=20, answer_s=0.001)
    assert cut(estimator, answer_s=1, hidden=True).output == 50
    for _ in range(100):
        estimator.learn("openai", CALL, Usage(input=1_000, output=9_000), seen_bytes=36_000, answer_s=1)
    assert 450 < cut(estimator, answer_s=1, hidden=True).output <= 500


def test_the_bytes_of_a_token_are_learned_for_each_model() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.learn("openai", CALL, Usage(input=500, output=100), seen_bytes=200, answer_s=0)
    assert 490 < cut(estimator).input < 510
    assert cut(estimator, seen_bytes=200).output > 90
