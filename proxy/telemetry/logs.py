"""Logs: structured lines on standard error, JSON for machines or one readable line for people.

At most one line for a call, and never a body or a key: every line passes through `redact` on its way out.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from ..core.money import decimal_usd
from ..core.record import Record
from .redact import redact

LogFormat = Literal["json", "human"]

CALL_LOGGER = "callmeter.call"
"""The logger of the one line a call; its level can be set apart from all others."""
_calls = logging.getLogger(CALL_LOGGER)
FIELDS = "callmeter_fields"
"""Name under which a log record carries its structured fields."""

_UNPRINTABLE = {
    code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
}
"""What could fake a second line, command a terminal or fail to be encoded, as JSON writes it."""
_UNPRINTABLE_IN_STACK = {code: shown for code, shown in _UNPRINTABLE.items() if code != ord("\n")}


def configure(log_format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Sends all logging of this process to `stream` (standard error) in one format. May be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter())
    root = logging.getLogger()
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level)
    # These libraries log each attempt of theirs; what matters of it we log ourselves, once.
    for chatty in ("opentelemetry", "urllib3", "aiohttp.access", "watchfiles"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").addFilter(_tell_no_stack_of_bad_http)


def _tell_no_stack_of_bad_http(record: logging.LogRecord) -> bool:
    """What no HTTP client sends, such as a scan of ports or a browser that tries TLS, is no fault of ours."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__module__ == "aiohttp.http_exceptions":
        record.msg, record.args = f"what came could not be read as HTTP ({type(error).__name__})", ()
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.exc_info = None
    return True


def log_call(record: Record) -> None:
    """The one line of a call: who, what, how it ended and what it cost. Failures and refusals as warnings."""
    level = logging.INFO if record.result in ("ok", "client_gone") else logging.WARNING
    if _calls.isEnabledFor(level):
        _calls.log(level, record.result, extra={FIELDS: call_fields(record)})


def call_fields(record: Record) -> dict[str, Any]:
    """The fields of that line, without those that are empty. Cost in USD as exact decimal text."""
    fields: dict[str, Any] = {
        "call_id": record.call_id,
        "user": record.user,
        "team": record.team,
        "task": record.task,
        "upstream": record.upstream,
        "model": record.model or record.model_asked,
        "api": record.api,
        "status": record.status or None,
        "refusal": record.refusal,
        "rule": record.rule,
        "error": record.error,
        "tokens": record.usage.tokens or None,
        "cost_usd": None if record.cost_nusd is None else decimal_usd(record.cost_nusd),
        "ms_total": round(record.ms_total, 1),
        "count": record.count if record.count > 1 else None,
        "trace_id": record.trace_id,
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time level logger message`, the fields, and `error` with its `stack` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in getattr(record, FIELDS, {}).items():
            line.setdefault(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            line["stack"] = self.formatException(record.exc_info)
        # Each text is redacted before it is encoded, so that what is left is JSON whatever was cut out.
        return json.dumps(_redacted(line), ensure_ascii=False, default=_shown).translate(_UNPRINTABLE)


class HumanFormatter(logging.Formatter):
    """`22:26:30.123 WARNING exporter: sentence  name=value ...`; a stack, where there is one, on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        moment = _moment(record)
        line = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} {record.levelname:<7} "
        line += f"{record.name.rpartition('.')[2]}: {record.getMessage()}"
        for name, value in getattr(record, FIELDS, {}).items():
            text = str(value)
            line += f"  {name}={json.dumps(text, ensure_ascii=False) if ' ' in text else text}"
        line = redact(line).translate(_UNPRINTABLE)
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info)).translate(_UNPRINTABLE_IN_STACK)
        return line


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _shown(value: object) -> str:
    return redact(str(value))


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(name)): _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value
