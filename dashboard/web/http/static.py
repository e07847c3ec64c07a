"""Static files with a content hash in their URL, without a collectstatic step."""

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage


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
