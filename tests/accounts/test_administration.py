"""Administrators change accounts, groups and grants; each change is checked and recorded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import demo, rights_changes
from dashboard.accounts.administration import account_changes, administrators, group_changes
from dashboard.accounts.administration.account_changes import AccountSettings
from dashboard.accounts.administration.administrators import (
    AdministrationError,
    Author,
    Conflict,
    NotAllowed,
)
from dashboard.accounts.permissions import RELEASE_MANAGERS
from dashboard.models import AccessEvent, ApiToken, Grant, ProxyAccount, RightsChange
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from dashboard.models.accounts.grants import Action
from tests.support import factories
from tests.support.live import WAIT_TIMEOUT
from tests.support.messages import raises

EVERYTHING = {"action": Action.VIEW}
ABORT_IN_STAGING = {"stage": "Staging", "action": Action.ABORT}


@pytest.fixture
def root(db: None) -> Author:
    """A superuser."""
    return Author(User.objects.create_superuser("root"), "192.0.2.1")


@pytest.fixture
def ada(db: None) -> Author:
    """Another administrator."""
    return Author(User.objects.create_superuser("ada"), None)


@pytest.fixture
def on_call(db: None) -> Group:
    return Group.objects.create(name="On-call")


def settings_of(user: User, **changes: object) -> AccountSettings:
    values = {
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "group_keys": frozenset(user.groups.values_list("pk", flat=True)),
    }
    return AccountSettings(**values | changes)  # type: ignore[arg-type]


def change(author: Author, user: User, **changes: object) -> None:
    """Change an account as shown now."""
    version = rights_changes.version(rights_changes.account(user.pk))
    account_changes.change_account(author, user.pk, settings_of(user, **changes), version)
    user.refresh_from_db()


def recorded() -> list[tuple[str, str, str, str]]:
    """Return author, kind, name and detail of each recorded change, oldest first."""
    values = ("changed_by", "subject_kind", "subject", "detail")
    return list(RightsChange.objects.order_by("pk").values_list(*values))


# --- The first administrator ---------------------------------------------------------------------


@pytest.mark.django_db
def test_first_administrator_is_added_once_and_recorded() -> None:
    account_changes.add_first_administrator("ada", "correct horse")
    account_changes.add_first_administrator("eve", "another horse")
    [user] = User.objects.all()
    assert administrators.may_administer(user)
    assert user.check_password("correct horse")
    assert recorded() == [("", "account", "ada", "Added by ADMIN_PASSWORD.")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("username", "password"),
    [("ada", "ada"), ("ada", "password"), ("a b", "correct horse"), ("x" * 151, "correct horse")],
)
def test_first_administrator_that_a_form_would_refuse_is_not_added(
    username: str, password: str
) -> None:
    with pytest.raises(ValidationError):
        account_changes.add_first_administrator(username, password)
    assert not User.objects.exists()


# --- Who is administrator ------------------------------------------------------------------------


def test_administrators_are_superusers(root: Author, viewer: User) -> None:
    assert administrators.may_administer(root.user)
    assert not administrators.may_administer(viewer)


def test_former_administrator_changes_nothing(ada: Author, viewer: User) -> None:
    User.objects.filter(pk=ada.user.pk).update(is_superuser=False)
    with raises(NotAllowed, "administrator_no_longer"):
        change(ada, viewer, is_active=False)
    viewer.refresh_from_db()
    assert viewer.is_active
    assert recorded() == []


def test_nothing_is_changed_in_read_only_mode(
    root: Author, viewer: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    with raises(NotAllowed, "read_only"):
        change(root, viewer, is_active=False)


# --- Accounts ------------------------------------------------------------------------------------


def test_added_account_is_recorded_with_its_state(root: Author, on_call: Group) -> None:
    wanted = AccountSettings(True, False, frozenset({on_call.pk}))
    user = account_changes.add_account(root, "ben", "", wanted)
    assert not user.has_usable_password()
    recorded_change = RightsChange.objects.get()
    assert (recorded_change.changed_by, recorded_change.client_address) == ("root", "192.0.2.1")
    assert (recorded_change.subject_kind, recorded_change.subject_key) == ("account", user.pk)
    assert recorded_change.before is None
    assert recorded_change.after == {
        "name": "ben",
        "active": True,
        "superuser": False,
        "proxy": False,
        "groups": ["On-call"],
        "permissions": [],
    }


def test_account_with_name_in_other_case_is_not_added(root: Author, viewer: User) -> None:
    with raises(AdministrationError, "name_taken"):
        account_changes.add_account(root, "Viewer", "", settings_of(viewer))
    assert not User.objects.filter(username="Viewer").exists()


def test_change_of_account_is_recorded_with_state_before_and_after(
    root: Author, viewer: User, on_call: Group
) -> None:
    change(root, viewer, is_superuser=True, group_keys=frozenset({on_call.pk}))
    assert (viewer.is_superuser, list(viewer.groups.all())) == (True, [on_call])
    rights_change = RightsChange.objects.get()
    assert (rights_change.before["groups"], rights_change.before["superuser"]) == ([], False)
    assert (rights_change.after["groups"], rights_change.after["superuser"]) == (["On-call"], True)


def test_change_in_access_log_is_one_line_without_states(root: Author, viewer: User) -> None:
    change(root, viewer, is_active=False)
    event = AccessEvent.objects.get(kind=AccessKind.RIGHTS_CHANGED)
    assert (event.username, event.changed_by, event.detail) == ("viewer", "root", "Changed.")


def test_save_without_a_change_is_not_recorded(root: Author, viewer: User) -> None:
    change(root, viewer)
    assert recorded() == []


def test_second_of_two_administrators_overwrites_nothing(
    root: Author, ada: Author, viewer: User, on_call: Group
) -> None:
    shown = rights_changes.version(rights_changes.account(viewer.pk))
    change(root, viewer, is_active=False)
    with raises(Conflict, "changed"):
        account_changes.change_account(
            ada,
            viewer.pk,
            settings_of(viewer, is_active=True, group_keys=frozenset({on_call.pk})),
            shown,
        )
    viewer.refresh_from_db()
    assert not viewer.is_active
    assert list(viewer.groups.all()) == []


def test_deleted_account_cannot_be_changed(root: Author, viewer: User) -> None:
    shown, wanted, key = (
        rights_changes.version(rights_changes.account(viewer.pk)),
        settings_of(viewer),
        viewer.pk,
    )
    viewer.delete()
    with raises(Conflict, "deleted"):
        account_changes.change_account(root, key, wanted, shown)
    with raises(Conflict, "deleted"):
        account_changes.set_password(root, key, "!")


def test_break_glass_account_gets_a_password_while_others_have_none(
    root: Author, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT, settings.PASSWORD_SIGN_IN = "glass", False
    account_changes.add_account(root, "glass", "", AccountSettings(True, False, frozenset()))
    account_changes.set_password(root, User.objects.get(username="glass").pk, "!new")


def test_nobody_sets_their_own_password_without_the_current_one(root: Author, ada: Author) -> None:
    for author in (root, ada):
        author.user.set_password("current")
        author.user.save()
        with raises(NotAllowed, "own_password"):
            account_changes.set_password(author, author.user.pk, "!new")
        author.user.refresh_from_db()
        assert author.user.check_password("current")


def test_own_account_without_a_password_does_not_get_one(
    root: Author, ada: Author, settings: Settings
) -> None:
    for author in (root, ada):  # My account has no form for them
        with raises(NotAllowed, "own_no_password"):
            account_changes.set_password(author, author.user.pk, "!new")
    settings.PASSWORD_SIGN_IN = False
    for password in (None, "current"):
        root.user.set_password(password)
        root.user.save()
        with raises(NotAllowed, "no_password_sign_in"):
            account_changes.set_password(root, root.user.pk, "!new")


def test_own_password_of_a_demo_account_is_its_name(root: Author) -> None:
    root.user.groups.add(Group.objects.create(name=demo.GROUP))
    with raises(NotAllowed, "demo_password"):
        account_changes.set_password(root, root.user.pk, "!new")


def test_password_that_cannot_be_used_is_not_set(
    root: Author, viewer: User, settings: Settings
) -> None:
    settings.PASSWORD_SIGN_IN = False
    with raises(NotAllowed, "no_password_sign_in"):
        account_changes.set_password(root, viewer.pk, "!new")


@pytest.mark.parametrize("changes", [{"is_active": False}, {"is_superuser": False}])
def test_superuser_does_not_lock_themselves_out(root: Author, changes: dict[str, bool]) -> None:
    with raises(NotAllowed, "own_flags"):
        change(root, root.user, **changes)
    assert administrators.may_administer(User.objects.get(pk=root.user.pk))


def test_unknown_group_is_an_error(root: Author, viewer: User) -> None:
    with raises(AdministrationError, "group_missing"):
        change(root, viewer, group_keys=frozenset({10_000}))


def test_new_password_is_recorded_without_it(root: Author, viewer: User) -> None:
    account_changes.set_password(root, viewer.pk, "!hashed")
    viewer.refresh_from_db()
    assert viewer.password == "!hashed"
    assert recorded() == [("root", "account", "viewer", "Changed password.")]
    rights_change = RightsChange.objects.get()
    assert rights_change.before == rights_change.after
    assert "hashed" not in str(rights_change.after)


def test_account_is_handed_over_to_the_proxy_for_good(root: Author, viewer: User) -> None:
    for hand_over in (True, True, False):
        change(root, viewer, hand_over=hand_over)
        assert ProxyAccount.objects.get().user == viewer
    rights_change = RightsChange.objects.get()
    assert (rights_change.subject, rights_change.changed_by) == ("viewer", "root")
    assert rights_change.after == rights_change.before | {"proxy": True}


def test_break_glass_and_demo_accounts_are_not_handed_over_to_the_proxy(
    root: Author, viewer: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    with raises(NotAllowed, "break_glass"):
        change(root, viewer, hand_over=True)
    settings.BREAK_GLASS_ACCOUNT = ""
    viewer.groups.add(Group.objects.create(name=demo.GROUP))
    with raises(NotAllowed, "demo"):
        change(root, viewer, hand_over=True)
    assert not ProxyAccount.objects.exists()


def test_token_revoked_twice_keeps_its_time_and_is_in_the_access_log_once(
    ada: Author, viewer: User
) -> None:
    token = ApiToken.create_token(viewer, "Runbook", Scope.ABORT, timezone.now())[0]
    account_changes.revoke_token(ada, token)
    revoked_at = ApiToken.objects.get().revoked_at
    assert revoked_at is not None
    account_changes.revoke_token(ada, ApiToken.objects.get())
    assert ApiToken.objects.get().revoked_at == revoked_at
    event = AccessEvent.objects.get()
    assert (event.kind, event.username, event.changed_by, event.token_name) == (
        AccessKind.TOKEN_REVOKED,
        "viewer",
        "ada",
        "Runbook",
    )
    assert recorded() == []


# --- Groups and grants ---------------------------------------------------------------------------


def test_group_is_added_renamed_and_deleted(root: Author) -> None:
    group = group_changes.add_group(root, "  On   call ")
    assert group.name == "On call"
    version = rights_changes.version(rights_changes.group(group.pk))
    group_changes.rename_group(root, group, "Leads", version)
    group.refresh_from_db()
    group_changes.add_grant(root, Grant(group=group, **ABORT_IN_STAGING))
    group_changes.delete_group(root, group, rights_changes.version(rights_changes.group(group.pk)))
    assert not Group.objects.filter(name="Leads").exists()
    assert recorded() == [
        ("root", "group", "On call", "Added."),
        ("root", "group", "Leads", "Renamed."),
        ("root", "group", "Leads", "Grant added."),
        ("root", "group", "Leads", "Deleted."),
    ]
    last = RightsChange.objects.order_by("-pk")[0]
    assert last.before["grants"] == [{"action": "abort", "project": "", "stage": "Staging"}]
    assert last.after is None


def test_deleted_group_is_recorded_for_its_members(
    root: Author, on_call: Group, viewer: User
) -> None:
    viewer.groups.add(on_call)
    group_changes.delete_group(
        root, on_call, rights_changes.version(rights_changes.group(on_call.pk))
    )
    rights_change = RightsChange.objects.get(subject_kind="account")
    assert (
        rights_change.subject,
        rights_change.before["groups"],
        rights_change.after["groups"],
    ) == (
        "viewer",
        ["On-call"],
        [],
    )


@pytest.mark.parametrize("name", ["", " \t", "x" * 151, "\0"])
def test_group_without_a_valid_name_is_not_added(root: Author, name: str) -> None:
    with raises(AdministrationError, "name_length", max=150):
        group_changes.add_group(root, name)


def test_group_whose_name_differs_in_the_case_of_any_letter_is_not_added(root: Author) -> None:
    Group.objects.create(name="Équipe")
    with raises(AdministrationError, "name_taken"):
        group_changes.add_group(root, "équipe")


@pytest.mark.parametrize(
    "name", ["Demo accounts", "demo ACCOUNTS", " Demo\xa0 accounts ", "\uff24emo account\u017f"]
)
@pytest.mark.parametrize("is_sandbox", [True, False])
def test_no_group_gets_the_name_of_that_of_the_demo_accounts(
    root: Author, on_call: Group, name: str, is_sandbox: bool
) -> None:
    if is_sandbox:
        Group.objects.create(name=demo.GROUP)
    # Its members can sign in to the sandbox with their names, and are deactivated without it.
    with raises(AdministrationError, "name_reserved"):
        group_changes.add_group(root, name)
    version = rights_changes.version(rights_changes.group(on_call.pk))
    with raises(AdministrationError, "name_reserved"):
        group_changes.rename_group(root, on_call, name, version)
    assert recorded() == []


def test_nobody_is_added_to_the_group_of_the_demo_accounts(root: Author, viewer: User) -> None:
    group = Group.objects.create(name=demo.GROUP)
    with raises(AdministrationError, "group_missing"):
        change(root, viewer, group_keys=frozenset({group.pk}))
    assert not viewer.groups.exists()


def test_release_managers_are_neither_renamed_nor_deleted(root: Author, manager: User) -> None:
    group = Group.objects.get(name=RELEASE_MANAGERS)
    version = rights_changes.version(rights_changes.group(group.pk))
    with raises(AdministrationError, "release_managers"):
        group_changes.rename_group(root, group, "Others", version)
    with raises(AdministrationError, "release_managers"):
        group_changes.delete_group(
            root, group, rights_changes.version(rights_changes.group(group.pk))
        )
    assert Group.objects.filter(name=RELEASE_MANAGERS).exists()


def test_group_that_changed_meanwhile_is_not_deleted(root: Author, on_call: Group) -> None:
    shown = rights_changes.version(rights_changes.group(on_call.pk))
    group_changes.add_grant(root, Grant(group=on_call, **ABORT_IN_STAGING))
    with raises(Conflict, "changed"):
        group_changes.delete_group(root, on_call, shown)
    assert Group.objects.filter(pk=on_call.pk).exists()


def test_grant_is_added_and_removed_and_both_are_recorded(root: Author, on_call: Group) -> None:
    project = factories.project("shop")
    group_changes.add_grant(root, Grant(group=on_call, project=project, **ABORT_IN_STAGING))
    grant = Grant.objects.get(group=on_call)
    assert (grant.project, grant.stage, grant.action) == (project, "Staging", "abort")
    group_changes.remove_grant(
        root, grant, rights_changes.version(rights_changes.group(on_call.pk))
    )
    assert not Grant.objects.filter(group=on_call).exists()
    added, removed = RightsChange.objects.order_by("pk")
    listed = [{"action": "abort", "project": "shop", "stage": "Staging"}]
    assert (added.before["grants"], added.after["grants"]) == ([], listed)
    assert (removed.before["grants"], removed.after["grants"]) == (listed, [])


def test_grant_for_everybody_is_recorded_as_such(root: Author) -> None:
    group_changes.add_grant(root, Grant(group=None, **ABORT_IN_STAGING))
    assert recorded() == [("root", "everybody", "", "Grant added.")]


def test_same_grant_is_not_added_twice(root: Author, on_call: Group) -> None:
    group_changes.add_grant(root, Grant(group=on_call, **ABORT_IN_STAGING))
    with raises(AdministrationError, "grant_exists"):
        group_changes.add_grant(root, Grant(group=on_call, **ABORT_IN_STAGING))
    assert Grant.objects.filter(group=on_call).count() == 1


def test_grant_is_removed_once(root: Author, on_call: Group) -> None:
    group_changes.add_grant(root, Grant(group=on_call, **ABORT_IN_STAGING))
    grant = Grant.objects.get(group=on_call)
    version = rights_changes.version(rights_changes.group(on_call.pk))
    group_changes.remove_grant(root, Grant.objects.get(pk=grant.pk), version)
    with raises(Conflict, "changed"):
        group_changes.remove_grant(root, grant, version)
    assert len(recorded()) == 2


# --- The effect of a change ----------------------------------------------------------------------


def test_effect_counts_members_who_gain_and_those_who_may_already(
    on_call: Group, viewer: User, manager: User
) -> None:
    for user in (viewer, manager):
        user.groups.add(on_call)
    User.objects.create_user("inactive", is_active=False).groups.add(on_call)
    effect = group_changes.effect_of_addition(Grant(group=on_call, **ABORT_IN_STAGING))
    assert (effect.gaining, effect.losing, effect.unchanged) == (1, 0, 1)
    assert not effect.hides_everything


def test_effect_of_logs_counts_those_who_may_abort_as_unchanged(
    on_call: Group, viewer: User, manager: User
) -> None:
    for user in (viewer, manager):
        user.groups.add(on_call)
    effect = group_changes.effect_of_addition(Grant(group=on_call, action=Action.LOGS))
    assert (effect.gaining, effect.losing, effect.unchanged) == (1, 0, 1)
    grant = Grant.objects.create(group=on_call, action=Action.LOGS)
    effect = group_changes.effect_of_removal(grant)
    assert (effect.gaining, effect.losing, effect.unchanged) == (0, 1, 1)


def test_effect_of_wide_grant_counts_gains_in_projects_that_others_name(
    on_call: Group, viewer: User
) -> None:
    Grant.objects.all().delete()
    viewer.groups.add(on_call)
    project = factories.project("shop")
    factories.grant("view", "On-call", viewer, stage="Staging")
    factories.grant("abort", "On-call", viewer, project=project)
    wide = Grant(group=on_call, stage="Staging", action="view")
    assert group_changes.effect_of_addition(wide).unchanged == 1
    wider = Grant(group=on_call, **EVERYTHING)
    assert group_changes.effect_of_addition(wider).gaining == 1
    in_shop = Grant(group=on_call, project=project, action="view")
    assert group_changes.effect_of_addition(in_shop).unchanged == 1


def test_removal_of_the_last_way_to_view_hides_everything(viewer: User, manager: User) -> None:
    grant = Grant.objects.get(group=None)
    assert not group_changes.effect_of_removal(grant).hides_everything
    manager.groups.clear()
    assert group_changes.effect_of_removal(grant).hides_everything


# --- Several administrators at once --------------------------------------------------------------


def test_superusers_who_demote_each_other_at_once_leave_one(transactional_db: None) -> None:
    users = [User.objects.create_superuser(name) for name in ("ana", "ben")]
    versions = [rights_changes.version(rights_changes.account(user.pk)) for user in users]
    barrier = threading.Barrier(2, timeout=WAIT_TIMEOUT)

    def demote_the_other(own: int) -> str:
        other = 1 - own
        barrier.wait()
        try:
            account_changes.change_account(
                Author(users[own], None),
                users[other].pk,
                AccountSettings(True, False, frozenset()),
                versions[other],
            )
        except AdministrationError as error:
            return type(error).__name__
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(2) as executor:
        results = sorted(executor.map(demote_the_other, (0, 1)))
    assert results == ["", "NotAllowed"]
    assert User.objects.filter(is_superuser=True).count() == 1


def test_superuser_who_was_demoted_meanwhile_makes_no_superuser(ada: Author, viewer: User) -> None:
    User.objects.filter(pk=ada.user.pk).update(is_superuser=False)
    with pytest.raises(NotAllowed):
        change(ada, viewer, is_superuser=True)
    assert not User.objects.get(pk=viewer.pk).is_superuser


@pytest.mark.parametrize(
    ("name", "reason"), [("\uff56iewer", "name_taken"), ("v\u0456ewer", "name_mixed")]
)
def test_name_that_reads_like_another_account_is_not_added(
    name: str, reason: str, root: Author, viewer: User
) -> None:
    with raises(AdministrationError, reason):
        account_changes.add_account(root, name, "", settings_of(viewer))


def test_group_name_with_invisible_characters_is_refused(root: Author) -> None:
    with raises(AdministrationError, "name_invisible"):
        group_changes.add_group(root, "On\u202ecall")


@pytest.mark.parametrize("is_member", [False, True])
def test_group_that_somebody_joined_or_left_meanwhile_is_not_deleted(
    root: Author, on_call: Group, viewer: User, is_member: bool
) -> None:
    if is_member:
        viewer.groups.add(on_call)
    shown = rights_changes.version(rights_changes.group(on_call.pk))
    viewer.groups.set([] if is_member else [on_call])
    with raises(Conflict, "changed"):
        group_changes.delete_group(root, on_call, shown)
    assert Group.objects.filter(pk=on_call.pk).exists()


@pytest.mark.parametrize("is_everybody", [False, True])
def test_grant_of_a_group_that_changed_meanwhile_is_not_removed(
    root: Author, on_call: Group, is_everybody: bool
) -> None:
    group = None if is_everybody else on_call
    group_changes.add_grant(root, Grant(group=group, **ABORT_IN_STAGING))
    grant = Grant.objects.get(group=group, action=Action.ABORT)
    shown = rights_changes.version(rights_changes.group(grant.group_id))
    group_changes.add_grant(root, Grant(group=group, stage="Staging", action=Action.VIEW))
    with raises(Conflict, "changed"):
        group_changes.remove_grant(root, grant, shown)
    assert Grant.objects.filter(pk=grant.pk).exists()
    assert [detail for *_, detail in recorded()] == ["Grant added."] * 2


def test_account_is_not_added_with_a_password_that_cannot_be_used(
    root: Author, settings: Settings
) -> None:
    settings.PASSWORD_SIGN_IN, settings.BREAK_GLASS_ACCOUNT = False, "glass"
    wanted = AccountSettings(True, False, frozenset())
    with raises(NotAllowed, "no_password_sign_in"):
        account_changes.add_account(root, "ben", "!hashed", wanted)
    assert not User.objects.filter(username="ben").exists()
    account_changes.add_account(root, "ben", "", wanted)
    account_changes.add_account(root, "glass", "!hashed", wanted)
    assert User.objects.get(username="glass").password == "!hashed"
