from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.normal_text import END_BYTES, normal_text

COPIES = [
    ("fix the login  page", "Fix\tthe login\r\n page"),
    ("run 550e8400-e29b-41d4-a716-446655440000 now", "run 123e4567-e89b-12d3-a456-426614174000 now"),
    ("at 2026-11-28T15:02:35Z do it", "at 2025-01-02T03:04:05.678Z do it"),
    ("at 15:02:35 do it", "at 03:04 do it"),
    ("today is 28/11/2026 and raining", "today is 1/2/25 and raining"),
    ("today is Sat 28 Nov 2026 and raining", "today is Mon 2 March 2025 and raining"),
    ("today is November 28, 2026 and raining", "today is January 1st, 2027 and raining"),
    ("commit deadbeef12 broke it", "commit 0badc0ffee broke it"),
    ("epoch 1764342155 passed", "epoch 1764342999 passed"),
    ("request-1764342155 passed", "request-1764342999 passed"),
    ("call_9aXbT31kLq0 failed", "call_8bQw12ZZy77 failed"),
    ("run-00012 of them", "run-00013 of them"),
    ("attempt 3 at the same", "attempt 4 at the same"),
    ("nonce: qwzrt do it", "nonce: plkmn do it"),
    ("read /tmp/tmpab12/x.py then", "read /tmp/tmpzz99/y.py then"),
    ("read /var/folders/a/b1/T/x then", "read /var/folders/c/d2/T/y then"),
    ("fix \u200bit\ufeff now", "fix it now"),
    ('{"a": 1, "b": [2]}', '{"a":1,"b":[2]}'),
]
OTHERS = [
    ("fix item 17", "fix item 18"),
    ("fix PAY-48213", "fix PAY-48214"),
    ("close #104711, please", "close #104712, please"),
    ("add the tests", "remove the tests"),
    ("sum 2 and 2", "sum 2 and 3"),
    ("use python 3.11", "use python 3.12"),
    ("open port 8080", "open port 8081"),
    ("rename utf8_decode", "rename utf16_decode"),
    ("edit /home/ada/x.py", "edit /home/ada/y.py"),
    ("step 3 of the plan", "step 4 of the plan"),
    ("you may go", "you might go"),
    ("grüße an alle", "grüsse an alle"),
]


@pytest.mark.parametrize(("one", "other"), COPIES)
def test_what_changes_by_chance_is_taken_out(one: str, other: str) -> None:
    assert normal_text(one) == normal_text(other)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_what_says_something_is_kept(one: str, other: str) -> None:
    assert normal_text(one) != normal_text(other)


def test_tables_of_other_short_numbers_under_one_heading_differ() -> None:
    def report(start: int) -> str:
        rows = "\n".join(f"row {number % 90} is {(number + start) % 97}" for number in range(2000))
        return f"Summarise this table:\n{rows}\nIn one sentence."

    assert normal_text(report(0)) == normal_text(report(0))
    assert normal_text(report(0)) != normal_text(report(1))


def test_a_mark_before_or_behind_a_long_text_makes_no_other() -> None:
    text = "\n".join(f"line with words {number % 50} and more" for number in range(2000))
    marked = f"[7f3a9c21-8d44-4e0b-9a51-2f6f0c1d2e3f]\n{text}\n2026-11-28 15:02:35"
    assert len(text) > 2 * END_BYTES
    assert normal_text(f"[0]\n{text}\n1") != normal_text(text)
    longer = f"[7f3a9c21-8d44-4e0b-9a51-2f6f0c1d2e3f 1764342155]\n{text}\n2026-11-29"
    assert normal_text(marked) == normal_text(longer)


@given(st.text(max_size=200))
def test_any_text_is_taken_and_spacing_never_counts(text: str) -> None:
    assert normal_text(text) == normal_text(f" \n{text}\t ")


@given(st.text(st.characters(codec="ascii"), max_size=100))
def test_what_is_normal_stays_so(text: str) -> None:
    once = normal_text(text)
    assert set(normal_text(once.decode()).split()) <= set(once.split())
