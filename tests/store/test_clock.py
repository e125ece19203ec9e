from __future__ import annotations

from proxy.store.clock import StoreClock


class Watch:
    """This machine's clock, as the test sets it."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def __call__(self) -> int:
        return self.at_ms


def test_the_first_reply_puts_a_clock_right_that_is_minutes_off() -> None:
    watch = Watch()
    clock = StoreClock(watch)
    clock.learn(1_300_000, sent_ms=1_000_000)
    assert clock.now_ms() == 1_300_000


def test_a_slow_reply_does_not_shake_what_is_known() -> None:
    watch = Watch()
    clock = StoreClock(watch)
    clock.learn(1_300_000, sent_ms=1_000_000)
    watch.at_ms = 1_000_200
    for told_ms in (1_300_000, 1_300_100, 1_300_200):
        clock.learn(told_ms, sent_ms=1_000_000)
        assert clock.offset_ms == 300_000


def test_the_offset_moves_no_further_than_a_reply_proves() -> None:
    watch = Watch()
    clock = StoreClock(watch)
    watch.at_ms = 1_000_010
    clock.learn(1_000_050, sent_ms=1_000_000)
    assert clock.offset_ms == 40
    clock.learn(1_000_020, sent_ms=1_000_000)
    assert clock.offset_ms == 20
