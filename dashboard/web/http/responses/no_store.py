"""Answers are kept by no cache: each is for one person, or of one moment."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase


def forbid_storing(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: let no cache keep an answer, unless it says otherwise, as those with files do."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return middleware
