"""The page of the access log, its filter and its exports."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from dashboard.accounts import access_log
from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind
from dashboard.web.pages.accounts import access_log as page
from tests.support.factories import HOSTILE
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin", password="admin")


@pytest.fixture
def admin_client(client: Client, admin: User) -> Client:
    client.force_login(admin)
    return client


@pytest.fixture
def admin_http_client(live: Live, admin: User) -> httpx.Client:
    return live.sign_in("admin")


def record(kind: AccessKind = AccessKind.SIGNED_IN, **fields: Any) -> AccessEvent:
    return access_log.record(kind, NOON, **fields)


def shown(client: Client, query: str = "") -> list[str]:
    """Return the kinds of the events on the page."""
    answer = client.get(f"/access/{query}")
    assert answer.status_code == 200
    rows = parse_html(answer).css("[data-access-event]")
    return [row.attributes["data-access-event"] or "" for row in rows]


# --- Who may view it -----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/access/", "/access/export.csv", "/access/export.json"])
def test_user_without_permission_gets_403(viewer_client: Client, address: str) -> None:
    answer = viewer_client.get(address)
    assert answer.status_code == 403
    text = text_of(select_one(parse_html(answer), "[data-reason]"))
    assert text == "Ask a superuser for the permission “Can view access event”."


def test_user_with_permission_views_it(viewer_client: Client, viewer: User) -> None:
    viewer.user_permissions.add(Permission.objects.get(codename="view_accessevent"))
    assert shown(viewer_client) == ["signed_in"]


def test_page_says_that_it_names_hidden_projects(admin_client: Client) -> None:
    page = parse_html(admin_client.get("/access/"))
    assert text_of(select_one(page, "h1 + p")) == (
        "The access log also names projects that you may not view."
    )


# --- The page ------------------------------------------------------------------------------------


def test_events_are_shown_newest_first_with_all_details(
    admin_client: Client, viewer: User, manager: User
) -> None:
    record(
        AccessKind.TOKEN_REVOKED,
        user=viewer,
        changed_by=manager,
        client_address="192.0.2.1",
        token_name="PagerDuty",
        detail="Lost.",
    )
    html = parse_html(admin_client.get("/access/"))
    newest, oldest = html.css("[data-access-event]")
    assert oldest.attributes["data-access-event"] == "signed_in"
    text = text_of(newest)
    for part in ("Token revoked", "viewer", "“PagerDuty”", "Lost.", "By manager", "192.0.2.1"):
        assert part in text
    assert select_one(newest, "time").attributes["datetime"] == "2026-03-31T12:00:00+00:00"


def test_filter_by_user_and_kind(admin_client: Client, viewer: User) -> None:
    record(user=viewer)
    record(AccessKind.SIGNED_OUT, user=viewer)
    record(AccessKind.SIGN_IN_FAILED)
    assert shown(admin_client, "?username=viewer") == ["signed_out", "signed_in"]
    assert shown(admin_client, "?kind=signed_in") == ["signed_in", "signed_in"]
    assert shown(admin_client, "?username=viewer&kind=signed_in") == ["signed_in"]
    assert shown(admin_client, "?username=view") == []


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ("?kind=nonsense", "Unknown kind “nonsense” ignored."),
        ("?person=x", "Unknown filter “person” ignored."),
        ("?before=x", "Invalid position “x”; showing the newest."),
    ],
)
def test_invalid_filter_is_ignored_with_warning(
    admin_client: Client, query: str, warning: str
) -> None:
    assert shown(admin_client, query) == ["signed_in"]
    assert warning in text_of(select_one(parse_html(admin_client.get(f"/access/{query}")), "main"))
    for extension in ("csv", "json"):
        answer = admin_client.get(f"/access/export.{extension}{query}")
        assert (answer.status_code, answer.content.decode()) == (400, f"{warning}\n")


def test_pages_continue_where_the_last_ended(admin_client: Client, viewer: User) -> None:
    for number in range(page.PER_PAGE + 1):
        record(user=viewer, detail=f"No. {number}")
    first = parse_html(admin_client.get("/access/?username=viewer"))
    assert len(first.css("[data-access-event]")) == page.PER_PAGE
    older = select_one(first, '[rel="next"]').attributes["href"] or ""
    second = parse_html(admin_client.get(f"/access/{older}"))
    assert "No. 0" in text_of(select_one(second, "[data-access-event]"))
    assert len(second.css("[data-access-event]")) == 1
    assert not second.css('[rel="next"]')
    assert select_one(second, '[rel="first"]').attributes["href"] == "?username=viewer"


@pytest.mark.parametrize(
    ("query", "text"),
    [("?username=nobody", "No matches."), ("?before=1", "Nothing older.")],
)
def test_empty_page_says_why(admin_client: Client, query: str, text: str) -> None:
    html = parse_html(admin_client.get(f"/access/{query}"))
    assert text in text_of(select_one(html, "[data-empty]"))


def test_hostile_texts_are_escaped(admin_client: Client, viewer: User) -> None:
    User.objects.filter(pk=viewer.pk).update(username=HOSTILE[:150])
    viewer.refresh_from_db()
    record(user=viewer, token_name=HOSTILE, detail=HOSTILE)
    html = parse_html(admin_client.get("/access/"))
    row = html.css("[data-access-event]")[0]
    assert HOSTILE.split()[0] in text_of(row)
    assert row.css("script, img") == []


# --- Exports -------------------------------------------------------------------------------------


def test_exports_contain_all_fields(
    admin_http_client: httpx.Client, viewer: User, manager: User
) -> None:
    event = record(
        AccessKind.TOKEN_REVOKED,
        user=viewer,
        changed_by=manager,
        client_address="192.0.2.1",
        token_name="PagerDuty",
        detail="Lost.",
    )
    expected = {
        "id": event.pk,
        "occurred_at": "2026-03-31T12:00:00.000+00:00",
        "kind": "token_revoked",
        "username": "viewer",
        "changed_by": "manager",
        "address": "192.0.2.1",
        "token": "PagerDuty",
        "detail": "Lost.",
    }
    answer = admin_http_client.get("/access/export.json?username=viewer")
    assert json.loads(answer.text) == [expected]
    answer = admin_http_client.get("/access/export.csv?username=viewer")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))
    assert rows == [{name: str(value) for name, value in expected.items()}]
