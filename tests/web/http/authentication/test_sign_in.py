"""Every page requires a session; after signing in the user returns to the same page."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from structlog.testing import capture_logs

from dashboard.models import Run, Session
from dashboard.models.accounts.sessions import SessionStore
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.pages import ALL_PAGES, address_of
from tests.support.sign_in import SignInBrowser


@pytest.fixture
def stranger(live: Live) -> Iterator[SignInBrowser]:
    with SignInBrowser(live) as browser:
        yield browser


@pytest.mark.parametrize("name", [name for name in ALL_PAGES if name != "missing"])
def test_page_without_session_redirects_to_sign_in_with_next(
    name: str, run: Run, client: Client
) -> None:
    address = address_of(name, run) + "?status=running&page=2"
    answer = client.get(address)
    assert answer.status_code == 302
    assert answer["Location"] == f"/accounts/login/?next={quote(address)}"


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http:///x",
        "/\\/evil.example",
        "\\\\evil.example",
        "https:evil.example",
        " https://evil.example/",
        "/\t/evil.example",
        "http://testserver:8001/board/",
        "http://testserver@evil.example/",
        "//testserver.evil.example/",
    ],
)
def test_sign_in_never_redirects_to_other_host(
    address: str, stranger: SignInBrowser, viewer: User
) -> None:
    path = f"/accounts/login/?next={quote(address)}"
    answer = stranger.submit("viewer", "viewer", path=path, next=address)
    assert (answer.status_code, answer.headers["location"]) == (302, "/")


def test_sign_in_with_wrong_password_shows_error_and_keeps_next(
    stranger: SignInBrowser, viewer: User
) -> None:
    answer = stranger.submit("viewer", "no", next="/board/?a=b")
    html = parse_html(answer)
    assert answer.status_code == 200
    assert text_of(select_one(html, '[role="alert"]')) == "Wrong user name or password."
    assert select_one(html, 'input[name="next"]').attributes["value"] == "/board/?a=b"


def test_sign_in_with_null_character_shows_error(stranger: SignInBrowser, viewer: User) -> None:
    answer = stranger.submit("view\0er", "\0")
    assert answer.status_code == 200
    assert parse_html(answer).css(".field-error, [role=alert]") != []


@pytest.mark.parametrize("name", [name for name in ALL_PAGES if name != "missing"])
def test_refresh_without_session_returns_401(name: str, run: Run, client: Client) -> None:
    answer = client.get(address_of(name, run), headers=HTMX)
    assert answer.status_code == 401
    assert answer["Content-Type"].startswith("text/plain")
    assert parse_html(answer).css("form") == []


def test_htmx_abort_without_session_returns_401(run: Run, client: Client) -> None:
    answer = client.post(factories.address(run, "abort"), headers=HTMX)
    assert answer.status_code == 401
    assert not run.aborts.exists()


def test_session_of_deactivated_account_is_not_valid_again_after_activation(
    viewer: User, viewer_client: Client
) -> None:
    for viewer.is_active in (False, True):
        viewer.save()
    assert viewer_client.get("/").status_code == 302


@pytest.mark.parametrize(
    "path",
    [
        "/runs/r%C3%A9n/",
        "/runs/%E6%97%A5%E6%9C%AC/?x=%E6%97%A5",
        "/runs/a%252Fb/?next=%2Fboard%2F&next=//evil.example",
        "/runs/%252E%252E/",
        "/runs/a%3Fb%23c/?d=%23e&f=%26&g=a+b%20c",
        "/board/?q=%25252F&empty=&flag",
        "/runs/x/?from=https://alerts.example/?a=1%26b=2",
    ],
)
def test_sign_in_over_http_returns_to_exact_address(path: str, live: Live, viewer: User) -> None:
    import httpx

    with httpx.Client(base_url=live.base_url) as client:
        page = client.get(path, follow_redirects=True)
        answer = client.post(
            page.url,
            data={
                "username": "viewer",
                "password": "viewer",
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
                "next": select_one(parse_html(page), "[name=next]").attributes["value"] or "",
            },
        )
    assert (answer.status_code, answer.headers["location"]) == (302, path)


def test_sign_in_page_with_foreign_next_drops_it(client: Client, viewer: User) -> None:
    answer = client.get("/accounts/login/?next=//evil.example/board/")
    assert select_one(parse_html(answer), "form.stack").css("[name=next]") == []


def test_abort_form_without_session_returns_to_run_after_sign_in(
    stranger: SignInBrowser, viewer: User
) -> None:
    run = factories.run(factories.stage())
    form = {"pick": "Stuck", "csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
    answer = stranger.post(factories.address(run, "abort"), data=form)
    assert answer.status_code == 302
    sign_in = answer.headers["location"]
    assert sign_in == f"/accounts/login/?next={factories.address(run)}"
    page = parse_html(stranger.get(sign_in))
    assert (
        text_of(select_one(page, "#notices .notice p"))
        == "You are signed out. Nothing was changed."
    )
    redirect = stranger.submit("viewer", "viewer", path=sign_in)
    assert redirect.headers["location"] == factories.address(run)
    assert not run.aborts.exists()


def test_other_form_without_session_returns_to_now_page_after_sign_in(
    client: Client, db: None
) -> None:
    answer = client.post("/aborts/bulk/new/", {"run": "1"})
    assert answer["Location"] == "/accounts/login/?next=/"


def test_sign_in_page_when_signed_in_redirects_to_next(operator_client: Client) -> None:
    assert operator_client.get("/accounts/login/?next=/board/")["Location"] == "/board/"
    assert operator_client.get("/accounts/login/?next=//evil.example/")["Location"] == "/"
    assert operator_client.get("/accounts/login/?next=/accounts/login/")["Location"] == "/"


def test_second_sign_in_page_after_first_sign_in_redirects_to_its_next(
    stranger: SignInBrowser, viewer: User
) -> None:
    pages = [f"/accounts/login/?next={address}" for address in ("/board/", "/health/")]
    tokens = [
        select_one(
            parse_html(stranger.get(page)), "form.stack [name=csrfmiddlewaretoken]"
        ).attributes["value"]
        for page in pages
    ]
    for page, token in zip(pages, tokens, strict=True):
        form = {"username": "viewer", "password": "viewer", "csrfmiddlewaretoken": token or ""}
        answer = stranger.post(page, data=form, follow_redirects=True)
        assert (answer.status_code, answer.url.path) == (200, page.partition("=")[2])


def test_form_without_cookies_shows_sign_in_page_with_error_and_keeps_next(
    stranger: SignInBrowser, viewer: User
) -> None:
    form = {"username": "viewer", "password": "viewer", "csrfmiddlewaretoken": "x" * 32}
    stranger.cookies.clear()
    answer = stranger.post("/accounts/login/?next=/board/", data=form)
    html = parse_html(answer)
    assert answer.status_code == 403
    error = text_of(select_one(html, '[role="alert"]'))
    assert error == "The form had expired, or cookies are blocked. Try again."
    assert select_one(html, "[name=next]").attributes["value"] == "/board/"


def test_form_after_an_expired_one_signs_in(stranger: SignInBrowser, viewer: User) -> None:
    stranger.cookies.clear()
    page = stranger.post("/accounts/login/", data={"next": "/board/"})
    token = select_one(parse_html(page), "[name=csrfmiddlewaretoken]").attributes["value"]
    answer = stranger.submit("viewer", "viewer", csrfmiddlewaretoken=token or "", next="/board/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/board/")


def test_form_of_another_origin_is_logged_with_the_reason(
    stranger: SignInBrowser, viewer: User, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the proxy did not pass on that users have opened the page by HTTPS."""
    stranger.headers["Origin"] = "https://releases.example"
    with capture_logs() as logs:
        assert stranger.submit("viewer", "viewer").status_code == 403
    [line] = [line for line in logs if line["event"] == "sign_in.form_refused"]
    assert line["log_level"] == "warning"
    assert "https://releases.example does not match any trusted origins" in line["why"]
    assert [record for record in caplog.records if "csrf" in record.name] == []


def test_sign_out_requires_post_and_redirects_to_sign_in(operator_client: Client) -> None:
    assert operator_client.get("/accounts/logout/").status_code == 405
    assert operator_client.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert operator_client.get("/").status_code == 302


def test_sign_in_page_reveals_no_other_content(client: Client, run: Run) -> None:
    html = parse_html(client.get("/accounts/login/?next=" + factories.address(run)))
    assert text_of(select_one(html, "title")) == "Sign in · Release flows"
    assert html.css("nav, [data-run]") == []


def test_sign_in_page_with_sandbox_shows_demo_accounts(client: Client, db: None) -> None:
    assert "manager" in text_of(select_one(parse_html(client.get("/accounts/login/")), ".panel"))


def test_session_from_before_the_sign_in_is_not_continued(
    stranger: SignInBrowser, viewer: User
) -> None:
    old_session = SessionStore()
    old_session["from"] = "a stranger"
    old_session.create()
    old_key = old_session.session_key or ""
    stranger.cookies.set("sessionid", old_key, domain="127.0.0.1", path="/")
    stranger.submit("viewer", "viewer")
    assert stranger.cookies["sessionid"] != old_key
    assert not Session.objects.filter(session_key=old_key).exists()
    stranger.cookies.set("sessionid", old_key, domain="127.0.0.1", path="/")
    assert stranger.get("/").status_code == 302
