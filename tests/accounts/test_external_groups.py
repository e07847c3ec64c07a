"""Groups that an identity provider or a proxy reports."""

from collections.abc import Iterable, Mapping

import pytest
from django.contrib.auth.models import Group, User

from dashboard.accounts import demo
from dashboard.accounts.authentication.external_groups import synchronise_groups
from dashboard.models import AccessEvent, RightsChange
from tests.support.live_runs import ago
from tests.support.parallel import do_beside, require_row_locks


@pytest.fixture
def user(db: None) -> User:
    for name in ("Release managers", "Leads", "On-call"):
        Group.objects.get_or_create(name=name)
    user = User.objects.create_user("ada")
    user.groups.add(Group.objects.get(name="Leads"))
    return user


def synchronise(user: User, names: Iterable[str], group_map: Mapping[str, str] = {}) -> bool:
    return synchronise_groups(
        user, names, group_map, ago(0), source="OpenID Connect", client_address="192.0.2.1"
    )


def groups_of(user: User) -> set[str]:
    return set(user.groups.values_list("name", flat=True))


def test_groups_are_added_and_taken_away(user: User) -> None:
    assert synchronise(user, ["On-call", "unknown"])
    assert groups_of(user) == {"On-call"}
    assert not Group.objects.filter(name="unknown").exists()


def test_group_map_translates_names_and_ignores_others(user: User) -> None:
    group_map = {"eng-oncall": "On-call", "eng-leads": "Leads"}
    assert synchronise(user, ["eng-oncall", "Release managers"], group_map)
    assert groups_of(user) == {"On-call"}


def test_change_is_recorded_once(user: User) -> None:
    assert synchronise(user, ["On-call"])
    assert not synchronise(user, ["On-call"])
    event = AccessEvent.objects.get(kind="rights_changed")
    assert (event.username, event.changed_by, event.client_address) == ("ada", "", "192.0.2.1")
    assert event.detail == "Groups set by OpenID Connect."
    change = RightsChange.objects.get()
    assert (change.subject, change.changed_by, change.detail) == ("ada", "", event.detail)
    assert (change.before["groups"], change.after["groups"]) == (["Leads"], ["On-call"])


def test_demo_group_cannot_be_reported(user: User) -> None:
    Group.objects.get_or_create(name=demo.GROUP)
    synchronise(user, [demo.GROUP])
    assert groups_of(user) == set()


# --- At the same time ----------------------------------------------------------------------------


@pytest.fixture
def committed_user(transactional_db: None, user: User) -> User:
    """The user, whom other threads see; skips the test on SQLite."""
    require_row_locks()
    return user


def test_change_that_two_requests_make_at_once_is_recorded_once(committed_user: User) -> None:
    def act() -> bool:
        return synchronise(committed_user, [])

    with do_beside('DELETE FROM "auth_user_groups"', act) as future:
        assert act()
    assert not future.result()
    assert RightsChange.objects.count() == 1
