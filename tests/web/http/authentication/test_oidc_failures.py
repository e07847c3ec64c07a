"""What can go wrong between an OpenID provider and the dashboard: each has its page."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from dashboard.accounts.authentication import throttle
from tests.support import oidc
from tests.support.html import parse_html, select_one, text_of
from tests.support.oidc import Browser, Dashboard, Provider, assert_failed, forward_url

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("oidc failures")]


@pytest.fixture(scope="module")
def dashboard(
    provider_process: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dashboard]:
    with oidc.run_dashboard(tmp_path_factory.mktemp("dashboard"), provider_process) as dashboard:
        yield dashboard


# --- Failures -------------------------------------------------------------------------------------


def test_denied_consent_says_so_and_keeps_the_way_back(
    visitor: Browser, dashboard: Dashboard
) -> None:
    query = parse_qs(urlsplit(forward_url(visitor.begin("/board/?q=a"))).query)
    callback = f"{dashboard.base_url}/accounts/oidc/callback/"
    answer = visitor.get(callback, params={"error": "access_denied", "state": query["state"][0]})
    assert_failed(answer, 403, "was declined", dashboard, "denied")
    link = select_one(parse_html(answer), ".next-links a").attributes["href"]
    assert link == "/accounts/login/?next=%2Fboard%2F%3Fq%3Da"


def test_error_of_the_provider_is_recorded_by_its_code(
    visitor: Browser, dashboard: Dashboard
) -> None:
    query = parse_qs(urlsplit(forward_url(visitor.begin())).query)
    answer = visitor.get(
        f"{dashboard.base_url}/accounts/oidc/callback/",
        params={"error": "server_error", "error_description": "<b>", "state": query["state"][0]},
    )
    assert_failed(answer, 502, "responded with an error", dashboard, "Sign-in: server_error.")


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=forged", "?error=access_denied"])
def test_callback_with_forged_state_fails(
    query: str, visitor: Browser, dashboard: Dashboard
) -> None:
    visitor.begin()
    answer = visitor.get(f"{dashboard.base_url}/accounts/oidc/callback/{query}")
    assert_failed(answer, 400, "has expired", dashboard, "expired attempt")


def test_callback_in_another_browser_fails(
    visitor: Browser, dashboard: Dashboard, username: str
) -> None:
    callback = visitor.authorise(visitor.begin(), username)
    with dashboard.browser() as other:
        other.begin()
        assert_failed(other.get(callback), 400, "another browser", dashboard, "expired attempt")


def test_replayed_callback_fails(visitor: Browser, dashboard: Dashboard, username: str) -> None:
    callback = visitor.authorise(visitor.begin(), username)
    assert visitor.get(callback).status_code == 302
    assert_failed(visitor.get(callback), 400, "was used before", dashboard, "expired attempt")
    assert visitor.open("/").url.path == "/"  # the session is not ended


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"iat": time.time() + 3600}, "clocks differ"),
        ({"exp": 1_000_000_000}, "clocks differ"),
        ({"aud": "another"}, "another client"),
        ({"aud": ["dashboard", "x"], "azp": "x"}, "another client"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"nonce": "another"}, "another attempt"),
        ({"nonce": None}, "another attempt"),
        ({"sub": "another"}, "another subject"),
        ({"sub": ""}, "invalid"),
        ({"sub": 7}, "InvalidSubjectError"),
    ],
)
def test_id_token_with_wrong_claims_fails(
    claims: dict[str, Any], detail: str,
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str,
) -> None:  # fmt: skip
    provider.control(id_token=claims)
    assert_failed(visitor.sign_in(username), 502, "response is invalid", dashboard, detail)
    assert visitor.open("/").url.path == "/accounts/login/"


def test_failed_verification_keeps_the_way_back(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    provider.control(id_token={"aud": "another"})
    answer = visitor.sign_in(username, "/board/?q=a")
    assert_failed(answer, 502, "response is invalid", dashboard, "check OIDC_CLIENT_ID")
    link = select_one(parse_html(answer), ".next-links a").attributes["href"]
    assert link == "/accounts/login/?next=%2Fboard%2F%3Fq%3Da"


@pytest.mark.parametrize("seconds", [-30, 30])
def test_clocks_may_differ_by_half_a_minute(
    seconds: int, visitor: Browser, provider: Provider, username: str
) -> None:
    now = int(time.time()) + seconds
    provider.control(id_token={"iat": now, "exp": now + 10})
    assert visitor.sign_in(username).status_code == 302


def test_rotated_signing_key_is_accepted(
    dashboard: Dashboard, provider: Provider, username: str
) -> None:
    for _ in range(2):
        with dashboard.browser() as browser:
            assert browser.sign_in(username).status_code == 302
        provider.control(new_key=True)


@pytest.mark.slow
def test_token_signed_with_unpublished_key_fails(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    keys = httpx.get(f"{provider.issuer}/.well-known/jwks.json").json()
    provider.control(new_key=True, answers={"jwks.json": keys})
    answer = visitor.sign_in(username)
    assert_failed(answer, 502, "response is invalid", dashboard, "0 keys match")


# Paths of the requests to the provider, in their order.
STEPS = ["openid-configuration", "token/", "jwks.json", "userinfo/"]


@pytest.mark.parametrize("step", STEPS)
def test_error_of_a_request_to_the_provider_names_it(
    step: str, visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    callback = visitor.authorise(visitor.begin(), username)
    provider.control(answers={step: 500})
    reason = "response is invalid" if step == STEPS[0] else "responded with an error"
    assert_failed(visitor.get(callback), 502, reason, dashboard, f"{step}: 500, ")


@pytest.mark.parametrize("step", STEPS)
def test_provider_that_hangs_does_not_answer(
    step: str, visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    callback = visitor.authorise(visitor.begin(), username)
    provider.control(answers={step: "hang"})
    assert_failed(visitor.get(callback), 503, "does not respond", dashboard, "ReadTimeout")


def test_provider_that_never_finishes_stops_neither_pages_nor_passwords(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    callback = visitor.authorise(visitor.begin(), username)
    provider.control(answers={"token/": "drip"})
    with ThreadPoolExecutor(1) as pool, dashboard.browser() as other:
        waiting = pool.submit(visitor.get, callback)
        other.sign_in_with_password("viewer")
        assert other.open("/board/").url.path == "/board/"
        assert not waiting.done()
        provider.reset()
        assert waiting.result().status_code == 502


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"authorization_endpoint": None}, "no valid authorization_endpoint"),
        ({"token_endpoint": 7}, "no valid token_endpoint"),
        ({"jwks_uri": "ftp://x"}, "no valid jwks_uri"),
        (404, "404, no JSON object"),
    ],
)
def test_bad_discovery_document_fails_at_the_button(
    document: Any, detail: str, visitor: Browser, dashboard: Dashboard, provider: Provider
) -> None:
    provider.control(answers={"openid-configuration": document})
    assert_failed(visitor.begin(), 502, "response is invalid", dashboard, detail)


@pytest.mark.parametrize("keys", [{"keys": []}, {"keys": None}, {"keys": [7, {"kty": "x"}]}])
def test_unusable_keys_fail(
    keys: Any, visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    provider.control(answers={"jwks.json": keys})
    answer = visitor.sign_in(username)
    assert_failed(answer, 502, "response is invalid", dashboard, "not signed with a key")


@pytest.mark.parametrize("change", [{"kid": []}, {"use": []}])
def test_key_whose_id_or_use_is_no_text_matches_no_token(
    change: Any, visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    [key] = httpx.get(f"{provider.issuer}/.well-known/jwks.json").json()["keys"]
    provider.control(answers={"jwks.json": {"keys": [key | change]}})
    answer = visitor.sign_in(username)
    assert_failed(answer, 502, "response is invalid", dashboard, "0 keys match")


def test_access_token_that_no_header_can_hold_is_refused_by_the_provider(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    provider.control(answers={"token/": {"access_token": "€"}})
    answer = visitor.sign_in(username)
    assert_failed(answer, 502, "responded with an error", dashboard, "userinfo/: 401")


@pytest.mark.parametrize("id_token", [None, "x.y.z", 7])
def test_token_endpoint_without_valid_id_token_fails(
    id_token: Any, visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    provider.control(answers={"token/": {"id_token": id_token}})
    assert_failed(visitor.sign_in(username), 502, "response is invalid", dashboard, "ID token")


def test_provider_without_userinfo_and_sign_out_signs_in(
    visitor: Browser, provider: Provider, username: str
) -> None:
    optional = {"userinfo_endpoint": None, "end_session_endpoint": None}
    provider.control(answers={"openid-configuration": optional})
    assert visitor.sign_in(username).status_code == 302
    answer = visitor.sign_out()
    assert answer.headers["location"] == "/accounts/login/"


def test_failures_are_recorded_without_secrets(
    visitor: Browser, dashboard: Dashboard, provider: Provider, username: str
) -> None:
    provider.control(id_token={"aud": "another"})
    callback = visitor.authorise(visitor.begin(), username)
    visitor.get(callback)
    code = parse_qs(urlsplit(callback).query)["code"][0]
    log = dashboard.log.read_text()
    assert "sign_in_failed" in log
    assert code not in log
    assert oidc.CLIENT_SECRET not in log
    assert "eyJ" not in log  # how a token begins


def test_many_failures_of_an_address_are_answered_but_not_all_recorded(
    dashboard: Dashboard, visitor: Browser
) -> None:
    visitor.headers["X-Forwarded-For"] = "192.0.2.77"
    callback = f"{dashboard.base_url}/accounts/oidc/callback/"
    assert {visitor.get(callback).status_code for _ in range(40)} == {400}
    events = dashboard.access_events(kind="sign_in_failed")
    recorded = [event for event in events if event["address"] == "192.0.2.77"]
    assert 30 <= len(recorded) < 40


@pytest.mark.slow
def test_attempts_of_an_address_are_throttled(dashboard: Dashboard, visitor: Browser) -> None:
    visitor.headers["X-Forwarded-For"] = "192.0.2.78"
    page = visitor.open("/board/?q=a")
    form = select_one(parse_html(page), "form[action*='/accounts/oidc/']")
    free = throttle.OIDC_ATTEMPTS.burst
    assert {visitor.submit(form, page).status_code for _ in range(free)} == {200}
    refused = _submit_until_refused(visitor, form, page)
    assert refused.headers["retry-after"] == "1"
    refused_page = parse_html(refused)
    reason = text_of(select_one(refused_page, "[data-reason]"))
    assert reason == "Too many attempts. Try again in 1 s."
    link = select_one(refused_page, ".next-links a").attributes["href"]
    assert link == "/accounts/login/?next=%2Fboard%2F%3Fq%3Da"
    with dashboard.browser() as elsewhere:
        assert elsewhere.begin().status_code == 200


def _submit_until_refused(visitor: Browser, form: Any, page: httpx.Response) -> httpx.Response:
    # On a slow machine some intervals have passed.
    answers = (visitor.submit(form, page) for _ in range(throttle.OIDC_ATTEMPTS.burst))
    return next(answer for answer in answers if answer.status_code == 429)
