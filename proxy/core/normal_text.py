"""Normal text: what is left of a text when everything is taken out that two copies of it may differ in by chance: ids,
times, dates, hashes, counters, temporary paths, spacing. Short numbers stay, and the keys of tickets: `item 17` is not
`item 18`, nor `PAY-4711` the same work as `PAY-4712`.

Only the beginning and the end are looked at word by word, where such marks are put; the midst of a long text counts
byte by byte, so that two different tables under one heading never look alike.
"""

from __future__ import annotations

import re

END_BYTES = 4096
"""So much at the beginning, and at the end, is read word by word."""

WORDS_REMEMBERED = 16_384
"""Words whose verdict is remembered; emptied when full. A conversation repeats its own."""

LONG_NUMBER_DIGITS = 5
"""A number of so many digits counts, stamps or names; shorter ones say something."""

_SPACES = b" \t\n\r\v\f\x00\"'`(),;[]{}<>=|*!?\\"
_TABLE = bytes.maketrans(
    bytes(range(ord("A"), ord("Z") + 1)) + _SPACES,
    bytes(range(ord("a"), ord("z") + 1)) + b" " * len(_SPACES),
)
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]|[\U000e0000-\U000e007f]")
"""Characters that nobody sees."""

_VOLATILE = re.compile(
    rb"""
      \d{5,}                                                    # counters and epochs
    | \d{4}[-/.]\d{1,2}[-/.]\d{1,2} | \d{1,2}[/.]\d{1,2}[/.]\d{2,4}   # dates
    | \d{1,2}:\d{2}                                             # times
    | (?<![0-9a-z])(?=[0-9a-f]*[a-f])[0-9a-f]{7,}(?![0-9a-z])   # hashes, pieces of UUIDs
    | (?<![0-9a-z])(?=[0-9a-z]{10})(?:[a-z]*\d+[a-z]+){2,}      # ids of mixed letters and digits
    | (?<![0-9a-z])(?=[0-9a-z]{10})(?:\d*[a-z]+\d+){2,}
    | (?<![0-9a-z])0\d{2,}                                      # counters with zeros before them
    """,
    re.VERBOSE,
)
_TICKET = re.compile(rb"(?:[a-z][a-z0-9]{1,9}-|#)[1-9][0-9]{0,5}")
"""`PAY-4711`, `#48213`: it names one piece of work among others that are asked for in the same words."""
_DIGIT = re.compile(rb"[0-9]")
_TEMPORARY = re.compile(rb"(?:^|[:@])(?:/private)?/(?:tmp|var/tmp|var/folders|dev/shm)/|/temp/|/tmp[._-]?[0-9a-z]{6,}")
_MONTHS = frozenset(
    b"jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august september "
    b"october november december".split()
)
_DAYS = frozenset(
    b"mon tue wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday am pm utc gmt".split()
)
_COUNTED = frozenset(b"attempt iteration retry trial counter seq sequence".split())
"""A number after one of these counts repeats."""
_NAMED = frozenset(
    b"nonce uuid guid salt request-id request_id trace-id trace_id session-id session_id run-id run_id".split()
)
"""Whatever word follows one of these is an id."""
_LEADING = _MONTHS | _COUNTED | _NAMED


def normal_text(text: str) -> bytes:
    """The text without what changes by chance. Two texts with the same result say the same."""
    if not text.isascii():
        text = _HIDDEN.sub("", text)
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= 2 * END_BYTES:
        return _normal_words(data)
    # Cut at the end of a line or a word, so that a mark of another length does not shift the midst.
    start = _cut_after(data, END_BYTES)
    end = max(start, _cut_after(data, len(data) - END_BYTES))
    return b"\n".join((_normal_words(data[:start]), data[start:end], _normal_words(data[end:])))


def _cut_after(data: bytes, at: int) -> int:
    for mark in (b"\n", b" "):
        found = data.find(mark, at, at + END_BYTES // 4)
        if found >= 0:
            return found + 1
    return at


def _normal_words(data: bytes) -> bytes:
    words = data.translate(_TABLE).split()
    kept = list(filter(None, map(_SAID.__getitem__, words)))
    if not _LEADING.isdisjoint(kept):
        kept = _without_counters(_without_dates(kept))
    return b" ".join(kept)


def _said(word: bytes) -> bytes:
    """What a word says; b"" where that changes by chance, or is punctuation."""
    if word.isalpha():
        return word
    bare = word.strip(b".:")
    if not bare.strip(b"-_/#") or (b"/" in bare and _TEMPORARY.search(bare)):
        return b""
    if len(bare) > 2 and _DIGIT.search(bare) and _VOLATILE.search(bare) and not _TICKET.fullmatch(bare):
        return b""
    return bare


class _Said(dict[bytes, bytes]):
    """Verdicts of words, each worked out once: most words of a text were in the one before."""

    def __missing__(self, word: bytes) -> bytes:
        if len(self) >= WORDS_REMEMBERED:
            self.clear()
        said = self[word] = _said(word)
        return said


_SAID = _Said()


def is_ticket(word: bytes) -> bool:
    """Whether a word of a normal text is the key of a ticket."""
    return _TICKET.fullmatch(word) is not None


def _without_dates(words: list[bytes]) -> list[bytes]:
    """Without the names of months beside a number, those numbers, and the days and hours around them."""
    kept: list[bytes] = []
    drop_numbers = 0
    for place, word in enumerate(words):
        if word in _MONTHS:
            before = words[place - 1] if place else b""
            after = words[place + 1] if place + 1 < len(words) else b""
            if _is_day(before) or _is_day(after):
                if kept and _is_day(before) and kept[-1] == before:
                    kept.pop()
                if kept and kept[-1] in _DAYS:
                    kept.pop()
                drop_numbers = 2
                continue
        if drop_numbers and (_is_day(word) or word in _DAYS):
            drop_numbers -= 1
            continue
        drop_numbers = 0
        kept.append(word)
    return kept


def _is_day(word: bytes) -> bool:
    """`28`, `1st`, `2026`."""
    return word[:1].isdigit() and len(word) <= 4


def _without_counters(words: list[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    before = b""
    for word in words:
        counted = before in _COUNTED and word.lstrip(b"#")[:1].isdigit()
        if counted or before in _NAMED:
            before = b""
            continue
        kept.append(word)
        before = word
    return kept
