"""One request to the API over HTTP: sent, retried once where that is safe, and decoded.

The endpoints are in `client.py`; what a status or a body means is in `responses.py`.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Self
from urllib.parse import quote

import httpx

from dashboard import __version__
from dashboard.northflank import responses
from dashboard.northflank.errors import NotFound, ServerError, UnexpectedResponse, Unreachable
from dashboard.northflank.responses import RateLimit
from dashboard.northflank.values import Json, as_id

BASE_URL = "https://api.northflank.com"
USER_AGENT = f"northflank-dashboard/{__version__}"
# A full page of runs is some 100 KB, one with the longest names and descriptions 3 MB. What is read
# takes some five times as much memory until it is decoded.
MAX_RESPONSE_BYTES = 5 * 1024 * 1024

_MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the status matters most
_RETRY_PAUSE = 0.2  # seconds
# The request cannot have arrived. After any other error it counts as sent: better to doubt an abort
# that failed than to repeat one that worked.
_NOT_SENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was sent, for budgets and metrics: contains no id and no secret."""

    method: str
    route: str  # "GET run"
    status: int | None  # None: no response came
    seconds: float
    rate_limit: RateLimit | None


class HttpClient:
    """The connections to one API with one token. One per process: they are reused."""

    def __init__(
        self,
        token: str,
        *,
        base_url: str = BASE_URL,
        team_id: str | None = None,
        on_call: Callable[[Call], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_seconds: float = 15,
    ) -> None:
        """Open no connection yet; `dashboard/config/checks.py` checks the arguments.

        `on_call` is called after every request that was sent, failed ones included; it must not
        raise. `timeout_seconds` bounds a whole call with its retry. `transport` replaces the
        network in tests.
        """
        self._base_url = base_url.rstrip("/")
        # Organisation tokens must name the team, as a part of each project's route.
        self._team_path = ("teams", team_id) if team_id else ()
        self._token = token
        self._on_call = on_call
        self._timeout_seconds = timeout_seconds
        self._http = _open_client(token, base_url, transport, timeout_seconds)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def request_json(
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        *,
        query: dict[str, str] | None = None,
        deadline: float | None = None,
    ) -> Json:
        """Return the decoded JSON of one request, retried once where that is safe.

        Raise NorthflankError. `route` is the endpoint's name for budgets and metrics, `path` its
        unquoted segments. At `deadline`, a time of time.monotonic, sending and waiting end.
        """
        request = self._http.build_request(method, self._url(path), params=query)
        seconds = self._timeout_seconds
        if deadline is not None:
            seconds = min(seconds, max(deadline - monotonic(), 0.0))
        try:
            # httpx's own timeouts start anew with every byte; this one bounds the whole.
            async with asyncio.timeout(seconds):
                try:
                    return await self._send_once(request, f"{method} {route}", deadline)
                except (Unreachable, ServerError) as failure:
                    is_unsent = isinstance(failure, Unreachable) and not failure.may_have_arrived
                    if (method != "GET" and not is_unsent) or _is_expired(deadline):
                        raise
                await asyncio.sleep(_RETRY_PAUSE)
                return await self._send_once(request, f"{method} {route}", deadline)
        except TimeoutError as error:
            raise _timeout_error(seconds, may_have_arrived=True) from error

    async def _send_once(self, request: httpx.Request, route: str, deadline: float | None) -> Json:
        # The process may have been suspended since the caller decided to send this.
        if _is_expired(deadline):
            raise Unreachable(
                "The deadline for sending the request has passed.",
                may_have_arrived=False,
                cause="timeout",
            )
        started, is_sent = monotonic(), True
        status: int | None = None
        rate_limit: RateLimit | None = None
        try:
            response = await self._http.send(request, stream=True)
            try:
                status = response.status_code
                rate_limit = responses.parse_rate_limit(response.headers)
                body = await self._read_body(response)
            finally:
                await response.aclose()
        except (httpx.HTTPError, ssl.SSLError) as error:  # httpcore passes those of a read on
            failure = self._unreachable(error)
            is_sent = failure.may_have_arrived
            raise failure from error
        finally:
            if is_sent and self._on_call is not None:
                elapsed = monotonic() - started
                self._on_call(Call(request.method, route, status, elapsed, rate_limit))
        return responses.decode(status, response.headers, body, self._token)

    def _unreachable(self, error: httpx.HTTPError | ssl.SSLError) -> Unreachable:
        may_have_arrived = not isinstance(error, _NOT_SENT_ERRORS)
        if isinstance(error, httpx.TimeoutException):
            return _timeout_error(self._timeout_seconds, may_have_arrived=may_have_arrived)
        if may_have_arrived:
            text = "The connection to Northflank was lost before it responded."
        else:
            text = "Northflank is unreachable."
        return Unreachable(text, may_have_arrived=may_have_arrived)

    async def _read_body(self, response: httpx.Response) -> bytes:
        """Return the body, decompressed; of an error what can be read, as its status is enough."""
        max_bytes = MAX_RESPONSE_BYTES if response.is_success else _MAX_ERROR_BYTES
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise responses.unexpected(
                        f"larger than {max_bytes:,} bytes", response.status_code
                    )
        except (httpx.HTTPError, ssl.SSLError, UnexpectedResponse):
            if response.is_success:
                raise
        return bytes(body)

    def _url(self, path: tuple[str, ...]) -> str:
        # Ids come from people's URLs. An empty one would address the list, a dot the parent.
        if not all(as_id(part) for part in path):
            raise NotFound("Not a valid Northflank ID.")
        return "/".join([self._base_url, "v1", *(quote(part, safe="") for part in path)])


def find_environment_error(base_url: str) -> str:
    """Return why requests cannot be sent with the proxy and certificates that the environment sets.

    Empty if they can, as far as that shows without a request. It quotes no proxy's password.
    """
    try:
        _open_client("unused", base_url, None, 1)
    except OSError as error:
        return f"SSL_CERT_FILE is not a readable file of certificates: {error}."
    except ImportError:
        return "HTTPS_PROXY or ALL_PROXY is a SOCKS proxy, which is not supported."
    except (ValueError, httpx.InvalidURL):
        return "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY has an invalid address."
    return ""


def _open_client(
    token: str, base_url: str, transport: httpx.AsyncBaseTransport | None, timeout_seconds: float
) -> httpx.AsyncClient:
    url = httpx.URL(base_url)
    return httpx.AsyncClient(
        transport=transport,
        # Self-hosters may need a proxy or their own CA, which the environment names (httpx reads no
        # netrc by itself). The sandbox on loopback is never behind a proxy.
        # No transport with retries: giving httpx one switches the proxies off.
        trust_env=url.host not in {"127.0.0.1", "::1", "localhost"},
        verify=url.scheme == "https",  # reading the CAs takes longer than many requests
        timeout=httpx.Timeout(
            timeout_seconds, connect=timeout_seconds / 3, pool=timeout_seconds / 3
        ),
        # Each abort that a slow Northflank has yet to answer holds a connection; the next one must
        # not wait for it.
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=5, keepalive_expiry=20),
        follow_redirects=False,  # a redirect would carry the token elsewhere
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": USER_AGENT,
        },
    )


def _is_expired(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _timeout_error(seconds: float, *, may_have_arrived: bool) -> Unreachable:
    return Unreachable(
        f"Northflank did not respond within {round(seconds, 1):g} seconds.",
        may_have_arrived=may_have_arrived,
        cause="timeout",
    )
