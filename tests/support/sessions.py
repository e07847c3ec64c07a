"""People who have signed in already; tests of signing in go through the page."""

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

CSRF_TOKEN = "0123456789abcdefghijABCDEFGHIJkl"


def session_key(name: str) -> str:
    """The key of a session that this account has just begun."""
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value
