"""The admin: records are read-only there, who may open it, and what it leaves to other pages."""

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, BulkAbort, Run
from dashboard.models.abort_lifecycle import EventType
from tests.support import factories
from tests.support.html import fetch_page, parse_html, select_one, text_of


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    created = factories.abort(run, manager, "concluded", reason="Stuck")
    created.add_event(EventType.CONCLUDED, timezone.now(), detail="aborted")
    return created


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


def test_abort_page_shows_timeline_and_is_read_only(admin_client: Client, abort: Abort) -> None:
    html = fetch_page(admin_client, f"/admin/dashboard/abort/{abort.pk}/change/")
    assert "Stuck" in text_of(select_one(html, "#content"))
    assert "aborted" in text_of(select_one(html, "#events-group"))
    assert html.css("#abort_form input:not([type=hidden]), #abort_form textarea, select") == []


@pytest.mark.usefixtures("abort", "bulk_abort")
@pytest.mark.parametrize("action", ["change", "delete"])
@pytest.mark.parametrize("model", ["abort", "bulkabort", "project", "pipeline", "stage"])
def test_recorded_and_synced_rows_reject_add_change_and_delete(
    model: str, action: str, admin_client: Client
) -> None:
    key = apps.get_model("dashboard", model)._default_manager.get().pk
    address = f"/admin/dashboard/{model}/{key}"
    assert admin_client.get(f"{address}/change/").status_code == 200
    assert admin_client.post(f"{address}/{action}/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"/admin/dashboard/{model}/add/").status_code == 403


@pytest.mark.usefixtures("abort", "bulk_abort")
@pytest.mark.parametrize("model", ["abort", "bulkabort", "project", "pipeline", "stage"])
def test_admin_list_of_each_model_renders(model: str, admin_client: Client) -> None:
    assert fetch_page(admin_client, f"/admin/dashboard/{model}/").css("#result_list tbody tr")


def test_admin_in_read_only_mode_allows_reading_and_sign_in_and_out(
    client: Client, superuser: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    client.force_login(superuser)
    assert client.get("/admin/dashboard/abort/").status_code == 200
    assert client.post("/admin/logout/")["Location"] == "/accounts/login/"
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


@pytest.mark.parametrize("method", ["get", "post"])
def test_sign_in_page_of_admin_redirects_to_ours(client: Client, db: None, method: str) -> None:
    form = {"username": "root", "password": "x"}
    answer = getattr(client, method)("/admin/login/?next=/admin/dashboard/abort/", form)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/?next=/admin/")


def test_sign_in_page_of_admin_redirects_staff_to_admin(admin_client: Client) -> None:
    answer = admin_client.get("/admin/login/?next=/admin/dashboard/abort/")
    assert answer["Location"] == "/admin/dashboard/abort/"
    assert admin_client.get("/admin/login/?next=//evil.example/")["Location"] == "/admin/"


def test_admin_tells_user_without_right_so(viewer_client: Client) -> None:
    answer = viewer_client.get("/admin/", follow=True)
    assert answer.status_code == 403
    text = text_of(select_one(parse_html(answer), "[data-reason]"))
    assert text == "Your account may not open the admin."


@pytest.mark.parametrize(
    "model", ["auth/user", "auth/group", "dashboard/grant", "dashboard/apitoken"]
)
def test_rights_are_not_changed_in_the_admin(model: str, admin_client: Client) -> None:
    assert admin_client.get(f"/admin/{model}/").status_code == 404
    assert f"/admin/{model}/" not in admin_client.get("/admin/").content.decode()
