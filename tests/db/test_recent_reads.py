"""Reads that are not repeated while nothing has changed in a SQLite database."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from dashboard.db import recent_reads

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL can't tell of changes"),
]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Names:
    """The names of all accounts, and how often they were loaded."""

    reads: int = 0
    key: object = field(default_factory=object)

    def load(self) -> list[str]:
        self.reads += 1
        return list(User.objects.order_by("username").values_list("username", flat=True))

    def read(self, now: datetime = NOW) -> list[str]:
        return recent_reads.read(self.key, now, self.load)


def add(name: str) -> None:
    User.objects.create(username=name)


def add_in_another_thread(name: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        executor.submit(add, name).result()
        executor.submit(connections.close_all).result()


def test_unchanged_database_is_read_once() -> None:
    names = Names()
    add("alice")
    assert [names.read() for _ in range(3)] == [["alice"]] * 3
    assert names.reads == 1


@pytest.mark.parametrize("write", [add, add_in_another_thread])
def test_database_is_read_anew_after_a_change(write: Callable[[str], None]) -> None:
    names = Names()
    assert names.read() == []
    write("alice")
    assert names.read() == ["alice"]
    write("adam")
    assert names.read() == ["adam", "alice"]


def test_database_is_read_anew_after_a_change_that_was_rolled_back() -> None:
    names = Names()
    assert names.read() == []
    with transaction.atomic():
        add("alice")
        assert names.read() == ["alice"]
        transaction.set_rollback(True)
    assert names.read() == []


def test_each_key_has_its_own_read() -> None:
    names, others = Names(), Names()
    names.read()
    others.read()
    assert (names.reads, others.reads) == (1, 1)


@pytest.mark.parametrize(
    ("seconds", "reads"),
    [(0.99, 1), (1, 2), (60, 2), (-1, 2)],
    ids=["young", "old", "late", "set back"],
)
def test_read_is_repeated_after_a_second(seconds: float, reads: int) -> None:
    names = Names()
    names.read()
    names.read(NOW + timedelta(seconds=seconds))
    assert names.reads == reads


def test_database_is_read_anew_on_a_new_connection() -> None:
    names = Names()
    names.read()
    connection.close()
    names.read()
    assert names.reads == 2


def test_number_of_reads_is_limited() -> None:
    first = Names()
    first.read()
    for _ in range(recent_reads.MAX_READS):
        Names().read()
    first.read()
    assert first.reads == 2
