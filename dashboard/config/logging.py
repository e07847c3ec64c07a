"""Logging: one line per event on standard error, as readable text or as JSON."""

import logging
from typing import Any

import structlog
from structlog.typing import Processor

MAX_VALUE_LENGTH = 200  # characters of what a refused request has sent
UNKNOWN_HOST_INTERVAL = 10.0  # seconds

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
    """Makes the refusal of a request one short warning: any client can cause it, at any rate.

    No value of the request takes more than MAX_VALUE_LENGTH characters, there is no traceback, and
    requests with an unknown host are logged once in UNKNOWN_HOST_INTERVAL seconds, with a count.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unknown_hosts, self._next_unknown_host = 0, 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not 400 <= getattr(record, "status_code", 0) < 500:
            return True
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = None
        # Django logs a suspicious request with its reason, and its response once more.
        request: Any = getattr(record, "request", None)
        if getattr(request, "_is_refusal_logged", False):
            return False
        if request is not None:
            request._is_refusal_logged = True
        if isinstance(record.args, tuple) and record.args:
            record.args = tuple(cut_value(str(value)) for value in record.args)
        else:
            record.msg = cut_value(str(record.msg))
        if record.name == "django.security.DisallowedHost":
            return self._is_unknown_host_due(record)
        return True

    def _is_unknown_host_due(self, record: logging.LogRecord) -> bool:
        """Return whether it is time for another line; add to it how many had none."""
        self._unknown_hosts += 1
        if record.created < self._next_unknown_host:
            return False
        record.msg = f"{record.msg} Refused since the last such line: {self._unknown_hosts}."
        self._unknown_hosts, self._next_unknown_host = 0, record.created + UNKNOWN_HOST_INTERVAL
        return True


def cut_value(text: str) -> str:
    """Return a value of a request for a line of the log: MAX_VALUE_LENGTH characters at most."""
    if len(text) <= MAX_VALUE_LENGTH:
        return text
    return f"{text[: MAX_VALUE_LENGTH - 1]}…"
