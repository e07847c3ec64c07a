"""PostgreSQL fails under load in the ways in which it fails, and comes back."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from pytest_django import DjangoDbBlocker

from dashboard.db.health import OutageCause
from tests.support import processes
from tests.support.live_runs import wait_until
from tests.support.outage_site import INTERVAL, OutageSite, endure, outage_site
from tests.support.postgres_cluster import ROLE, Cluster, Server, postgres_cluster
from tests.support.tcp_relay import DatabaseProxy, database_proxy

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres_programs,
    pytest.mark.xdist_group("postgres outages"),
]

RETRIES = "This page retries automatically. Runs on Northflank are not affected."
LAST_KNOWN = "Showing last known data. Aborts and other changes may fail."
NO_RESPONSE = "The database has not responded since TIME."
NO_CHANGES = "The database has accepted no changes since TIME."


@dataclass
class PostgresSite(OutageSite):
    """Two processes that reach a cluster of two servers through a relay."""

    cluster: Cluster
    standby: Server
    relay: DatabaseProxy

    def switch_to(self, server: Server) -> None:
        self.relay.cut()
        self.relay.target = "127.0.0.1", server.port
        self.relay.restore()

    def end_connections(self) -> int:
        """End all connections of the processes; return how many there were."""
        url = self.cluster.primary.url("postgres", "postgres")
        with psycopg.connect(url, autocommit=True) as server:
            statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
            return len(server.execute(statement, [ROLE]).fetchall())


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[PostgresSite]:
    folder = tmp_path_factory.mktemp("outages")
    with (
        django_db_blocker.unblock(),
        postgres_cluster() as cluster,
        cluster.standby() as standby,
        database_proxy(cluster.primary.url()) as (url, relay),
        outage_site(folder, cluster.primary.url(), process_url=url, count=2) as outage,
    ):
        cluster.primary.execute("CREATE ROLE other LOGIN", "postgres")
        yield PostgresSite(**vars(outage), cluster=cluster, standby=standby, relay=relay)


@contextlib.contextmanager
def server_stopped(site: PostgresSite, mode: str) -> Iterator[None]:
    site.cluster.primary.stop(mode)
    try:
        yield
    finally:
        site.cluster.primary.start()


@contextlib.contextmanager
def connections_taken(site: PostgresSite) -> Iterator[None]:
    """Others have all connections."""
    url = site.cluster.primary.url("postgres", "other")
    with contextlib.ExitStack() as taken:

        def take_all() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(url))
            return site.end_connections() == 0

        wait_until(take_all, processes.WAIT_TIMEOUT, INTERVAL)
        yield


@contextlib.contextmanager
def on_standby(site: PostgresSite) -> Iterator[None]:
    """The processes reach the standby, which only answers reads."""
    site.switch_to(site.standby)
    try:
        yield
    finally:
        site.switch_to(site.cluster.primary)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param("fast", marks=pytest.mark.exhaustive), "immediate"])
def test_restarted_server_is_waited_for(site: PostgresSite, mode: str) -> None:
    answers = endure(site, server_stopped(site, mode), OutageCause.NO_RESPONSE)
    sentence = f"{NO_RESPONSE} {RETRIES}"
    assert sentence in answers.texts
    # A page that had read everything, when another request found the outage, is shown.
    assert answers.texts <= {sentence, f"{NO_RESPONSE} {LAST_KNOWN}"}


@pytest.mark.exhaustive
def test_connection_limit_is_waited_for(site: PostgresSite) -> None:
    answers = endure(site, connections_taken(site), OutageCause.NO_RESPONSE)
    assert f"{NO_RESPONSE} {RETRIES}" in answers.texts


@pytest.mark.slow
def test_read_only_standby_shows_pages(site: PostgresSite) -> None:
    answers = endure(site, on_standby(site), OutageCause.NO_CHANGES)
    assert f"{NO_CHANGES} {LAST_KNOWN}" in answers.texts


@pytest.mark.exhaustive
def test_ended_connections_are_opened_again(site: PostgresSite) -> None:
    with site.load() as answers:
        for _ in range(4):
            before = len(answers.aborts)
            wait_until(lambda: len(answers.aborts) > before + 1, processes.WAIT_TIMEOUT)  # noqa: B023
            wait_until(site.end_connections, processes.WAIT_TIMEOUT)
        site.wait_until_up()
    site.assert_aborts_are_whole(answers)
    assert set(answers.pages) <= {200, 503}, answers.pages
