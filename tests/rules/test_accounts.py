"""Who may abort, and the demo accounts that come and go with the sandbox."""

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.test import Client
from pytest_django import Settings

from dashboard import access, demo


def test_a_member_of_the_group_may_abort(manager: User) -> None:
    assert access.may_abort(manager).allowed


def test_somebody_else_may_not_abort(viewer: User) -> None:
    assert not access.may_abort(viewer).allowed


def test_whoever_may_not_abort_is_told_who_can(viewer: User) -> None:
    assert access.RELEASE_MANAGERS in access.may_abort(viewer).why_not


def test_a_stranger_may_not_abort(db: None) -> None:
    assert not access.may_abort(AnonymousUser()).allowed


def test_a_superuser_may_abort(db: None) -> None:
    assert access.may_abort(User.objects.create_superuser("root", password="x")).allowed


def test_a_closed_account_may_not_abort(manager: User) -> None:
    manager.is_active = False
    manager.save()
    assert not access.may_abort(User.objects.get(pk=manager.pk)).allowed


def test_a_closed_superuser_may_not_abort(db: None) -> None:
    root = User.objects.create_superuser("root", password="x", is_active=False)
    assert not access.may_abort(root).allowed


def test_staff_alone_may_not_abort(db: None) -> None:
    assert not access.may_abort(User.objects.create_user("s", is_staff=True)).allowed


def test_the_right_may_be_given_to_a_person(viewer: User) -> None:
    viewer.user_permissions.add(Permission.objects.get(codename="abort_run"))
    assert access.may_abort(User.objects.get(pk=viewer.pk)).allowed


@pytest.mark.parametrize(("setting", "value"), [("READ_ONLY", True), ("ABORTS_ENABLED", False)])
def test_nobody_aborts_where_it_is_switched_off(
    manager: User, settings: Settings, setting: str, value: bool
) -> None:
    setattr(settings, setting, value)
    assert not access.may_abort(manager).allowed


@pytest.mark.parametrize(("setting", "value"), [("READ_ONLY", True), ("ABORTS_ENABLED", False)])
def test_not_even_a_superuser_aborts_where_it_is_switched_off(
    db: None, settings: Settings, setting: str, value: bool
) -> None:
    setattr(settings, setting, value)
    assert not access.may_abort(User.objects.create_superuser("root", password="x")).allowed


def test_the_group_that_may_abort_exists_from_the_start(db: None) -> None:
    access.keep_group()
    assert Group.objects.get(name=access.RELEASE_MANAGERS).permissions.get().codename == "abort_run"


def test_a_group_whose_rights_were_changed_stays_as_it_is(db: None) -> None:
    access.keep_group()
    Group.objects.get(name=access.RELEASE_MANAGERS).permissions.clear()
    access.keep_group()
    assert not Group.objects.get(name=access.RELEASE_MANAGERS).permissions.exists()


def test_the_demo_manager_may_abort(db: None) -> None:
    access.keep_group()
    demo.admit()
    assert access.may_abort(User.objects.get(username="manager")).allowed


def test_the_demo_viewer_may_not_abort(db: None) -> None:
    demo.admit()
    assert not access.may_abort(User.objects.get(username="viewer")).allowed


@pytest.mark.parametrize("name", ["manager", "viewer"])
def test_a_demo_account_signs_in_with_its_name(db: None, client: Client, name: str) -> None:
    demo.admit()
    assert client.login(username=name, password=name)


def test_demo_accounts_are_neither_staff_nor_superusers(db: None) -> None:
    demo.admit()
    assert not User.objects.filter(is_staff=True).exists()
    assert not User.objects.filter(is_superuser=True).exists()


def test_admitting_twice_changes_no_password(db: None) -> None:
    demo.admit()
    before = User.objects.get(username="manager").password
    demo.admit()
    assert User.objects.get(username="manager").password == before


@pytest.mark.parametrize("name", ["manager", "viewer"])
def test_an_expelled_account_cannot_sign_in(db: None, client: Client, name: str) -> None:
    demo.admit()
    demo.expel()
    assert not client.login(username=name, password=name)


def test_an_expelled_account_keeps_no_session(db: None, client: Client) -> None:
    demo.admit()
    client.login(username="manager", password="manager")
    demo.expel()
    assert client.get("/").status_code == 302


def test_an_expelled_account_has_no_session_even_when_it_is_opened_again(
    db: None, client: Client
) -> None:
    demo.admit()
    client.login(username="manager", password="manager")
    demo.expel()
    User.objects.update(is_active=True)
    assert client.get("/").status_code == 302


def test_an_account_is_admitted_again(db: None, client: Client) -> None:
    demo.admit()
    demo.expel()
    demo.admit()
    assert client.login(username="manager", password="manager")


def test_a_persons_own_account_is_not_given_the_demo_password(db: None, client: Client) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.admit()
    assert not client.login(username="manager", password="manager")


def test_a_persons_own_account_is_given_no_right(db: None) -> None:
    access.keep_group()
    User.objects.create_user("manager", password="my own, long and secret")
    demo.admit()
    assert not access.may_abort(User.objects.get(username="manager")).allowed


def test_a_persons_own_account_is_not_expelled(db: None, client: Client) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.admit()
    demo.expel()
    assert client.login(username="manager", password="my own, long and secret")
