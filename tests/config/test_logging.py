"""Logging: an event is one line, whatever is in its values."""

import json
import logging
import logging.config
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from dashboard.config.logging import RefusalFilter, build_config

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


# --- refusals -----------------------------------------------------------------------------------


def response_line(status: int, error: Exception) -> dict[str, Any]:
    """Return the line of Django's record of a response."""
    record = logging.makeLogRecord(
        {
            "name": "django.request",
            "levelname": "ERROR",
            "levelno": logging.ERROR,
            "msg": "Refused",
            "status_code": status,
            "exc_info": (type(error), error, None),
        }
    )
    RefusalFilter().filter(record)
    line: dict[str, Any] = json.loads(format_record("json", record))
    return line


@pytest.mark.parametrize("status", [400, 403])
def test_refusal_is_a_warning_without_a_traceback(status: int) -> None:
    line = response_line(status, PermissionError("No."))
    assert line["level"] == "warning"
    assert "exception" not in line


def test_defect_is_an_error_with_its_traceback() -> None:
    line = response_line(500, KeyError("a defect"))
    assert line["level"] == "error"
    assert "a defect" in line["exception"]
