"""The ids of a stream's events: from which version, and with which permissions, it continues.

A page in the background has no stream. If its viewer's permissions change meanwhile, the digest in
the id with which it opens the next stream differs, and it has to reload.
"""

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

    @property
    def is_stale(self) -> bool:
        """Whether the page has to reload, whatever has changed."""
        return self.version is None or self.has_other_permissions


def encode(version: int | str, permissions: Permissions) -> str:
    """Return the id of a page or event of this version for viewers with these permissions."""
    return f"{version}-{_digest(permissions)}"


def decode(event_id: str, permissions: Permissions) -> Since:
    """Return what an id says; one without permissions was the last of a stream that ended."""
    version, _, digest = event_id.partition("-")
    return Since(keys.parse_pk(version), digest not in {"", _digest(permissions)})


@lru_cache(maxsize=100)
def _digest(permissions: Permissions) -> str:
    # With the secret key: addresses are in logs, where nobody must be able to try out permissions.
    return salted_hmac(_SALT, permissions.cache_key, algorithm="sha256").hexdigest()[:12]
