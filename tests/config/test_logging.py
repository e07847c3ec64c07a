"""Logging: an event is one line, whatever is in its values."""

import json
import logging
import logging.config
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from dashboard.config.log_limit import LOG_INTERVAL, MAX_LENGTH, LogLimit
from dashboard.config.logging import build_config

HOSTILE = "x\n2026-01-01T00:00:00Z [info     ] abort.accepted by=admin\r\x1b[2Ky\u2028z"


def event_record(event: str, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "dashboard.test",
            "levelname": "INFO",
            "levelno": logging.INFO,
            "msg": {"event": event, **fields},
            "_from_structlog": True,
            "_logger": None,
            "_name": "info",
        }
    )


def format_record(log_format: str, record: logging.LogRecord) -> str:
    config = build_config(log_format, "INFO")
    formatter_config = dict(config["formatters"]["line"])
    formatter = formatter_config.pop("()")(**formatter_config)
    text: str = formatter.format(record)
    return text


def format_line(log_format: str, value: str) -> str:
    """Return what the formatter makes of an event of structlog."""
    return format_record(log_format, event_record("run.name_changed", name=value))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hostile_text_stays_on_one_line(log_format: str) -> None:
    line = format_line(log_format, HOSTILE)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "abort.accepted" in line


def test_json_line_holds_the_value_unchanged() -> None:
    assert json.loads(format_line("json", HOSTILE))["name"] == HOSTILE


def test_another_format_leaves_loggers_as_they_are() -> None:
    log = structlog.get_logger("dashboard.test")
    log.debug("first use")
    build_config("json", "INFO")
    with capture_logs() as logs:
        log.info("second use")
    assert [event["event"] for event in logs] == ["second use"]


# --- lines that any client can cause ------------------------------------------------------------


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def response_record(
    status: int, path: str = "/", *, logger: str = "django.request", error: Exception | None = None
) -> logging.LogRecord:
    """Return Django's record of a response."""
    level = logging.WARNING if error is None else logging.ERROR
    record = logging.makeLogRecord(
        {
            "name": logger,
            "levelname": logging.getLevelName(level),
            "levelno": level,
            "msg": "Refused: %s",
            "args": (path,),
            "status_code": status,
        }
    )
    if error is not None:
        record.exc_info = (type(error), error, None)
    return record


def logged(limit: LogLimit, record: logging.LogRecord) -> dict[str, Any]:
    """Return the line of a record that is let through."""
    passed = limit.filter(record)
    assert passed
    line: dict[str, Any] = json.loads(format_record("json", record if passed is True else passed))
    return line


def test_refusals_are_logged_once_in_an_interval_with_the_number_left_out() -> None:
    limit = LogLimit(clock := Clock())
    assert "unlogged" not in logged(limit, response_record(404, "/a"))
    assert not limit.filter(response_record(404, "/b"))
    assert not limit.filter(response_record(404, "/c"))
    clock.seconds += LOG_INTERVAL
    line = logged(limit, response_record(404, "/d"))
    assert (line["event"], line["unlogged"]) == ("Refused: /d", 2)
    clock.seconds += LOG_INTERVAL
    assert "unlogged" not in logged(limit, response_record(404, "/e"))


def test_each_kind_has_an_interval_of_its_own() -> None:
    limit = LogLimit(Clock())
    for record in (
        response_record(404),
        response_record(403),
        response_record(403, logger="django.security.csrf"),
        response_record(500, error=KeyError()),
        response_record(500, error=ValueError()),
        event_record("auth_proxy.refused"),
        event_record("sign_in.form_refused"),
    ):
        assert limit.filter(record)
        assert not limit.filter(record)


@pytest.mark.parametrize("status", [400, 403])
def test_refusal_is_a_warning_without_a_traceback(status: int) -> None:
    line = logged(LogLimit(), response_record(status, error=PermissionError("No.")))
    assert line["level"] == "warning"
    assert "exception" not in line


def test_defect_is_an_error_with_its_traceback() -> None:
    line = logged(LogLimit(), response_record(500, error=KeyError("a defect")))
    assert line["level"] == "error"
    assert "a defect" in line["exception"]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (response_record(404, "x" * 30_000), "event"),
        (event_record("sign_in.form_refused", why="x" * 30_000), "why"),
        (event_record("api.defect", path="x" * 30_000), "path"),
    ],
)
def test_values_of_requests_are_cut(record: logging.LogRecord, field: str) -> None:
    text = logged(LogLimit(), record)[field]
    assert text.endswith("x…")
    assert len(text) == MAX_LENGTH


def test_events_of_runs_are_all_logged_in_full() -> None:
    limit = LogLimit(Clock())
    for _ in range(2):
        line = logged(limit, event_record("abort.requested", reason="x" * 500))
        assert len(line["reason"]) == 500
