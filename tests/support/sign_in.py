"""Sign in over HTTP, as a person does; tests of what follows use tests/support/sessions.py."""

from typing import Self

import httpx

from tests.support.live import WAIT_TIMEOUT, Live

SIGN_IN = "/accounts/login/"


class SignInBrowser(httpx.Client):
    """A browser without a session that opens the sign-in page; `address` is its client address."""

    def __init__(self, live: Live, address: str = "127.0.0.1") -> None:
        super().__init__(
            base_url=live.base_url,
            timeout=WAIT_TIMEOUT,
            verify=False,
            headers={"X-Forwarded-For": address},  # believed from this machine, as from a proxy
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self.get(SIGN_IN)
        return self

    def submit(
        self, username: str, password: str, *, path: str = SIGN_IN, **form: str
    ) -> httpx.Response:
        """Submit the form; the response is that to the POST."""
        token = self.cookies["csrftoken"]
        data = {"username": username, "password": password, "csrfmiddlewaretoken": token, **form}
        return self.post(path, data=data)
