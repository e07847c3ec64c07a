"""A link of `manage.py sign_in_link` signs an account in once, however others sign in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO
from urllib.parse import urlsplit

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts.authentication import sign_in_link
from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind
from tests.support.auth_proxy import configure
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.sign_in import SignInBrowser

INVALID = "This sign-in link has been used, is older than ten minutes, or is incomplete."


def make_link(username: str) -> str:
    """What the command prints."""
    output = StringIO()
    call_command("sign_in_link", username, stdout=output, stderr=StringIO())
    return output.getvalue().strip()


def path_of(link: str) -> str:
    return urlsplit(link).path


@pytest.fixture
def open_browser(live: Live) -> Iterator[Callable[[], SignInBrowser]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SignInBrowser(live))


def use(browser: SignInBrowser, path: str) -> httpx.Response:
    """Press the button of a link's page."""
    assert select_one(parse_html(browser.get(path)), "main form button")
    return browser.post(path, data={"csrfmiddlewaretoken": browser.cookies["csrftoken"]})


def is_refused(client: Client, path: str) -> bool:
    """Whether a link's page says that it is not valid, and neither shows nor takes the form."""
    page = client.get(path)
    html = parse_html(page)
    assert text_of(select_one(html, "[data-reason]")).startswith(INVALID)
    assert not html.css("main form")
    return (page.status_code, client.post(path).status_code) == (403, 403)


def test_link_signs_in_once_by_its_button_only(
    open_browser: Callable[[], SignInBrowser], viewer: User
) -> None:
    path = path_of(make_link("viewer"))
    browser, other = open_browser(), open_browser()
    for _ in range(2):  # a preview of it changes nothing
        assert other.get(path).status_code == 200
        assert other.head(path).status_code == 200
    assert "sessionid" not in other.cookies
    answer = use(browser, path)
    assert (answer.status_code, answer.headers["location"]) == (302, "/")
    assert browser.get("/board/").status_code == 200
    event = AccessEvent.objects.get()
    assert (event.kind, event.username) == (AccessKind.SIGNED_IN, "viewer")
    assert event.detail == "Sign-in link"
    data = {"csrfmiddlewaretoken": other.cookies["csrftoken"]}
    assert other.post(path, data=data).status_code == 403
    assert AccessEvent.objects.count() == 1


def test_of_two_requests_at_the_same_time_one_uses_the_link(viewer: User) -> None:
    Client().force_login(viewer)
    viewer.refresh_from_db()
    token = sign_in_link.create_token(viewer)
    found = [sign_in_link.find_account(token) for _ in range(2)]
    assert [account and sign_in_link.use(account) for account in found] == [True, False]


def test_break_glass_account_signs_in_by_link_where_others_sign_in_elsewhere(
    client: Client, settings: Settings, db: None
) -> None:
    configure(
        settings,
        PASSWORD_SIGN_IN=False,
        BREAK_GLASS_ACCOUNT="glass",
        AUTHENTICATION_BACKENDS=[
            "dashboard.accounts.authentication.break_glass.BreakGlassBackend",
            "dashboard.accounts.authentication.auth_proxy.ProxyBackend",
            sign_in_link.BACKEND,
        ],
    )
    User.objects.create_user("glass")  # without a password
    assert client.post(path_of(make_link("glass"))).status_code == 302
    for _ in range(2):
        assert client.get("/board/").status_code == 200
    event = AccessEvent.objects.get()
    assert (event.kind, event.detail) == (AccessKind.BREAK_GLASS, "Sign-in link")


def test_link_ends_after_ten_minutes(client: Client, viewer: User) -> None:
    path = path_of(make_link("viewer"))
    with time_machine.travel(timezone.now() + timedelta(minutes=9)):
        assert client.get(path).status_code == 200
    with time_machine.travel(timezone.now() + timedelta(minutes=11)):
        assert is_refused(client, path)


def test_link_ends_with_any_sign_in(client: Client, viewer: User) -> None:
    path = path_of(make_link("viewer"))
    Client().force_login(viewer)
    assert is_refused(client, path)


def test_link_ends_with_a_new_password(client: Client, viewer: User) -> None:
    path = path_of(make_link("viewer"))
    viewer.set_password("other")
    viewer.save()
    assert is_refused(client, path)


def test_link_of_an_account_that_was_deactivated_is_refused(client: Client, viewer: User) -> None:
    path = path_of(make_link("viewer"))
    User.objects.update(is_active=False)
    assert is_refused(client, path)


@pytest.mark.parametrize("token", ["", "x", "{pk}", "{pk}:x", "{pk}:x:y", "9:x:y", "9" * 40, "²"])
def test_forged_link_is_refused(token: str, client: Client, viewer: User) -> None:
    token = token.format(pk=viewer.pk) or "0"
    assert is_refused(client, f"/accounts/link/{token}/")


def test_link_of_one_account_does_not_sign_in_another(
    client: Client, viewer: User, manager: User
) -> None:
    token = sign_in_link.create_token(viewer).replace(f"{viewer.pk}:", f"{manager.pk}:")
    assert is_refused(client, f"/accounts/link/{token}/")


def test_session_of_a_link_ends_when_its_account_is_deactivated(
    client: Client, viewer: User
) -> None:
    client.post(path_of(make_link("viewer")))
    User.objects.update(is_active=False)
    assert client.get("/board/").status_code == 302


def test_command_prints_the_address_that_users_open(viewer: User, settings: Settings) -> None:
    settings.BASE_URL = "https://releases.example.com"
    assert make_link("viewer").startswith("https://releases.example.com/accounts/link/")


@pytest.mark.parametrize("username", ["nobody", "inactive"])
def test_command_refuses_accounts_that_cannot_sign_in(username: str, db: None) -> None:
    User.objects.create_user("inactive", is_active=False)
    with pytest.raises(CommandError, match=r"does not exist|is inactive"):
        make_link(username)
