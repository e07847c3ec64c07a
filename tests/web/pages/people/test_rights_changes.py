"""The page of changes of rights, its filter and its exports."""

import csv
import io
import json

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Author
from dashboard.models import Grant, RightsChange
from dashboard.web.components.rights import changes as component
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.people import client_of


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="root")


@pytest.fixture
def root_client(root: User) -> Client:
    return client_of(root)


@pytest.fixture
def on_call(root: User) -> Group:
    """A group that was added, granted something, and renamed."""
    author = Author(root, "192.0.2.1")
    group = group_changes.add_group(author, "Nights")
    group_changes.add_grant(author, Grant(group=group, stage="Staging", action="abort"))
    subject = rights_changes.group(group.pk)
    version = rights_changes.version(subject)
    group_changes.rename_group(author, group, "On-call", version)
    return group


def shown(client: Client, query: str = "") -> list[str]:
    """Return the details of the changes on the page."""
    answer = client.get(f"/people/changes/{query}")
    assert answer.status_code == 200
    rows = parse_html(answer).css("[data-rights-change]")
    return [text_of(select_one(row, "p:not(.muted)")) for row in rows]


def test_changes_are_shown_newest_first_with_differences(
    root_client: Client, on_call: Group
) -> None:
    assert shown(root_client) == ["Renamed.", "Grant added.", "Added."]
    html = parse_html(root_client.get("/people/changes/"))
    renamed, granted, added = html.css("[data-rights-change]")
    assert [text_of(item) for item in renamed.css(".differences li")] == [
        "− Removed: name “Nights”",
        "+ Added: name “On-call”",
    ]
    assert text_of(select_one(granted, ".differences")) == (
        "+ Added: abort in Staging of all projects"
    )
    for text in ("Group Nights", "root", "192.0.2.1"):
        assert text in text_of(added)


def test_filter_by_subject_follows_a_renamed_group(root_client: Client, on_call: Group) -> None:
    subject = rights_changes.group(on_call.pk).id
    assert len(shown(root_client, f"?subject={subject}")) == 3
    assert shown(root_client, "?name=On-call") == ["Renamed."]
    assert shown(root_client, "?name=nobody") == []
    assert shown(root_client, "?subject=account-99") == []


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ("?person=x", "Unknown filter “person” ignored."),
        ("?subject=group-x", "Unknown subject “group-x” ignored."),
        ("?subject=flow-1", "Unknown subject “flow-1” ignored."),
        (f"?subject=group-{'9' * 19}", "Unknown subject"),
        ("?before=x", "Invalid position “x”; showing the newest."),
    ],
)
def test_invalid_filter_is_ignored_with_warning(
    root_client: Client, on_call: Group, query: str, warning: str
) -> None:
    assert len(shown(root_client, query)) == 3
    html = parse_html(root_client.get(f"/people/changes/{query}"))
    assert warning in text_of(select_one(html, "main"))
    answer = root_client.get(f"/people/changes/export.json{query}")
    assert answer.status_code == 400
    assert warning in answer.content.decode()


def test_pages_continue_where_the_last_ended(root_client: Client, on_call: Group) -> None:
    last = RightsChange.objects.order_by("-pk")[0]
    fields = {
        name: getattr(last, name)
        for name in ("occurred_at", "subject_kind", "subject_key", "subject")
    }
    RightsChange.objects.bulk_create(
        RightsChange(detail=f"No. {number}", **fields) for number in range(component.PER_PAGE)
    )
    first = parse_html(root_client.get("/people/changes/"))
    assert len(first.css("[data-rights-change]")) == component.PER_PAGE
    older = select_one(first, "[rel=next]").attributes["href"]
    second = parse_html(root_client.get(f"/people/changes/{older}"))
    assert len(second.css("[data-rights-change]")) == 3
    assert not second.css("[rel=next]")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "No rights have been changed yet."),
        ("?person=x", "No rights have been changed yet."),
        ("?name=x", "No matches."),
        ("?before=1", "Nothing older."),
    ],
)
def test_empty_page_says_why(root_client: Client, query: str, text: str) -> None:
    html = parse_html(root_client.get(f"/people/changes/{query}"))
    assert text in text_of(select_one(html, "[data-empty]"))


def test_json_export_contains_the_states(live: Live, on_call: Group) -> None:
    client: httpx.Client = live.sign_in("root")
    subject = rights_changes.group(on_call.pk).id
    records = json.loads(client.get(f"/people/changes/export.json?subject={subject}").text)
    assert [record["detail"] for record in records] == ["Renamed.", "Grant added.", "Added."]
    granted = records[1]
    assert (granted["changed_by"], granted["address"], granted["kind"]) == (
        "root",
        "192.0.2.1",
        "group",
    )
    assert granted["before"]["grants"] == []
    assert granted["after"]["grants"] == [{"action": "abort", "project": "", "stage": "Staging"}]
    assert records[2]["before"] is None


def test_csv_export_contains_the_states_and_escapes_formulas(live: Live, root: User) -> None:
    name = "=HYPERLINK(1);=1"
    group_changes.add_group(Author(root, None), name)
    text = live.sign_in("root").get("/people/changes/export.csv").text
    [row] = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    assert row["subject"] == "'=HYPERLINK(1);'=1"
    assert row["before"] == ""
    assert json.loads(row["after"])["name"] == name
    assert ";" not in row["after"]  # where a formula would begin
