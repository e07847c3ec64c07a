"""Sign-in without passwords, except for the break-glass account."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings
from structlog.testing import capture_logs

from dashboard.accounts import demo
from dashboard.accounts.authentication import throttle
from dashboard.models import AccessEvent, Session
from dashboard.models.accounts.access import AccessKind
from tests.support import auth_proxy, counting_hasher
from tests.support.auth_proxy import STRANGER, ProxiedBrowser
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live

SIGN_IN, EMERGENCY = "/accounts/login/", "/accounts/login/?emergency=1&next=/board/"


@pytest.fixture
def without_passwords(settings: Settings) -> None:
    auth_proxy.configure(
        settings,
        PASSWORD_SIGN_IN=False,
        BREAK_GLASS_ACCOUNT="glass",
        AUTHENTICATION_BACKENDS=[
            "dashboard.accounts.authentication.break_glass.BreakGlassBackend",
            "dashboard.accounts.authentication.auth_proxy.ProxyBackend",
        ],
    )


@pytest.fixture
def glass(db: None) -> User:
    return User.objects.create_superuser("glass", password="seal")


@pytest.fixture
def direct(live: Live) -> Iterator[ProxiedBrowser]:
    with ProxiedBrowser(live.base_url, peer=STRANGER) as browser:
        yield browser


# --- The sign-in page -----------------------------------------------------------------------------


def test_sign_in_page_without_passwords_has_no_form_but_a_link(
    direct: ProxiedBrowser, without_passwords: None
) -> None:
    html = parse_html(direct.get(f"{SIGN_IN}?next=/board/"))
    assert html.css("main form, main input") == []
    assert "Not signed in: the proxy sent no user name." in text_of(select_one(html, "main"))
    link = select_one(html, "main a")
    assert text_of(link) == "Emergency sign-in"
    assert "glass" not in text_of(select_one(html, "main"))
    emergency = parse_html(direct.get(link.attributes["href"] or ""))
    assert text_of(select_one(emergency, "h1")) == "Emergency sign-in"
    assert select_one(emergency, "[name=next]").attributes["value"] == "/board/"
    assert "glass" not in text_of(select_one(emergency, "main")).replace("break-glass", "")


# --- Who can sign in ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SIGN_IN, EMERGENCY])
def test_break_glass_account_signs_in(
    path: str, direct: ProxiedBrowser, without_passwords: None, glass: User
) -> None:
    with capture_logs() as logs:
        answer = direct.submit_password("glass", "seal", path)
    assert answer.status_code == 302
    assert answer.headers["location"] == ("/board/" if path == EMERGENCY else "/")
    for _ in range(2):
        assert direct.open("/").status_code == 200
    event = AccessEvent.objects.get()
    assert (event.kind, event.username) == (AccessKind.BREAK_GLASS, "glass")
    assert event.client_address == STRANGER
    [line] = [line for line in logs if line["event"] == "access.recorded"]
    assert (line["log_level"], line["kind"]) == ("warning", "break_glass")


def test_break_glass_account_signs_in_by_the_proxy_that_sends_no_header(
    live: Live, without_passwords: None, glass: User
) -> None:
    with ProxiedBrowser(live.base_url) as proxied:
        assert proxied.submit_password("glass", "seal", EMERGENCY).status_code == 302
        assert proxied.open("/people/").status_code == 200


@pytest.mark.parametrize("username", ["viewer", "Glass", "manager"])
def test_right_password_of_another_account_is_answered_as_a_wrong_one(
    username: str, direct: ProxiedBrowser, without_passwords: None, glass: User
) -> None:
    for name in ("viewer", "Glass"):
        User.objects.create_superuser(name, password=name)
    demo.enable()
    answer = direct.submit_password(username, username, EMERGENCY)
    html = parse_html(answer)
    assert text_of(select_one(html, '[role="alert"]')) == "Wrong user name or password."
    event = AccessEvent.objects.get()
    assert event.kind == AccessKind.SIGN_IN_FAILED
    assert event.detail == "Password sign-in is disabled for this account."
    assert not Session.objects.exists()


@pytest.mark.parametrize("password", ["wrong", "viewer"])
@pytest.mark.parametrize("username", ["glass", "viewer", "nobody"])
def test_every_name_hashes_one_password_and_gets_the_same_answer(
    username: str,
    password: str,
    direct: ProxiedBrowser,
    without_passwords: None,
    glass: User,
    viewer: User,
    settings: Settings,
) -> None:
    settings.PASSWORD_HASHERS = ["tests.support.counting_hasher.CountingHasher"]
    for user in (glass, viewer):
        user.set_password(user.username)
        user.save()
    counting_hasher.hashed.clear()
    answer = direct.submit_password(username, password, EMERGENCY)
    assert len(counting_hasher.hashed) == 1
    assert (answer.status_code, text_of(select_one(parse_html(answer), '[role="alert"]'))) == (
        200,
        "Wrong user name or password.",
    )


def test_break_glass_account_is_throttled(
    direct: ProxiedBrowser, without_passwords: None, glass: User
) -> None:
    for number in range(throttle.ACCOUNT_AT_ADDRESS.burst):
        assert direct.submit_password("glass", f"no-{number}", EMERGENCY).status_code == 200
    assert direct.submit_password("glass", "seal", EMERGENCY).status_code == 429


def test_sessions_begun_with_a_password_end_when_passwords_are_switched_off(
    client: Client, viewer: User, request: pytest.FixtureRequest
) -> None:
    client.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/board/").status_code == 200
    request.getfixturevalue("without_passwords")
    client.handler = Client().handler  # of a new process
    assert client.get("/board/").status_code == 302


def test_break_glass_account_is_recorded_while_passwords_are_on(
    direct: ProxiedBrowser, glass: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "glass"
    assert direct.submit_password("glass", "seal", SIGN_IN).status_code == 302
    assert AccessEvent.objects.get().kind == AccessKind.BREAK_GLASS
