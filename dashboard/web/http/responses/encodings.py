"""Which content encodings a client accepts (RFC 9110, section 12.5.3); compressed responses.

A message of a stream is compressed once for all of its readers: none refers to an earlier one, so
the same block fits into each reader's stream (RFC 1951, section 3.2).
"""

import re
import secrets
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.utils.cache import patch_vary_headers
from isal import isal_zlib

# As small as zlib's 3, in about a fifth of the time. Level 3 is slower, and no smaller.
COMPRESSION_LEVEL = 2

_MIN_LENGTH = 200  # bytes; shorter responses are not worth it
_GZIP_FORMAT = 16 + isal_zlib.MAX_WBITS
_HEADER_LENGTH, _FLAGS, _HAS_NAME = 10, 3, 8  # RFC 1952

_STREAM_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # of a gzip file without a name or a time
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
    """Django's, but with isal, and not for clients that refuse gzip by `gzip;q=0`.

    Every response varies by Accept-Encoding. No response that gets here has an ETag.
    """

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        patch_vary_headers(response, ("Accept-Encoding",))
        # One that never changes could be guessed by the lengths of many responses (BREACH).
        if "gzip" not in accepted_encodings(request) or getattr(response, "holds_secret", False):
            return response
        if not isinstance(response, HttpResponse):
            return super().process_response(request, response)
        content = response.content
        if len(content) < _MIN_LENGTH or response.has_header("Content-Encoding"):
            return response
        compressed = _compress(content, self.max_random_bytes)
        if len(compressed) < len(content):
            response.content = compressed
            response["Content-Encoding"] = "gzip"
            response["Content-Length"] = str(len(compressed))
        return response


def _compress(content: bytes, max_random_bytes: int) -> bytes:
    """Return a response in gzip format, with a name of random length, as Django's.

    So one length does not tell whether a secret in it resembles another part (BREACH). Many would;
    tokens of forms are masked anew for each response.
    """
    compressed = isal_zlib.compress(content, COMPRESSION_LEVEL, wbits=_GZIP_FORMAT)
    header = bytearray(compressed[:_HEADER_LENGTH])
    header[_FLAGS] |= _HAS_NAME
    name = b"a" * secrets.randbelow(max_random_bytes) + b"\0"
    return bytes(header) + name + compressed[_HEADER_LENGTH:]


async def compress_stream(messages: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield a stream of messages in gzip format; each can be read when it arrives."""
    yield _STREAM_HEADER
    async with aclosing(messages):
        async for message in messages:
            yield _compress_message(message)


@lru_cache(maxsize=64)
def _compress_message(message: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
