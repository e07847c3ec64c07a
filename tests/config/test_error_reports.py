"""Reports of errors name the variables that hold lines of logs, and nothing of their content."""

import sys

from django.http import HttpRequest
from django.views.debug import ExceptionReporter

from dashboard.northflank import LogLine, SecretValues
from dashboard.sync import log_reader


class BrokenTime:
    def __bool__(self) -> bool:
        raise LookupError("it broke")


def test_error_report_has_no_line_of_a_log() -> None:
    request = HttpRequest()
    request.META["SERVER_NAME"] = "localhost"
    try:
        log_reader.show([LogLine(BrokenTime(), "s3cret line")], SecretValues())  # type: ignore[arg-type]
    except LookupError:
        reporter = ExceptionReporter(request, *sys.exc_info())
    frames = {frame["function"]: dict(frame["vars"]) for frame in reporter.get_traceback_frames()}
    assert "lines" in frames["show"]
    assert "s3cret" not in str(frames["show"])
