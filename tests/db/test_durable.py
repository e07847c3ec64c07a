"""Transactions that outlive a power failure."""

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from dashboard.db import durable

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "sqlite", reason="PostgreSQL waits for the disk anyway"
    ),
]

FULL = 2


def create_and_fail() -> None:
    User.objects.create(username="ana")
    raise LookupError


def synchronous() -> int:
    connection.ensure_connection()
    [(level,)] = connection.connection.execute("PRAGMA synchronous").fetchall()
    return int(level)


def test_commit_waits_for_the_disk_and_later_ones_do_not() -> None:
    before = synchronous()
    assert before != FULL
    with durable.atomic():
        assert synchronous() == FULL
        User.objects.create(username="ana")
    assert synchronous() == before
    assert User.objects.filter(username="ana").exists()


def test_failed_transaction_is_rolled_back_and_later_ones_do_not_wait() -> None:
    before = synchronous()
    with pytest.raises(LookupError), durable.atomic():
        create_and_fail()
    assert synchronous() == before
    assert not User.objects.exists()


def test_within_a_transaction_it_is_a_part_of_it() -> None:
    with transaction.atomic():
        with durable.atomic():
            User.objects.create(username="ana")
        transaction.set_rollback(True)
    assert not User.objects.exists()
