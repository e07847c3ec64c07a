"""What Django's pages and reports of errors may contain."""

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's, which with DEBUG would show passwords of forms and sensitive variables."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True
