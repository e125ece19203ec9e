from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from proxy.telemetry.logs import FIELDS, LogFormat, configure, log_call
from tests.support.telemetry_records import FULL, REFUSED, record

KEY = "cm_k234567abcdef_" + "0123456789abcdef" * 4

Lines = Callable[[], list[str]]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Gives the loggers back as they were: logging is configured for the whole process."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    chatty = {
        name: logging.getLogger(name).level for name in ("opentelemetry", "urllib3", "aiohttp.access", "watchfiles")
    }
    yield logger
    logger.handlers[:], logger.level = handlers, level
    for name, before in chatty.items():
        logging.getLogger(name).setLevel(before)


def logged_as(log_format: LogFormat, level: int = logging.INFO) -> Lines:
    stream = io.StringIO()
    configure(log_format, level=level, stream=stream)
    return lambda: stream.getvalue().splitlines()


def test_a_json_line_is_one_object_with_its_fields(root: logging.Logger) -> None:
    lines = logged_as("json")
    logging.getLogger("proxy.bookkeeper").log(
        logging.INFO, "The ledger is back", extra={FIELDS: {"rows": 12, "seconds": 1.5}}
    )
    (line,) = lines()
    shown = json.loads(line)
    assert shown.pop("time").endswith("Z")
    assert shown == {
        "level": "info",
        "logger": "proxy.bookkeeper",
        "message": "The ledger is back",
        "rows": 12,
        "seconds": 1.5,
    }


def test_a_line_for_people_is_short_and_readable(root: logging.Logger) -> None:
    lines = logged_as("human")
    logging.getLogger("proxy.bookkeeper").log(
        logging.WARNING, "The ledger is away", extra={FIELDS: {"url": "a b", "tries": 2}}
    )
    (line,) = lines()
    assert line[12:] == ' WARNING bookkeeper: The ledger is away  url="a b"  tries=2'


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_a_call_is_one_line_without_empty_fields(root: logging.Logger, log_format: LogFormat) -> None:
    lines = logged_as(log_format)
    log_call(FULL)
    (line,) = lines()
    assert "PAY-7" in line
    assert "0.027675001" in line
    assert "refusal" not in line


def test_a_refused_call_is_a_warning_and_tells_code_and_rule(root: logging.Logger) -> None:
    lines = logged_as("json")
    log_call(record(REFUSED, count=3))
    shown = json.loads(lines()[0])
    assert (shown["level"], shown["message"]) == ("warning", "refused")
    assert (shown["refusal"], shown["rule"], shown["count"]) == ("budget_spent", "person-day", 3)


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_no_key_gets_through_in_message_arguments_fields_or_errors(root: logging.Logger, log_format: LogFormat) -> None:
    lines = logged_as(log_format)
    logger = logging.getLogger("proxy")
    logger.warning("Refused %s", KEY)
    logger.log(
        logging.INFO,
        "A field",
        extra={FIELDS: {"header": f"Bearer {KEY}", "nested": {"inner": [KEY]}, "exotic": Exception(KEY)}},
    )
    log_call(record(task=KEY, error=KEY))
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        logger.exception("It broke")
    text = "\n".join(lines())
    assert KEY[-20:] not in text
    assert text.count("[redacted]") >= 6


def test_an_error_in_json_has_its_type_and_stack_in_the_same_line(root: logging.Logger) -> None:
    lines = logged_as("json")
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("proxy").exception("It broke")
    (line,) = lines()
    assert json.loads(line)["error"] == "ValueError: bad"
    assert "Traceback" in json.loads(line)["stack"]


def test_what_is_no_http_has_a_line_and_no_stack(root: logging.Logger) -> None:
    lines = logged_as("human")
    try:
        raise BadHttpMessage("no HTTP at all")
    except BadHttpMessage:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", "127.0.0.1")
    (line,) = lines()
    assert line.endswith("INFO    server: what came could not be read as HTTP (BadHttpMessage)")


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_what_a_caller_writes_cannot_fake_a_second_line(root: logging.Logger, log_format: LogFormat) -> None:
    lines = logged_as(log_format)
    log_call(record(task="x\n22:00:00.000 INFO all is well\x1b[2J\u2028"))
    assert len(lines()) == 1
    assert "\x1b" not in lines()[0]


def test_fields_cannot_replace_what_logging_itself_says(root: logging.Logger) -> None:
    lines = logged_as("json")
    logging.getLogger("proxy").log(logging.INFO, "true", extra={FIELDS: {"level": "fake", "message": "fake"}})
    assert json.loads(lines()[0])["level"] == "info"
    assert json.loads(lines()[0])["message"] == "true"


def test_lines_below_the_level_are_not_written(root: logging.Logger) -> None:
    lines = logged_as("human", logging.WARNING)
    log_call(FULL)
    logging.getLogger("proxy").log(logging.INFO, "quiet")
    logging.getLogger("opentelemetry.exporter").warning("each attempt of its own")
    assert lines() == []
