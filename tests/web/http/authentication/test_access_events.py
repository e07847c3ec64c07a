"""What the access log records of sign-ins and sign-outs."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts.authentication import throttle
from dashboard.models import AccessEvent, FailureCounter
from dashboard.models.accounts.access import AccessKind
from tests.support.auth_proxy import PROXY, STRANGER, ProxiedBrowser
from tests.support.live import Live
from tests.support.sign_in import SIGN_IN, SignInBrowser

SECRET = "correct horse battery staple"


@pytest.fixture
def stranger(live: Live) -> Iterator[SignInBrowser]:
    with SignInBrowser(live, "192.0.2.1") as browser:
        yield browser


def test_sign_in_and_sign_out_are_recorded_with_address(
    stranger: SignInBrowser, viewer: User
) -> None:
    stranger.submit("viewer", "viewer")
    stranger.post("/accounts/logout/", data={"csrfmiddlewaretoken": stranger.cookies["csrftoken"]})
    signed_out, signed_in = AccessEvent.objects.all()
    assert (signed_in.kind, signed_out.kind) == (AccessKind.SIGNED_IN, AccessKind.SIGNED_OUT)
    for event in (signed_in, signed_out):
        assert (event.user, event.username) == (viewer, "viewer")
        assert event.client_address == "192.0.2.1"
        assert timezone.now() - event.occurred_at < timedelta(minutes=1)


def test_forwarded_address_of_a_peer_that_is_no_proxy_is_not_recorded(
    live: Live, viewer: User
) -> None:
    with ProxiedBrowser(live.base_url, peer=STRANGER) as browser:
        browser.headers["X-Forwarded-For"] = "192.0.2.1"
        browser.submit_password("viewer", "viewer", SIGN_IN)
    event = AccessEvent.objects.get()
    assert (event.kind, event.client_address) == (AccessKind.SIGNED_IN, STRANGER)


def test_ipv4_address_in_the_notation_of_ipv6_is_recorded_as_ipv4(live: Live, viewer: User) -> None:
    """As a proxy with one socket for both passes it; else all IPv4 clients share one throttle."""
    with SignInBrowser(live, "::ffff:192.0.2.1") as browser:
        browser.submit("viewer", SECRET)
    assert AccessEvent.objects.get().client_address == "192.0.2.1"


def test_ipv6_address_is_recorded_without_its_scope(live: Live, viewer: User) -> None:
    with SignInBrowser(live, "fe80::1%" + "x" * 40) as browser:
        browser.submit("viewer", SECRET)
    assert AccessEvent.objects.get().client_address == "fe80::1"


@pytest.mark.parametrize("header", ["", ",", "unknown", "192.0.2.1, _hidden"])
def test_proxy_that_names_no_address_is_recorded_and_throttled_itself(
    header: str, live: Live, viewer: User
) -> None:
    with SignInBrowser(live, header) as browser:
        browser.submit("viewer", SECRET)
    assert AccessEvent.objects.get().client_address == PROXY
    own = throttle.Counter(throttle.ADDRESS, throttle.network(PROXY))
    assert FailureCounter.objects.filter(key=own.key).exists()


def test_failed_sign_in_is_recorded_without_password(stranger: SignInBrowser, viewer: User) -> None:
    stranger.submit("viewer", SECRET)
    event = AccessEvent.objects.get()
    assert (event.kind, event.username) == (AccessKind.SIGN_IN_FAILED, "viewer")
    assert (event.client_address, event.detail) == ("192.0.2.1", "Wrong password.")
    assert SECRET not in str(AccessEvent.objects.values().get())


def test_name_without_account_is_not_recorded(stranger: SignInBrowser, viewer: User) -> None:
    stranger.submit(SECRET, "viewer")  # typed into the wrong field
    event = AccessEvent.objects.get()
    assert (event.kind, event.username, event.user) == (AccessKind.SIGN_IN_FAILED, "", None)
    assert event.detail == "No such account."
    assert SECRET not in str(AccessEvent.objects.values().get())


def test_failed_sign_in_of_inactive_account_says_so_in_the_log_only(
    stranger: SignInBrowser, viewer: User
) -> None:
    User.objects.update(is_active=False)
    answer = stranger.submit("viewer", "viewer")
    assert answer.status_code == 200
    assert "inactive" not in answer.text
    assert AccessEvent.objects.get().detail.startswith("The account is inactive")
