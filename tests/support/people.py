"""The browsers of signed-in users."""

from django.contrib.auth.models import User
from django.test import Client


def client_of(user: User) -> Client:
    """Return the browser of a signed-in user."""
    client = Client()
    client.force_login(user)
    return client
