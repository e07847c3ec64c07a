"""Methods of requests."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.utils.log import log_response

# A request by one of these changes nothing that anybody asked for (RFC 9110); Django checks no
# token against forged forms for them.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def refuse_trace(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: answer TRACE with 405 at every address; the views refuse other methods."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method == "TRACE":
            response = HttpResponseNotAllowed(["GET", "HEAD", "OPTIONS", "POST"])
            # Without the path: no other refusal is answered as fast.
            log_response("Method Not Allowed (TRACE)", response=response, request=request)
            return response
        return get_response(request)

    return middleware
