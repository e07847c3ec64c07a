"""Logging: an event is one line, whatever is in its values."""

import json
import logging
import logging.config

import pytest
import structlog
from structlog.testing import capture_logs

from dashboard.config.logging import build_config

HOSTILE = "x\n2026-01-01T00:00:00Z [info     ] abort.accepted by=admin\r\x1b[2Ky\u2028z"


def format_line(log_format: str, value: str) -> str:
    """Return what the formatter makes of an event of structlog."""
    config = build_config(log_format, "INFO")
    formatter_config = dict(config["formatters"]["line"])
    formatter = formatter_config.pop("()")(**formatter_config)
    record = logging.makeLogRecord(
        {
            "name": "dashboard.test",
            "levelname": "INFO",
            "levelno": logging.INFO,
            "msg": {"event": "run.name_changed", "name": value},
            "_from_structlog": True,
            "_logger": None,
            "_name": "info",
        }
    )
    text: str = formatter.format(record)
    return text


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
