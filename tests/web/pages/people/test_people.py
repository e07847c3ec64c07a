"""Pages about accounts: who opens them, the list, an account, and who may do what somewhere."""

from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import demo
from dashboard.models import AccessEvent, ApiToken, Grant, ProxyAccount, RightsChange
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.people import client_of

PASSWORD = "correct horse battery staple"


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="root")


@pytest.fixture
def root_client(root: User) -> Client:
    return client_of(root)


def account_url(user: User) -> str:
    return f"/people/accounts/{user.pk}/"


def open_page(client: Client, address: str) -> LexborHTMLParser:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return parse_html(answer)


def save_account(client: Client, user: User, **changes: Any) -> HttpResponse:
    """Submit the form of an account as shown now, with some fields changed."""
    html = open_page(client, account_url(user))
    form: dict[str, Any] = {
        "version": select_one(html, "input[name=version]").attributes["value"],
        "group": [field.attributes["value"] for field in html.css("input[name=group][checked]")],
    }
    for name in ("active", "superuser"):
        if html.css(f"input[name={name}][checked]"):
            form[name] = "1"
    form |= changes
    fields = {key: value for key, value in form.items() if value is not None}
    return client.post(account_url(user), fields)


# --- Who may open them ---------------------------------------------------------------------------

ADDRESSES = [
    "/people/",
    "/people/new/",
    "/people/accounts/1/",
    "/people/groups/",
    "/people/groups/0/",
    "/people/groups/1/delete/",
    "/people/groups/0/grants/new/?action=view",
    "/people/groups/0/grants/1/",
    "/people/rights/",
    "/people/changes/",
    "/people/changes/export.csv",
    "/people/changes/export.json",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("method", ["get", "post"])
def test_other_users_get_403(operator_client: Client, address: str, method: str) -> None:
    answer = getattr(operator_client, method)(address)
    assert answer.status_code in ({403} if method == "get" else {403, 405})
    assert RightsChange.objects.count() == 0


def test_password_of_an_account_is_not_set_by_others(operator_client: Client, viewer: User) -> None:
    answer = operator_client.post(f"{account_url(viewer)}password/", {"password": PASSWORD})
    assert answer.status_code == 403


def test_settings_have_tabs_of_these_pages_for_administrators_only(
    root_client: Client, operator_client: Client
) -> None:
    assert open_page(root_client, "/account/").css('a[href="/people/"]')
    assert not open_page(operator_client, "/account/").css('a[href="/people/"]')


@pytest.mark.parametrize(
    "address",
    ["/people/accounts/9999/", "/people/groups/9999/", "/people/groups/9999/delete/"],
)
def test_unknown_account_or_group_is_404(root_client: Client, address: str) -> None:
    assert root_client.get(address).status_code == 404


# --- The list ------------------------------------------------------------------------------------


def test_list_shows_groups_state_and_last_sign_in(root_client: Client, manager: User) -> None:
    manager.is_active, manager.last_login = False, timezone.now()
    manager.save()
    html = open_page(root_client, "/people/?q=MANA")
    row = select_one(html, "[data-account]")
    for text in ("manager", "Release managers", "Inactive"):
        assert text in text_of(row)
    assert row.css("time")


def test_list_has_pages(root_client: Client) -> None:
    User.objects.bulk_create(User(username=f"user-{number:03}") for number in range(60))
    first = open_page(root_client, "/people/?q=user")
    assert len(first.css("[data-account]")) == 50
    assert "Accounts 1–50 of 60" in text_of(select_one(first, ".pager"))
    second = open_page(root_client, f"/people/{select_one(first, '[rel=next]').attributes['href']}")
    assert len(second.css("[data-account]")) == 10


# --- An account ----------------------------------------------------------------------------------


def test_account_is_added_without_a_password(root_client: Client) -> None:
    group = Group.objects.create(name="On-call")
    form = {"username": "ben", "password": "", "active": "1", "group": [group.pk]}
    answer = root_client.post("/people/new/", form)
    user = User.objects.get(username="ben")
    assert (answer.status_code, answer["Location"]) == (303, account_url(user))
    assert list(user.groups.all()) == [group]
    assert not user.has_usable_password()


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"username": ""}, "1 to 150 characters"),
        ({"username": "a b"}, "valid username"),
        ({"username": "\ufdfa"}, "valid username"),  # stored as 18 characters, some of them spaces
        ({"username": "\ufdfa" * 9}, "1 to 150 characters"),
        ({"username": "\uff52oot"}, "already exists"),  # a wide “r”
        ({"username": "x", "password": "12345678"}, "too common"),
        ({"username": "benjamin1", "password": "benjamin1"}, "too similar"),
        ({"username": "ROOT"}, "already exists"),
    ],
)
def test_invalid_account_is_not_added_and_keeps_its_fields(
    root_client: Client, form: dict[str, str], problem: str
) -> None:
    group = Group.objects.create(name="On-call")
    answer = root_client.post("/people/new/", form | {"active": "1", "group": [group.pk]})
    assert answer.status_code == 422
    html = parse_html(answer)
    assert problem in text_of(select_one(html, "main"))
    # As it would be stored, or the reason would be a riddle.
    shown = select_one(html, "#username").attributes["value"] or ""
    assert shown == User.normalize_username(form["username"])
    assert html.css(f"input[name=group][value='{group.pk}'][checked]")
    assert User.objects.count() == 1


def test_account_is_changed_with_its_groups_and_state(root_client: Client, viewer: User) -> None:
    group = Group.objects.create(name="On-call")
    answer = save_account(root_client, viewer, group=[group.pk], active=None, superuser="1")
    assert answer.status_code == 303
    viewer.refresh_from_db()
    assert (viewer.is_active, viewer.is_superuser) == (False, True)
    assert list(viewer.groups.all()) == [group]
    html = open_page(root_client, account_url(viewer))
    differences = [text_of(item) for item in html.css(".differences li")]
    assert differences == ["− Removed: active", "+ Added: group “On-call”", "+ Added: superuser"]
    assert "the account is inactive" in text_of(select_one(html, "main"))


def test_deactivated_account_is_out_at_its_next_request(
    root_client: Client, viewer_client: Client, viewer: User
) -> None:
    assert viewer_client.get("/").status_code == 200
    save_account(root_client, viewer, active=None)
    assert viewer_client.get("/").status_code == 302


def test_account_changed_meanwhile_is_not_overwritten(root_client: Client, viewer: User) -> None:
    answer = save_account(root_client, viewer, version="0" * 16, active=None)
    assert answer.status_code == 409
    assert "somebody else has changed this" in text_of(
        select_one(parse_html(answer), "[role=alert]")
    )
    viewer.refresh_from_db()
    assert viewer.is_active


def test_demo_account_keeps_its_group_and_has_no_password_form(root_client: Client) -> None:
    demo.enable()
    viewer = User.objects.get(username="viewer")
    group = Group.objects.create(name="On-call")
    assert save_account(root_client, viewer, group=[group.pk]).status_code == 303
    assert set(viewer.groups.values_list("name", flat=True)) == {"On-call", demo.GROUP}
    html = open_page(root_client, account_url(viewer))
    assert not html.css("#password")
    assert "Demo account" in text_of(select_one(html, "main"))


def source_of(client: Client, user: User) -> list[str]:
    return [
        text_of(element) for element in open_page(client, account_url(user)).css("[data-source]")
    ]


def test_account_shows_that_the_proxy_signs_it_in(
    root_client: Client, viewer: User, settings: Settings
) -> None:
    settings.AUTH_PROXY_HEADER = "X-Forwarded-User"
    assert source_of(root_client, viewer) == []
    ProxyAccount.objects.create(user=viewer)
    assert source_of(root_client, viewer) == ["Signed in by the proxy."]
    settings.AUTH_PROXY_GROUPS_HEADER = "X-Forwarded-Groups"
    assert source_of(root_client, viewer) == [
        "Signed in by the proxy. Each sign-in updates its groups."
    ]
    settings.AUTH_PROXY_HEADER = ""
    assert source_of(root_client, viewer) == []


def test_account_made_in_the_dashboard_is_handed_over_to_the_proxy(
    root_client: Client, viewer: User, settings: Settings
) -> None:
    assert not open_page(root_client, account_url(viewer)).css("[name=hand_over]")
    settings.AUTH_PROXY_HEADER = "X-Forwarded-User"
    assert open_page(root_client, account_url(viewer)).css("[name=hand_over]")
    assert save_account(root_client, viewer, hand_over="1").status_code == 303
    assert source_of(root_client, viewer) == ["Signed in by the proxy."]
    assert not open_page(root_client, account_url(viewer)).css("[name=hand_over]")


@pytest.mark.parametrize("is_break_glass", [True, False])
def test_break_glass_and_demo_accounts_have_no_field_to_hand_them_over(
    root_client: Client, settings: Settings, is_break_glass: bool
) -> None:
    demo.enable()
    settings.AUTH_PROXY_HEADER = "X-Forwarded-User"
    user = User.objects.get(username="viewer")
    if is_break_glass:
        settings.BREAK_GLASS_ACCOUNT = "viewer"
        user.groups.clear()
    assert not open_page(root_client, account_url(user)).css("[name=hand_over]")


def create_token(user: User) -> ApiToken:
    return ApiToken.create_token(user, "Runbook", Scope.ABORT, timezone.now())[0]


def test_account_lists_its_tokens_with_a_button_to_revoke_each(
    root_client: Client, viewer: User, manager: User
) -> None:
    token = create_token(viewer)
    create_token(manager)
    html = open_page(root_client, account_url(viewer))
    form = select_one(html, f'[data-token="{token.pk}"] form')
    assert len(html.css("[data-token]")) == 1
    assert token.digest not in (html.html or "")
    answer = root_client.post(str(form.attributes["action"]), follow=True)
    page = parse_html(answer)
    assert "Token “Runbook” revoked." in text_of(page)
    assert not page.css("[data-token]")
    event = AccessEvent.objects.get(kind=AccessKind.TOKEN_REVOKED)
    assert (event.username, event.changed_by, event.client_address) == (
        "viewer",
        "root",
        "127.0.0.1",
    )


def test_token_of_another_account_is_404(root_client: Client, viewer: User, manager: User) -> None:
    token = create_token(manager)
    answer = root_client.post(f"{account_url(viewer)}tokens/{token.pk}/revoke/")
    assert answer.status_code == 404


@pytest.mark.parametrize("address", ["/people/new/", "/people/groups/"])
def test_nothing_is_added_in_read_only_mode(
    root_client: Client, settings: Settings, address: str
) -> None:
    settings.READ_ONLY = True
    answer = root_client.post(address, {"username": "ben", "name": "On-call", "active": "1"})
    assert answer.status_code in {403, 422}
    assert "read-only" in text_of(select_one(parse_html(answer), "main"))
    assert not User.objects.filter(username="ben").exists()
    assert not Group.objects.filter(name="On-call").exists()


def test_account_has_no_forms_in_read_only_mode(
    root_client: Client, viewer: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    html = open_page(root_client, account_url(viewer))
    assert not html.css("main form")
    assert "read-only" in text_of(select_one(html, "[data-reason]"))


def test_form_without_csrf_token_is_refused(root: User, viewer: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(root)
    assert client.post("/people/new/", {"username": "ben"}).status_code == 403
    assert client.post(account_url(viewer), {}).status_code == 403


# --- Passwords: hashed in the queue --------------------------------------------------------------


@pytest.fixture
def browser(live: Live, root: User) -> httpx.Client:
    return live.sign_in("root")


def submit(browser: httpx.Client, address: str, **form: str) -> httpx.Response:
    html = parse_html(browser.get(address.removesuffix("password/")))
    token = html.css("main input[name=csrfmiddlewaretoken]")[0].attributes["value"]
    return browser.post(address, data={"csrfmiddlewaretoken": token, **form})


def test_account_with_a_password_is_added_and_can_sign_in(
    browser: httpx.Client, client: Client
) -> None:
    answer = submit(browser, "/people/new/", username="ben", password=PASSWORD, active="1")
    assert answer.status_code == 303
    assert "Account added." in browser.get(answer.headers["location"]).text
    assert client.login(username="ben", password=PASSWORD)


def test_password_is_set(browser: httpx.Client, viewer: User, client: Client) -> None:
    answer = submit(browser, f"{account_url(viewer)}password/", password=PASSWORD)
    assert answer.status_code == 303
    assert client.login(username="viewer", password=PASSWORD)
    assert RightsChange.objects.get().detail == "Changed password."


def test_bad_password_is_not_set(browser: httpx.Client, viewer: User, client: Client) -> None:
    answer = submit(browser, f"{account_url(viewer)}password/", password="short")
    assert answer.status_code == 422
    assert "too short" in answer.text
    assert "This ends the sessions" in text_of(select_one(parse_html(answer), "#password-help"))
    assert client.login(username="viewer", password="viewer")


# --- What an account may do, and who may do it ---------------------------------------------------


@pytest.fixture
def on_call(viewer: User) -> Grant:
    """A grant to abort in Staging of one project, beside the one for everybody to view."""
    return factories.grant("abort", "On-call", viewer, project=factories.project(), stage="Staging")


@pytest.mark.usefixtures("on_call")
def test_account_shows_rights_with_reasons(root_client: Client, viewer: User) -> None:
    html = open_page(root_client, account_url(viewer))
    shop, others = html.css("[data-rights-row]")
    assert text_of(select_one(shop, "th")) == "Shop"
    assert text_of(select_one(others, "th")) == "All other projects, new ones included"
    rights = {cell.attributes["data-stage"]: cell for cell in shop.css("td")}
    assert rights["Staging"].attributes["data-right"] == "abort"
    assert text_of(rights["Staging"]) == (
        "abort by group “On-call”: abort in Staging of project “Shop”"
    )
    assert text_of(rights["Production"]) == ("view all signed-in users: view in all projects")
    assert {cell.attributes["data-right"] for cell in others.css("td")} == {"view"}


def test_superuser_has_one_reason(root_client: Client, root: User) -> None:
    [row] = open_page(root_client, account_url(root)).css("[data-rights-row]")
    assert [text_of(cell) for cell in row.css("td")] == ["abort superuser"] * 3


@pytest.mark.usefixtures("on_call")
def test_who_may_abort_lists_accounts_with_reasons(root_client: Client) -> None:
    html = open_page(root_client, "/people/rights/?project=shop&stage=Staging")
    rows = {row.attributes["data-holder"]: text_of(row) for row in html.css("[data-holder]")}
    assert rows == {
        "root": "root superuser",
        "viewer": "viewer “On-call”: abort in Staging of project “Shop”",
    }
    html = open_page(root_client, "/people/rights/")
    assert text_of(select_one(html, 'main [data-holder="viewer"] .status')) == (
        "“On-call”: abort in Staging of project “Shop”"
    )
    html = open_page(root_client, "/people/rights/?project=shop&stage=Staging&action=logs")
    assert [row.attributes["data-holder"] for row in html.css("[data-holder]")] == [
        "root",
        "viewer",
    ]
    assert "see logs in Staging of project “Shop”" in text_of(select_one(html, "main"))
    html = open_page(root_client, "/people/rights/?project=shop&stage=Production")
    assert [row.attributes["data-holder"] for row in html.css("[data-holder]")] == ["root"]


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ("?project=nope", "Project “nope” not found; showing any project."),
        ("?stage=nope", "Unknown stage “nope” ignored."),
        ("?action=nope", "Unknown permission “nope” ignored."),
        ("?project=%00&stage=%00", "Project"),
    ],
)
def test_invalid_question_is_ignored_with_warning(
    root_client: Client, query: str, warning: str
) -> None:
    html = open_page(root_client, f"/people/rights/{query}")
    assert warning in text_of(select_one(html, "main"))


def test_name_does_not_turn_its_sentence_around(root_client: Client, viewer: User) -> None:
    factories.grant("abort", "On\u202ecall", viewer)
    html = open_page(root_client, account_url(viewer))
    text = text_of(html.css("[data-right=abort]")[0])
    assert text == "abort by group “Oncall”: abort in all projects"


def test_hostile_names_are_escaped(root_client: Client, viewer: User) -> None:
    factories.grant("abort", HOSTILE[:150], viewer, project=factories.project(name=HOSTILE))
    User.objects.filter(pk=viewer.pk).update(username=HOSTILE[:150])
    group = Group.objects.get(name=HOSTILE[:150])
    for address in (
        "/people/",
        account_url(viewer),
        "/people/groups/",
        f"/people/groups/{group.pk}/",
        f"/people/groups/{group.pk}/delete/",
        f"/people/groups/{group.pk}/grants/new/?action=view&project=shop",
        "/people/rights/?project=shop",
    ):
        html = open_page(root_client, address)
        assert html.css("#hostile, main script, main img, x") == [], address
        assert any(HOSTILE[:40] in element.text() for element in html.css("bdi")), address
