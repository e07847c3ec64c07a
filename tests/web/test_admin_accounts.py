"""Accounts in the admin: what changes while they are saved, and those that cannot be deleted."""

from collections.abc import Callable, Iterator

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Group, User
from django.db import DatabaseError, connection
from django.test import Client
from pytest_django import Settings

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import account_changes, group_changes
from dashboard.accounts.administration.account_changes import AccountSettings
from dashboard.accounts.administration.administrators import Author
from dashboard.accounts.administration.group_changes import GrantScope
from dashboard.models import RightsChange
from dashboard.models.accounts.grants import Action
from tests.support.html import fetch_page, parse_html, select_one, text_of
from tests.support.parallel import do_beside, require_row_locks
from tests.support.people import client_of, create_administrator, submit_admin_form

NEW_PASSWORD = {
    "usable_password": "true",
    "password1": "correct horse battery staple",
    "password2": "correct horse battery staple",
    "set-password": "1",
}


@pytest.fixture
def administrator_client(db: None) -> Client:
    """The browser of an administrator who may open the admin, and is no superuser."""
    administrator = create_administrator()
    administrator.is_staff = True
    administrator.save()
    return client_of(administrator)


def messages_on(client: Client, address: str) -> list[str]:
    return [text_of(message) for message in fetch_page(client, address).css(".messagelist li")]


# --- New passwords -------------------------------------------------------------------------------


class PromotingHasher(PBKDF2PasswordHasher):
    """While it hashes, somebody else makes the account a superuser."""

    algorithm = "promoting"

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        User.objects.filter(username="viewer").update(is_superuser=True)
        return super().encode(password, salt, 1)


class DemotingHasher(PBKDF2PasswordHasher):
    """While it hashes, the administrator stops being one."""

    algorithm = "demoting"

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        User.objects.get(username="ada").user_permissions.clear()
        return super().encode(password, salt, 1)


@pytest.mark.parametrize(
    ("hasher", "reason"),
    [
        (PromotingHasher, "Only superusers can change superusers."),
        (DemotingHasher, "You are no longer an administrator. Nothing was changed."),
    ],
)
def test_password_that_may_no_longer_be_set_once_it_is_hashed_is_not_saved_in_the_admin(
    hasher: type, reason: str, administrator_client: Client, viewer: User, settings: Settings
) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.{hasher.__name__}", *settings.PASSWORD_HASHERS]
    old = viewer.password
    answer = administrator_client.post(f"/admin/auth/user/{viewer.pk}/password/", NEW_PASSWORD)
    assert answer.status_code == 403
    assert text_of(select_one(parse_html(answer), "[data-reason]")) == reason
    viewer.refresh_from_db()
    assert viewer.password == old
    assert not RightsChange.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("table", ["dashboard_rightschange", "django_admin_log"])
def test_password_whose_change_cannot_be_recorded_is_not_saved_in_the_admin(
    table: str, admin_client: Client, viewer: User
) -> None:
    def fail(execute: Callable[..., object], sql: str, *arguments: object) -> object:
        if sql.startswith(f'INSERT INTO "{table}"'):
            raise DatabaseError("disk full")
        return execute(sql, *arguments)

    old = viewer.password
    with connection.execute_wrapper(fail), pytest.raises(DatabaseError, match="disk full"):
        admin_client.post(f"/admin/auth/user/{viewer.pk}/password/", NEW_PASSWORD)
    viewer.refresh_from_db()
    assert viewer.password == old


# --- Several administrators at once --------------------------------------------------------------


@pytest.fixture
def author(transactional_db: None) -> Author:
    """Another superuser, whose changes are committed; skips the test on SQLite."""
    require_row_locks()
    return Author(User.objects.create_superuser("ana"), None)


@pytest.mark.parametrize("is_bulk_action", [False, True])
def test_group_that_is_deleted_while_an_account_joins_it_is_recorded_for_the_account_by_the_admin(
    is_bulk_action: bool, author: Author, admin_client: Client, viewer: User
) -> None:
    group = Group.objects.create(name="On-call")
    subject = rights_changes.account(viewer.pk)
    version = rights_changes.version(rights_changes.snapshot(subject)[subject])
    account_settings = AccountSettings(True, False, False, frozenset({group.pk}))

    def delete() -> int:
        form = {"action": "delete_selected", "_selected_action": group.pk, "post": "yes"}
        address = "" if is_bulk_action else f"{group.pk}/delete/"
        return admin_client.post(f"/admin/auth/group/{address}", form).status_code

    with do_beside('INSERT INTO "auth_user_groups"', delete) as future:
        account_changes.change_account(author, viewer.pk, account_settings, version)
    assert future.result() == 302
    change = RightsChange.objects.get(subject_kind="account", changed_by="root")
    assert (change.before["groups"], change.after["groups"]) == (["On-call"], [])


@pytest.mark.parametrize("name", ["viewer", "renamed"])
@pytest.mark.parametrize(("is_member", "is_chosen"), [(False, True), (True, True), (True, False)])
def test_account_is_saved_without_a_group_that_is_being_deleted_by_the_admin(
    author: Author, admin_client: Client, viewer: User, name: str, is_member: bool, is_chosen: bool
) -> None:
    group = Group.objects.create(name="On-call")
    viewer.groups.set([group] if is_member else [])
    groups = [group.pk] if is_chosen else []
    form = {"username": name, "is_active": "on", "is_staff": "on", "groups": groups}

    def save() -> int:
        address = f"/admin/auth/user/{viewer.pk}/change/"
        return submit_admin_form(admin_client, address, form).status_code

    version = group_changes.deletion_version(group)
    with do_beside('DELETE FROM "auth_group"', save) as future:
        group_changes.delete_group(author, group, version)
    assert future.result() == 302
    viewer.refresh_from_db()
    assert (viewer.is_staff, viewer.groups.exists()) == (True, False)


def test_grant_to_a_group_that_is_being_deleted_is_not_added_by_the_admin(
    author: Author, admin_client: Client
) -> None:
    group = Group.objects.create(name="On-call")
    address = "/admin/dashboard/grant/add/"
    form = {"group": group.pk, "project": "", "stage": "Staging", "action": "abort"}
    version = group_changes.deletion_version(group)
    with do_beside('DELETE FROM "auth_group"', lambda: admin_client.post(address, form)) as future:
        group_changes.delete_group(author, group, version)
    assert future.result().status_code == 303
    message = "Nothing was changed: the account or group has been deleted."
    assert messages_on(admin_client, address) == [message]


def test_grant_of_everybody_added_meanwhile_is_not_recorded_as_the_admins(
    author: Author, superuser: User, admin_client: Client
) -> None:
    scope = GrantScope(None, "Production", Action.ABORT)
    form = {"group": "", "project": "", "stage": "Staging", "action": "abort"}
    with do_beside(
        'INSERT INTO "dashboard_grant"', lambda: group_changes.add_grant(author, None, scope)
    ) as future:
        assert admin_client.post("/admin/dashboard/grant/add/", form).status_code == 302
    future.result()
    change = RightsChange.objects.get(changed_by="root")
    added = [grant for grant in change.after["grants"] if grant not in change.before["grants"]]
    assert [grant["stage"] for grant in added] == ["Staging"]


# --- Accounts of a former identity provider ------------------------------------------------------


@pytest.fixture
def provider_account(transactional_db: None, viewer: User) -> Iterator[User]:
    """An account to which a table refers that is not in use, as without OIDC_ISSUER."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE former_provider"
            " (user_id integer REFERENCES auth_user (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        cursor.execute("INSERT INTO former_provider VALUES (%s)", [viewer.pk])
    yield viewer
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE former_provider")


def test_account_of_a_former_provider_is_not_deleted_in_the_admin(
    admin_client: Client, provider_account: User
) -> None:
    address = f"/admin/auth/user/{provider_account.pk}"
    answer = admin_client.post(f"{address}/delete/", {"post": "yes"})
    assert (answer.status_code, answer["Location"]) == (303, f"{address}/change/")
    assert messages_on(admin_client, f"{address}/change/") == [
        (
            "Nothing was deleted: data of an identity provider, or new data, refers to this "
            "account. Try again, or deactivate it instead."
        )
    ]
    assert User.objects.filter(pk=provider_account.pk).exists()
    assert not LogEntry.objects.exists()


def test_accounts_are_not_deleted_together_with_one_of_a_former_provider_in_the_admin(
    admin_client: Client, provider_account: User, manager: User
) -> None:
    keys = [provider_account.pk, manager.pk]
    form = {"action": "delete_selected", "_selected_action": keys, "post": "yes"}
    answer = admin_client.post("/admin/auth/user/", form)
    assert (answer.status_code, answer["Location"]) == (303, "/admin/auth/user/")
    [message] = messages_on(admin_client, "/admin/auth/user/")
    assert message == (
        "Nothing was deleted: data of an identity provider, or new data, refers to one of these "
        "accounts. Try again, or deactivate them instead."
    )
    assert User.objects.filter(pk__in=keys).count() == 2
    assert not LogEntry.objects.exists()
