"""Every page in each of its states: the table for all accessibility tests.

A test fails if a URL that renders HTML is missing here, or if a page responds with another status
than listed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
from django.contrib.auth.models import Group, User
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.request import AbortRequest
from dashboard.accounts import access_log, permissions, rights_changes
from dashboard.accounts.administration import account_changes, group_changes
from dashboard.accounts.administration.account_changes import AccountSettings
from dashboard.accounts.administration.administrators import Author
from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.throttle import Counter
from dashboard.models import (
    Acknowledgement,
    ApiToken,
    BulkAbortItem,
    EndRequest,
    Grant,
    LastVisit,
    NoticeMessage,
    NoticeRule,
    Project,
    Run,
    SavedView,
    Session,
    Stage,
)
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from dashboard.models.accounts.sessions import LABEL_LENGTH
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.models.notices import MAX_CHANNEL_LENGTH, NoticeEvent
from dashboard.models.severity import Severity
from dashboard.runs import statuses
from dashboard.runs.overdue import OverdueReason
from dashboard.web.components.board import board_list
from dashboard.web.components.lists import pagination
from dashboard.web.components.rights import changes as rights_changes_page
from dashboard.web.pages.accounts import access_log as access_log_page
from dashboard.web.pages.people import people
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.long_run import OPEN_ALL_DETAILS, create_long_run, minutes
from tests.support.sessions import session_key


@dataclass(frozen=True)
class State:
    """A page in one state; `{name}` in its address is filled in by its world."""

    name: str
    address: str
    action: Callable[[Page], object] | None = None
    username: str = "manager"  # "": signed out
    status: int = 200  # of the last response
    settings: Mapping[str, Any] = field(default_factory=dict)  # overridden settings

    def __str__(self) -> str:
        return f"{self.name} ({self.username or 'nobody'})"


# --- Actions on a page ---------------------------------------------------------------------------


def expect_dialog(page: Page) -> None:
    expect(page.get_by_role("dialog")).to_be_visible()


def open_abort_dialog(page: Page) -> None:
    page.locator("[data-abort]:enabled").first.click()
    expect_dialog(page)


def open_left_dialog(page: Page) -> None:
    page.locator("[data-abort-left]").first.click()
    expect_dialog(page)


def submit_without_reason(page: Page) -> None:
    open_abort_dialog(page)
    page.get_by_role("button", name="Abort run").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()


def choose_reason(page: Page) -> None:
    open_abort_dialog(page)
    page.get_by_role("dialog").locator(".picks").get_by_text("Stuck", exact=True).click()


def open_abort_all_dialog(page: Page) -> None:
    page.locator("[data-abort-all]").click()
    expect_dialog(page)


def select_runs(page: Page) -> None:
    for box in page.locator("td.select input").all()[:3]:
        box.check()
    expect(page.locator("[data-abort-selected]")).to_be_enabled()
    # Not sticky, since a bar covers rows wherever it is scrolled to: a half covered target fails.
    page.evaluate(
        "for (const element of document.querySelectorAll('*'))"
        " if (getComputedStyle(element).position === 'sticky') element.style.position = 'static'"
    )


def open_abort_selected_dialog(page: Page) -> None:
    select_runs(page)
    page.locator("[data-abort-selected]").click()
    expect_dialog(page)


def open_help(page: Page) -> None:
    page.get_by_role("button", name="Keyboard").click()
    expect_dialog(page)


def open_away(page: Page) -> None:
    page.locator(".away summary").click()
    expect(page.locator(".away dl")).to_be_visible()


def open_menu(container: str) -> Callable[[Page], None]:
    return lambda page: page.locator(f"{container} [popovertarget]").click()


def open_all_details(page: Page) -> None:
    page.evaluate(OPEN_ALL_DETAILS)


def submit_wrong_password(page: Page) -> None:
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()


def submit_password_without_cookies(page: Page) -> None:
    page.context.clear_cookies()
    submit_wrong_password(page)


def submit_wrong_password_change(page: Page) -> None:
    page.get_by_label("Current password").fill("wrong")
    page.get_by_label("New password", exact=True).fill("an unguessable text")
    page.get_by_label("New password, again").fill("an unguessable text")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert")).to_be_visible()


def sign_out_without_csrf_token(page: Page) -> None:
    page.route("**/live/**", lambda _: None)  # unanswered: its answer sets the cookie again
    page.reload()
    page.context.clear_cookies(name="csrftoken")
    sign_out_expecting_error(page)
    page.unroute("**/live/**")


def sign_out_expecting_error(page: Page) -> None:
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("[data-reason]")).to_be_visible()


def post_forbidden_abort(page: Page) -> None:
    form = page.locator("#menu form")
    form.evaluate("form => { form.action = `${location.pathname}abort/` }")
    sign_out_expecting_error(page)


def submit_invalid_account(page: Page) -> None:
    page.get_by_label("User name").fill("not a name")
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Add account").click()
    expect(page.locator(".field-error").first).to_be_visible()


def submit_invalid_rule(page: Page) -> None:
    for box in page.locator("[name=events]:checked").all()[::-1]:
        box.uncheck()
    page.get_by_label("from").fill("22:00")
    page.get_by_role("button", name="Add rule").click()
    expect(page.locator(".field-error").first).to_be_visible()


def press_tell_me(page: Page) -> None:
    page.locator("[data-tell-end-switch]").click()
    expect(page.locator("[data-tell-end] [data-telling=denied]")).to_be_visible()


def open_filter(page: Page) -> None:
    page.evaluate("() => { document.querySelector('.collapsible').open = true }")


# --- The table -----------------------------------------------------------------------------------

PIPELINE = "/projects/shop/pipelines/checkout/"
STAGE = f"{PIPELINE}release-flows/production/"
FILTER = "?status=failure&q=e&to=2099-01-01"
TOO_MANY_PARAMETERS = 1001  # more than Django's limit: 400


def run_address(run_id: str) -> str:
    return f"{STAGE}runs/{run_id}/"


def sign_out_behind_proxy(page: Page) -> None:
    page.set_extra_http_headers({"X-Forwarded-User": "ada"})
    page.goto("/board/")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Signed out")).to_be_visible()
    page.set_extra_http_headers({})


AUTH_PROXY: dict[str, Any] = {
    "AUTH_PROXY_HEADER": "X-Forwarded-User",
    "AUTH_PROXY_TRUSTED": ["127.0.0.1"],
    "AUTH_PROXY_SIGN_OUT_URL": "/oauth2/sign_out",
    "AUTHENTICATION_BACKENDS": [
        "dashboard.accounts.authentication.break_glass.BreakGlassBackend",
        "dashboard.accounts.authentication.auth_proxy.ProxyBackend",
    ],
    "PASSWORD_SIGN_IN": False,
    "BREAK_GLASS_ACCOUNT": "glass",
}

EMPTY = [
    State("now, empty", "/"),
    State("board, empty", "/board/"),
    State("board, nothing found", "/board/?q=nothing"),
    State("search, nothing found", "/search/?q=nothing"),
    State("aborts, none", "/aborts/"),
    State("aborts, none found", "/aborts/?username=x&state=refused&from=nonsense"),
    State("lists, none", "/aborts/?bulk=1"),
    State("status, nothing read", "/health/"),
    State("sign in", "/accounts/login/?next=/board/", username=""),
    State("sign in, refused", "/accounts/login/", submit_wrong_password, username=""),
    State(
        "sign in, form expired",
        "/accounts/login/",
        submit_password_without_cookies,
        username="",
        status=403,
    ),
    State(
        "sign in, no passwords",
        "/accounts/login/?next=/board/",
        username="",
        settings=AUTH_PROXY,
    ),
    State(
        "emergency sign in, refused",
        "/accounts/login/?emergency=1",
        submit_wrong_password,
        username="",
        settings=AUTH_PROXY,
    ),
    State(
        "signed out, behind a proxy",
        "/accounts/login/",
        sign_out_behind_proxy,
        username="",
        settings=AUTH_PROXY,
    ),
    State("access log, nothing found", "/access/?username=x&kind=x", username="boss"),
    State("people, nothing found", "/people/?q=nothing", username="boss"),
    State("changes of rights, none", "/people/changes/", username="boss"),
    State("notices, no channel", "/notices/", username="boss"),
    State("changes of rights, none found", "/people/changes/?name=x&subject=x", username="boss"),
    State("not found", "/nothing/here/", status=404),
    State("not found, signed out", "/nothing/here/", status=404, username=""),
    State("bad request", f"/aborts/?{'a&' * TOO_MANY_PARAMETERS}", status=400),
    State("broke", "/board/", status=500),
    State("form of another session", "/", sign_out_without_csrf_token, status=403),
]

ABORTS_DISABLED: dict[str, Any] = {"ABORTS_ENABLED": False}
READ_ONLY: dict[str, Any] = {"READ_ONLY": True}
CHANNELS: dict[str, Any] = {
    "NOTIFY_URLS": {"oncall": "json://localhost", "x" * MAX_CHANNEL_LENGTH: "json://localhost"}
}

PEOPLE = [
    State("people", "/people/", username="boss"),
    State("account", "/people/accounts/{account}/", username="boss"),
    State("add account", "/people/new/", username="boss"),
    State("groups", "/people/groups/", username="boss"),
    State("group", "/people/groups/{group}/", username="boss"),
    State("delete group", "/people/groups/{group}/delete/", username="boss"),
    State(
        "add grant",
        "/people/groups/{group}/grants/new/?project=shop&stage=Production&action=abort",
        username="boss",
    ),
    State("remove grant", "/people/groups/{group}/grants/{grant}/", username="boss"),
    State("who may abort", "/people/rights/?project=shop&stage=Staging", username="boss"),
    State("changes of rights", "/people/changes/", username="boss"),
    State("notices", "/notices/?test={test}", username="boss", settings=CHANNELS),
    State(
        "notices, invalid rule", "/notices/", submit_invalid_rule, "boss", 422, settings=CHANNELS
    ),
    State("rule", "/notices/{rule}/", username="boss", settings=CHANNELS),
    State("run, told of its end", "{asked}", press_tell_me, settings=CHANNELS),
]

FULL = [
    State("now", "/"),
    State("now", "/", username="viewer"),
    State("now, after an absence", "/", open_away, username="boss"),
    State("away", "/away/", username="boss"),
    State("away, nothing", "/away/"),
    State("now, selected", "/", select_runs),
    State("now, read-only", "/", settings=READ_ONLY),
    State("now, aborts off", "/", settings=ABORTS_DISABLED),
    State("now, help", "/", open_help),
    State("now, dialog", "/", open_abort_dialog),
    State("now, dialog without a reason", "/", submit_without_reason),
    State("now, dialog with a reason", "/", choose_reason),
    State("now, dialog for selected", "/", open_abort_selected_dialog),
    State("board", "/board/"),
    State("board", "/board/", username="viewer"),
    State("board, filtered", "/board/?q=check&show=flight"),
    State("board, half understood", "/board/?show=nonsense&page=x"),
    State("board, of one project", "/projects/shop/"),
    State("board, without stars", "/board/?mine=1"),
    State("now, without stars", "/?mine=1"),
    State("search", "/search/"),
    State("search, found", "/search/?q=check"),
    State("search, found", "/search/?q=check", username="viewer"),
    State("pipeline", PIPELINE),
    State("pipeline, dialog for all", PIPELINE, open_abort_all_dialog),
    State("stage", STAGE),
    State("stage, dialog for all", STAGE, open_abort_all_dialog),
    State("stage", STAGE, username="viewer"),
    State("stage, filtered", STAGE + FILTER),
    State("stage, filter open", STAGE + FILTER, open_filter),
    State(
        "stage, statuses open",
        STAGE + FILTER,
        lambda p: (open_filter(p), open_menu(".run-filter")(p)),
    ),
    State("stage, views open", STAGE + FILTER, open_menu(".saved-views")),
    State("stage, views open", STAGE + FILTER, open_menu(".saved-views"), username="viewer"),
    State("stage, nothing found", f"{STAGE}?q=nothing-like-it"),
    State("stage, half understood", f"{STAGE}?status=nope&page=x"),
    State("stage, aborts off", STAGE, settings=ABORTS_DISABLED),
    State("stage, not readable", STAGE.replace("production", "development")),
    State("stage, gone", "/projects/shop/pipelines/old/release-flows/production/"),
    State("pipeline, gone", "/projects/shop/pipelines/old/"),
    State("stage without a flow", STAGE.replace("production", "staging")),
    State("trends", f"{STAGE}trends/?days=90", open_all_details),
    State("usual durations", f"{STAGE}durations/", username="boss"),
    State("trends, none", STAGE.replace("production", "staging") + "trends/"),
    State("trends, of a pipeline", f"{PIPELINE}trends/"),
    State("trends, of a project", "/projects/shop/trends/", username="viewer"),
    State("run with steps", "{release}", open_all_details),
    State("run with steps", "{release}", open_all_details, username="viewer"),
    State("run, dialog", "{release}", open_abort_dialog),
    State("run, read-only", "{release}", settings=READ_ONLY),
    State("run, overdue", run_address("late")),
    State("log, none", run_address("late") + "logs/"),
    State("run, overdue 3×, looked at", run_address("very-late"), open_all_details),
    State("run, overdue 3×, looked at", run_address("very-late"), username="viewer"),
    State("run, aborting", run_address("aborting-0")),
    State("run, aborting, amber", run_address("aborting-1")),
    State("run, aborting, red", run_address("aborting-2"), open_all_details),
    State("run, aborting, red, dialog", run_address("aborting-2"), open_abort_dialog),
    State("run, gone", run_address("gone")),
    State("run, gone and in flight", run_address("gone-in-flight")),
    State("dismissal", run_address("gone-in-flight") + "dismissal/"),
    State(
        "dismissal, not allowed", run_address("gone-in-flight") + "dismissal/", username="viewer"
    ),
    *(State(f"run, {status}", run_address(status)) for status in ("success", "failure", "aborted")),
    State("abort", run_address("late") + "abort/"),
    State("abort of what is left, ended", run_address("success") + "left-running/"),
    State("run, left running, dialog", run_address("aborted"), open_left_dialog),
    State("abort, too late", run_address("success") + "abort/"),
    State("abort, not allowed", run_address("late") + "abort/", username="viewer"),
    State(
        "abort, forbidden", run_address("late"), post_forbidden_abort, username="viewer", status=403
    ),
    State("aborts", "/aborts/", open_all_details),
    State("aborts", "/aborts/", open_all_details, username="viewer"),
    State("aborts, filtered", "/aborts/?state=refused&username=man&from=2020-01-01"),
    State("lists", "/aborts/?bulk=1"),
    State("abort many", "/aborts/bulk/new/?stage={stage_key}"),
    State("abort many, not allowed", "/aborts/bulk/new/?stage={stage_key}", username="viewer"),
    State("list of aborts", "/aborts/bulk/{batch}/"),
    State("status, trouble", "/health/"),
    State("status, administrator", "/health/", username="boss"),
    State("help", "/help/guide/"),
    State("help about the API", "/help/api/"),
    State("my account", "/account/"),
    State("my account, refused", "/account/", submit_wrong_password_change, username="boss"),
    State("my account, read-only", "/account/", username="boss", settings=READ_ONLY),
    State("access log", "/access/", username="boss"),
    State("access log, filtered", "/access/?kind=token_refused", open_filter, username="boss"),
    State("access log, not allowed", "/access/", username="viewer", status=403),
    *PEOPLE,
    State("account, own", "/people/accounts/{boss}/", username="boss"),
    State("rule, read-only", "/notices/{rule}/", username="boss", settings=READ_ONLY),
    State("account, read-only", "/people/accounts/{account}/", username="boss", settings=READ_ONLY),
    State("account, invalid", "/people/new/", submit_invalid_account, username="boss", status=422),
    State("everybody", "/people/groups/0/", username="boss"),
    State("group, protected", "/people/groups/{managers}/delete/", username="boss"),
    State("group, wrong grant", "/people/groups/{group}/grants/new/", username="boss", status=422),
    State("remove grant of everybody", "/people/groups/0/grants/{view_grant}/", username="boss"),
    State("people, not allowed", "/people/", username="viewer", status=403),
    State("sign in, throttled", "/accounts/login/", submit_wrong_password, username="", status=429),
    State("search for a run", "/runs/made-up/"),
    State("search for a run, in vain", "/runs/searched/?stage=production&project=nope", status=404),
    State("run, not found", run_address("nope"), status=404),
]

LONG_TEXTS = [
    State("now", "/"),
    State("now, after an absence", "/", open_away, username="boss"),
    State("now, dialog", "/", open_abort_dialog),
    State("board", "/board/"),
    State("search, found", "/search/?q=checkout"),
    State("search, nothing found", f"/search/?q={HOSTILE[:190].replace('&', '')}Z"),
    State("pipeline", PIPELINE),
    State("stage", STAGE),
    State("stage, filtered", f"{STAGE}?q={HOSTILE[:190].replace('&', '')}", open_filter),
    State("stage, views open", f"{STAGE}?status=failure", open_menu(".saved-views")),
    State("trends", f"{STAGE}trends/", open_all_details),
    State("trends, of a project", "/projects/shop/trends/"),
    State("run", run_address("x" * 200), open_all_details),
    State("run, dialog", run_address("x" * 200), open_abort_dialog),
    State("run, odd", "{odd}"),
    State("run, ended", run_address("ended"), open_all_details),
    State("abort", run_address("x" * 200) + "abort/"),
    State("aborts", "/aborts/", open_all_details),
    State("lists", "/aborts/?bulk=1"),
    State("list of aborts", "/aborts/bulk/{batch}/"),
    State("health", "/health/"),
    State("my account", "/account/"),
    State("access log", "/access/", username="boss"),
    *PEOPLE,
    State("search for a run", f"/runs/{'x' * 150}/"),
    State("not found", f"/projects/{'x' * 150}/pipelines/y/", status=404),
]


def go_to_older_page(page: Page) -> None:
    with page.expect_navigation():
        page.get_by_role("link", name="Older").click()


def go_to_next_page(page: Page) -> None:
    with page.expect_navigation():
        page.get_by_role("link", name="Next").click()


PAGED = [
    State("board, first page", "/board/"),
    State("board, second page", "/board/", go_to_next_page),
    State("board, last page", "/board/?page=3"),
    State("stage, second page", STAGE, go_to_older_page),
    State("aborts, older", "/aborts/", go_to_older_page),
    State("access log, older", "/access/", go_to_older_page, username="boss"),
    State("people, second page", "/people/", go_to_next_page, username="boss"),
    State("groups", "/people/groups/", username="boss"),
    State("changes of rights, older", "/people/changes/", go_to_older_page, username="boss"),
]

# URLs that do not respond with a page.
NON_PAGE_URLS = {
    "aborts_csv",
    "project_trends_csv",
    "pipeline_trends_csv",
    "stage_trends_csv",
    "aborts_json",
    "access_log_csv",
    "access_log_json",
    "rights_changes_csv",
    "rights_changes_json",  # downloads
    "live",
    "api_runs",
    "api_run",
    "api_abort",
    "api_dismissal",
    "api_openapi",
    "northflank_webhook",  # for other programs
    "guide_picture",
    "help",  # redirects
    "saved_view_create",
    "saved_view_update",
    "star",
    "account_password",
    "group_members",
    "acknowledge",
    "end_request",
    "notice_test",
    "session_end",
    "sessions_end_others",
    "account_token_revoke",
    "token_revoke",
    "refresh_stage",
    "refresh_run",
    "zone",
    "logout",  # POST only
}


# --- Worlds --------------------------------------------------------------------------------------


def create_nothing() -> dict[str, object]:
    create_administrator()
    return {}


def create_administrator() -> User:
    return User.objects.create_superuser("boss", password="boss")


def create_last_visit() -> None:
    """Let the administrator have been away since before all runs."""
    boss, visited_at = User.objects.get(username="boss"), timezone.now() - timedelta(hours=1)
    LastVisit.objects.create(user=boss, version=0, at=visited_at)


def create_access_events(text: str) -> None:
    """Create an access event of each kind, with all its fields."""
    boss = create_administrator()
    named = User.objects.get_or_create(username=text[:150])[0]
    for kind in AccessKind:
        access_log.record(
            kind,
            timezone.now(),
            user=named,
            changed_by=boss,
            client_address="2001:db8:85a3:1234:5678:8a2e:1370:7334",
            token_name=text[:100],
            detail=text,
        )
    access_log.record(AccessKind.SIGN_IN_FAILED, timezone.now(), detail="No such account.")


def create_sessions_and_tokens(user: User, text: str) -> None:
    """Create sessions and API tokens of an account in all their forms; texts are `text`."""
    now = timezone.now()
    for browser in ("Firefox, Windows", "", text[:LABEL_LENGTH]):
        session = Session.objects.get(pk=session_key(user.username))
        session.browser = browser
        session.client_address = "2001:db8:85a3:1234:5678:8a2e:1370:7334" if browser else None
        session.save()
    for name, times in (("PagerDuty", {}), (text[:100], {"expires_at": now})):
        for scope in Scope:
            ApiToken.create_token(user, name, scope, now, **times)
    ApiToken.objects.filter(name="PagerDuty").update(
        last_used_at=now, expires_at=now + timedelta(days=90)
    )


def create_people(name: str) -> dict[str, object]:
    """Create a group and an account of this name with a grant and changes; return their keys."""
    boss = User.objects.get(username="boss")
    author = Author(boss, "2001:db8:85a3:1234:5678:8a2e:1370:7334")
    group = Group.objects.create(name=name[:150])
    project = Project.objects.get(slug="shop")
    grant = Grant(group=group, project=project, stage="Staging", action="abort")
    group_changes.add_grant(author, grant)
    account = User.objects.get_or_create(username=name[:150])[0]
    subject = rights_changes.account(account.pk)
    version = rights_changes.version(subject)
    wanted = AccountSettings(True, False, frozenset({group.pk}))
    account_changes.change_account(author, account.pk, wanted, version)
    User.objects.create_user("gone", is_active=False)
    return {
        "boss": boss.pk,
        "account": account.pk,
        "group": group.pk,
        "grant": Grant.objects.get(group=group).pk,
        "managers": Group.objects.get(name=permissions.RELEASE_MANAGERS).pk,
        "view_grant": Grant.objects.get(group=None).pk,
    }


def create_notices(text: str) -> dict[str, object]:
    """Create rules at a project, messages that fail, and requests of users named `text`."""
    now, run = timezone.now(), Run.objects.with_stage().filter(in_flight=True)[0]
    project = run.stage.pipeline.project
    names = ["gone", *CHANNELS["NOTIFY_URLS"]]
    rules = [
        NoticeRule.objects.create(
            channel=name, events=NoticeEvent.values, project=project, created_at=now,
            quiet_from=time(22), quiet_until=time(7),
        )
        for name in names
    ]  # fmt: skip
    user = User.objects.get_or_create(username=text[:150])[0]
    EndRequest.objects.create(run=run, user=user, channel="oncall", requested_at=now)
    fields = {"title": text, "body": text, "url": "/", "payload": {}, "created_at": now}
    sent, failed = (
        NoticeMessage.objects.create(channel="oncall", attempts=1, **fields, **outcome)
        for outcome in ({"sent_at": now}, {"error": text})
    )
    assert sent.pk < failed.pk
    return {"rule": rules[1].pk, "test": failed.pk, "asked": factories.address(run)}


def throttle_sign_in(username: str) -> None:
    counter = Counter(throttle.ACCOUNT_AT_ADDRESS, f"127.0.0.1 {username}")
    for _ in range(throttle.ACCOUNT_AT_ADDRESS.burst):
        throttle.count([counter], timezone.now())


def create_paged() -> dict[str, object]:
    """Create one entry more of each list than fits on a page."""
    manager = User.objects.get(username="manager")
    stage = factories.stage()
    for _ in range(pagination.PER_PAGE + 1):
        run = factories.run(stage, status="success")
        factories.abort(run, manager, "concluded", settled_at=timezone.now(), outcome="success")
    for number in range(2 * board_list.PER_PAGE):
        factories.pipeline(f"other-{number}")
    boss = create_administrator()
    for _ in range(access_log_page.PER_PAGE + 1):
        access_log.record(AccessKind.SIGNED_IN, timezone.now(), user=boss)
    User.objects.bulk_create(User(username=f"user-{n}") for n in range(people.PER_PAGE))
    for number in range(rights_changes_page.PER_PAGE + 1):
        group_changes.add_group(Author(boss, None), f"Team {number}")
    return {}


def create_full() -> dict[str, object]:
    """Create some of everything that pages can show."""
    manager, viewer = (User.objects.get(username=name) for name in ("manager", "viewer"))
    stage = factories.stage()
    factories.stage("Staging", has_flow=False)
    past = timezone.now() - minutes(15)
    error_fields = {"error": "x", "error_message": "No access.", "error_since": past, "failures": 3}
    factories.stage("Development", **error_fields)
    for status in [*statuses.RUN_STATUSES, "hibernating"]:
        factories.run(stage, status, status=status)
    root = factories.node(
        "Workflow",
        steps=(
            factories.node(label="build", status="success"),
            factories.node(label="test", status="failure", error_message="exit 1\n" * 30),
        ),
    )
    Run.objects.filter(status="failure").update(
        steps=msgspec.to_builtins(root), detail_synced_at=past,
        failed_step="test", failed_step_error="exit 1",
    )  # fmt: skip
    times = {"created_at": past, "started_at": past}
    factories.run(
        stage, "late", overdue_severity=Severity.WARNING, overdue_reason=OverdueReason.RUN, **times
    )
    critical_run = factories.run(
        stage,
        "very-late",
        status="approval_wait",
        overdue_severity=Severity.CRITICAL,
        overdue_reason=OverdueReason.APPROVAL,
    )
    acknowledge_by(critical_run, viewer, "ana", "ben")
    for level in range(3):
        run = factories.run(
            stage, f"aborting-{level}", status="aborting", abort_severity=level, status_since=past
        )
        sent_fields = {
            "requested_at": past,
            "sent_at": past,
            "responded_at": past,
            "reason": "Stuck",
        }
        factories.abort(run, manager, **sent_fields)
    factories.run(stage, "gone", in_flight=False, removed_at=past)
    factories.run(stage, "gone-in-flight", removed_at=past)
    removed_pipeline = factories.pipeline("old", removed_at=past)
    factories.run(factories.stage(parent=removed_pipeline), "old", status="success")
    settled = {"settled_at": past, "response": "No.", "reason": "Stuck", "response_status": 409}
    factories.abort(Run.objects.get(status="failure"), manager, "refused", **settled)
    aborted = Run.objects.get(status="aborted")
    factories.abort(aborted, manager, "concluded", outcome="aborted", **settled)
    Run.objects.filter(pk=aborted.pk).update(steps=factories.steps_naming("j1"))
    factories.work(aborted, name=factories.HOSTILE[:200])
    steps = create_long_run(migrate_duration=minutes(18))
    SavedView.objects.create(owner=manager, name="Failed", query="status=failure")
    SavedView.objects.create(owner=viewer, name="Late", query="overdue=1", shared=True)
    # It has ended, and others have to wait.
    factories.search(reads=10_000, requested_at=timezone.now() - timedelta(minutes=30))
    factories.upstream_error("It fell over.", cause="unauthorised")
    factories.leader()
    factories.pruning()
    factories.failed_catalog_list(stage.pipeline.project)
    create_access_events("Changed Groups. Now: active, superuser. Groups: Release managers.")
    create_sessions_and_tokens(manager, "A runbook with a name that is long enough for two lines")
    throttle_sign_in("nobody")
    create_last_visit()
    factories.search_texts()
    factories.day_sums()
    return {
        "release": factories.address(steps),
        "stage_key": stage.pk,
        "batch": bulk_abort_with_every_result(stage, manager, "Stuck"),
        **create_people("On-call"),
        **create_notices("The server refused the message (404)."),
    }


def create_long_texts(text: str) -> dict[str, object]:
    """Create objects whose external names and texts are all `text`."""
    manager = User.objects.get(username="manager")
    stage = factories.stage(
        parent=factories.pipeline(name=text, parent=factories.project(name=text))
    )
    tree = factories.node(
        "Workflow", steps=(factories.node(label=text, status="failure", error_message=text),)
    )
    run = factories.run(
        stage,
        "x" * 200,
        name=text,
        step=text,
        description=text,
        steps=msgspec.to_builtins(tree),
        detail_synced_at=timezone.now(),
    )
    odd_run = factories.run(stage, "a/b", status=text, name="W" * 400)
    cause = {"failed_step": text, "failed_step_error": text}
    ended_run = factories.run(stage, "ended", status="failure", name=text, **cause)
    answer = {"reason": text, "response": text, "settled_at": timezone.now()}
    factories.abort(ended_run, manager, "refused", **answer)
    Stage.objects.update(
        error="x",
        error_message=text,
        error_since=run.synced_at,
        failures=2,
        concurrency_policy=text,
    )
    acknowledge_by(run, manager, text[:150], "x" * 150, "👩‍🚀" * 40)
    SavedView.objects.create(owner=manager, name="x" * 60, query="status=failure")
    factories.search(reads=10_000)
    factories.upstream_error(text)
    factories.leader("w" * 250)
    factories.failed_catalog_list(stage.pipeline.project, text)
    create_access_events(text)
    create_sessions_and_tokens(manager, text)
    create_last_visit()
    factories.search_texts()
    factories.day_sums()
    return {
        "batch": bulk_abort_with_every_result(stage, manager, text),
        "odd": factories.address(odd_run),
        **create_people(text),
        **create_notices(text),
    }


def acknowledge_by(run: Run, user: User, *names: str) -> None:
    for name in names:
        colleague = User.objects.create_user(name[:150])
        Acknowledgement.objects.create(
            run=run, user=colleague, username=name, acknowledged_at=run.created_at
        )
    end_fields = {"ended_at": timezone.now(), "taken_over_by": names[0]}
    Acknowledgement.objects.create(
        run=run, user=user, username=user.username, acknowledged_at=run.created_at, **end_fields
    )


def bulk_abort_with_every_result(stage: Stage, user: User, reason: str) -> int:
    """Create a bulk abort with every result, including waiting runs."""
    runs = stage.runs.filter(aborts=None).order_by("pk")[:12]
    request = AbortRequest(user, "Stuck")
    run_keys = list(runs.values_list("pk", flat=True))
    batch = request_bulk_abort(run_keys, request, uuid4(), typed_count=str(len(run_keys)))
    for item, result in zip(batch.items.all(), BulkAbortItemResult.values, strict=False):
        BulkAbortItem.objects.filter(pk=item.pk).update(
            result=result,
            abort=factories.abort(item.run, user) if result == "abort" else None,
            note="You may not.",
        )
    return batch.pk


WORLDS = {
    "empty": (create_nothing, EMPTY),
    "full": (create_full, FULL),
    "paged": (create_paged, PAGED),
    "hostile": (partial(create_long_texts, HOSTILE), LONG_TEXTS),
    "wordy": (
        partial(
            create_long_texts, "The release that everybody has waited for, and then some. " * 5
        ),
        LONG_TEXTS,
    ),
}
