"""A user signs in from a known address, however much others guess elsewhere."""

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import access_log
from dashboard.accounts.authentication import sign_in, throttle
from dashboard.accounts.authentication.sign_in import Attempt
from dashboard.models.accounts.access import AccessKind

OFFICE, OFFICE_IPV6 = "192.0.2.1", "2001:db8::1"
DAY = timedelta(days=1)


@pytest.fixture
def guessed_at(viewer: User) -> datetime:
    """The time at which strangers at many addresses have guessed at the viewer's password."""
    at = timezone.now()
    for _ in range(throttle.ACCOUNT.burst):
        throttle.count([throttle.Counter(throttle.ACCOUNT, "viewer")], at)
    return at


@pytest.mark.parametrize(
    ("address", "kind", "age", "is_throttled"),
    [
        (OFFICE, AccessKind.SIGNED_IN, 29 * DAY, False),
        (OFFICE, AccessKind.SIGNED_IN, 31 * DAY, True),
        (OFFICE, AccessKind.SIGN_IN_FAILED, DAY, True),
        ("192.0.2.2", AccessKind.SIGNED_IN, DAY, True),
    ],
)
def test_account_is_not_throttled_at_an_address_from_which_it_signed_in(
    address: str,
    kind: AccessKind,
    age: timedelta,
    is_throttled: bool,
    viewer: User,
    guessed_at: datetime,
) -> None:
    access_log.record(kind, guessed_at - age, user=viewer, client_address=address)
    wait = sign_in.remaining_wait(Attempt("viewer", OFFICE), guessed_at)
    assert bool(wait) == is_throttled


def test_known_ipv6_address_is_known_with_its_network(viewer: User, guessed_at: datetime) -> None:
    access_log.record(AccessKind.SIGNED_IN, guessed_at, user=viewer, client_address=OFFICE_IPV6)
    assert not sign_in.remaining_wait(Attempt("viewer", "2001:db8::2"), guessed_at)


def test_address_is_known_for_the_account_alone(
    viewer: User, manager: User, guessed_at: datetime
) -> None:
    access_log.record(AccessKind.SIGNED_IN, guessed_at, user=manager, client_address=OFFICE)
    assert sign_in.remaining_wait(Attempt("viewer", OFFICE), guessed_at)


def test_guesses_at_a_known_address_are_throttled(viewer: User, guessed_at: datetime) -> None:
    access_log.record(AccessKind.SIGNED_IN, guessed_at, user=viewer, client_address=OFFICE)
    attempt = Attempt("viewer", OFFICE)
    for _ in range(throttle.ACCOUNT_AT_ADDRESS.burst):
        throttle.count(attempt.counters, guessed_at)
    assert sign_in.remaining_wait(attempt, guessed_at) == throttle.ACCOUNT_AT_ADDRESS.interval
