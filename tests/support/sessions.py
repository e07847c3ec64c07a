"""Sessions of signed-in users; tests of sign-in use the page instead."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Session
from dashboard.models.accounts.sessions import recorded_uses

CSRF_TOKEN = "0123456789abcdefghijABCDEFGHIJkl"


def session_key(name: str) -> str:
    """Return the key of a new session of this account."""
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def age_last_use() -> datetime:
    """Make it an hour since any session was used; return that time."""
    past = timezone.now() - timedelta(hours=1)
    Session.objects.update(last_used_at=past)
    recorded_uses.clear()
    return past
