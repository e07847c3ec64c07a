"""Which content encodings a client accepts: RFC 9110, section 12.5.3."""

import re
from functools import lru_cache

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.utils.cache import patch_vary_headers

_REFUSED = re.compile(r"q=0(\.0*)?")


def accepted_encodings(request: HttpRequest) -> frozenset[str]:
    """Return the names of the encodings that a request accepts; with `q=0` one is refused."""
    return _parse(request.headers.get("Accept-Encoding", ""))


@lru_cache(maxsize=100)
def _parse(header: str) -> frozenset[str]:
    parts = [part.partition(";") for part in header.lower().split(",")]
    return frozenset(
        name.strip() for name, _, weight in parts if not _REFUSED.fullmatch(weight.strip())
    )


class CompressionMiddleware(GZipMiddleware):
    """Django's, which would compress also for clients that refuse it by `gzip;q=0`."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        if "gzip" in accepted_encodings(request):
            return super().process_response(request, response)
        patch_vary_headers(response, ("Accept-Encoding",))
        return response
