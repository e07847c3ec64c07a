"""Sign-in by the header of an authenticating proxy, over sockets of trusted and other peers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from django.contrib.auth.models import Group, User
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser
from structlog.testing import capture_logs

from dashboard.accounts import demo
from dashboard.asgi import application
from dashboard.models import AccessEvent, ProxyAccount, Session
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support import api, auth_proxy, factories
from tests.support.auth_proxy import GROUPS_HEADER, HEADER, STRANGER, ProxiedBrowser
from tests.support.databases import counting_statements
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live

type OpenBrowser = Callable[..., ProxiedBrowser]

SIGN_IN = "/accounts/login/"


@pytest.fixture(autouse=True)
def proxy_settings(settings: Settings) -> None:
    auth_proxy.configure(settings)


@pytest.fixture
def open_browser(live: Live) -> Iterator[OpenBrowser]:
    """Return a function that opens a new browser, with the arguments of ProxiedBrowser."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            ProxiedBrowser(live.base_url, *args, **kwargs)
        )


def shown_name(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer
    return text_of(select_one(parse_html(answer), "header .name bdi"))


def reason_of(answer: httpx.Response) -> str:
    assert answer.status_code == 403, answer
    return text_of(select_one(parse_html(answer), "[data-reason]"))


def groups_of(username: str) -> set[str]:
    return set(User.objects.get(username=username).groups.values_list("name", flat=True))


def kinds(username: str) -> list[str]:
    events = AccessEvent.objects.filter(username=username).order_by("pk")
    return list(events.values_list("kind", flat=True))


# --- Who is believed ------------------------------------------------------------------------------


def test_header_from_trusted_peer_signs_in_and_adds_account(open_browser: OpenBrowser) -> None:
    assert shown_name(open_browser("ada@example.com").open("/board/")) == "ada@example.com"
    user = User.objects.get(username="ada@example.com")
    assert not user.has_usable_password()
    assert not user.is_superuser
    assert kinds("ada@example.com") == [AccessKind.RIGHTS_CHANGED, AccessKind.SIGNED_IN]


@pytest.mark.parametrize(
    ("method", "signs_in"),
    [
        ("GET", True), ("HEAD", True), ("OPTIONS", False), ("TRACE", False), ("POST", False),
        ("PUT", False), ("DELETE", False),
    ],
)  # fmt: skip
def test_only_a_page_view_signs_in(method: str, signs_in: bool, open_browser: OpenBrowser) -> None:
    browser = open_browser("ada@example.com")
    browser.request(method, "/health/")
    assert User.objects.filter(username="ada@example.com").exists() is signs_in
    assert ("sessionid" in browser.cookies) is signs_in


@pytest.mark.parametrize("path", ["/", "/board/", "/live/?page=now", SIGN_IN, "/nothing/here/"])
def test_header_from_another_peer_is_refused(path: str, open_browser: OpenBrowser) -> None:
    browser = open_browser("ada", peer=STRANGER)
    assert "Only the proxy may send the header X-Forwarded-User." in reason_of(browser.open(path))
    assert "sessionid" not in browser.cookies
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "chain", ["127.0.0.1", "127.0.0.1, 127.0.0.1", "198.51.100.7, 127.0.0.1", "[::1]:80", "*", ""]
)
def test_forwarded_address_of_proxy_does_not_make_another_peer_trusted(
    chain: str, open_browser: OpenBrowser
) -> None:
    answer = open_browser("ada", peer=STRANGER).open("/", **{"X-Forwarded-For": chain})
    assert answer.status_code == 403


@pytest.mark.parametrize("chain", [STRANGER, f"198.51.100.7, {STRANGER}"])
def test_forwarded_address_that_uvicorn_believes_does_not_count_as_peer(
    chain: str, open_browser: OpenBrowser, settings: Settings
) -> None:
    settings.AUTH_PROXY_TRUSTED = [STRANGER]
    answer = open_browser("ada").open("/", **{"X-Forwarded-For": chain})
    assert answer.status_code == 403


@pytest.mark.parametrize("trusted", ["127.0.0.0/24", "10.0.0.0/8,127.0.0.1/32"])
def test_network_of_proxies_is_trusted(
    trusted: str, open_browser: OpenBrowser, settings: Settings
) -> None:
    settings.AUTH_PROXY_TRUSTED = trusted.split(",")
    assert shown_name(open_browser("ada").open()) == "ada"


def test_stranger_without_header_gets_sign_in_page(open_browser: OpenBrowser) -> None:
    assert open_browser(peer=STRANGER).open("/").headers["location"] == f"{SIGN_IN}?next=/"


def test_refused_request_is_logged_with_its_peer(open_browser: OpenBrowser) -> None:
    with capture_logs() as logs:
        open_browser("ada", peer=STRANGER).open()
    [line] = [line for line in logs if line["event"] == "auth_proxy.refused"]
    assert line["peer"] == STRANGER


def test_header_without_setting_is_ignored(open_browser: OpenBrowser, settings: Settings) -> None:
    settings.AUTH_PROXY_HEADER = ""
    assert open_browser("ada").open("/").headers["location"] == f"{SIGN_IN}?next=/"


# --- What the header may contain ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "x" * 151,
        b"caf\xe9",  # Latin-1
        b"a\x01b",
        b"a\tb",
        "a\u200bb",  # a zero-width space
        "\u202eadmin",  # written from right to left
        "\uff41dmin",  # a wide “a”, which Django's form reads as “a”
        "cafe\u0301",  # decomposed
        b"\xed\xa0\x80",  # half of a surrogate pair
    ],
)
def test_name_that_no_account_can_have_is_refused(
    name: str | bytes, open_browser: OpenBrowser
) -> None:
    answer = open_browser(name).open()
    # Some control characters get no further than the server.
    assert answer.status_code in {400, 403}
    assert not User.objects.exists()


@pytest.mark.parametrize("second", ["ada", "boss", ""])
def test_header_sent_twice_is_refused(second: str, open_browser: OpenBrowser) -> None:
    browser = open_browser()
    answer = browser.get("/", headers=[(HEADER, "ada"), (HEADER.lower(), second)])
    assert reason_of(answer) == "The proxy sent the header X-Forwarded-User twice."


def test_groups_header_sent_twice_is_refused(open_browser: OpenBrowser) -> None:
    headers = [(HEADER, "ada"), (GROUPS_HEADER, "a"), (GROUPS_HEADER, "Release managers")]
    assert open_browser().get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("name", ["X_Forwarded_User", "X-Forwarded_User", "Remote-User"])
def test_similar_header_names_nobody(name: str, open_browser: OpenBrowser) -> None:
    answer = open_browser().get("/", headers={name: "boss"})
    assert answer.headers["location"] == f"{SIGN_IN}?next=/"
    answer = open_browser("ada").get("/", headers={name: "boss"})
    assert shown_name(answer) == "ada"


# --- Sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/board/", "/nothing/here/"])  # the first is cached
def test_another_user_of_the_proxy_gets_another_session(
    path: str, open_browser: OpenBrowser
) -> None:
    browser = open_browser("ada")
    for _ in range(2):
        browser.open("/")
    former_key = browser.cookies["sessionid"]
    browser.send_user("bob")
    answer = browser.open(path)
    assert text_of(select_one(parse_html(answer), "header .name bdi")) == "bob"
    assert "ada" not in answer.text
    assert not Session.objects.filter(session_key=former_key).exists()
    assert kinds("ada")[-1] == AccessKind.SESSION_ENDED
    assert kinds("bob")[-1] == AccessKind.SIGNED_IN


@pytest.mark.parametrize("peer", [auth_proxy.PROXY, STRANGER])
@pytest.mark.parametrize("path", ["/", "/board/", "/live/?page=now"])
def test_session_ends_without_the_header(path: str, peer: str, open_browser: OpenBrowser) -> None:
    browser = open_browser("ada")
    for _ in range(2):
        browser.open("/")
    other = open_browser(peer=peer)
    other.cookies.update(browser.cookies)
    assert other.open(path).status_code == 302
    assert not Session.objects.exists()
    event = AccessEvent.objects.get(kind=AccessKind.SESSION_ENDED)
    assert (event.username, event.detail) == ("ada", "The proxy sent no user.")


def test_refresh_of_an_ended_session_is_401(open_browser: OpenBrowser) -> None:
    browser = open_browser("ada")
    browser.open("/")
    browser.send_user(None)
    assert browser.open("/", **HTMX).status_code == 401


def test_form_without_session_has_no_effect_and_is_signed_in_afterwards(
    open_browser: OpenBrowser,
) -> None:
    run = factories.run(factories.stage())
    browser = open_browser("ada", "Release managers")
    browser.open("/")
    token = browser.cookies["csrftoken"]
    Session.objects.all().delete()
    form = {"pick": "Stuck", "csrfmiddlewaretoken": token}
    answer = browser.post(factories.address(run, "abort"), data=form)
    assert answer.headers["location"] == f"{SIGN_IN}?next={factories.address(run)}"
    page = browser.get(answer.headers["location"], follow_redirects=True)
    assert page.url.path == factories.address(run)
    assert "You are signed out. Nothing was changed." in page.text
    assert not run.aborts.exists()


def test_form_needs_csrf_token_with_header(open_browser: OpenBrowser) -> None:
    browser = open_browser("ada")
    browser.open("/")
    assert browser.post("/accounts/logout/").status_code == 403


def test_password_session_gives_way_to_the_proxys_user(
    open_browser: OpenBrowser, manager: User
) -> None:
    browser = open_browser()
    assert browser.submit_password("manager", "manager", SIGN_IN).status_code == 302
    for _ in range(2):
        assert shown_name(browser.open("/")) == "manager"
    browser.send_user("ada")
    assert shown_name(browser.open("/")) == "ada"
    browser.send_user(None)
    assert browser.open("/").status_code == 302


def test_identified_request_costs_no_further_statements(
    open_browser: OpenBrowser, live: Live
) -> None:
    browser = open_browser("ada", "Release managers")
    for _ in range(3):
        browser.open("/aborts/")
    with counting_statements(application.executor) as statements:
        assert shown_name(browser.open("/aborts/")) == "ada"
    # Who asks, and what the page depends on; none if that thread has just read it.
    assert len(statements) <= 1


# --- Accounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("username", ["boss", "viewer", "service"])
def test_account_made_in_the_dashboard_is_refused(
    username: str, open_browser: OpenBrowser, viewer: User
) -> None:
    User.objects.create_superuser("boss", password="boss")
    User.objects.create_user("service")  # without a password
    browser = open_browser(username)
    assert "is a local account" in reason_of(browser.open("/"))
    assert browser.open("/board/").status_code == 403
    assert not Session.objects.exists()


@pytest.mark.parametrize("username", ["glass", "Glass"])
def test_break_glass_account_is_refused_even_if_handed_over(
    username: str, open_browser: OpenBrowser, settings: Settings
) -> None:
    ProxyAccount.objects.create(user=User.objects.create_user("glass"))
    settings.BREAK_GLASS_ACCOUNT = "glass"
    reason = reason_of(open_browser(username).open("/"))
    assert "is a local account" in reason  # in other case, too: it tells nobody more
    assert User.objects.count() == 1


def test_demo_account_is_refused_even_if_handed_over(open_browser: OpenBrowser) -> None:
    demo.enable()
    ProxyAccount.objects.create(user=User.objects.get(username="admin"))
    assert open_browser("admin").open().status_code == 403


def test_name_of_several_alphabets_is_refused(open_browser: OpenBrowser) -> None:
    reason = reason_of(open_browser("adm\u0456n").open("/"))  # Cyrillic і
    assert reason.endswith("This name mixes alphabets, such as Latin and Cyrillic.")
    assert not User.objects.exists()


@pytest.mark.parametrize("is_handed_over", [True, False])
def test_name_of_an_account_in_other_case_is_refused(
    is_handed_over: bool, open_browser: OpenBrowser, viewer: User
) -> None:
    if is_handed_over:
        ProxyAccount.objects.create(user=viewer)
    assert reason_of(open_browser("Viewer").open("/")) == (
        "The proxy signed you in as “Viewer”. An account with this name, or a name that looks like "
        "it, already exists."
    )
    assert User.objects.count() == 1


def test_inactive_account_is_refused(open_browser: OpenBrowser) -> None:
    browser = open_browser("ada")
    for _ in range(2):
        browser.open()
    User.objects.filter(username="ada").update(is_active=False)
    assert reason_of(browser.open()) == "Your account “ada” is inactive."
    assert not Session.objects.exists()


def test_parallel_first_requests_add_one_account(open_browser: OpenBrowser) -> None:
    browsers = [open_browser("ada", "Release managers") for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda browser: browser.open("/board/"), browsers))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert User.objects.count() == 1
    assert kinds("ada").count(AccessKind.SIGNED_IN) == 4


# --- Groups ---------------------------------------------------------------------------------------


def test_groups_are_those_of_the_header(open_browser: OpenBrowser) -> None:
    Group.objects.get_or_create(name="Leads")
    browser = open_browser("ada", "Leads ,unknown,, Release managers")
    browser.open()
    assert groups_of("ada") == {"Leads", "Release managers"}
    browser.send_user("ada", "Leads")
    browser.open()
    assert groups_of("ada") == {"Leads"}
    browser.send_user("ada")  # proxies omit the header of a user without groups
    browser.open()
    assert groups_of("ada") == set()
    assert kinds("ada").count(AccessKind.SIGNED_IN) == 1


def test_changed_groups_count_in_the_same_answer(open_browser: OpenBrowser) -> None:
    factories.run(factories.stage())
    browser = open_browser("ada", "Release managers")

    def may_abort() -> bool:
        return bool(LexborHTMLParser(browser.open("/").text).css("[data-abort]:not([disabled])"))

    assert [may_abort(), may_abort()] == [True, True]
    browser.send_user("ada", "")
    assert [may_abort(), may_abort()] == [False, False]


def test_group_map_translates_names(open_browser: OpenBrowser, settings: Settings) -> None:
    settings.AUTH_PROXY_GROUP_MAP = {"eng-releases": "Release managers"}
    open_browser("ada", "eng-releases,Leads").open()
    assert groups_of("ada") == {"Release managers"}


def test_groups_without_header_setting_stay(open_browser: OpenBrowser, settings: Settings) -> None:
    settings.AUTH_PROXY_GROUPS_HEADER = ""
    browser = open_browser("ada", "Release managers")
    browser.open()
    assert groups_of("ada") == set()
    group = Group.objects.create(name="Leads")
    User.objects.get(username="ada").groups.add(group)
    open_browser("ada", "Release managers").open()
    assert groups_of("ada") == {"Leads"}


# --- Programs, and signing out --------------------------------------------------------------------


def test_header_alone_gives_no_access_to_the_api(open_browser: OpenBrowser) -> None:
    browser = open_browser("ada")
    browser.open("/")
    answer = browser.get("/api/runs/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_missing")


@pytest.mark.parametrize("peer", [auth_proxy.PROXY, STRANGER])
@pytest.mark.parametrize("user", ["ada", None])
def test_api_token_works_with_and_without_the_header(
    user: str | None, peer: str, open_browser: OpenBrowser, viewer: User
) -> None:
    secret = api.create_token_secret(viewer, Scope.READ)
    browser = open_browser(user, peer=peer)
    answer = browser.get("/api/runs/", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    assert not Session.objects.exists()


@pytest.mark.parametrize("peer", [auth_proxy.PROXY, STRANGER])
@pytest.mark.parametrize("user", ["ada", None])
def test_probes_static_files_and_webhook_need_no_header(
    user: str | None, peer: str, open_browser: OpenBrowser
) -> None:
    browser = open_browser(user, peer=peer)
    for path in ("/healthz", "/readyz", "/static/dashboard.css"):
        assert browser.get(path).status_code == 200
    assert browser.post("/hooks/northflank/").status_code == 401  # without its secret
    assert not User.objects.exists()


@pytest.mark.parametrize("url", ["", "/oauth2/sign_out", "https://sso.example/logout"])
def test_sign_out_ends_the_session_and_says_what_the_proxy_does(
    url: str, open_browser: OpenBrowser, settings: Settings
) -> None:
    settings.AUTH_PROXY_SIGN_OUT_URL = url
    browser = open_browser("ada")
    browser.open("/")
    token = browser.cookies["csrftoken"]
    answer = browser.post("/accounts/logout/", data={"csrfmiddlewaretoken": token})
    assert answer.status_code == 200
    html = parse_html(answer)
    links = [link.attributes["href"] for link in html.css("main a")]
    assert (url in links) == bool(url)
    assert "The proxy signs you in again" in text_of(select_one(html, "main"))
    assert not Session.objects.exists()
    assert kinds("ada")[-1] == AccessKind.SIGNED_OUT


def test_sign_in_by_the_proxy_is_recorded_as_such(open_browser: OpenBrowser) -> None:
    open_browser("ada", "Release managers").open()
    event = AccessEvent.objects.get(kind=AccessKind.SIGNED_IN)
    assert (event.username, event.detail) == ("ada", "the proxy")
