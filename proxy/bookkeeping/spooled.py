"""How many records wait in the spool files of this host's workers: for a gauge, asked every few seconds."""

from __future__ import annotations

from pathlib import Path

from ..store.spool import SUFFIX

PIECE_BYTES = 1024 * 1024


class SpooledRecords:
    """Reads each byte of the spool once: files there only grow until they are removed. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[Path, tuple[int, int]] = {}
        """For each file: how far it was read, and the lines up to there."""

    def count(self) -> int:
        """Lines of all files. What was set aside for good is no spool file and does not count."""
        seen: dict[Path, tuple[int, int]] = {}
        for path in self._directory.glob(f"*{SUFFIX}"):
            try:
                seen[path] = self._look(path)
            except OSError:
                continue  # drained and removed meanwhile
        self._seen = seen
        return sum(lines for _, lines in seen.values())

    def _look(self, path: Path) -> tuple[int, int]:
        place, lines = self._seen.get(path, (0, 0))
        size = path.stat().st_size
        if size < place:  # a write that failed was taken back
            place, lines = 0, 0
        if size > place:
            with path.open("rb") as file:
                file.seek(place)
                while piece := file.read(PIECE_BYTES):
                    place += len(piece)
                    lines += piece.count(b"\n")
        return place, lines
