"""Browsers behind an authenticating proxy, and some that come past it."""

from typing import Any

import httpx
from django.conf import settings as product_settings
from pytest_django import Settings

from dashboard.accounts.authentication.auth_proxy import BACKEND
from tests.support.live import WAIT_TIMEOUT

HEADER, GROUPS_HEADER = "X-Forwarded-User", "X-Forwarded-Groups"
PROXY = "127.0.0.1"  # uvicorn believes X-Forwarded-For from it, too
STRANGER = "127.0.0.2"  # another address of this machine


def configure(settings: Settings, **values: Any) -> None:
    """Have the dashboard believe the header from PROXY."""
    settings.AUTH_PROXY_HEADER = HEADER
    settings.AUTH_PROXY_GROUPS_HEADER = GROUPS_HEADER
    settings.AUTH_PROXY_TRUSTED = [PROXY]
    settings.AUTHENTICATION_BACKENDS = [
        *product_settings.AUTHENTICATION_BACKENDS,
        BACKEND,
    ]
    for name, value in values.items():
        setattr(settings, name, value)


class ProxiedBrowser(httpx.Client):
    """A browser that connects from `peer`; the headers are those that arrive at the dashboard."""

    def __init__(
        self,
        base_url: str,
        user: str | bytes | None = None,
        groups: str | None = None,
        *,
        peer: str = PROXY,
    ) -> None:
        super().__init__(
            base_url=base_url,
            timeout=WAIT_TIMEOUT,
            transport=httpx.HTTPTransport(local_address=peer, verify=False),
        )
        self.send_user(user, groups)

    def send_user(self, user: str | bytes | None, groups: str | None = None) -> None:
        """Send these headers from now on; None: not."""
        sent = {HEADER: user, GROUPS_HEADER: groups}
        self.headers = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in sent.items()
            if value is not None
        ]

    def open(self, path: str = "/", **headers: str) -> httpx.Response:
        """Return a page as browsers ask for it, so that it may be a cached one."""
        return self.get(path, headers={"Accept-Encoding": "gzip", **headers})

    def submit_password(self, username: str, password: str, path: str) -> httpx.Response:
        """Submit the form of the sign-in page at `path`."""
        self.get(path)
        token = self.cookies["csrftoken"]
        data = {"username": username, "password": password, "csrfmiddlewaretoken": token}
        return self.post(path, data=data)
