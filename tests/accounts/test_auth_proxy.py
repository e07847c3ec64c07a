"""Whose header is believed; tests/web/http/authentication has the rest, over sockets."""

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from structlog.testing import capture_logs

from dashboard.accounts.authentication import auth_proxy, break_glass


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),  # at a socket for both families
        ("fd00::1", True),
        ("192.0.2.1", True),
        ("192.0.2.10", False),
        ("11.0.0.1", False),
        ("::ffff:11.0.0.1", False),
        ("fe80::1%eth0", False),
        ("::1", False),
        ("10.1.2.3:80", False),
        ("unix:", False),
        ("", False),
        (None, False),
    ],
)
def test_peer_is_trusted_by_its_address(
    peer: str | None, trusted: bool, settings: Settings
) -> None:
    settings.AUTH_PROXY_TRUSTED = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"]
    assert auth_proxy.is_trusted(peer) is trusted


@pytest.mark.django_db
def test_unusable_break_glass_account_is_logged(settings: Settings) -> None:
    def reasons() -> list[str]:
        with capture_logs() as logs:
            break_glass.warn_if_unusable()
        return [line["why"] for line in logs]

    assert reasons() == []
    settings.BREAK_GLASS_ACCOUNT = "glass"
    assert reasons() == ["There is no such account."]
    user = User.objects.create_user("glass")
    assert reasons() == ["It has no password."]
    user.set_password("seal")
    user.save()
    assert reasons() == []
    User.objects.update(is_active=False)
    assert reasons() == ["It is inactive."]
