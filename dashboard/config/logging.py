"""Logging: one line per event on standard error, as readable text or as JSON."""

import logging
from typing import Any

import structlog
from structlog.typing import Processor

_PROCESSORS: list[Processor] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_structlog() -> None:
    """Send the events of structlog to the standard library's loggers. Once a process.

    A logger keeps the configuration of its first use.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def build_config(log_format: str, level: str) -> dict[str, Any]:
    """Return Django's LOGGING for `log_format` ("text" or "json")."""
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _PROCESSORS,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    renderer,
                ],
            }
        },
        "filters": {"refusals": {"()": RefusalFilter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["refusals"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Drop Django's own handlers, or each event is logged twice. With DEBUG it would log
            # statements, which contain the keys of sessions.
            "django": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.server": {"handlers": [], "propagate": True},
            "httpx": {"level": "WARNING"},  # the sync logs its own requests
            "httpcore": {"level": "WARNING"},  # addresses of webhooks are secret
            "uvicorn": {"level": "ERROR"},  # anybody can cause its warnings, at any rate
        },
    }


class RefusalFilter(logging.Filter):
    """Makes the refusal of a request a warning without a traceback: any client can cause it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if 400 <= getattr(record, "status_code", 0) < 500:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return True
