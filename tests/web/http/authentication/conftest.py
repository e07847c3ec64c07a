"""An OpenID provider, and a user of it."""

from collections.abc import Iterator

import pytest

from tests.support import oidc
from tests.support.oidc import Browser, Dashboard, Provider, new_username


@pytest.fixture(scope="package")
def provider_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with oidc.run_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
def provider(provider_process: Provider) -> Iterator[Provider]:
    """An OpenID provider without faults."""
    yield provider_process
    provider_process.reset()


@pytest.fixture
def visitor(dashboard: Dashboard, provider: Provider) -> Iterator[Browser]:
    """A browser without a session."""
    with dashboard.browser() as browser:
        yield browser


@pytest.fixture
def username(provider: Provider) -> str:
    """A user of the provider with an e-mail address and no group."""
    name = new_username()
    provider.set_claims(name, preferred_username=name, email=f"{name}@example.com")
    return name
