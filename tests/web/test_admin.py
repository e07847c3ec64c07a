"""The admin: who may change what there, audit records are read-only, and READ_ONLY applies."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import demo
from dashboard.accounts.permissions import RELEASE_MANAGERS
from dashboard.models import (
    Abort,
    AccessEvent,
    ApiToken,
    BulkAbort,
    Grant,
    Project,
    ProxyAccount,
    RightsChange,
    Run,
    SavedView,
)
from dashboard.models.aborts import EventType
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support import factories
from tests.support.html import fetch_page, field_errors, parse_html, select_one, text_of
from tests.support.live_runs import wait_until
from tests.support.parallel import is_anybody_waiting, require_row_locks
from tests.support.people import client_of, create_administrator, submit_admin_form


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    created = factories.abort(run, manager, "concluded", reason="Stuck")
    created.add_event(EventType.CONCLUDED, timezone.now(), detail="aborted")
    return created


@pytest.fixture
def token(manager: User) -> ApiToken:
    return ApiToken.create_token(manager, "Runbook", Scope.ABORT, timezone.now())[0]


@pytest.fixture
def bulk_abort(manager: User) -> BulkAbort:
    now = timezone.now()
    return BulkAbort.objects.create(
        key="6b1e2f5e-0d2c-4c58-a5a1-b9f3c1b2d9aa",
        user=manager,
        username="manager",
        reason="All stuck",
        requested_at=now,
        claimed_at=now,
    )


def test_grant_list_shows_group_project_stage_and_permission(admin_client: Client) -> None:
    Grant.objects.all().delete()
    factories.grant("view")
    factories.grant("abort", "on-call", project=factories.project(), stage="Staging")
    rows = fetch_page(admin_client, "/admin/dashboard/grant/").css("#result_list tbody tr")
    texts = {" / ".join(text_of(cell) for cell in row.css("th, td")[1:]) for row in rows}
    assert texts == {
        "all signed-in users / all projects / all stages / view runs",
        "on-call / Shop / Staging / view and abort runs",
    }


def test_grant_form_creates_grant(admin_client: Client) -> None:
    group, project = Group.objects.create(name="on-call"), factories.project()
    form = fetch_page(admin_client, "/admin/dashboard/grant/add/")
    assert [text_of(option) for option in form.css("#id_action option")][1:] == [
        "view runs",
        "view and abort runs",
    ]
    data = {"group": group.pk, "project": project.pk, "stage": "Staging", "action": "abort"}
    assert admin_client.post("/admin/dashboard/grant/add/", data).status_code == 302
    assert Grant.objects.filter(**data).exists()


def test_grant_of_all_users_can_be_deleted(admin_client: Client) -> None:
    grant = Grant.objects.get(group=None)
    address = f"/admin/dashboard/grant/{grant.pk}/delete/"
    assert admin_client.post(address, {"post": "yes"}).status_code == 302
    assert not Grant.objects.filter(group=None).exists()


@pytest.mark.parametrize(
    ("name", "owner", "is_saved"),
    [
        ("Failed", "manager", False),
        ("Stuck", "manager", True),  # its own name
        ("Mine", "manager", True),
        ("Theirs", "manager", True),
        ("Failed", "viewer", True),
    ],
)
def test_saved_view_gets_no_name_of_another_view_of_its_owner(
    admin_client: Client, manager: User, viewer: User, name: str, owner: str, is_saved: bool
) -> None:
    for user, other in ((manager, "Failed"), (viewer, "Theirs")):
        SavedView.objects.create(owner=user, name=other, query="?status=failure")
    view = SavedView.objects.create(
        owner=User.objects.get(username=owner), name="Stuck", query="?status=running"
    )
    address = f"/admin/dashboard/savedview/{view.pk}/change/"
    answer = admin_client.post(address, {"name": name, "shared": "on"})
    view.refresh_from_db()
    assert (view.name, view.shared) == ((name, True) if is_saved else ("Stuck", False))
    if is_saved:
        assert answer.status_code == 302
    else:
        assert answer.status_code == 200
        error = text_of(select_one(parse_html(answer), ".field-name .errorlist"))
        assert error == "manager already has a view with this name."


def test_abort_page_shows_timeline_and_is_read_only(admin_client: Client, abort: Abort) -> None:
    html = fetch_page(admin_client, f"/admin/dashboard/abort/{abort.pk}/change/")
    assert "Stuck" in text_of(select_one(html, "#content"))
    assert "aborted" in text_of(select_one(html, "#events-group"))
    assert html.css("#abort_form input:not([type=hidden]), #abort_form textarea, select") == []


@pytest.mark.parametrize("action", ["change", "delete"])
@pytest.mark.parametrize("model", ["abort", "bulkabort", "apitoken", "project"])
def test_recorded_and_synced_rows_reject_add_change_and_delete(
    model: str,
    action: str,
    admin_client: Client,
    abort: Abort,
    bulk_abort: BulkAbort,
    token: ApiToken,
) -> None:
    row = {
        "abort": abort,
        "bulkabort": bulk_abort,
        "apitoken": token,
        "project": Project.objects.get(),
    }
    address = f"/admin/dashboard/{model}/{row[model].pk}"
    assert admin_client.get(f"{address}/change/").status_code == 200
    assert admin_client.post(f"{address}/{action}/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"/admin/dashboard/{model}/add/").status_code == 403


@pytest.mark.parametrize("model", ["abort", "bulkabort", "apitoken", "grant"])
def test_admin_list_of_each_model_renders(
    model: str, admin_client: Client, abort: Abort, bulk_abort: BulkAbort, token: ApiToken
) -> None:
    assert fetch_page(admin_client, f"/admin/dashboard/{model}/").css("#result_list tbody tr")


def test_key_that_no_row_can_have_is_not_found(admin_client: Client) -> None:
    for model in admin.site._registry:
        if model._meta.app_label == "dashboard":
            address = reverse(f"admin:dashboard_{model._meta.model_name}_change", args=["9" * 20])
            assert admin_client.get(address).status_code == 404, address


@pytest.mark.usefixtures("bulk_abort", "token")
@pytest.mark.parametrize("is_bulk_action", [False, True])
def test_deleted_account_leaves_aborts_with_username(
    is_bulk_action: bool, admin_client: Client, abort: Abort, manager: User
) -> None:
    form: dict[str, str | int] = {"post": "yes"}
    if is_bulk_action:
        form |= {"action": "delete_selected", "_selected_action": manager.pk}
        answer = admin_client.post("/admin/auth/user/", form)
    else:
        answer = admin_client.post(f"/admin/auth/user/{manager.pk}/delete/", form)
    assert answer.status_code == 302
    assert not User.objects.filter(username="manager").exists()
    stored = Abort.objects.get()
    assert (stored.user, stored.username) == (None, "manager")
    stored_bulk = BulkAbort.objects.get()
    assert (stored_bulk.user, stored_bulk.username) == (None, "manager")
    assert not ApiToken.objects.exists()


def test_token_revoked_twice_keeps_first_revocation_time(
    admin_client: Client, token: ApiToken
) -> None:
    form = {"action": "revoke", "_selected_action": token.pk}
    answer = admin_client.post("/admin/dashboard/apitoken/", form, follow=True)
    assert "1 token revoked." in text_of(parse_html(answer))
    revoked_at = ApiToken.objects.get().revoked_at
    assert revoked_at is not None
    admin_client.post("/admin/dashboard/apitoken/", form)
    assert ApiToken.objects.get().revoked_at == revoked_at


def test_token_revocation_is_in_access_log_once(
    admin_client: Client, token: ApiToken, superuser: User
) -> None:
    form = {"action": "revoke", "_selected_action": token.pk}
    for _ in range(2):
        admin_client.post("/admin/dashboard/apitoken/", form)
    event = AccessEvent.objects.get(kind=AccessKind.TOKEN_REVOKED)
    assert (event.username, event.token_name) == (token.user.username, token.name)
    assert (event.changed_by, event.client_address) == ("root", "127.0.0.1")


def rights_changes() -> list[tuple[str, str, str]]:
    """Return user name, author and detail of each change of rights in the access log."""
    events = AccessEvent.objects.filter(kind=AccessKind.RIGHTS_CHANGED).order_by("pk")
    return list(events.values_list("username", "changed_by", "detail"))


def test_change_of_account_is_recorded_with_its_state_before_and_after(
    admin_client: Client, manager: User
) -> None:
    group = manager.groups.get()
    form = {"username": "manager", "is_active": "on", "is_staff": "on", "groups": [group.pk]}
    answer = submit_admin_form(admin_client, f"/admin/auth/user/{manager.pk}/change/", form)
    assert answer.status_code == 302, text_of(parse_html(answer))
    [(username, changed_by, detail)] = rights_changes()
    assert (username, changed_by) == ("manager", "root")
    assert "Staff status" in detail
    change = RightsChange.objects.get()
    assert (change.changed_by, change.client_address) == ("root", "127.0.0.1")
    assert change.after == change.before | {"staff": True}


def test_account_handed_over_to_the_proxy_is_in_access_log(
    admin_client: Client, viewer: User
) -> None:
    admin_client.post("/admin/dashboard/proxyaccount/add/", {"user": viewer.pk})
    assert ProxyAccount.objects.get().user == viewer
    change = RightsChange.objects.get()
    assert (change.subject, change.changed_by) == ("viewer", "root")
    assert change.after == change.before | {"proxy": True}


def test_break_glass_and_demo_accounts_are_not_handed_over_to_the_proxy(
    admin_client: Client, viewer: User, settings: Settings
) -> None:
    def hand_over() -> str:
        form = {"user": viewer.pk}
        answer = admin_client.post("/admin/dashboard/proxyaccount/add/", form)
        [error] = field_errors(answer)
        return error

    settings.BREAK_GLASS_ACCOUNT = "viewer"
    assert hand_over() == "The break-glass account cannot be handed over to the proxy."
    settings.BREAK_GLASS_ACCOUNT = ""
    viewer.groups.add(Group.objects.create(name=demo.GROUP))
    assert hand_over() == "Demo accounts cannot be handed over to the proxy."
    assert not ProxyAccount.objects.exists()


def test_administrator_does_not_hand_over_superusers(superuser: User) -> None:
    client = staff_client("add_proxyaccount")
    answer = client.post("/admin/dashboard/proxyaccount/add/", {"user": superuser.pk})
    assert field_errors(answer) == ["Only superusers can change superusers."]
    assert not ProxyAccount.objects.exists()


def test_proxy_account_is_deleted_with_its_account_only(admin_client: Client, viewer: User) -> None:
    ProxyAccount.objects.create(user=viewer)
    for page in ("change", "delete"):
        address = f"/admin/dashboard/proxyaccount/{viewer.pk}/{page}/"
        assert admin_client.post(address, {"post": "yes"}).status_code == 403
    admin_client.post(f"/admin/auth/user/{viewer.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=viewer.pk).exists()


def test_change_of_password_is_in_access_log_without_it(
    admin_client: Client, manager: User
) -> None:
    password = "correct horse battery staple"
    form = {"usable_password": "true", "password1": password, "password2": password}
    answer = admin_client.post(f"/admin/auth/user/{manager.pk}/password/", form)
    assert answer.status_code == 302, text_of(parse_html(answer))
    [(username, changed_by, detail)] = rights_changes()
    assert (username, changed_by) == ("manager", "root")
    assert detail.startswith("Changed password.")
    assert password not in detail


class DeactivatingHasher(PBKDF2PasswordHasher):
    """While it hashes, somebody else deactivates the account, as in the second that it takes."""

    algorithm = "deactivating"

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        User.objects.filter(username="viewer").update(is_active=False, email="v@example.com")
        return super().encode(password, salt, 1)


class DeletingHasher(PBKDF2PasswordHasher):
    """While it hashes, somebody else deletes the account."""

    algorithm = "deleting"

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        User.objects.filter(username="viewer").delete()
        return super().encode(password, salt, 1)


NEW_PASSWORD = {
    "usable_password": "true",
    "password1": "correct horse battery staple",
    "password2": "correct horse battery staple",
    "set-password": "1",
}


def test_new_password_in_the_admin_saves_nothing_else(
    admin_client: Client, viewer: User, settings: Settings
) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.DeactivatingHasher", *settings.PASSWORD_HASHERS]
    address = f"/admin/auth/user/{viewer.pk}/password/"
    assert admin_client.post(address, NEW_PASSWORD).status_code == 302
    viewer.refresh_from_db()
    assert (viewer.is_active, viewer.email) == (False, "v@example.com")
    assert viewer.check_password(NEW_PASSWORD["password1"])


def test_new_password_in_the_admin_does_not_bring_a_deleted_account_back(
    admin_client: Client, viewer: User, settings: Settings
) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.DeletingHasher", *settings.PASSWORD_HASHERS]
    address = f"/admin/auth/user/{viewer.pk}/password/"
    assert admin_client.post(address, NEW_PASSWORD).status_code == 404
    assert not User.objects.filter(username="viewer").exists()


@pytest.mark.parametrize("usable", ["true", "false"])
def test_new_password_in_the_admin_ends_sessions_and_is_recorded(
    admin_client: Client, viewer: User, usable: str
) -> None:
    client = client_of(viewer)
    assert client.get("/account/").status_code == 200
    address = f"/admin/auth/user/{viewer.pk}/password/"
    form = NEW_PASSWORD if usable == "true" else {"usable_password": usable, "unset-password": "1"}
    assert admin_client.post(address, form).status_code == 302
    viewer.refresh_from_db()
    assert viewer.has_usable_password() == (usable == "true")
    assert not viewer.check_password("viewer")
    assert client.get("/account/")["Location"] == "/accounts/login/?next=/account/"
    assert rights_changes() == [("viewer", "root", "Changed password.")]
    assert RightsChange.objects.get().detail == "Changed password."
    assert LogEntry.objects.get().get_change_message() == "Changed password."


def test_own_password_is_not_set_in_the_admin(admin_client: Client, superuser: User) -> None:
    for answer in (
        admin_client.get(f"/admin/auth/user/{superuser.pk}/password/"),
        admin_client.post(f"/admin/auth/user/{superuser.pk}/password/", NEW_PASSWORD),
    ):
        assert answer.status_code == 403
        html = parse_html(answer)
        reason = text_of(select_one(html, "[data-reason]"))
        assert reason == "Change your own password on My account."
        assert text_of(select_one(html, '.next-links a[href="/account/"]')) == "My account"
    superuser.refresh_from_db()
    assert superuser.check_password("x")


def test_own_account_without_a_password_is_not_sent_to_my_account_by_the_admin(
    admin_client: Client, superuser: User
) -> None:
    superuser.set_unusable_password()
    superuser.save()
    admin_client.force_login(superuser)
    answer = admin_client.post(f"/admin/auth/user/{superuser.pk}/password/", NEW_PASSWORD)
    assert answer.status_code == 403
    html = parse_html(answer)
    reason = text_of(select_one(html, "[data-reason]"))
    assert reason == "Your account has no password. Another administrator can set one."
    assert not html.css('.next-links a[href="/account/"]')


def test_group_and_grant_are_recorded_when_added_and_deleted(admin_client: Client) -> None:
    permission = Permission.objects.get(codename="view_accessevent")
    form = {"name": "On-call", "permissions": [permission.pk]}
    assert admin_client.post("/admin/auth/group/add/", form).status_code == 302
    group = Group.objects.get(name="On-call")
    form = {"group": group.pk, "project": "", "stage": "Staging", "action": "abort"}
    assert admin_client.post("/admin/dashboard/grant/add/", form).status_code == 302
    grant = Grant.objects.get(group=group)
    for address in (f"dashboard/grant/{grant.pk}", f"auth/group/{group.pk}"):
        assert admin_client.post(f"/admin/{address}/delete/", {"post": "yes"}).status_code == 302
    details = ("Added.", "Added.", "Deleted.", "Deleted.")
    assert rights_changes() == [("", "root", f"{detail} Group “On-call”.") for detail in details]
    without = {"name": "On-call", "permissions": ["dashboard.view_accessevent"], "grants": []}
    granted = without | {"grants": [{"action": "abort", "project": "", "stage": "Staging"}]}
    changes = RightsChange.objects.order_by("pk").values_list("before", "after")
    expected = [(None, without), (without, granted), (granted, without), (without, None)]
    assert list(changes) == expected


def test_grant_is_not_changed_in_the_admin(admin_client: Client) -> None:
    # A stale form would widen what a colleague has narrowed.
    group, other = (Group.objects.create(name=name) for name in ("On-call", "Contractors"))
    grant = Grant.objects.create(group=group, stage="Staging", action="view")
    address = f"/admin/dashboard/grant/{grant.pk}/change/"
    html = fetch_page(admin_client, address)
    assert not html.css("#grant_form select, #grant_form [name=_save]")
    assert "Staging" in text_of(select_one(html, ".field-stage"))
    form = {"group": other.pk, "project": "", "stage": "", "action": "abort"}
    assert admin_client.post(address, form).status_code == 403
    grant.refresh_from_db()
    assert (grant.group, grant.stage, grant.action) == (group, "Staging", "view")
    assert not RightsChange.objects.exists()


def test_deleted_group_is_recorded_for_its_members(admin_client: Client, viewer: User) -> None:
    group = Group.objects.create(name="On-call")
    viewer.groups.add(group)
    form = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    assert admin_client.post("/admin/auth/group/", form).status_code == 302
    change = RightsChange.objects.get(subject_kind="account")
    assert (change.subject, change.before["groups"]) == ("viewer", [group.name])
    assert change.after["groups"] == []


def test_administrator_cannot_edit_superusers_in_the_admin(superuser: User) -> None:
    administrator = create_administrator()
    administrator.is_staff = True
    administrator.save()
    client = client_of(administrator)
    form = {"username": "root"}
    address = f"/admin/auth/user/{superuser.pk}/change/"
    assert client.post(address, form).status_code == 403
    own = f"/admin/auth/user/{administrator.pk}/change/"
    form |= {"username": "ada", "is_active": "on", "is_superuser": "on"}
    assert submit_admin_form(client, own, form).status_code == 302
    administrator.refresh_from_db()
    assert not administrator.is_superuser
    superuser.refresh_from_db()
    assert superuser.is_active


def staff_client(*codenames: str) -> Client:
    """Return the browser of an administrator who may open the admin, with further permissions."""
    administrator = create_administrator()
    administrator.is_staff = True
    administrator.save()
    administrator.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return client_of(administrator)


def test_staff_who_are_no_administrators_change_no_rights_in_the_admin(
    manager: User, viewer: User
) -> None:
    names = ("user", "group", "grant", "proxyaccount")
    codenames = [f"{action}_{name}" for action in ("add", "change", "delete") for name in names]
    desk = User.objects.create_user("desk", is_staff=True)
    desk.user_permissions.set(
        Permission.objects.filter(codename__in=codenames).exclude(codename="change_grant")
    )
    desk.user_permissions.add(Permission.objects.get(codename="view_grant"))
    client = client_of(desk)
    rows = {
        "auth/user": manager.pk,
        "auth/group": manager.groups.get().pk,
        "dashboard/grant": Grant.objects.filter(action="abort").get().pk,
    }
    for model, key in rows.items():
        assert client.get(f"/admin/{model}/{key}/change/").status_code == 200
        for page in (f"{key}/change", f"{key}/delete", "add"):
            answer = client.post(f"/admin/{model}/{page}/", {"post": "yes"})
            assert answer.status_code == 403, (model, page)
    form = {"user": viewer.pk}
    assert client.post("/admin/dashboard/proxyaccount/add/", form).status_code == 403
    address = f"/admin/auth/user/{manager.pk}/password/"
    assert client.post(address, NEW_PASSWORD).status_code == 403
    manager.refresh_from_db()
    assert manager.check_password("manager")


@pytest.mark.parametrize("page", ["change", "password", "delete"])
def test_administrator_does_not_take_over_account_with_more_permissions_in_the_admin(
    viewer: User, page: str
) -> None:
    client = staff_client("delete_user")
    address = f"/admin/auth/user/{viewer.pk}/{page}/"
    assert client.get(address).status_code == 200
    viewer.user_permissions.add(Permission.objects.get(codename="view_accessevent"))
    assert client.post(address, {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("page", ["change", "password", "delete"])
def test_administrator_does_not_change_the_break_glass_account_in_the_admin(
    viewer: User, page: str, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    address = f"/admin/auth/user/{viewer.pk}/{page}/"
    assert staff_client("delete_user").post(address, {"post": "yes"}).status_code == 403


def test_password_of_demo_account_is_not_set_in_the_admin(
    admin_client: Client, viewer: User
) -> None:
    viewer.groups.add(Group.objects.create(name=demo.GROUP))
    assert admin_client.post(f"/admin/auth/user/{viewer.pk}/password/").status_code == 403


@pytest.mark.parametrize(
    ("username", "error"),
    [
        ("Glass", "Only superusers can add or change the break-glass account."),
        ("ADA", "An account with this name, or one that looks like it, already exists."),
    ],
)
def test_reserved_and_taken_names_are_refused_in_the_admin(
    username: str, error: str, viewer: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "glass"
    form = {"username": username, "usable_password": "false"}
    assert field_errors(staff_client("add_user").post("/admin/auth/user/add/", form)) == [error]


def test_only_superusers_rename_accounts_in_the_admin(
    admin_client: Client, viewer: User, settings: Settings
) -> None:
    # By its name the proxy finds an account.
    address = f"/admin/auth/user/{viewer.pk}/change/"
    form = {"username": "renamed"}
    assert submit_admin_form(staff_client(), address, form).status_code == 302
    viewer.refresh_from_db()
    assert viewer.username == "viewer"
    answer = submit_admin_form(admin_client, address, form | {"username": "ADA"})
    assert field_errors(answer) == [
        "An account with this name, or one that looks like it, already exists."
    ]
    assert submit_admin_form(admin_client, address, form).status_code == 302
    viewer.refresh_from_db()
    assert viewer.username == "renamed"


def test_only_holders_of_its_permissions_change_a_group_in_the_admin(viewer: User) -> None:
    group = Group.objects.create(name="Platform")
    group.permissions.add(Permission.objects.get(codename="delete_user"))
    client = staff_client("change_group", "delete_group")
    for page in ("change", "delete"):
        address = f"/admin/auth/group/{group.pk}/{page}/"
        form = {"name": "everyone", "post": "yes"}
        assert client.post(address, form).status_code == 403


def test_administrator_gives_groups_no_permissions_in_the_admin(db: None) -> None:
    administrator = create_administrator()
    administrator.is_staff = True
    administrator.save()
    group = Group.objects.create(name="On-call")
    permission = Permission.objects.get(codename="view_accessevent")
    form = {"name": "Leads", "permissions": [permission.pk]}
    address = f"/admin/auth/group/{group.pk}/change/"
    assert submit_admin_form(client_of(administrator), address, form).status_code == 302
    group.refresh_from_db()
    assert (group.name, group.permissions.count()) == ("Leads", 0)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("demo ACCOUNTS", "This name is reserved for the sandbox."),
        ("RELEASE managers", "A group with this name already exists."),
        ("On\u202ecall", "Group names cannot contain invisible characters."),
    ],
)
def test_names_of_groups_have_the_same_rules_in_the_admin(
    admin_client: Client, name: str, error: str
) -> None:
    group = Group.objects.create(name="Leads")
    for address in ("add", f"{group.pk}/change"):
        answer = submit_admin_form(admin_client, f"/admin/auth/group/{address}/", {"name": name})
        assert field_errors(answer) == [error]
    assert not Group.objects.filter(name=name).exists()


def test_group_keeps_an_old_name_when_its_permissions_change_in_the_admin(
    admin_client: Client,
) -> None:
    group = Group.objects.create(name="On\u202ecall")  # as the admin once allowed
    permission = Permission.objects.get(codename="view_accessevent")
    form = {"name": group.name, "permissions": [permission.pk]}
    address = f"/admin/auth/group/{group.pk}/change/"
    assert submit_admin_form(admin_client, address, form).status_code == 302
    assert list(group.permissions.all()) == [permission]


@pytest.mark.parametrize("name", [RELEASE_MANAGERS, demo.GROUP])
def test_groups_that_the_dashboard_needs_keep_their_names_in_the_admin(
    admin_client: Client, name: str
) -> None:
    group, _ = Group.objects.get_or_create(name=name)
    permission = Permission.objects.get(codename="view_accessevent")
    address = f"/admin/auth/group/{group.pk}/change/"
    assert not fetch_page(admin_client, address).css("#id_name")
    form = {"name": "Others", "permissions": [permission.pk]}
    assert submit_admin_form(admin_client, address, form).status_code == 302
    group.refresh_from_db()
    assert (group.name, list(group.permissions.all())) == (name, [permission])


@pytest.mark.parametrize("name", [RELEASE_MANAGERS, demo.GROUP])
def test_groups_that_the_dashboard_needs_are_not_deleted_in_the_admin(
    admin_client: Client, name: str
) -> None:
    group, _ = Group.objects.get_or_create(name=name)
    assert delete_one(admin_client, "group", group.pk) == 403
    assert delete_several(admin_client, "group", group.pk) == 403
    assert Group.objects.filter(name=name).exists()


def delete_one(client: Client, model: str, key: int) -> int:
    return client.post(f"/admin/auth/{model}/{key}/delete/", {"post": "yes"}).status_code


def delete_several(client: Client, model: str, *keys: int) -> int:
    form = {"action": "delete_selected", "_selected_action": keys, "post": "yes"}
    return client.post(f"/admin/auth/{model}/", form).status_code


def test_nobody_is_added_to_the_group_of_the_demo_accounts_in_the_admin(
    admin_client: Client, viewer: User
) -> None:
    group = Group.objects.create(name=demo.GROUP)
    form: dict[str, str | int] = {"username": "viewer", "is_active": "on", "groups": group.pk}
    address = f"/admin/auth/user/{viewer.pk}/change/"
    assert field_errors(submit_admin_form(admin_client, address, form)) == [
        "Only the sandbox adds accounts to “Demo accounts”."
    ]
    assert not viewer.groups.exists()


def test_demo_account_can_be_changed_but_not_renamed_in_the_admin(admin_client: Client) -> None:
    demo.enable()  # and `demo.disable` finds it by its name
    account, group = User.objects.get(username="viewer"), Group.objects.get(name=demo.GROUP)
    form: dict[str, str | int] = {"username": "eve", "is_active": "on", "groups": group.pk}
    form["email"] = "v@example.com"
    address = f"/admin/auth/user/{account.pk}/change/"
    assert submit_admin_form(admin_client, address, form).status_code == 302
    account.refresh_from_db()
    assert (account.username, account.email) == ("viewer", "v@example.com")


@pytest.mark.parametrize("kept", ["is_active", "is_superuser"])
def test_superuser_does_not_lock_themselves_out_in_the_admin(
    admin_client: Client, superuser: User, kept: str
) -> None:
    form = {"username": "root", "is_staff": "on", kept: "on", "last_name": "Root"}
    address = f"/admin/auth/user/{superuser.pk}/change/"
    assert not fetch_page(admin_client, address).css("#id_is_active, #id_is_superuser")
    assert submit_admin_form(admin_client, address, form).status_code == 302
    superuser.refresh_from_db()
    assert (superuser.is_active, superuser.is_superuser) == (True, True)
    assert superuser.last_name == "Root"


def test_administrator_does_not_deactivate_themselves_in_the_admin(db: None) -> None:
    client, own = staff_client(), User.objects.get(username="ada")
    address = f"/admin/auth/user/{own.pk}/change/"
    assert submit_admin_form(client, address, {}).status_code == 302
    own.refresh_from_db()
    assert own.is_active


def account_form(user: User, **changes: str) -> dict[str, str]:
    return {"username": user.username, "is_active": "on", **changes}


def shown_version(client: Client, address: str) -> str:
    html = fetch_page(client, address)
    return select_one(html, "input[type=hidden][name=version]").attributes["value"] or ""


def assert_not_saved(client: Client, answer: HttpResponse, address: str) -> None:
    """Assert that the page says so, and shows the account or group as it is now."""
    assert (answer.status_code, answer["Location"]) == (303, address)
    assert text_of(select_one(parse_html(client.get(address)), ".messagelist .error")) == (
        "Not saved: somebody else has changed this. Check it and try again."
    )


@pytest.mark.parametrize("version", ["as shown", "", "\0"])
def test_account_changed_meanwhile_is_not_overwritten_in_the_admin(
    admin_client: Client, viewer: User, version: str
) -> None:
    address = f"/admin/auth/user/{viewer.pk}/change/"
    if version == "as shown":
        version = shown_version(admin_client, address)
    form = account_form(viewer, email="viewer@example.com", version=version)
    User.objects.filter(pk=viewer.pk).update(is_active=False)
    assert_not_saved(admin_client, admin_client.post(address, form), address)
    viewer.refresh_from_db()
    assert (viewer.is_active, viewer.email) == (False, "")
    assert not RightsChange.objects.exists()
    assert not LogEntry.objects.exists()


def test_group_changed_meanwhile_is_not_overwritten_in_the_admin(admin_client: Client) -> None:
    group = Group.objects.create(name="On-call")
    address = f"/admin/auth/group/{group.pk}/change/"
    form = {"name": "On-call", "version": shown_version(admin_client, address)}
    group.permissions.add(Permission.objects.get(codename="view_accessevent"))
    assert_not_saved(admin_client, admin_client.post(address, form), address)
    assert group.permissions.exists()
    form["version"] = shown_version(admin_client, address)
    assert admin_client.post(address, form).status_code == 302
    assert not group.permissions.exists()


@pytest.mark.parametrize(
    "change", [{"email": "new@example.com"}, {"first_name": "Vi"}, {"last_name": "Ewer"}]
)
def test_name_and_email_changed_meanwhile_are_not_overwritten_in_the_admin(
    admin_client: Client, viewer: User, change: dict[str, str]
) -> None:
    address = f"/admin/auth/user/{viewer.pk}/change/"
    form = account_form(viewer, is_staff="on", version=shown_version(admin_client, address))
    User.objects.filter(pk=viewer.pk).update(**change)
    assert_not_saved(admin_client, admin_client.post(address, form), address)
    viewer.refresh_from_db()
    assert {name: getattr(viewer, name) for name in change} == change
    assert not viewer.is_staff


def test_sign_in_meanwhile_is_kept_by_the_form_of_an_account_in_the_admin(
    admin_client: Client, viewer: User
) -> None:
    address = f"/admin/auth/user/{viewer.pk}/change/"
    html = fetch_page(admin_client, address)
    assert not html.css("[name^=last_login], [name^=date_joined]")
    form = account_form(viewer, first_name="Vi", version=shown_version(admin_client, address))
    at = timezone.now()
    User.objects.filter(pk=viewer.pk).update(last_login=at, password="!rehashed")
    joined = viewer.date_joined
    assert admin_client.post(address, form | {"last_login_0": ""}).status_code == 302
    viewer.refresh_from_db()
    assert (viewer.first_name, viewer.last_login, viewer.date_joined) == ("Vi", at, joined)


@pytest.mark.slow
def test_forms_in_the_admin_save_only_the_columns_that_were_changed(
    admin_client: Client, viewer: User
) -> None:
    group = Group.objects.create(name="On-call")
    permission = Permission.objects.get(codename="view_accessevent")
    forms = [
        (f"user/{viewer.pk}", account_form(viewer, first_name="Vi"), ["first_name"]),
        (f"user/{viewer.pk}", account_form(viewer, first_name="Vi", groups=str(group.pk)), []),
        (f"group/{group.pk}", {"name": "On-call", "permissions": str(permission.pk)}, []),
        (f"group/{group.pk}", {"name": "Leads"}, ["name"]),
    ]
    for address, form, columns in forms:
        with CaptureQueriesContext(connection) as captured:
            answer = submit_admin_form(admin_client, f"/admin/auth/{address}/change/", form)
        assert answer.status_code == 302, text_of(parse_html(answer))
        statements = [query["sql"] for query in captured.captured_queries]
        updates = [sql for sql in statements if re.match('UPDATE "auth_(user|group)" SET', sql)]
        saved = [re.findall(r'"(\w+)" = ', sql.partition(" WHERE ")[0]) for sql in updates]
        assert saved == ([columns] if columns else [])
    assert list(viewer.groups.all()) == [group]
    assert not group.permissions.exists()


def test_password_changed_while_the_form_of_an_account_is_saved_is_kept(
    transactional_db: None,
) -> None:
    require_row_locks()
    client = client_of(User.objects.create_superuser("root"))
    user = User.objects.create_user("ann", password="old")
    address = f"/admin/auth/user/{user.pk}/change/"
    form = account_form(user, first_name="Ann", version=shown_version(client, address))

    def save() -> int:
        try:
            return client.post(address, form).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as executor:
        with transaction.atomic():
            changed = User.objects.select_for_update().get(pk=user.pk)
            changed.set_password("new")
            changed.save(update_fields=["password"])
            answer = executor.submit(save)
            wait_until(is_anybody_waiting)
        assert answer.result() == 302
    user.refresh_from_db()
    assert (user.first_name, user.check_password("new")) == ("Ann", True)


def test_version_of_a_form_is_no_change_in_the_admin(admin_client: Client, viewer: User) -> None:
    address = f"/admin/auth/user/{viewer.pk}/change/"
    form = account_form(viewer, is_staff="on")
    assert submit_admin_form(admin_client, address, form).status_code == 302
    assert RightsChange.objects.get().detail == "Changed Staff status."


def test_page_that_cannot_be_changed_has_no_version_in_the_admin(viewer: User) -> None:
    group = Group.objects.create(name="On-call")
    desk = User.objects.create_user("desk", is_staff=True)
    codenames = ["view_user", "view_group"]
    desk.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    for address in (f"user/{viewer.pk}", f"group/{group.pk}"):
        html = fetch_page(client_of(desk), f"/admin/auth/{address}/change/")
        assert html.css("[name=version], .field-version") == []


@pytest.mark.parametrize("name", ["auth0|5f7c8ec7", "CORP\\ada", "Ada Lovelace"])
def test_account_keeps_a_name_of_the_proxy_in_the_admin(admin_client: Client, name: str) -> None:
    user = User.objects.create_user(name)
    ProxyAccount.objects.create(user=user)
    address = f"/admin/auth/user/{user.pk}/change/"
    form = account_form(user, is_staff="on")
    assert submit_admin_form(admin_client, address, form).status_code == 302
    user.refresh_from_db()
    assert (user.username, user.is_staff) == (name, True)
    answer = submit_admin_form(admin_client, address, form | {"username": f"{name}!"})
    [error] = field_errors(answer)
    assert error.startswith("Enter a valid username.")


@pytest.mark.parametrize(
    ("name", "other_case"),
    [
        ("CORP\\ada", "corp\\ada"),
        ("Ada Lovelace", "ada lovelace"),
        ("corp\\éric", "CORP\\ÉRIC"),
    ],
)
def test_name_of_the_proxy_gets_other_case_in_the_admin(
    admin_client: Client, name: str, other_case: str
) -> None:
    user = User.objects.create_user(name)
    ProxyAccount.objects.create(user=user)
    address = f"/admin/auth/user/{user.pk}/change/"
    form = account_form(user, username=other_case)
    assert submit_admin_form(admin_client, address, form).status_code == 302
    user.refresh_from_db()
    assert user.username == other_case


@pytest.mark.slow
def test_name_in_other_case_must_be_free_and_short_in_the_admin(admin_client: Client) -> None:
    user = User.objects.create_user("CORP\\ada")
    User.objects.create_user("corp\\ada")  # by a command
    address = f"/admin/auth/user/{user.pk}/change/"
    for name, error in (
        ("corp\\ada", "An account with this name, or one that looks like it, already exists."),
        ("Corp\\ada", "An account with this name, or one that looks like it, already exists."),
    ):
        form = account_form(user, username=name)
        assert field_errors(submit_admin_form(admin_client, address, form)) == [error]
    long = User.objects.create_user("ß" * 100)
    form = account_form(long, username="ss" * 100)
    answer = submit_admin_form(admin_client, f"/admin/auth/user/{long.pk}/change/", form)
    [error] = field_errors(answer)
    assert error.startswith("Ensure this value has at most 150 characters")


def test_account_added_in_the_admin_gets_no_password_that_cannot_be_used(
    admin_client: Client, settings: Settings
) -> None:
    settings.PASSWORD_SIGN_IN, settings.BREAK_GLASS_ACCOUNT = False, "glass"
    address, form = "/admin/auth/user/add/", {"username": "ben", **NEW_PASSWORD}
    assert field_errors(admin_client.post(address, form)) == ["Password sign-in is disabled."]
    assert not User.objects.filter(username="ben").exists()
    without = {"username": "ben", "usable_password": "false"}
    assert admin_client.post(address, without).status_code == 302
    assert not User.objects.get(username="ben").has_usable_password()
    assert admin_client.post(address, form | {"username": "glass"}).status_code == 302
    assert User.objects.get(username="glass").has_usable_password()


def test_superuser_deactivates_another_in_the_admin(admin_client: Client) -> None:
    other = User.objects.create_superuser("other")
    address = f"/admin/auth/user/{other.pk}/change/"
    assert submit_admin_form(admin_client, address, {"username": "other"}).status_code == 302
    other.refresh_from_db()
    assert (other.is_active, other.is_superuser) == (False, False)


def test_nobody_deletes_their_own_account_in_the_admin(
    admin_client: Client, superuser: User, viewer: User
) -> None:
    assert delete_one(admin_client, "user", superuser.pk) == 403
    assert delete_several(admin_client, "user", superuser.pk, viewer.pk) == 403
    assert User.objects.filter(pk__in=[superuser.pk, viewer.pk]).count() == 2
    assert delete_several(admin_client, "user", viewer.pk) == 302


@pytest.mark.parametrize("delete", [delete_one, delete_several])
def test_administrator_does_not_delete_the_group_that_makes_them_one_in_the_admin(
    viewer: User, delete: Callable[[Client, str, int], int]
) -> None:
    group, other = Group.objects.create(name="Platform"), Group.objects.create(name="Other")
    codenames = ["change_user", "change_group", "change_grant", "delete_group"]
    group.permissions.set(Permission.objects.filter(codename__in=codenames))
    viewer.groups.add(group, other)
    viewer.is_staff = True
    viewer.save()
    client = client_of(viewer)
    assert delete(client, "group", group.pk) == 403
    assert viewer.groups.filter(pk=group.pk).exists()
    assert not LogEntry.objects.exists()
    assert delete(client, "group", other.pk) == 302
    assert list(viewer.groups.all()) == [group]


def test_deletion_of_several_accounts_is_in_access_log(
    admin_client: Client, manager: User, viewer: User
) -> None:
    form = {
        "action": "delete_selected",
        "_selected_action": [manager.pk, viewer.pk],
        "post": "yes",
    }
    assert admin_client.post("/admin/auth/user/", form).status_code == 302
    changes = rights_changes()
    assert {username for username, *_ in changes} == {"manager", "viewer"}
    assert all(detail.startswith("Deleted.") for *_, detail in changes)


def test_staff_with_view_permission_only_cannot_revoke_token(
    client: Client, token: ApiToken
) -> None:
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_apitoken"))
    client.force_login(staff)
    client.post("/admin/dashboard/apitoken/", {"action": "revoke", "_selected_action": token.pk})
    assert ApiToken.objects.get().revoked_at is None


def test_token_pages_never_show_digest(admin_client: Client, token: ApiToken) -> None:
    for address in ("/admin/dashboard/apitoken/", f"/admin/dashboard/apitoken/{token.pk}/change/"):
        assert token.digest not in admin_client.get(address).content.decode()


@pytest.mark.parametrize(
    "address",
    [
        "/admin/dashboard/grant/add/",
        "/admin/auth/user/add/",
        "/admin/auth/group/add/",
        "/admin/dashboard/apitoken/",
    ],
)
def test_admin_post_in_read_only_mode_is_rejected(
    address: str, admin_client: Client, settings: Settings, token: ApiToken
) -> None:
    settings.READ_ONLY = True
    before = Grant.objects.count()
    form = {"right": "abort", "action": "revoke", "_selected_action": token.pk, "name": "New"}
    answer = admin_client.post(address, form)
    html = parse_html(answer)
    assert answer.status_code == 403
    assert text_of(select_one(html, "[data-reason]")) == ("This dashboard is read-only.")
    assert select_one(html, ".banner[data-tone=warning]")
    assert Grant.objects.count() == before
    assert ApiToken.objects.get().revoked_at is None
    assert not Group.objects.filter(name="New").exists()


def test_admin_in_read_only_mode_allows_reading_and_sign_in_and_out(
    client: Client, superuser: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    client.force_login(superuser)
    assert client.get("/admin/dashboard/grant/").status_code == 200
    assert client.post("/admin/logout/")["Location"] == "/accounts/login/"
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


@pytest.mark.parametrize("method", ["get", "post"])
def test_sign_in_page_of_admin_redirects_to_ours(client: Client, db: None, method: str) -> None:
    form = {"username": "root", "password": "x"}
    answer = getattr(client, method)("/admin/login/?next=/admin/auth/user/", form)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/?next=/admin/")


def test_sign_in_page_of_admin_redirects_staff_to_admin(admin_client: Client) -> None:
    answer = admin_client.get("/admin/login/?next=/admin/auth/user/")
    assert answer["Location"] == "/admin/auth/user/"
    assert admin_client.get("/admin/login/?next=//evil.example/")["Location"] == "/admin/"


def test_admin_tells_user_without_right_so(viewer_client: Client) -> None:
    answer = viewer_client.get("/admin/", follow=True)
    assert answer.status_code == 403
    text = text_of(select_one(parse_html(answer), "[data-reason]"))
    assert text == "Your account may not open the admin."
