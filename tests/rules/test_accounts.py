"""The group that may abort from the start, and the demo accounts that come with the sandbox."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from dashboard.accounts import demo, permissions
from dashboard.models import Grant, Stage
from tests.support import factories


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage()


def rights() -> set[tuple[str | None, str]]:
    """Who was granted what, everywhere."""
    everywhere = Grant.objects.filter(project=None, stage="")
    return set(everywhere.values_list("group__name", "right"))


def test_from_the_start_everybody_sees_and_a_group_aborts(db: None) -> None:
    Group.objects.all().delete()
    Grant.objects.all().delete()
    permissions.keep_group()
    assert rights() == {(None, "see"), (permissions.RELEASE_MANAGERS, "abort")}


def test_rights_that_were_taken_away_stay_away(db: None) -> None:
    Grant.objects.all().delete()
    permissions.keep_group()
    assert not Grant.objects.exists()


def test_a_group_that_comes_back_gives_nobody_more_to_see(db: None) -> None:
    Group.objects.all().delete()
    Grant.objects.all().delete()
    factories.grant("see", "Team A")
    permissions.keep_group()
    assert rights() == {("Team A", "see"), (permissions.RELEASE_MANAGERS, "abort")}


def test_the_demo_manager_may_abort(stage: Stage) -> None:
    demo.admit()
    assert permissions.may_abort(User.objects.get(username="manager"), stage).allowed


def test_the_demo_viewer_may_see_and_not_abort(stage: Stage) -> None:
    demo.admit()
    viewer = permissions.rights(User.objects.get(username="viewer"))
    assert viewer.may_see(stage)
    assert not viewer.may_abort(stage).allowed


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


def test_a_persons_own_account_is_given_no_right(stage: Stage) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.admit()
    assert not permissions.may_abort(User.objects.get(username="manager"), stage).allowed


def test_a_persons_own_account_is_not_expelled(db: None, client: Client) -> None:
    User.objects.create_user("manager", password="my own, long and secret")
    demo.admit()
    demo.expel()
    assert client.login(username="manager", password="my own, long and secret")
