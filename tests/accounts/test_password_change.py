"""A checked password change is saved only if nothing has changed since the check."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.accounts.authentication import password_change
from dashboard.accounts.authentication.password_change import CheckedChange
from dashboard.accounts.authentication.sign_in import Attempt, Refusal
from dashboard.models import AccessEvent, Session
from dashboard.models.accounts.access import AccessKind

ATTEMPT = Attempt("viewer", "192.0.2.1")


def check(user: User, old: str = "viewer") -> CheckedChange:
    checked = password_change.check(user, ATTEMPT, old, "another password")
    assert isinstance(checked, CheckedChange)
    return checked


def save(user: User, checked: CheckedChange, session_key: str | None) -> bool:
    return password_change.save(user, checked, session_key, timezone.now(), client_address=None)


def test_wrong_password_is_refused_without_a_wait(viewer: User) -> None:
    assert password_change.check(viewer, ATTEMPT, "wrong", "another password") == Refusal()


@pytest.mark.parametrize("change", ["nothing", "password", "inactive", "session", "deleted"])
def test_password_is_saved_only_if_account_and_session_are_as_checked(
    change: str, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    key, checked = client.session.session_key, check(viewer)
    stored = User.objects.filter(pk=viewer.pk)
    if change == "password":
        stored.update(password="changed meanwhile")
    elif change == "inactive":
        stored.update(is_active=False)
    elif change == "session":
        Session.objects.all().delete()
    elif change == "deleted":
        stored.delete()
    assert save(viewer, checked, key) is (change == "nothing")
    assert stored.filter(password=checked.new_hash).exists() is (change == "nothing")
    recorded = AccessEvent.objects.filter(kind=AccessKind.PASSWORD_CHANGED)
    assert recorded.exists() is (change == "nothing")
