"""The default group that may abort, and the sandbox's demo accounts."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client, override_settings

from dashboard.accounts import demo, permissions
from dashboard.models import Grant, Stage
from tests.support import factories


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage()


def grants_everywhere() -> set[tuple[str | None, str]]:
    """The groups and actions of all grants without a project or stage."""
    grants = Grant.objects.filter(project=None, stage="")
    return set(grants.values_list("group__name", "action"))


def test_default_grants_let_everybody_see_and_release_managers_abort(db: None) -> None:
    Group.objects.all().delete()
    Grant.objects.all().delete()
    permissions.ensure_default_group()
    assert grants_everywhere() == {(None, "view"), (permissions.RELEASE_MANAGERS, "abort")}


def test_removed_grants_are_not_recreated(db: None) -> None:
    Grant.objects.all().delete()
    permissions.ensure_default_group()
    assert not Grant.objects.exists()


def test_recreated_group_grants_abort_only(db: None) -> None:
    Group.objects.all().delete()
    Grant.objects.all().delete()
    factories.grant("view", "Team A")
    permissions.ensure_default_group()
    assert grants_everywhere() == {("Team A", "view"), (permissions.RELEASE_MANAGERS, "abort")}


def test_demo_manager_may_abort(stage: Stage) -> None:
    demo.enable()
    assert permissions.abort_permission(User.objects.get(username="manager"), stage).allowed


def test_demo_viewer_may_see_but_not_abort(stage: Stage) -> None:
    demo.enable()
    viewer = permissions.for_user(User.objects.get(username="viewer"))
    assert viewer.can_view(stage)
    assert not viewer.abort_permission(stage).allowed


@pytest.mark.parametrize("name", ["manager", "viewer", "admin"])
def test_demo_account_signs_in_with_its_name_as_password(
    db: None, client: Client, name: str
) -> None:
    demo.enable()
    assert client.login(username=name, password=name)


def test_demo_administrator_alone_may_administer(client: Client, stage: Stage) -> None:
    demo.enable()
    admin = User.objects.get(username="admin")
    assert list(User.objects.filter(is_superuser=True)) == [admin]
    assert permissions.abort_permission(admin, stage).allowed
    client.login(username="admin", password="admin")
    assert client.get("/people/").status_code == 200


def test_demo_account_with_other_password_cannot_sign_in(db: None, client: Client) -> None:
    demo.enable()
    for password in ("", "viewer", "Admin"):
        assert not client.login(username="admin", password=password)


def test_demo_account_loses_stored_password(db: None) -> None:
    demo.enable()
    manager = User.objects.get(username="manager")
    manager.set_password("manager")
    manager.save()
    demo.enable()
    assert not any(user.has_usable_password() for user in User.objects.all())


# The settings as they are with an API token: see tests/config/test_settings.py.
WITHOUT_SANDBOX = {"AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"]}


@pytest.mark.parametrize("name", ["manager", "viewer", "admin"])
def test_active_demo_account_cannot_sign_in_without_sandbox(
    db: None, client: Client, name: str
) -> None:
    demo.enable()
    with override_settings(**WITHOUT_SANDBOX):
        assert not client.login(username=name, password=name)


def test_session_of_active_demo_account_ends_without_sandbox(db: None, client: Client) -> None:
    demo.enable()
    client.login(username="admin", password="admin")
    assert client.get("/people/").status_code == 200
    with override_settings(**WITHOUT_SANDBOX):
        restarted = Client()  # the settings of a process do not change
        restarted.cookies = client.cookies
        assert restarted.get("/people/").status_code == 302
        assert restarted.get("/").status_code == 302


def test_disabled_demo_administrator_is_no_administrator_when_reactivated(db: None) -> None:
    demo.enable()
    demo.disable()
    assert not User.objects.filter(is_superuser=True).exists()


def test_real_administrator_with_demo_name_is_kept(db: None, client: Client) -> None:
    User.objects.create_superuser("admin", password="my own, long and secret")
    demo.enable()
    demo.disable()
    assert User.objects.get(username="admin").is_superuser
    assert not client.login(username="admin", password="admin")
    assert client.login(username="admin", password="my own, long and secret")


def test_other_account_in_the_group_of_the_demo_accounts_is_kept(db: None, client: Client) -> None:
    root = User.objects.create_superuser("root", password="my own, long and secret")
    demo.enable()
    root.groups.add(Group.objects.get(name=demo.GROUP))
    assert not client.login(username="root", password="root")
    demo.disable()
    root.refresh_from_db()
    assert (root.is_active, root.is_superuser) == (True, True)
    assert client.login(username="root", password="my own, long and secret")


@pytest.mark.parametrize("name", ["manager", "viewer", "admin"])
def test_disabled_demo_account_cannot_sign_in(db: None, client: Client, name: str) -> None:
    demo.enable()
    demo.disable()
    assert not client.login(username=name, password=name)


def test_reactivated_demo_account_does_not_regain_session(db: None, client: Client) -> None:
    demo.enable()
    client.login(username="manager", password="manager")
    demo.disable()
    User.objects.update(is_active=True)
    assert client.get("/").status_code == 302


def test_real_account_with_demo_name_keeps_its_password(db: None, client: Client) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.enable()
    assert not client.login(username="manager", password="manager")


def test_real_account_with_demo_name_is_not_disabled(db: None, client: Client) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.enable()
    demo.disable()
    assert client.login(username="manager", password="my own, long and secret")
