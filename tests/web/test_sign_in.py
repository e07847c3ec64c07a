"""Every page needs a session; who has none comes back to the very page after signing in."""

from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Run
from tests.support import factories
from tests.support.html import HTMX, one, parsed, words
from tests.support.live import Live
from tests.support.pages import ALL_PAGES, address_of


@pytest.mark.parametrize("name", [name for name in ALL_PAGES if name != "missing"])
def test_without_a_session_every_page_leads_to_sign_in_and_back(
    name: str, run: Run, client: Client
) -> None:
    address = address_of(name, run) + "?status=running&page=2"
    answer = client.get(address)
    assert answer.status_code == 302
    assert answer["Location"] == f"/accounts/login/?next={quote(address)}"


def test_signing_in_returns_to_the_page_with_its_query_string(
    run: Run, client: Client, viewer: User
) -> None:
    wanted = factories.address(run) + "?from=alert&x=%2F"
    sign_in = client.get(wanted)["Location"]
    kept = one(parsed(client.get(sign_in)), 'input[name="next"]').attributes["value"]
    answer = client.post(sign_in, {"username": "viewer", "password": "viewer", "next": kept or ""})
    assert (answer.status_code, answer["Location"]) == (302, wanted)


@pytest.mark.parametrize(
    "elsewhere",
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
def test_signing_in_never_leads_to_another_site(
    elsewhere: str, client: Client, viewer: User
) -> None:
    answer = client.post(
        f"/accounts/login/?next={quote(elsewhere)}",
        {"username": "viewer", "password": "viewer", "next": elsewhere},
    )
    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_a_wrong_password_is_told_and_next_is_kept(client: Client, viewer: User) -> None:
    answer = client.post(
        "/accounts/login/", {"username": "viewer", "password": "no", "next": "/board/?a=b"}
    )
    html = parsed(answer)
    assert answer.status_code == 200
    assert one(html, '[role="alert"]').text().strip()
    assert one(html, 'input[name="next"]').attributes["value"] == "/board/?a=b"


def test_a_name_that_no_database_takes_is_refused_in_the_form(client: Client, viewer: User) -> None:
    answer = client.post("/accounts/login/", {"username": "view\0er", "password": "\0"})
    assert answer.status_code == 200
    assert parsed(answer).css(".field-error, [role=alert]") != []


@pytest.mark.parametrize("name", [name for name in ALL_PAGES if name != "missing"])
def test_a_refresh_without_a_session_is_answered_401_and_no_page(
    name: str, run: Run, client: Client
) -> None:
    answer = client.get(address_of(name, run), headers=HTMX)
    assert answer.status_code == 401
    assert answer["Content-Type"].startswith("text/plain")
    assert parsed(answer).css("form") == []


def test_an_abort_without_a_session_is_answered_401_to_htmx(run: Run, client: Client) -> None:
    answer = client.post(factories.address(run, "abort"), headers=HTMX)
    assert answer.status_code == 401
    assert not run.aborts.exists()


def test_a_session_of_a_closed_account_is_worth_nothing(
    run: Run, at_desk: Client, manager: User
) -> None:
    User.objects.filter(pk=manager.pk).update(is_active=False)
    assert at_desk.get("/").status_code == 302


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
def test_over_http_the_very_address_is_led_back_to_byte_for_byte(
    path: str, live: Live, viewer: User
) -> None:
    import httpx

    with httpx.Client(base_url=live.base_url) as person:
        page = person.get(path, follow_redirects=True)
        answer = person.post(
            page.url,
            data={
                "username": "viewer",
                "password": "viewer",
                "csrfmiddlewaretoken": person.cookies["csrftoken"],
                "next": one(parsed(page), "[name=next]").attributes["value"] or "",
            },
        )
    assert (answer.status_code, answer.headers["location"]) == (302, path)


def test_an_address_that_begins_like_another_host_stays_here(client: Client, viewer: User) -> None:
    answer = client.get("/accounts/login/?next=//evil.example/board/")
    assert one(parsed(answer), "form.stack").css("[name=next]") == []


def test_a_form_without_a_session_leads_back_to_its_run_and_says_that_nothing_was_done(
    run: Run, client: Client, viewer: User
) -> None:
    answer = client.post(factories.address(run, "abort"), {"pick": "Stuck"})
    assert answer.status_code == 302
    assert answer["Location"] == f"/accounts/login/?next={factories.address(run)}"
    page = parsed(client.get(answer["Location"]))
    assert words(one(page, "#notices .notice p")) == "You are signed out. Nothing was done."
    back = client.post(answer["Location"], {"username": "viewer", "password": "viewer"})
    assert back["Location"] == factories.address(run)
    assert not run.aborts.exists()


def test_any_other_form_without_a_session_leads_to_the_first_page(client: Client, db: None) -> None:
    answer = client.post("/aborts/many/", {"run": "1"})
    assert answer["Location"] == "/accounts/login/?next=/"


def test_who_is_signed_in_already_is_led_on(at_desk: Client) -> None:
    assert at_desk.get("/accounts/login/?next=/board/")["Location"] == "/board/"
    assert at_desk.get("/accounts/login/?next=//evil.example/")["Location"] == "/"
    assert at_desk.get("/accounts/login/?next=/accounts/login/")["Location"] == "/"


def test_of_two_sign_in_pages_the_second_leads_on_once_the_first_was_used(
    run: Run, viewer: User
) -> None:
    browser = Client(enforce_csrf_checks=True)
    pages = [f"/accounts/login/?next={place}" for place in ("/board/", factories.address(run))]
    tokens = [
        one(parsed(browser.get(page)), "form.stack [name=csrfmiddlewaretoken]").attributes["value"]
        for page in pages
    ]
    for page, token in zip(pages, tokens, strict=True):
        form = {"username": "viewer", "password": "viewer", "csrfmiddlewaretoken": token or ""}
        answer = browser.post(page, form, follow=True)
        assert (answer.status_code, answer.request["PATH_INFO"]) == (
            200,
            page.partition("=")[2],
        )


def test_signing_out_needs_a_post_and_ends_at_the_sign_in(at_desk: Client) -> None:
    assert at_desk.get("/accounts/logout/").status_code == 405
    assert at_desk.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert at_desk.get("/").status_code == 302


def test_the_sign_in_page_tells_nothing_but_itself(client: Client, run: Run) -> None:
    html = parsed(client.get("/accounts/login/?next=" + factories.address(run)))
    assert words(one(html, "title")) == "Sign in · Release flows"
    assert html.css("nav, [data-run]") == []


def test_the_demo_accounts_are_named_while_the_upstream_is_the_sandbox(
    client: Client, db: None
) -> None:
    assert "manager" in words(one(parsed(client.get("/accounts/login/")), ".panel"))


def test_over_http_an_alerts_link_leads_through_sign_in_to_the_run(
    live: Live, viewer: User
) -> None:
    import httpx

    live.sync()
    run = Run.objects.with_place().filter(in_flight=True).first()
    assert run is not None
    with httpx.Client(base_url=live.base_url, follow_redirects=True) as person:
        person.get(f"/runs/{run.run_id}/?from=alert")
        answer = person.post(
            "/accounts/login/",
            data={
                "username": "viewer",
                "password": "viewer",
                "csrfmiddlewaretoken": person.cookies["csrftoken"],
                "next": f"/runs/{run.run_id}/?from=alert",
            },
        )
    assert answer.status_code == 200
    assert answer.url.path == factories.address(run)
    assert answer.url.query == b"from=alert"
