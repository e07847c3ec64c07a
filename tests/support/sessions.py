"""Sessions of signed-in users; tests of sign-in use the page instead."""

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

CSRF_TOKEN = "0123456789abcdefghijABCDEFGHIJkl"


def session_key(name: str) -> str:
    """Return the key of a new session of this account."""
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value
