"""The memory of duplicate rules."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.duplicates import RETRIES_MAX, Mark
from proxy.core.twins import ITEMS_MAX, Looked, Seen, Twins, rounds_at_end
from tests.support.budgets import NOON_MS
from tests.support.duplicates import call_id, mark

ADA = {"user": "ada", "task": "PAY-7"}


class Many:
    """Calls one after the other, each with an id of its own."""

    def __init__(self) -> None:
        self.twins = Twins()
        self.number = 0

    def call(self, *marks: Mark, result: str = "ok", at_ms: int = NOON_MS, **options: Any) -> Looked:
        """One call from beginning to end; `result` "" leaves it running."""
        self.number += 1
        looked = self.twins.reserve(call_id(self.number, at_ms=at_ms), marks, **(ADA | options))
        if result:
            self.twins.settle(call_id(self.number, at_ms=at_ms), kept=result == "ok")
        return looked

    def admitted(self, *marks: Mark, **options: Any) -> bool:
        return self.call(*marks, **options).admitted


def test_as_many_as_the_limit_pass_and_the_next_one_is_refused() -> None:
    many, same = Many(), mark(limit=3, refuses=True)
    assert [many.admitted(same) for _ in range(5)] == [True, True, True, False, False]
    looked = many.call(same)
    assert (looked.blocked, looked.seen) == ([0], [Seen(3, call_id(1), "ada", "PAY-7")])


def test_other_fingerprints_and_other_memories_do_not_count() -> None:
    many, same = Many(), mark(refuses=True)
    assert many.admitted(same)
    assert many.admitted(mark(fingerprint=b"g" * 12, refuses=True))
    assert many.admitted(mark(counter="other___________", refuses=True))
    assert not many.admitted(same)


def test_running_calls_count_as_well() -> None:
    many, same = Many(), mark(refuses=True)
    assert many.admitted(same, result="")
    assert not many.admitted(same)


@pytest.mark.parametrize("result", ["failed", "refused", "client_gone", "lost"])
def test_a_repeat_of_a_call_that_came_to_nothing_is_no_duplicate(result: str) -> None:
    many, same = Many(), mark(refuses=True)
    assert [many.admitted(same, result=result) for _ in range(3)] == [True] * 3


def test_a_refused_call_leaves_nothing() -> None:
    many, same, other = Many(), mark(refuses=True), mark("normalized", limit=2, refuses=True)
    assert many.admitted(same, other)
    assert not many.admitted(same, other)
    assert many.call(other).seen[0].count == 1


def test_what_is_older_than_the_window_is_forgotten() -> None:
    many = Many()
    assert many.admitted(mark(refuses=True), at_ms=NOON_MS - 700_000)
    assert many.admitted(mark(refuses=True))


def test_a_call_is_found_in_the_place_before_and_moves_on_with_its_twins() -> None:
    many = Many()
    many.call(mark(places=("10.1", "10.0")))
    assert many.call(mark(places=("10.2", "10.1"), limit=5)).seen[0].count == 1
    assert many.call(mark(places=("10.3", "10.2"), limit=5)).seen[0].count == 2


def test_many_twins_are_remembered_by_the_first_and_the_newest() -> None:
    many = Many()
    for _ in range(ITEMS_MAX + 5):
        looked = many.call(mark(limit=1000))
    assert looked.seen == [Seen(ITEMS_MAX, call_id(1), "ada", "PAY-7")]


# -- retries ----------------------------------------------------------------------------------------------------------


def test_retries_that_an_sdk_counts_are_one_call() -> None:
    many = Many()
    counted = [many.admitted(mark(refuses=True, attempt=attempt)) for attempt in (0, 1, 2)]
    assert counted == [True, True, True]
    assert not many.admitted(mark(refuses=True))


def test_the_same_attempt_twice_is_two_calls() -> None:
    many = Many()
    assert many.admitted(mark(refuses=True, attempt=1))
    assert not many.admitted(mark(refuses=True, attempt=1))


def test_nobody_repeats_without_end_by_calling_it_a_retry() -> None:
    many = Many()
    counted = [many.admitted(mark(refuses=True, attempt=attempt)) for attempt in range(3 * RETRIES_MAX)]
    assert sum(counted) == RETRIES_MAX + 1
    many = Many()
    named = [many.admitted(mark(refuses=True, token=b"turn-1.")) for _ in range(3 * RETRIES_MAX)]
    assert sum(named) == RETRIES_MAX + 1


def test_calls_of_another_turn_are_no_retries() -> None:
    many = Many()
    assert many.admitted(mark(refuses=True, token=b"turn-1."))
    assert many.admitted(mark(refuses=True, token=b"turn-1."))
    assert not many.admitted(mark(refuses=True, token=b"turn-2."))


# -- loops ------------------------------------------------------------------------------------------------------------


def step(name: bytes, **fields: Any) -> Mark:
    return mark("loop", fingerprint=name * 8, **({"limit": 3, "refuses": True, "stops": True, "rounds": 1} | fields))


def test_equal_steps_in_a_row_are_a_loop_also_in_new_conversations() -> None:
    many = Many()
    assert [many.admitted(step(b"a")) for _ in range(5)] == [True, True, True, False, False]
    assert many.call(step(b"a")).seen == [Seen(3, call_id(1))]


def test_other_steps_between_end_a_loop() -> None:
    many = Many()
    assert all(many.admitted(step(name)) for name in (b"a", b"a", b"a", b"b", b"a", b"a", b"a"))


def test_a_cycle_of_four_is_a_loop() -> None:
    many = Many()
    admitted = [many.admitted(step(name)) for name in (b"a", b"b", b"c", b"d") * 4]
    assert admitted == [True] * 15 + [False]


@pytest.mark.parametrize("cycle", ["ab", "abc", "abcd", "aab"])
def test_a_cycle_stays_refused_until_another_step_comes(cycle: str) -> None:
    """Refused steps leave nothing, but the cycle that they belong to is not over with them."""
    many = Many()

    def admitted(steps: str) -> list[bool]:
        return [many.admitted(step(name.encode())) for name in steps]

    assert admitted(cycle * 6) == [True] * (len(cycle) * 4 - 1) + [False] * (len(cycle) * 2 + 1)
    assert admitted("x" + cycle * 4) == [True] * (len(cycle) * 4) + [False]


def test_a_refused_cycle_tells_how_often_it_was_there_also_of_the_steps_after() -> None:
    many = Many()
    seen = [many.call(step(name, limit=2)).seen[0].count for name in (b"a", b"b") * 4]
    assert seen == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_cycle_is_stopped_no_longer_than_its_limit_wants() -> None:
    many = Many()
    assert [many.admitted(step(name, limit=1)) for name in (b"a", b"b", b"a", b"b", b"a")] == [True] * 3 + [False] * 2
    assert many.admitted(step(b"a", limit=2))


def test_a_cycle_is_stopped_no_longer_than_its_calls_hold() -> None:
    many = Many()
    assert many.admitted(step(b"a", limit=1))
    assert many.admitted(step(b"b", limit=1))
    assert many.call(step(b"a", limit=1), result="").admitted
    assert not many.admitted(step(b"b", limit=1))
    many.twins.settle(call_id(3), kept=False)
    assert many.admitted(step(b"a", limit=1))


def test_a_call_that_fails_outside_the_cycle_does_not_free_it() -> None:
    many = Many()
    assert many.call(step(b"x", limit=1), result="").admitted
    assert [many.admitted(step(name, limit=1)) for name in (b"a", b"b", b"a", b"b")] == [True] * 3 + [False]
    many.twins.settle(call_id(1), kept=False)
    assert not many.admitted(step(b"a", limit=1))


def test_a_failed_step_outside_does_not_free_a_cycle() -> None:
    many = Many()
    assert [many.admitted(step(name, limit=1)) for name in (b"a", b"b", b"a", b"b")] == [True] * 3 + [False]
    assert many.call(step(b"x", limit=1), result="failed").admitted
    assert [many.admitted(step(name, limit=1)) for name in (b"a", b"b")] == [False] * 2
    assert many.admitted(step(b"x", limit=1))
    assert many.admitted(step(b"a", limit=1))


def test_a_cycle_that_passes_again_is_counted_on() -> None:
    many = Many()
    assert [many.admitted(step(name, limit=2)) for name in (b"a", b"b", b"a", b"b")] == [True] * 4
    assert many.call(step(b"a", limit=2), result="").admitted
    assert not many.admitted(step(b"b", limit=2))
    many.twins.settle(call_id(5), kept=False)
    assert [many.admitted(step(name, limit=2)) for name in (b"a", b"b", b"a")] == [True, False, False]


def test_a_retry_of_a_step_that_passed_is_not_stopped() -> None:
    many = Many()
    assert [many.admitted(step(name, limit=2)) for name in (b"a", b"b", b"a", b"b", b"a", b"b")][-2:] == [True, False]
    assert many.admitted(step(b"a", limit=2, attempt=1))
    assert not many.admitted(step(b"b", limit=2))


def test_a_retry_may_find_nothing_but_a_stop() -> None:
    many = Many()
    for name in (b"a", b"b", b"a"):
        assert many.call(step(name, limit=1), result="").admitted
    assert not many.admitted(step(b"b", limit=1))
    for number in (1, 2, 3):
        many.twins.settle(call_id(number), kept=False)
    assert many.admitted(step(b"a", limit=1, attempt=1))


def test_a_cycle_is_stopped_no_longer_than_its_steps_are_in_the_window() -> None:
    many = Many()

    def admitted(name: bytes, minute: float) -> bool:
        at_ms = NOON_MS + int(minute * 60_000)
        return many.admitted(step(name, limit=2, length_ms=600_000), at_ms=at_ms)

    assert [admitted(name, minute) for minute, name in enumerate((b"a", b"b", b"a", b"b", b"a", b"b"))][-2:] == [
        True,
        False,
    ]
    assert not admitted(b"a", 9.5)
    assert admitted(b"b", 10.5), "the first step is out of the window: two rounds are left, and this one"


def test_steps_of_a_user_without_a_task_are_no_cycle_of_one_agent() -> None:
    """A stop would refuse the first step of whatever else that user does."""
    many = Many()
    limited = {"limit": 2, "stops": False}
    assert [many.admitted(step(name, **limited)) for name in (b"a", b"b") * 3] == [True] * 5 + [False]
    assert many.admitted(step(b"a", **limited))


def test_enough_steps_are_kept_for_the_longest_cycle() -> None:
    many = Many()
    admitted = [many.admitted(step(bytes([place]), limit=20)) for place in (1, 2, 3, 4) * 22]
    assert admitted == [True] * 83 + [False] * 5


def test_the_rounds_of_the_conversation_itself_count() -> None:
    looked = Many().call(step(b"a", rounds=4))
    assert (looked.admitted, looked.seen) == (False, [Seen(3)])


def test_failed_calls_and_counted_retries_make_no_loop() -> None:
    many = Many()
    assert all(many.admitted(step(b"a"), result="failed") for _ in range(6))
    assert all(many.admitted(step(b"a", attempt=attempt)) for attempt in (0, 1, 2, 1, 2, 1))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("", (0, 1)),
        ("a", (1, 1)),
        ("ab", (1, 1)),
        ("aab", (1, 1)),
        ("baaa", (3, 1)),
        ("abab", (2, 2)),
        ("aaaa", (4, 1)),
        ("xabcabc", (2, 3)),
        ("abcde" * 2, (1, 1)),
    ],
)
def test_rounds_at_the_end(steps: str, expected: tuple[int, int]) -> None:
    assert rounds_at_end([name.encode() for name in steps]) == expected


# -- tasks and likeness -----------------------------------------------------------------------------------------------


def work(task: bytes, **fields: Any) -> Mark:
    return mark("task", token=task * 7, refuses=True, **fields)


def test_another_task_that_was_asked_the_same_is_a_twin_and_its_own_calls_are_not() -> None:
    many = Many()
    assert all(many.admitted(work(b"a")) for _ in range(4))
    assert many.call(work(b"b")).seen == [Seen(1, call_id(1), "ada", "PAY-7")]
    assert many.admitted(work(b"a"))


def test_as_many_tasks_as_the_limit_may_be_the_same_and_go_on() -> None:
    many = Many()
    assert [many.admitted(work(name, limit=2)) for name in (b"a", b"b", b"c", b"b", b"c")] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_like_calls_are_counted() -> None:
    many = Many()
    sketch = (0b1111).to_bytes(8)
    near, far = (0b1100).to_bytes(8), (2**60 - 1).to_bytes(8)
    many.call(mark("similar", fingerprint=sketch))
    assert many.call(mark("similar", fingerprint=near)).seen == [Seen(1, call_id(1))]
    assert many.call(mark("similar", fingerprint=far)).seen == [Seen()]


# -- answers ----------------------------------------------------------------------------------------------------------


def lent(how: Any, **fields: Any) -> Mark:
    return mark(lends=how, answer="n1", **fields)


def test_a_call_is_answered_from_its_twin_once_that_has_an_answer() -> None:
    many = Many()
    assert many.admitted(lent("replay"), result="")
    assert many.admitted(lent("replay")), "none is there yet"
    many.twins.settle(call_id(1), kept=True, answered_ms=NOON_MS + 5)
    assert many.call(lent("replay")).replays == call_id(1)


def test_a_call_waits_for_its_running_twin_and_then_has_its_answer() -> None:
    many = Many()
    assert many.admitted(lent("join"), result="")
    assert many.call(lent("join"), result="").joins == call_id(1)
    many.twins.settle(call_id(1), kept=True, answered_ms=NOON_MS + 5)
    assert many.call(lent("join"), result="", waiting_since_ms=NOON_MS).replays == call_id(1)
    assert many.admitted(lent("join")), "one that has just come and finds none running goes upstream"


@pytest.mark.parametrize("kept", [True, False])
def test_when_the_one_that_runs_comes_to_nothing_the_next_one_goes_upstream(kept: bool) -> None:
    many = Many()
    assert many.admitted(lent("join"), result="")
    many.twins.settle(call_id(1), kept=kept)
    assert many.admitted(lent("join"), result="", waiting_since_ms=NOON_MS)
    assert not kept or many.call(lent("join"), waiting_since_ms=NOON_MS).joins == call_id(2)
