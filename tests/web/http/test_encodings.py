"""Compressed responses."""

import gzip
import random

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory

from dashboard.web.http.responses.encodings import CompressionMiddleware

GZIP = {"Accept-Encoding": "gzip"}
RANDOM = random.Random(1).randbytes(300)  # gzip makes it longer


def test_page_is_compressed_to_the_same_text(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    plain = client.get("/account/")
    compressed = client.get("/account/", headers=GZIP)
    assert compressed["Content-Encoding"] == "gzip"
    assert compressed["Content-Length"] == str(len(compressed.content))
    assert "Accept-Encoding" in compressed["Vary"]
    assert "Accept-Encoding" in plain["Vary"]
    assert len(compressed.content) < len(plain.content) / 2
    text = gzip.decompress(compressed.content).decode()
    head, _, body = text.partition("<body")
    assert head == plain.text.partition("<body")[0]
    assert body.endswith("</html>\n")


def test_length_of_page_varies(client: Client, viewer: User) -> None:
    """One length does not tell whether a secret in the page resembles another part (BREACH)."""
    client.force_login(viewer)
    client.get("/account/")
    lengths = {len(client.get("/account/", headers=GZIP).content) for _ in range(20)}
    assert max(lengths) - min(lengths) > 20


def respond(response: HttpResponseBase, accepted: str = "gzip") -> HttpResponseBase:
    """Return what the middleware makes of a response."""
    request = RequestFactory().get("/", headers={"Accept-Encoding": accepted})
    return CompressionMiddleware(lambda _: response)(request)


@pytest.mark.parametrize(
    ("content", "is_compressed"),
    [(b"", False), (b"a" * 199, False), (b"a" * 200, True), (RANDOM, False)],
)
def test_only_what_gets_shorter_is_compressed(content: bytes, is_compressed: bool) -> None:
    response = respond(HttpResponse(content))
    assert response.has_header("Content-Encoding") == is_compressed
    assert (gzip.decompress(response.content) if is_compressed else response.content) == content
    assert response["Vary"] == "Accept-Encoding"


def test_encoded_response_is_not_compressed_again() -> None:
    response = respond(HttpResponse(b"a" * 500, headers={"Content-Encoding": "br"}))
    assert (response["Content-Encoding"], response.content) == ("br", b"a" * 500)


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip", "gzip"), ("gzip;q=0", None)])
def test_stream_is_compressed_where_gzip_is_accepted(accepted: str, encoding: str | None) -> None:
    response = respond(StreamingHttpResponse([b"a" * 300, b"b" * 300]), accepted)
    body = b"".join(response)
    assert response.get("Content-Encoding") == encoding
    assert (gzip.decompress(body) if encoding else body) == b"a" * 300 + b"b" * 300
