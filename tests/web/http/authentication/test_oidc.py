"""Sign-in through an OpenID provider, over HTTP: accounts, sessions and groups."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from dashboard.models.accounts.sessions import SessionStore
from tests.support import databases, oidc
from tests.support.databases import query_database
from tests.support.html import parse_html, select_one, text_of
from tests.support.live_runs import wait_until
from tests.support.oidc import (
    Browser,
    Dashboard,
    Provider,
    assert_failed,
    forward_url,
    new_username,
)

pytestmark = pytest.mark.process

GROUPS = {"OIDC_GROUPS_CLAIM": "groups", "OIDC_GROUP_MAP": "rm=Release managers"}
DOMAINS = {"OIDC_ALLOWED_DOMAINS": "example.com,example.org"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("oidc on sqlite")),
        pytest.param(
            "postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("oidc on postgres")]
        ),
    ],
)
def dashboard(
    request: pytest.FixtureRequest,
    provider_process: Provider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dashboard]:
    """A dashboard that takes groups from the provider."""
    folder = tmp_path_factory.mktemp("dashboard")
    if request.param == "sqlite":
        with oidc.run_dashboard(folder, provider_process, **GROUPS) as dashboard:
            yield dashboard
        return
    with databases.postgres() as url:
        oidc.migrate(url, provider_process)
        with oidc.run_dashboard(folder, provider_process, DATABASE_URL=url, **GROUPS) as dashboard:
            yield dashboard


def shown_name(visitor: Browser) -> str:
    return text_of(select_one(parse_html(visitor.open("/")), "header .name bdi"))


def may_abort(visitor: Browser) -> bool:
    return parse_html(visitor.open("/")).css_first("[data-abort]:not([disabled])") is not None


def wait_for_runs(dashboard: Dashboard) -> None:
    """Wait until the sync has read a run: until then, nobody may abort any."""
    wait_until(lambda: may_abort(dashboard.administrator), seconds=60, interval=0.2)


# --- The way through ------------------------------------------------------------------------------


def test_sign_in_with_deep_link_opens_it_with_its_query(visitor: Browser, username: str) -> None:
    address = "/runs/made-up/?from=alert&x=%2Fa%26b&y=a+b"
    answer = visitor.sign_in(username, address)
    assert (answer.status_code, answer.headers["location"]) == (302, address)
    assert shown_name(visitor) == username


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"], None, 7])
def test_client_authenticates_as_the_provider_asks(
    methods: object, visitor: Browser, provider: Provider, username: str
) -> None:
    document = {"token_endpoint_auth_methods_supported": methods}
    provider.control(answers={"openid-configuration": document})
    assert visitor.sign_in(username).status_code == 302


def test_request_to_provider_has_pkce_state_nonce_and_scopes(visitor: Browser) -> None:
    query = parse_qs(urlsplit(forward_url(visitor.begin())).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [f"{visitor.dashboard.base_url}/accounts/oidc/callback/"]
    assert set(query["scope"][0].split()) == {"openid", "profile", "email"}
    assert len(query["state"][0]) >= 16
    assert len(query["nonce"][0]) >= 32


@pytest.mark.slow
def test_redirect_uri_is_that_of_base_url_with_its_path(provider: Provider, tmp_path: Path) -> None:
    base_url = "http://127.0.0.1/releases"
    with (
        oidc.run_dashboard(tmp_path, provider, BASE_URL=base_url) as dashboard,
        dashboard.browser() as browser,
    ):
        query = parse_qs(urlsplit(forward_url(browser.begin("/releases/"))).query)
    assert query["redirect_uri"] == [f"{base_url}/accounts/oidc/callback/"]


def test_sign_in_is_recorded_with_its_way(
    visitor: Browser, dashboard: Dashboard, username: str
) -> None:
    visitor.sign_in(username)
    signed_in, added = dashboard.access_events(username=username)
    assert (signed_in["kind"], signed_in["detail"]) == ("signed_in", "OpenID Connect")
    assert added["kind"] == "rights_changed"
    assert added["detail"].startswith("Added by OpenID Connect for ")


def test_second_sign_in_opens_the_same_account(dashboard: Dashboard, username: str) -> None:
    for _ in range(2):
        with dashboard.browser() as browser:
            browser.sign_in(username)
            assert shown_name(browser) == username
    assert len(dashboard.access_events(username=username, kind="rights_changed")) == 1


@pytest.mark.parametrize("name", ["viewer", "VIEWER", "admin", "Break-Glass"])
def test_name_and_email_of_another_account_open_a_new_one(
    name: str, visitor: Browser, provider: Provider
) -> None:
    provider.set_claims(
        username := new_username(),
        sub=username,
        preferred_username=name,
        email="viewer@example.com",
        email_verified=True,
    )
    visitor.sign_in(username)
    assert shown_name(visitor).startswith(f"{name}-")
    assert visitor.open("/access/").status_code == 403


def test_account_of_provider_has_no_password(
    visitor: Browser, dashboard: Dashboard, username: str
) -> None:
    visitor.sign_in(username)
    with dashboard.browser() as other, pytest.raises(AssertionError):
        other.sign_in_with_password(username)


@pytest.mark.parametrize("has_begun", [False, True])
def test_maximum_age_of_session_is_counted_from_the_sign_in(
    has_begun: bool, visitor: Browser, username: str
) -> None:
    if has_begun:
        visitor.begin()
        visitor.sign_in_with_password("viewer")
        username = "viewer"
    else:
        visitor.sign_in(username)
    [*_, (data,)] = query_database(
        visitor.dashboard.database_url,
        "SELECT session_data FROM dashboard_session JOIN auth_user ON user_id = id "
        f"WHERE username = '{username}' ORDER BY created_at",
    )
    # A time; a number of seconds, or none, would count from each change of the session.
    assert datetime.fromisoformat(SessionStore().decode(data)["_session_expiry"])


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
def test_next_on_another_host_is_dropped(address: str, visitor: Browser, username: str) -> None:
    page = visitor.open("/accounts/login/")
    form = parse_html(page).css_first("form[action*='/accounts/oidc/']")
    assert form is not None
    form.attrs["action"] = f"/accounts/oidc/?next={quote(address)}"
    answer = visitor.get(visitor.authorise(visitor.submit(form, page), username))
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    "path",
    ["signup/", "email/", "password/reset/", "3rdparty/", "social/signup/", "reauthenticate/"],
)
def test_other_pages_of_allauth_do_not_exist(path: str, visitor: Browser) -> None:
    assert visitor.open(f"/accounts/{path}").status_code == 404


# --- Groups ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_groups_are_gained_and_lost_at_sign_in(
    dashboard: Dashboard, provider: Provider, username: str
) -> None:
    wait_for_runs(dashboard)
    allowed = []
    for groups in (["rm", "unknown"], [], "rm", None):
        provider.set_claims(username, preferred_username=username, groups=groups)
        with dashboard.browser() as browser:
            browser.sign_in(username)
            # The second time from the cache of pages.
            allowed.append({may_abort(browser) for _ in range(2)})
    assert allowed == [{True}, {False}, {True}, {False}]


def test_lost_group_counts_in_the_session_that_is_open(
    dashboard: Dashboard, provider: Provider, username: str
) -> None:
    wait_for_runs(dashboard)
    provider.set_claims(username, preferred_username=username, groups=["rm"])
    with dashboard.browser() as first, dashboard.browser() as second:
        first.sign_in(username)
        assert [may_abort(first), may_abort(first)] == [True, True]
        provider.set_claims(username, preferred_username=username, groups=[7])
        second.sign_in(username)
        assert not may_abort(first)


# --- Who may not ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_inactive_account_is_refused(visitor: Browser, dashboard: Dashboard, username: str) -> None:
    visitor.sign_in(username)
    dashboard.deactivate(username)
    assert visitor.open("/").url.path == "/accounts/login/"
    answer = visitor.sign_in(username)
    assert_failed(answer, 403, "account is inactive", dashboard, "The account is inactive.")
    assert dashboard.access_events(username=username)[0]["kind"] == "sign_in_failed"


@pytest.mark.slow
def test_unverified_or_other_domain_is_refused(
    provider: Provider, tmp_path: Path, username: str
) -> None:
    with oidc.run_dashboard(tmp_path, provider, **DOMAINS) as dashboard:
        for email, verified in (("a@evil.example", True), ("a@example.com", False)):
            provider.set_claims(username, email=email, email_verified=verified)
            with dashboard.browser() as browser:
                answer = browser.sign_in(username)
                assert_failed(answer, 403, "no verified e-mail", dashboard, "No verified e-mail")
        assert dashboard.access_events(kind="rights_changed") == []
        provider.set_claims(username, email="a@Example.ORG", email_verified=True)
        with dashboard.browser() as browser:
            assert browser.sign_in(username).status_code == 302


@pytest.mark.slow
def test_subject_of_another_issuer_opens_another_account(
    provider: Provider, tmp_path: Path
) -> None:
    subject, shown = new_username(), []
    with oidc.run_provider(tmp_path) as other_provider:
        for issuer in (provider, other_provider):
            issuer.control(claims={"ada": {"sub": subject, "preferred_username": subject}})
            with oidc.run_dashboard(tmp_path, issuer) as dashboard, dashboard.browser() as browser:
                browser.sign_in("ada")
                shown.append(shown_name(browser))
    assert shown == [subject, f"{subject}-2"]


@pytest.mark.slow
@pytest.mark.parametrize("is_same_issuer", [True, False])
def test_session_ends_when_the_issuer_changes(
    provider: Provider, tmp_path: Path, username: str, is_same_issuer: bool
) -> None:
    with oidc.run_dashboard(tmp_path, provider) as dashboard, dashboard.browser() as browser:
        browser.sign_in(username)
        assert shown_name(browser) == username
        cookies = browser.cookies
    with oidc.run_provider(tmp_path) as other_provider:
        issuer = provider if is_same_issuer else other_provider
        with oidc.run_dashboard(tmp_path, issuer) as dashboard, dashboard.browser() as browser:
            browser.cookies = cookies
            is_signed_out = browser.open("/").url.path == "/accounts/login/"
    assert is_signed_out != is_same_issuer


# --- Sign-out -------------------------------------------------------------------------------------


def test_sign_out_ends_session_and_forwards_to_the_provider(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    visitor.sign_in(username)
    url = urlsplit(forward_url(visitor.sign_out()))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{provider.issuer}/logout/"
    query = parse_qs(url.query)
    assert query["post_logout_redirect_uri"] == [f"{dashboard.base_url}/accounts/login/"]
    assert query["client_id"] == ["dashboard"]
    assert query["id_token_hint"][0].startswith("eyJ")
    assert visitor.open("/").url.path == "/accounts/login/"
    assert dashboard.access_events(username=username)[0]["kind"] == "signed_out"


def test_sign_out_of_password_session_stays_here(visitor: Browser) -> None:
    visitor.sign_in_with_password("viewer")
    answer = visitor.sign_out()
    assert (answer.status_code, answer.headers["location"]) == (302, "/accounts/login/")
