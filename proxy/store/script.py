"""The Lua scripts, each one file in `scripts/` with a header that gives its keys, arguments and reply."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "scripts"


@dataclass(frozen=True, slots=True)
class Script:
    """`sha` is how the store knows the script once it was loaded."""

    name: str
    source: str
    sha: str


def read(path: Path) -> Script:
    source = path.read_text(encoding="utf-8")
    # Redis names scripts by their SHA-1; nothing secret depends on it.
    return Script(path.stem, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = {script.name: script for script in map(read, sorted(FOLDER.glob("*.lua")))}
