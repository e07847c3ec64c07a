"""The groups, one of them, and the confirmation of each change of its grants."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Grant, RightsChange, Run, Stage
from tests.support import factories
from tests.support.html import parse_html, select_one, text_of
from tests.support.people import client_of


@pytest.fixture
def root_client(db: None) -> Client:
    return client_of(User.objects.create_superuser("root"))


@pytest.fixture
def on_call(db: None) -> Group:
    return Group.objects.create(name="On-call")


def open_page(client: Client, address: str) -> LexborHTMLParser:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return parse_html(answer)


def url(group: Group | None, rest: str = "") -> str:
    return f"/people/groups/{group.pk if group else 0}/{rest}"


def version_in(html: LexborHTMLParser) -> str | None:
    """Return the version that the form of a page sends."""
    return select_one(html, "input[name=version]").attributes["value"]


# --- The list ------------------------------------------------------------------------------------


def test_list_shows_members_and_grants(root_client: Client, viewer: User, on_call: Group) -> None:
    factories.grant("abort", "On-call", viewer, project=factories.project("shop"), stage="Staging")
    html = open_page(root_client, "/people/groups/")
    rows = {row.attributes["data-group"]: text_of(row) for row in html.css("[data-group]")}
    assert rows["0"] == "All signed-in users view in all projects"
    assert rows[f"{on_call.pk}"] == "On-call 1 member abort in Staging of project “Shop”"


# --- Groups --------------------------------------------------------------------------------------


def test_group_is_added(root_client: Client) -> None:
    answer = root_client.post("/people/groups/", {"name": "Leads"})
    added = Group.objects.get(name="Leads")
    assert (answer.status_code, answer["Location"]) == (303, url(added))


def test_invalid_group_name_is_kept_in_the_form(root_client: Client, on_call: Group) -> None:
    answer = root_client.post("/people/groups/", {"name": "on-call"})
    assert answer.status_code == 422
    html = parse_html(answer)
    assert text_of(select_one(html, "[role=alert]")) == "A group with this name already exists."
    assert select_one(html, "#name").attributes["value"] == "on-call"


def test_group_is_renamed(root_client: Client, on_call: Group) -> None:
    html = open_page(root_client, url(on_call))
    version = version_in(html)
    assert root_client.post(url(on_call), {"name": "Leads", "version": version}).status_code == 303
    on_call.refresh_from_db()
    assert on_call.name == "Leads"
    answer = root_client.post(url(on_call), {"name": "Others", "version": version})
    assert answer.status_code == 409
    on_call.refresh_from_db()
    assert on_call.name == "Leads"


def test_group_is_deleted_after_confirmation(
    root_client: Client, on_call: Group, viewer: User
) -> None:
    factories.grant("abort", "On-call", viewer, stage="Staging")
    html = open_page(root_client, url(on_call, "delete/"))
    text = text_of(select_one(html, ".confirm"))
    assert "1 account leaves the group. 1 account loses rights." in text
    assert "abort in Staging of all projects" in text
    version = version_in(html)
    assert Group.objects.filter(pk=on_call.pk).exists()
    answer = root_client.post(url(on_call, "delete/"), {"version": version})
    assert (answer.status_code, answer["Location"]) == (303, "/people/groups/")
    assert not Group.objects.filter(pk=on_call.pk).exists()


def test_group_that_somebody_joined_meanwhile_is_not_deleted(
    root_client: Client, on_call: Group, viewer: User
) -> None:
    address = url(on_call, "delete/")
    version = version_in(open_page(root_client, address))
    viewer.groups.add(on_call)
    answer = root_client.post(address, {"version": version})
    assert answer.status_code == 409
    html = parse_html(answer)
    assert "somebody else has changed this" in text_of(select_one(html, "[role=alert]"))
    assert "1 account leaves the group." in text_of(select_one(html, ".confirm"))
    assert root_client.post(address, {"version": version_in(html)}).status_code == 303
    assert not Group.objects.filter(pk=on_call.pk).exists()


def test_release_managers_have_neither_form(root_client: Client, manager: User) -> None:
    group = manager.groups.get()
    assert not open_page(root_client, url(group)).css("#name")
    html = open_page(root_client, url(group, "delete/"))
    assert "This group stays" in text_of(select_one(html, "[data-reason]"))
    assert not html.css(".confirm form")


def test_group_lists_its_members(root_client: Client, on_call: Group, viewer: User) -> None:
    viewer.groups.add(on_call)
    html = open_page(root_client, url(on_call))
    assert html.css(f'a[href="/people/accounts/{viewer.pk}/"]')


def test_account_is_added_and_removed_where_the_group_is(
    root_client: Client, on_call: Group, viewer: User
) -> None:
    html = open_page(root_client, url(on_call))
    names = [option.attributes["value"] for option in html.css("#accounts option")]
    assert names == ["root", viewer.username]
    answer = root_client.post(url(on_call, "members/"), {"username": f" {viewer.username} "})
    assert (answer.status_code, answer["Location"]) == (303, url(on_call))
    assert list(viewer.groups.all()) == [on_call]
    button = select_one(open_page(root_client, url(on_call)), "button[name=remove]")
    root_client.post(url(on_call, "members/"), {"remove": button.attributes["value"]})
    assert not viewer.groups.exists()


def test_unknown_member_is_refused_and_stays_in_the_field(
    root_client: Client, on_call: Group
) -> None:
    answer = root_client.post(url(on_call, "members/"), {"username": "nobody"})
    assert answer.status_code == 422
    html = parse_html(answer)
    assert select_one(html, "#username").attributes["value"] == "nobody"
    assert text_of(select_one(html, "[role=alert]")) == "No account has this name."
    for address, data in ((url(on_call, "members/"), "9" * 30), (url(None, "members/"), "1")):
        assert root_client.post(address, {"remove": data}).status_code == 404


# --- Grants --------------------------------------------------------------------------------------


def test_grant_is_added_after_confirmation(
    root_client: Client, on_call: Group, viewer: User
) -> None:
    viewer.groups.add(on_call)
    project = factories.project("shop")
    form = {"project": "shop", "stage": "Staging", "action": "abort"}
    answer = root_client.get(url(on_call, "grants/new/"), form)
    html = parse_html(answer)
    assert text_of(select_one(html, "[data-effect]")) == (
        "1 account gains the right to abort there."
    )
    assert not Grant.objects.filter(group=on_call).exists()
    fields = {
        field.attributes["name"]: field.attributes["value"] for field in html.css("main input")
    }
    assert {**form, "csrfmiddlewaretoken": fields["csrfmiddlewaretoken"]} == fields
    assert root_client.post(url(on_call, "grants/new/"), form).status_code == 303
    grant = Grant.objects.get(group=on_call)
    assert (grant.project, grant.stage, grant.action) == (project, "Staging", "abort")
    html = open_page(root_client, url(on_call))
    assert "abort in Staging of project “Shop”" in text_of(select_one(html, "[data-grant]"))


@pytest.mark.parametrize(
    "form",
    [
        {"action": "delete"},
        {"action": "view", "stage": "Nowhere"},
        {"action": "view", "project": "nope"},
        {"action": "view", "project": "\0"},
        {},
    ],
)
def test_unknown_grant_is_not_added(
    root_client: Client, on_call: Group, form: dict[str, str]
) -> None:
    for method in (root_client.get, root_client.post):
        answer = method(url(on_call, "grants/new/"), form)
        assert answer.status_code == 422
        assert "from the lists" in text_of(select_one(parse_html(answer), "[role=alert]"))
    assert not Grant.objects.filter(group=on_call).exists()


def selected_in(html: LexborHTMLParser) -> dict[str, str | None]:
    """Return what is chosen in the form that adds a grant."""
    return {
        name: select_one(html, f"#{name} option[selected]").attributes["value"]
        for name in ("action", "stage", "project")
    }


def test_refused_grant_keeps_what_was_chosen(root_client: Client, on_call: Group) -> None:
    project = factories.project("shop")
    Grant.objects.create(group=on_call, project=project, stage="Staging", action="abort")
    form = {"action": "abort", "stage": "Staging", "project": "shop"}
    for method in (root_client.get, root_client.post):
        answer = method(url(on_call, "grants/new/"), form)
        assert answer.status_code == 422
        assert selected_in(parse_html(answer)) == form


def test_refused_grant_of_an_unknown_project_does_not_become_one_of_all_projects(
    root_client: Client, on_call: Group
) -> None:
    form = {"action": "abort", "stage": "Staging", "project": "gone"}
    answer = root_client.get(url(on_call, "grants/new/"), form)
    assert answer.status_code == 422
    assert selected_in(parse_html(answer)) == form


def test_grant_is_removed_after_confirmation(
    root_client: Client, on_call: Group, viewer: User
) -> None:
    grant = factories.grant("abort", "On-call", viewer)
    address = url(on_call, f"grants/{grant.pk}/")
    html = open_page(root_client, address)
    text = text_of(select_one(html, "[data-effect]"))
    assert text == "1 account loses the right to abort there."
    assert not html.css(".confirm .inline-notice")
    form = {"version": version_in(html)}
    assert root_client.post(address, form).status_code == 303
    assert not Grant.objects.filter(pk=grant.pk).exists()
    answer = root_client.post(address, form)
    assert answer.status_code == 404
    assert "already been removed" in text_of(select_one(parse_html(answer), "[role=alert]"))


def test_grant_of_another_group_is_not_removed(root_client: Client, on_call: Group) -> None:
    grant = Grant.objects.get(group=None)
    assert root_client.post(url(on_call, f"grants/{grant.pk}/")).status_code == 404
    assert Grant.objects.filter(pk=grant.pk).exists()


@pytest.mark.usefixtures("viewer")
def test_removal_of_the_last_way_to_view_warns_and_is_possible(root_client: Client) -> None:
    grant = Grant.objects.get(group=None)
    address = url(None, f"grants/{grant.pk}/")
    html = open_page(root_client, address)
    warning = text_of(select_one(html, ".confirm .inline-notice"))
    assert warning == "After that, only superusers can view anything."
    assert root_client.post(address, {"version": version_in(html)}).status_code == 303
    assert RightsChange.objects.get().subject_kind == "everybody"


def test_granted_right_applies_from_the_next_request(
    root_client: Client, viewer_client: Client, viewer: User, on_call: Group, run: Run, stage: Stage
) -> None:
    viewer.groups.add(on_call)
    button = "[data-abort]"
    page = parse_html(viewer_client.get(factories.address(run)))
    assert "disabled" in select_one(page, button).attributes
    form = {"project": "shop", "stage": stage.name, "action": "abort"}
    root_client.post(url(on_call, "grants/new/"), form)
    page = parse_html(viewer_client.get(factories.address(run)))
    assert "disabled" not in select_one(page, button).attributes
