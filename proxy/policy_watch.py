"""The policy directory: read as a whole, watched, and read again when it changes. The last good policy stays.

A change is seen through the file system's own notices, within a tenth of a second; where those do not come (network
mounts, a directory that was moved away and back) the directory is read again every second all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec

from .core.policy import Policy
from .core.policy_file import Fault, Loaded, load
from .core.price_tables import PriceBook
from .settings import replace_durably

SUFFIXES = (".yaml", ".yml")

FILES_MAX = 1_000
"""More files than this are not a policy directory but a mistaken path."""

FILE_BYTES_MAX = 8 * 2**20
"""Never read further into a file than this: the path may name something that has no end. The loader allows less."""

LOOK_EVERY_MS = 1_000
"""How often the files are read without a notice that they changed; a dozen small ones take a tenth of a millisecond."""

SETTLED_MS = 50
"""A burst of notices (an editor's rename, `git checkout`) counts as one change when it pauses for so long."""

log = logging.getLogger(__name__)


class PolicyUnreadable(Exception):
    """The directory, or a file in it, cannot be read. `faults` has one for each."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"`{fault.file}`: {fault.message}" for fault in faults))
        self.faults = faults


class PolicyFaulty(Exception):
    """There is no policy to begin with: its files have these faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


def read_directory(directory: Path) -> dict[str, str]:
    """The policy files of a directory: path as given -> text. Raises PolicyUnreadable.

    Bytes that are not UTF-8 come through as surrogates, so that the loader can say where they stand.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if _is_policy_name(path.name))
    except FileNotFoundError:
        raise _unreadable(directory, "there is no such directory; name the one that holds the policy files") from None
    except NotADirectoryError:
        raise _unreadable(directory, "is a file; name the directory that holds the policy files") from None
    except OSError as error:
        raise _unreadable(directory, f"cannot be read: {error.strerror}") from None
    if not paths:
        raise _unreadable(directory, "holds no policy file; there must be at least one `*.yaml`")
    if len(paths) > FILES_MAX:
        raise _unreadable(directory, f"holds more than {FILES_MAX:,} files; is it the policy directory?")
    files: dict[str, str] = {}
    faults: list[Fault] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                files[str(path)] = file.read(FILE_BYTES_MAX).decode("utf-8", "surrogateescape")
        except OSError as error:
            faults.append(Fault(str(path), 1, 1, f"cannot be read: {error.strerror}"))
    if faults:
        raise PolicyUnreadable(faults)
    return files


def _is_policy_name(name: str) -> bool:
    """Files that begin with a dot are left alone: editors and orchestrators keep their own there."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _unreadable(directory: Path, message: str) -> PolicyUnreadable:
    return PolicyUnreadable([Fault(str(directory), 1, 1, message)])


def load_directory(directory: Path, environ: Mapping[str, str], book: PriceBook | None = None) -> Loaded:
    """The policy of a directory, or every fault that keeps it from being one. Never raises. `book` as in `load`."""
    try:
        return load(read_directory(directory), environ, book=book)
    except PolicyUnreadable as unreadable:
        return Loaded(None, unreadable.faults, [])


class LastGood:
    """The texts of the last good set, in a file of the data directory: what a process begins with that is started
    while the directory is at fault."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def texts(self) -> dict[str, str] | None:
        """None where there are none, or they cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return None

    def keep(self, texts: dict[str, str]) -> None:
        """Every process keeps what it takes; mostly another has done so before."""
        if self.texts() == texts:
            return
        try:
            replace_durably(self._path, msgspec.json.encode(texts))
        except OSError as error:
            log.warning("the policy in force cannot be kept in %s: %s", self._path, error.strerror)


class PolicyWatch:
    """The policy in force, and what is wrong with the files where they are not it.

    `book` as in `load`. Good sets are kept in `last_good`, and where the directory is at fault at the beginning, the
    set that is there is in force; without one, and where `must_be_good`, that is the end.

    `on_policy` is called with each new policy after the first, `on_faults` with the faults of each set that was not
    taken; both in the event loop, and neither may raise.
    """

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        *,
        book: PriceBook | None = None,
        last_good: LastGood | None = None,
        must_be_good: bool = False,
        on_policy: Callable[[Policy], None] = lambda policy: None,
        on_faults: Callable[[list[Fault]], None] = lambda faults: None,
    ) -> None:
        """Reads the directory. Raises PolicyFaulty with all its faults where there is no good policy to begin with."""
        self._directory = directory
        self._environ = environ
        self._book = book
        self._last_good = last_good
        self._on_policy = on_policy
        self._on_faults = on_faults
        self._seen = self._look()
        loaded = self._load(self._seen)
        policy = loaded.policy
        if policy is None and last_good is not None and not must_be_good and (texts := last_good.texts()):
            policy = load(texts, environ).policy
        if policy is None:
            raise PolicyFaulty(loaded.faults)
        self.policy = policy
        self.faults, self.warnings = loaded.faults, loaded.warnings
        self._tell_faults()

    async def run(self) -> None:
        """Watches until it is cancelled. Files are read and checked in a thread, so that calls go on meanwhile."""
        async for _ in self._notices():
            seen = await asyncio.to_thread(self._look)
            if seen == self._seen:
                continue
            self._seen = seen
            self._take(await asyncio.to_thread(self._load, seen))

    def _look(self) -> dict[str, str] | list[Fault]:
        """What is there now: texts, or why they cannot be read."""
        try:
            return read_directory(self._directory)
        except PolicyUnreadable as unreadable:
            return unreadable.faults

    def _load(self, seen: dict[str, str] | list[Fault]) -> Loaded:
        if not isinstance(seen, dict):
            return Loaded(None, seen, [])
        loaded = load(seen, self._environ, book=self._book)
        if loaded.policy is not None and self._last_good is not None:
            self._last_good.keep(seen)
        return loaded

    def _take(self, loaded: Loaded) -> None:
        self.faults, self.warnings = loaded.faults, loaded.warnings
        self._tell_faults()
        if loaded.policy is None:
            self._on_faults(loaded.faults)
            return
        self.policy = loaded.policy
        log.info("policy %s is in force", loaded.policy.version)
        self._on_policy(loaded.policy)

    def _tell_faults(self) -> None:
        for fault in self.faults:
            log.error("policy not taken, the last good one stays: %s", fault)

    async def _notices(self) -> AsyncIterator[None]:
        """Ticks when something in the directory changed, and every LOOK_EVERY_MS. Never ends."""
        # Imported here: only a process that watches pays for it.
        from watchfiles import awatch

        while True:
            try:
                # No filter: what changes in a mounted volume is a link with a name that filters leave out.
                async for _ in awatch(
                    self._directory,
                    watch_filter=None,
                    step=SETTLED_MS,
                    rust_timeout=LOOK_EVERY_MS,
                    yield_on_timeout=True,
                    recursive=False,
                ):
                    yield
            except (OSError, RuntimeError) as error:
                # The directory is away, or the system's watches are used up: looking from time to time still works.
                log.debug("the policy directory cannot be watched: %s", error)
            await asyncio.sleep(LOOK_EVERY_MS / 1000)
            yield
