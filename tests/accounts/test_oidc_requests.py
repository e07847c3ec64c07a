"""Requests to the OpenID provider."""

import asyncio
import ssl

import pytest
from django.test import override_settings
from pytest_django import Settings

from dashboard.accounts.authentication import oidc_provider
from dashboard.accounts.authentication.oidc_claims import OIDCFailure, Reason
from dashboard.accounts.authentication.oidc_provider import ProviderClient
from tests.support.scripted_server import SELF_SIGNED, ScriptedServer, respond_with

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("direct_connections")]


@pytest.fixture
def direct_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine in between."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def request_json(server: ScriptedServer) -> object:
    def request() -> object:
        with ProviderClient() as client:
            return client.get_json(server.url)

    return await asyncio.to_thread(request)


async def test_provider_is_trusted_by_the_certificates_that_northflank_is(
    settings: Settings,
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(SELF_SIGNED)
    async with ScriptedServer(tls) as server:
        server.enqueue(respond_with(b"{}"))
        with pytest.raises(OIDCFailure, match="SSLError"):
            await request_json(server)
        settings.SSL_CERT_FILE = str(SELF_SIGNED)
        assert await request_json(server) == {}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": "\\ud800"}',
    ],
    ids=["nested", "long number", "half a surrogate pair"],
)
async def test_json_that_python_cannot_use_is_no_json_object(body: bytes) -> None:
    async with ScriptedServer() as server:
        server.enqueue(respond_with(body))
        with pytest.raises(OIDCFailure, match="200, no JSON object") as raised:
            await request_json(server)
        assert raised.value.reason is Reason.PROVIDER


async def test_redirect_is_not_followed() -> None:
    async with ScriptedServer() as server:
        server.enqueue(respond_with({}, status=307, headers={"Location": f"{server.url}/other"}))
        with pytest.raises(OIDCFailure, match="307") as raised:
            await request_json(server)
        assert raised.value.reason is Reason.PROVIDER
        assert len(server.requests) == 1


@override_settings(OIDC_ISSUER="http://127.0.0.1:1")
def test_refused_connection_counts_as_no_answer() -> None:
    with pytest.raises(OIDCFailure, match="ConnectionError"):
        oidc_provider.load_configuration()
