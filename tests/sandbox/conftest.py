"""The sandbox on a real server, with a clock that the tests set."""

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from tests.support.sandbox import Front, Served


@pytest.fixture(scope="session")
def front_and_url() -> Iterator[tuple[Front, str]]:
    front = Front()
    server = uvicorn.Server(
        uvicorn.Config(front, host="127.0.0.1", port=0, lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield front, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def client_of_all(front_and_url: tuple[Front, str]) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5) as client:  # making one takes longer than a request
        yield client


@pytest.fixture
def served(front_and_url: tuple[Front, str], client_of_all: httpx.Client) -> Served:
    return Served(*front_and_url, client_of_all)
