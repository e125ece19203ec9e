"""Settings: flags and environment of a process, read once, with every fault reported at once."""

from __future__ import annotations

import fcntl
import os
import secrets as random
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

DRAIN_S_DEFAULT = 30.0
WORKERS_MAX = 256
SECRET_BYTES_MIN = 16
"""A secret that signs keys must not be guessable; 16 bytes is the least that HMAC users accept as a key."""

PRIVATE_UMASK = 0o077
"""What we write is readable by nobody else: the ledger, the store's files and the spool hold what people did."""
LOCK_FILE = ".settings.lock"
OURS = ("secret", "admin.token", "admin.url", "ledger.db", "bookkeeper.seat", "appendonlydir", "spool", "segments")
"""What a data directory holds that we cannot do without."""

LEDGER_SCHEMES = ("sqlite:", "sqlite+pysqlite:", "postgres:", "postgresql:", "postgresql+psycopg:")
"""How the URL of a ledger begins; the ledger looks at the rest of it."""

Only = Literal["workers", "bookkeeper"]


class SettingsInvalid(ValueError):
    """Settings that cannot be used. `faults` are sentences, each naming the flag or variable and what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `callmeter serve` was told. `secrets` sign keys: the first makes new ones, all of them verify.

    `redis_url` None: the embedded server in the data directory. Ports may be 0: the system chooses a free one.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    policies: Path = Path("policies")
    data: Path = Path("data")
    redis_url: str | None = None
    workers: int = 1
    only: Only | None = None
    drain_s: float = DRAIN_S_DEFAULT
    secrets: tuple[bytes, ...] = ()
    admin_token: str = ""
    ledger_url: str = ""
    ledger_id: str = ""
    """Which ledger that is, where the supervisor could ask it; empty: its database was away."""
    log_format: Literal["json", "human"] = "human"
    log_calls: bool = False
    """A line for every call; else only for those that failed or were refused."""

    def __repr__(self) -> str:
        """Never shows secrets or URLs, which may hold passwords."""
        return f"Settings({self.host}:{self.port}, admin {self.admin_host}:{self.admin_port}, data {self.data})"


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Flags win over environment variables, which win over defaults. Makes the data directory and, where none is
    given, the secret and the admin token in it (0600). Raises SettingsInvalid with every fault."""
    faults: list[str] = []

    def value(name: str) -> str | None:
        given = flags.get(name)
        return str(given) if given is not None else environ.get(f"CALLMETER_{name.upper()}") or None

    def named(name: str) -> str:
        return f"--{name.replace('_', '-')} (CALLMETER_{name.upper()})"

    def number(name: str, default: int, least: int, most: int) -> int:
        text = value(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        faults.append(f"{named(name)} is `{text}`; write a whole number from {least} to {most}")
        return default

    data = Path(value("data") or "data").expanduser().absolute()
    only = value("only")
    if only not in (None, "workers", "bookkeeper"):
        faults.append(f"{named('only')} is `{only}`; write `workers` or `bookkeeper`, or leave it out for both")
    log_format = value("log_format") or "human"
    if log_format not in ("human", "json"):
        faults.append(f"{named('log_format')} is `{log_format}`; write `human` or `json`")
    log_calls = value("log_calls") or "no"
    if log_calls.lower() not in ("yes", "no", "true", "false", "1", "0"):
        faults.append(f"{named('log_calls')} is `{log_calls}`; write `yes` or `no`")
    drain_text = value("drain_seconds")
    drain_s = DRAIN_S_DEFAULT
    if drain_text is not None:
        try:
            drain_s = float(drain_text)
        except ValueError:
            drain_s = -1.0
        if not 0 <= drain_s <= 3600:
            faults.append(f"{named('drain_seconds')} is `{drain_text}`; write seconds from 0 to 3600")
    redis_url = value("redis_url")
    if redis_url is not None and not redis_url.startswith(("redis://", "rediss://", "unix://")):
        faults.append(f"{named('redis_url')} must begin with redis://, rediss:// or unix://")
    ledger_url = environ.get("CALLMETER_LEDGER_URL") or f"sqlite:///{data / 'ledger.db'}"
    if not ledger_url.startswith(LEDGER_SCHEMES):
        faults.append(
            "CALLMETER_LEDGER_URL must be `sqlite:////absolute/path.db` or `postgresql://user:password@host/database`"
        )
    settings: dict[str, Any] = {
        "host": value("host") or "127.0.0.1",
        "port": number("port", 8080, 0, 65535),
        "admin_host": value("admin_host") or "127.0.0.1",
        "admin_port": number("admin_port", 8081, 0, 65535),
        "policies": Path(value("policies") or "policies").expanduser().absolute(),
        "data": data,
        "redis_url": redis_url,
        "workers": number("workers", os.cpu_count() or 1, 1, WORKERS_MAX),
        "only": only,
        "drain_s": drain_s,
        "log_format": log_format,
        "log_calls": log_calls.lower() in ("yes", "true", "1"),
    }
    unwritable = make_data_directory(data)
    if unwritable:
        faults.append(unwritable)
    if faults:
        raise SettingsInvalid(faults)
    secrets = read_secrets(environ, data)
    token = environ.get("CALLMETER_ADMIN_TOKEN") or kept(data / "admin.token")
    return Settings(**settings, secrets=secrets, admin_token=token, ledger_url=ledger_url)


def read_secrets(environ: Mapping[str, str], data: Path) -> tuple[bytes, ...]:
    """`CALLMETER_SECRET=new,old`, else the one kept in the data directory. Raises SettingsInvalid."""
    text = environ.get("CALLMETER_SECRET") or kept(data / "secret")
    secrets = tuple(part.strip().encode() for part in text.split(",") if part.strip())
    if not secrets or any(len(secret) < SECRET_BYTES_MIN for secret in secrets):
        raise SettingsInvalid([f"CALLMETER_SECRET needs at least {SECRET_BYTES_MIN} bytes in each of its secrets"])
    return secrets


def make_data_directory(data: Path) -> str | None:
    """None, or the sentence that says why the directory cannot be used."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = data / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"--data (CALLMETER_DATA): cannot write to {data}: {error.strerror}; choose another directory"
    closed = [name for name in OURS if (data / name).exists() and not os.access(data / name, os.R_OK | os.W_OK)]
    if closed:
        return (
            f"--data (CALLMETER_DATA): cannot use {', '.join(closed)} in {data}: another user ran Callmeter "
            "there; run it as that user, give these files to this one, or choose another directory"
        )
    return None


def make_private(data: Path) -> str | None:
    """Closes an existing data directory to others. None, or the sentence that says why it stays open to them."""
    facts = data.stat()
    if not facts.st_mode & PRIVATE_UMASK:
        return None
    try:
        data.chmod(stat.S_IMODE(facts.st_mode) & ~PRIVATE_UMASK)
    except OSError:
        return (
            f"others may look into the data directory {data}, and it is not ours to close; "
            "what is written from now on only we can read, but take care of what is there already (chmod 700)"
        )
    return None


def url_on_this_machine(host: str, port: int) -> str:
    """Where what listens on a host and port is reached from this machine."""
    if host in ("0.0.0.0", ""):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def kept(path: Path) -> str:
    """The text kept in a file that only its owner reads, made at random on first use. Safe for two processes at once,
    and for a crash at any time: an empty file, as an older version could leave one, counts as none. Raises
    SettingsInvalid."""
    if text := text_in(path):
        return text
    with locked(path.with_name(LOCK_FILE)):
        text = text_in(path)
        if not text:
            text = random.token_hex(32)
            replace_durably(path, f"{text}\n".encode())
    return text


def text_in(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsInvalid([f"{path} cannot be read: {why}; put it back from a backup"]) from None


def replace_durably(path: Path, data: bytes) -> None:
    """The whole file or the one before it, whatever happens meanwhile; readable by its owner alone."""
    made = path.with_name(f".{path.name}-{os.getpid()}-{random.token_hex(4)}")
    try:
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is in here; closing the file lets the next one in."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
