"""Static files: a content hash in their URL, compressed in memory, without a collectstatic step."""

import gzip
import re
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path

import brotli
import rjsmin
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import FileResponse, HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

from dashboard.web.http.responses.encodings import accepted_encodings


class VersionedStaticFilesStorage(StaticFilesStorage):
    """`static/x.css?v=<hash>`: browsers cache a file, and load it again when its hash changes."""

    def url(self, name: str | None) -> str:
        file_url = super().url(name)
        version = _version(name) if name else ""
        return f"{file_url}?v={version}" if version else file_url


@lru_cache(maxsize=1000)
def _version(name: str) -> str:
    path = finders.find(name)
    if not isinstance(path, str):
        return ""
    return blake2b(Path(path).read_bytes(), digest_size=6).hexdigest()


# At its highest quality, Brotli needs 0.2 s of CPU for all files of a page, once after a start, and
# saves 5 KB beside gzip.
_ENCODERS = {  # the best first
    "br": partial(brotli.compress, mode=brotli.MODE_TEXT),
    "gzip": partial(gzip.compress, mtime=0),
}


# Our styles have no string that contains a comment or begins a line.
_MINIFIERS = {"js": rjsmin.jsmin, "css": partial(re.compile(rb"(?ms)/\*.*?\*/|^\s+").sub, b"")}


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # it is untyped
    """Serve static files, compressed when first requested and then kept in memory.

    CompressionMiddleware would compress them again for each request, in blocks of 4 KB, which are
    larger in all. Comments and indentation, a quarter of our own scripts and a tenth of our styles,
    are left out.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.compressed = dict[tuple[str, str, str], bytes]()  # by path, ETag and encoding

    def serve(self, static_file: StaticFile, request: HttpRequest) -> FileResponse | HttpResponse:
        response: FileResponse = super().serve(static_file, request)
        response["Vary"] = "Accept-Encoding"
        version = request.GET.get("v")
        if version and version != _version(request.path_info.removeprefix(self.static_prefix)):
            # Of another process's version: a browser must not keep this one under that address.
            response["Cache-Control"] = "no-cache"
        # Parts of a file and answers without one stay as they are, and so do images of pixels.
        is_whole = response.status_code == 200 and request.method == "GET"
        if not is_whole or not re.match("text/|image/svg", response["Content-Type"]):
            return response
        accepted = accepted_encodings(request)
        encoding = next((name for name in _ENCODERS if name in accepted), None)
        if encoding is None:
            return response
        key = request.path_info, response["ETag"], encoding
        if key not in self.compressed:
            content = response.getvalue()
            own = re.fullmatch(rf"{self.static_prefix}\w+\.(js|css)", request.path_info)
            minify = _MINIFIERS[own[1]] if own else bytes
            self.compressed[key] = _ENCODERS[encoding](minify(content))
        # response.close() would signal the end of the request.
        response.file_to_stream.close()  # type: ignore[union-attr]  # a GET has a file
        response["Content-Encoding"] = encoding
        response["Content-Length"] = len(self.compressed[key])
        return HttpResponse(self.compressed[key], headers=response.headers)
