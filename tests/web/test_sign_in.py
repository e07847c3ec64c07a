"""Every page needs a session; who has none comes back to the very page after signing in."""

from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Run
from tests.live import Live
from tests.web import factories
from tests.web.conftest import HTMX, one, parsed, words
from tests.web.test_pages import ALL_PAGES, address_of


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
