"""Administrators, and the pages about people and rights."""

from django.contrib.auth.models import Permission, User
from django.test import Client

from dashboard.accounts.administration import administrators


def create_administrator(username: str = "ada") -> User:
    """Create an administrator who is no superuser."""
    user = User.objects.create_user(username)
    for name in administrators.PERMISSIONS:
        app, _, codename = name.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


def client_of(user: User) -> Client:
    """Return the browser of a signed-in user."""
    client = Client()
    client.force_login(user)
    return client
