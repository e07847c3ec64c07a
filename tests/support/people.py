"""Administrators, and the pages about people and rights."""

from collections.abc import Mapping

from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from dashboard.accounts.administration import administrators
from tests.support.html import parse_html


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


def submit_admin_form(client: Client, address: str, form: Mapping[str, object]) -> HttpResponse:
    """Submit a form of an account or a group in the admin, with the version that it shows now."""
    fields = parse_html(client.get(address)).css("input[type=hidden][name=version]")
    return client.post(
        address, {"version": fields[0].attributes["value"] if fields else "", **form}
    )
