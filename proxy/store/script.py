"""The Lua scripts, each one file in `scripts/` with a header that gives its keys, arguments and reply."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from .packing import Packed, packed

FOLDER = Path(__file__).parent / "scripts"


@dataclass(frozen=True, slots=True)
class Script:
    """`by_sha` calls it by the name under which the store knows it once it was loaded, `by_source` brings it along."""

    name: str
    source: str
    by_sha: Packed
    by_source: Packed


_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


def read(path: Path) -> Script:
    """One script. A line `-- include: NAME` stands for `parts/NAME.lua`, which several scripts share."""
    source = path.read_text(encoding="utf-8")
    source = _INCLUDE.sub(lambda found: (FOLDER / "parts" / f"{found[1]}.lua").read_text(encoding="utf-8"), source)
    # Redis names scripts by their SHA-1; nothing secret depends on it.
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(path.stem, source, packed(("EVALSHA", sha)), packed(("EVAL", source)))


SCRIPTS = {script.name: script for script in map(read, sorted(FOLDER.glob("*.lua")))}
