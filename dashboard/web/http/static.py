"""Static files: a content hash in their URL, compressed in memory, without a collectstatic step."""

import gzip
import re
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import FileResponse, HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


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


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # it is untyped
    """Serve static files, compressed when first requested and then kept in memory.

    Django's GZipMiddleware would compress them again for each request, in blocks of 4 KB, which are
    larger in all.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.compressed = dict[tuple[str, str], bytes]()  # by path and ETag

    def serve(self, static_file: StaticFile, request: HttpRequest) -> FileResponse | HttpResponse:
        response: FileResponse = super().serve(static_file, request)
        # Parts of a file and answers without one stay as they are, and so do images of pixels.
        is_whole = response.status_code == 200 and request.method == "GET"
        if not is_whole or not re.match("text/|image/svg", response["Content-Type"]):
            return response
        response["Vary"] = "Accept-Encoding"
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return response
        key = request.path_info, response["ETag"]
        if key not in self.compressed:
            self.compressed[key] = gzip.compress(response.getvalue(), mtime=0)
        response.close()
        response["Content-Encoding"] = "gzip"
        response["Content-Length"] = len(self.compressed[key])
        return HttpResponse(self.compressed[key], headers=response.headers)
