"""What Django's pages and reports of errors may contain."""

import re
from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

# Files whose variables hold lines of logs, or answers of Northflank with them.
_WITH_LINES = re.compile(r"/dashboard/northflank/\w+\.py$|/log_(reader\.py|panel\.py|line\.html)$")


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's, which with DEBUG would show passwords of forms and sensitive variables."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> Any:
        """Return a frame's variables; where they may hold lines of logs, only their names."""
        if _WITH_LINES.search(tb_frame.f_code.co_filename):
            return [(name, self.cleansed_substitute) for name in tb_frame.f_locals]
        return super().get_traceback_frame_variables(request, tb_frame)
