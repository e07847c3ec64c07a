"""The ids of a stream's events: from which version, and with which permissions, it continues.

A page in the background has no stream. If its viewer's permissions change meanwhile, the digest in
the id with which it opens the next stream differs, and it has to reload.

A page opens its first stream with an id that also says as of when it was read. What it shows may be
newer than the last message to others, since not every change has a version.
"""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from django.utils.crypto import salted_hmac

from dashboard.accounts.permissions import Permissions
from dashboard.web.http import keys

_SALT = "dashboard.event_id"


class Since(NamedTuple):
    """What a page shows that opens a stream."""

    version: int | None  # None: unknown
    has_other_permissions: bool = False  # those of its viewer have changed
    read_at: int | None = None  # in milliseconds, for a page that was just loaded

    @property
    def is_stale(self) -> bool:
        """Whether the page has to reload, whatever has changed."""
        return self.version is None or self.has_other_permissions


def encode(version: int | str, permissions: Permissions) -> str:
    """Return the id of an event, or of a page by its `page_version`, for these permissions."""
    return f"{version}-{_digest(permissions)}"


def page_version(version: int, read_at: datetime) -> str:
    """Return the version of a page together with the time at which it was read."""
    return f"{version}.{milliseconds(read_at)}"


def milliseconds(moment: datetime) -> int:
    """Return a time in milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def decode(event_id: str, permissions: Permissions) -> Since:
    """Return what an id says; one without permissions was the last of a stream that ended."""
    version_and_time, _, digest = event_id.partition("-")
    version, _, read_at = version_and_time.partition(".")
    has_other_permissions = digest not in {"", _digest(permissions)}
    return Since(keys.parse_pk(version), has_other_permissions, keys.parse_pk(read_at))


@lru_cache(maxsize=100)
def _digest(permissions: Permissions) -> str:
    # With the secret key: addresses are in logs, where nobody must be able to try out permissions.
    return salted_hmac(_SALT, permissions.cache_key, algorithm="sha256").hexdigest()[:12]
