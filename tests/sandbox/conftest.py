"""The sandbox on a real server, with a clock that tests set."""

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from tests.support.sandbox import AppSwitch, SandboxServer


@pytest.fixture(scope="session")
def app_switch_and_url() -> Iterator[tuple[AppSwitch, str]]:
    app_switch = AppSwitch()
    server = uvicorn.Server(
        uvicorn.Config(app_switch, host="127.0.0.1", port=0, lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield app_switch, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def shared_client(app_switch_and_url: tuple[AppSwitch, str]) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:  # creating a client takes longer than a request
        yield client


@pytest.fixture
def sandbox_server(
    app_switch_and_url: tuple[AppSwitch, str], shared_client: httpx.Client
) -> SandboxServer:
    return SandboxServer(*app_switch_and_url, shared_client)
