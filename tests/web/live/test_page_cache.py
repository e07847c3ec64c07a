"""Kept pages: the same as those rendered anew, for whoever asks, whatever has changed."""

import contextlib
import gzip
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.accounts.identity import IdentifiedSession, Identities, Identity
from dashboard.accounts.permissions import RELEASE_MANAGERS
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    CatalogSync,
    Pipeline,
    Project,
    Run,
    SavedView,
    Session,
    Stage,
    Upstream,
)
from dashboard.models.accounts.grants import Action, Grant
from dashboard.models.accounts.sessions import SessionStore
from dashboard.northflank import Page
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.runs import acknowledgements, saved_views
from dashboard.sync import catalog
from dashboard.web.live import page_cache
from dashboard.web.live.page_cache import FinishedPage, PageCache
from tests.support import factories

pytestmark = pytest.mark.django_db

STATEMENTS = 1  # who asks, and the latest change


class Visitors:
    """Users of one process, who share its kept pages."""

    def __init__(self) -> None:
        self._first = Client()
        self._clients: dict[str, Client] = {}

    def add(self, username: str, *groups: str, **fields: bool) -> User:
        user = User.objects.create_user(username, **fields)  # type: ignore[arg-type]
        user.groups.set(Group.objects.get_or_create(name=name)[0] for name in groups)
        client = self._clients[username] = Client()
        client.handler = self._first.handler
        client.force_login(user)
        return user

    def client(self, username: str) -> Client:
        return self._clients[username]

    def get(self, username: str, address: str, **headers: str) -> HttpResponse:
        """Return what a browser gets, which may be a kept page."""
        headers = {"Accept-Encoding": "gzip", **headers}
        return self._clients[username].get(address, headers=headers)

    def text(self, username: str, address: str) -> str:
        response = self.get(username, address)
        if response.headers.get("Content-Encoding") != "gzip":
            return response.content.decode()
        return gzip.decompress(response.content).decode()

    def text_rendered_anew(self, username: str, address: str) -> str:
        """Return the page as it is without kept pages and rows."""
        cache.clear()
        return self._clients[username].get(address).content.decode()

    def statements(self, username: str, address: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            self.get(username, address)
        return len(queries)


@pytest.fixture
def visitors() -> Visitors:
    return Visitors()


@pytest.fixture(autouse=True)
def real_clock() -> Iterator[None]:
    yield
    db_threads.set_clock_offset(timedelta())


@pytest.fixture
def stage() -> Stage:
    factories.catalog_list()
    stage = factories.stage()
    factories.run(stage)
    factories.run(stage, status="failure")
    return stage


def normalize(html: str) -> str:
    """Remove what differs between two renderings of the same page."""
    html = re.sub(r'("X-CSRFToken": "|name="csrfmiddlewaretoken" value=")\w{64}', r"\1…", html)
    html = re.sub(r"since=[\d.]+", "since=…", html)
    return re.sub(r'"HX-PTag": "\w+"', '"HX-PTag": "…"', html)


@pytest.mark.parametrize("page", ["/", "/accounts/"], ids=["kept page", "other page"])
@pytest.mark.parametrize(
    ("header", "encoding"), [("GZIP; q=0.000, br", None), ("br, gzip;q=0.5", "gzip"), ("", None)]
)
def test_page_is_compressed_only_where_gzip_is_accepted(
    visitors: Visitors, stage: Stage, page: str, header: str, encoding: str | None
) -> None:
    visitors.add("ana")
    visitors.get("ana", page)  # so that there is a compressed one
    answer = visitors.get("ana", page, **{"Accept-Encoding": header})
    assert answer.headers.get("Content-Encoding") == encoding
    assert "Accept-Encoding" in answer["Vary"]


# --- Who gets a kept page -------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["now", "board", "pipeline", "stage", "run", "aborts"])
def test_page_seen_by_another_of_the_group_is_answered_by_one_statement(
    visitors: Visitors, stage: Stage, page: str
) -> None:
    shown = {"pipeline": stage.pipeline, "stage": stage, "run": stage.runs.first()}
    addresses = {"now": "/", "board": "/board/", "aborts": "/aborts/"}
    address = addresses.get(page) or factories.address(shown[page])
    visitors.add("anna", RELEASE_MANAGERS)
    visitors.add("ben", RELEASE_MANAGERS)
    visitors.get("anna", address)
    visitors.get("ben", "/accounts/")  # identified
    assert visitors.statements("ben", address) == STATEMENTS


def test_kept_page_has_the_name_and_the_token_of_its_reader(
    visitors: Visitors, stage: Stage
) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    visitors.add('<i>"ben"', RELEASE_MANAGERS)
    visitors.text("anna", "/")
    html = LexborHTMLParser(visitors.text('<i>"ben"', "/"))
    name, menu = html.css_first("header .name bdi"), html.css_first("header [popovertarget]")
    assert (name.text(), menu.attributes["title"]) == ('<i>"ben"', '<i>"ben"')
    assert "anna" not in (html.html or "")
    token = html.css_first("#menu form input").attributes["value"]
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = visitors.client('<i>"ben"').cookies
    strict.post("/accounts/logout/", {"csrfmiddlewaretoken": token})
    assert Session.objects.count() == 1


def test_tokens_in_a_kept_page_differ_each_time(visitors: Visitors, stage: Stage) -> None:
    # Else the lengths of many compressed pages would tell the token (BREACH).
    visitors.add("anna", RELEASE_MANAGERS)
    pages = [LexborHTMLParser(visitors.text("anna", "/")) for _ in range(3)]
    fields = [page.css_first("#menu form input") for page in pages]
    assert len({field.attributes["value"] for field in fields if field is not None}) == 3


def test_page_during_which_an_outage_begins_has_the_name_and_the_token_of_its_reader(
    visitors: Visitors, stage: Stage
) -> None:
    visitors.add("anna", RELEASE_MANAGERS)

    def begin_outage(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if '"dashboard_run"' in sql:
            db_health.record_failure(OperationalError("of another thread"))
        return execute(sql, *args)

    try:
        with connection.execute_wrapper(begin_outage):
            page = visitors.text("anna", "/")
        assert db_health.down_since() is not None
    finally:
        db_health.mark_available()
    assert visitors.statements("anna", "/") > STATEMENTS  # not kept
    html = LexborHTMLParser(page)
    name, field = html.css_first("header .name bdi"), html.css_first("#menu form input")
    assert name is not None
    assert field is not None
    assert name.text() == "anna"
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = visitors.client("anna").cookies
    token = field.attributes["value"]
    assert strict.post("/accounts/logout/", {"csrfmiddlewaretoken": token}).status_code == 302


def test_users_with_other_permissions_get_another_page(visitors: Visitors, stage: Stage) -> None:
    visitors.add("manager", RELEASE_MANAGERS)
    visitors.add("viewer")
    visitors.text("manager", "/")
    viewer_page = visitors.text("viewer", "/")
    assert normalize(viewer_page) == normalize(visitors.text_rendered_anew("viewer", "/"))
    assert "Ask someone in" in viewer_page


@pytest.mark.parametrize("change", ["sign_out", "expire", "deactivate", "password"])
def test_ended_session_gets_no_kept_page(visitors: Visitors, stage: Stage, change: str) -> None:
    user = visitors.add("anna", RELEASE_MANAGERS)
    for _ in range(3):
        visitors.text("anna", "/")
    if change == "sign_out":
        Session.objects.all().delete()
    elif change == "expire":
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    elif change == "deactivate":
        User.objects.update(is_active=False)
    else:
        user.set_password("another")
        user.save()
    assert visitors.get("anna", "/").status_code == 302


def test_session_that_ends_while_it_is_identified_gets_no_kept_page(
    visitors: Visitors, stage: Stage
) -> None:
    user = visitors.add("anna", RELEASE_MANAGERS)
    visitors.add("ben", RELEASE_MANAGERS)
    visitors.text("ben", "/")
    key = visitors.client("anna").cookies[settings.SESSION_COOKIE_NAME].value
    request = RequestFactory().get("/")
    request.COOKIES[settings.SESSION_COOKIE_NAME] = key
    request.session = SessionStore(key)
    assert request.session[SESSION_KEY] == str(user.pk)  # read
    Session.objects.filter(session_key=key).delete()  # signed out in another tab
    identities = Identities()
    assert [identities.identify(request) for _ in range(2)] == [None, None]


def test_filter_by_own_aborts_shows_nobody_elses(visitors: Visitors, stage: Stage) -> None:
    anna = visitors.add("anna", RELEASE_MANAGERS)
    visitors.add("ben", RELEASE_MANAGERS)
    run = Run.objects.in_flight().get()
    factories.abort(run, anna)
    address = f"{factories.address(stage)}?by_me=1"
    lists_run = [
        f'id="run-{run.run_id}"' in visitors.text(name, address) for name in ("anna", "ben")
    ]
    assert lists_run == [True, False]


def test_shared_views_show_who_may_delete_them(visitors: Visitors, stage: Stage) -> None:
    for name in ("anna", "ben"):
        user = visitors.add(name, RELEASE_MANAGERS)
        SavedView.objects.create(owner=user, name=f"Of {name}", query="q=x", shared=True)
    address = f"{factories.address(stage)}?all=1"
    visitors.text("anna", address)
    page = visitors.text("ben", address)
    assert "Delete Of ben" in page
    assert "Delete Of anna" not in page


def test_withdrawn_group_counts_at_the_next_request(visitors: Visitors, stage: Stage) -> None:
    user = visitors.add("anna", RELEASE_MANAGERS)
    for _ in range(3):
        assert "data-abort" in visitors.text("anna", "/")
    user.groups.clear()
    assert "Ask someone in" in visitors.text("anna", "/")


def test_users_with_the_same_permissions_get_their_own_form_of_a_run(
    visitors: Visitors, stage: Stage
) -> None:
    run = stage.runs.in_flight().get()
    factories.change(run, overdue_severity=2, overdue_reason="run")
    anna, _ben = (visitors.add(name, RELEASE_MANAGERS) for name in ("anna", "ben"))
    address = factories.address(run)
    visitors.text("ben", address)
    acknowledgements.acknowledge(run, anna)
    for name in ("anna", "ben", "anna", "ben"):
        page = visitors.text(name, address)
        assert normalize(page) == normalize(visitors.text_rendered_anew(name, address))
    acknowledgements.hand_back(run, anna)
    visitors.text("ben", address)
    assert visitors.statements("anna", address) == STATEMENTS


def test_change_of_a_run_shows_at_once(visitors: Visitors, stage: Stage) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    for _ in range(2):
        visitors.text("anna", "/")
    factories.change(Run.objects.in_flight().get(), name="Renamed meanwhile")
    assert "Renamed meanwhile" in visitors.text("anna", "/")


def test_message_for_one_user_is_in_nobody_elses_page(visitors: Visitors, stage: Stage) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    visitors.add("ben", RELEASE_MANAGERS)
    # Without JavaScript an answer is shown on the next page.
    run = Run.objects.in_flight().get()
    visitors.client("anna").post(factories.address(run, "acknowledge"), {"action": "acknowledge"})
    pages = [visitors.text(name, "/") for name in ("anna", "ben", "anna")]
    notices = [len(LexborHTMLParser(page).css("#notices .notice")) for page in pages]
    assert notices == [1, 0, 0]


def test_refresh_of_an_unchanged_page_is_304(visitors: Visitors, stage: Stage) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    tag = visitors.get("anna", "/", **{"HX-Request": "true"}).headers["HX-PTag"]
    refresh = visitors.get("anna", "/", **{"HX-Request": "true", "HX-PTag": tag})
    assert (refresh.status_code, refresh.headers["HX-PTag"]) == (304, tag)
    factories.change(Run.objects.in_flight().get(), step="build")
    changed = visitors.get("anna", "/", **{"HX-Request": "true", "HX-PTag": tag})
    assert (changed.status_code, changed.headers["HX-PTag"] == tag) == (200, False)


def test_refresh_after_a_change_in_another_stage_is_304(visitors: Visitors, stage: Stage) -> None:
    other = factories.run(factories.stage("Staging"))
    visitors.add("anna", RELEASE_MANAGERS)
    address = factories.address(stage)
    tag = visitors.get("anna", address, **{"HX-Request": "true"}).headers["HX-PTag"]
    factories.change(other, status="failure", concluded=True, in_flight=False)
    refresh = visitors.get("anna", address, **{"HX-Request": "true", "HX-PTag": tag})
    assert refresh.status_code == 304


def test_stage_that_is_added_again_under_its_address_is_another_page(visitors: Visitors) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    factories.catalog_list()
    for _ in range(3):
        stage = factories.stage()
        factories.run(stage)
        pages = [visitors.text("anna", factories.address(stage)) for _ in range(2)]
        assert [f"key={stage.pk}&" in page.replace("&amp;", "&") for page in pages] == [True, True]
        Run.objects.all().delete()
        Project.objects.all().delete()


def test_read_of_a_stage_shows_after_a_moment(visitors: Visitors, stage: Stage) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    address = factories.address(stage)
    visitors.text("anna", address)
    fail_to_read(stage)
    assert "No answer." not in visitors.text("anna", address)
    db_threads.set_clock_offset(page_cache.MAX_AGE)
    assert "No answer." in visitors.text("anna", address)


def test_page_kept_before_the_clock_was_set_back_is_rendered_anew(
    visitors: Visitors, stage: Stage
) -> None:
    visitors.add("anna", RELEASE_MANAGERS)
    for _ in range(2):
        visitors.get("anna", "/")
    assert visitors.statements("anna", "/") == STATEMENTS
    db_threads.set_clock_offset(timedelta(hours=-1))
    assert visitors.statements("anna", "/") > STATEMENTS


def test_cache_drops_the_page_rendered_longest_ago_beyond_its_size() -> None:
    cache = PageCache(max_bytes=200_000)
    session = IdentifiedSession("", Identity(0, "", permissions.ALL), (), User())
    requests = [RequestFactory().get(f"/{number}") for number in range(3)]
    for request in requests:
        request.version = 7
        content = b"x" * 70_000
        page = FinishedPage.create(content, 7, db_threads.now(), is_personal=False)
        cache.add(request, session, page)
    assert [cache.find(request, session) is not None for request in requests] == [False, True, True]


# --- Random changes -----------------------------------------------------------------------------


def fail_to_read(stage: Stage) -> None:
    Stage.objects.filter(pk=stage.pk).update(
        error="timeout", error_message="No answer.", error_since=db_threads.now()
    )


class World:
    """A small database that random changes are made to."""

    def __init__(self, seed: int, visitors: Visitors) -> None:
        self.choose = random.Random(seed)
        factories.catalog_list()
        self.stages = [
            factories.stage(name, parent)
            for parent in (
                factories.pipeline(),
                factories.pipeline("billing", factories.project("b")),
            )
            for name in ("Staging", "Production")
        ]
        self.group = Group.objects.create(name="Operators")
        self.users = {
            "manager": visitors.add("manager", RELEASE_MANAGERS),
            "colleague": visitors.add("colleague", RELEASE_MANAGERS),
            "viewer": visitors.add("viewer", "Operators"),
            "admin": visitors.add("admin", is_superuser=True),
        }
        for stage in self.stages:
            factories.run(stage)

    @property
    def run(self) -> Run:
        return self.choose.choice(list(Run.objects.with_stage().order_by("pk")))

    @property
    def stage(self) -> Stage:
        return Stage.objects.get(pk=self.choose.choice(self.stages).pk)

    @property
    def user(self) -> User:
        return self.choose.choice(list(self.users.values()))

    @property
    def addresses(self) -> list[str]:
        stages = [factories.address(stage) for stage in self.stages]
        filtered = [f"{stages[0]}?status=failure", f"{stages[0]}?by_me=1", f"{stages[1]}?q=release"]
        runs = [factories.address(run) for run in Run.objects.with_stage()[:2]]
        return ["/", "/aborts/", "/board/", *stages, *filtered, *runs]

    def change(self) -> str:
        """Make one change at random and return its name."""
        change = self.choose.choice([*CHANGES, *CHANGES, *LATE_CHANGES])
        change(self)
        if change in LATE_CHANGES:
            wait(self)
        return change.__name__


def start_run(world: World) -> None:
    ago = timedelta(seconds=world.choose.choice([0, 600, 5_000]))
    status = world.choose.choice(["running", "queued", "approval_wait"])
    since = db_threads.now() - ago if status == "approval_wait" else None
    created_at = db_threads.now() - ago
    factories.run(world.stage, status=status, created_at=created_at, approval_since=since)


def end_run(world: World) -> None:
    now = db_threads.now()
    status = world.choose.choice(["success", "failure", "aborted"])
    ended_at = now - timedelta(seconds=world.choose.choice([1, 800, 86_000]))
    ended = {"concluded": True, "in_flight": False, "concluded_at": ended_at}
    factories.change(world.run, status=status, overdue_severity=0, abort_severity=0, **ended)


def become_overdue(world: World) -> None:
    severity = world.choose.choice([0, 1, 2])
    factories.change(world.run, overdue_severity=severity, overdue_reason="run")


def abort(world: World) -> None:
    run = world.run
    if not Abort.objects.open().filter(run=run).exists():
        factories.abort(run, world.user, requested_at=db_threads.now())
        factories.change(run, status="aborting")


def acknowledge(world: World) -> None:
    run, user = world.run, world.user
    with contextlib.suppress(PermissionDenied, acknowledgements.NothingToAcknowledge):
        acknowledgements.acknowledge(run, user)


def read_stage(world: World) -> None:
    now = db_threads.now()
    fresh_until = now + timedelta(seconds=world.choose.choice([1, 20, 600]))
    Stage.objects.filter(pk=world.stage.pk).update(
        synced_at=now, fresh_until=fresh_until, error="", error_message=""
    )


def fail_to_read_stage(world: World) -> None:
    fail_to_read(world.stage)


def change_release_flow(world: World) -> None:
    policy, has_flow = world.choose.choice([("allow", True), ("forbid", True), ("", False)])
    Stage.objects.filter(pk=world.stage.pk).update(
        concurrency_policy=policy, has_flow=has_flow, paused=world.choose.random() < 0.5
    )


def change_catalog(world: World) -> None:
    pipeline, now = world.stage.pipeline, db_threads.now()
    name = world.choose.choice(["Checkout", "Billing", "Other"])
    listed = Page((ApiPipeline(pipeline.slug, name, ""),), False)
    catalog.mirror_pipelines(pipeline.project, listed, now=now)
    removed_at = world.choose.choice([None, None, now])
    Pipeline.objects.filter(pk=pipeline.pk).update(removed_at=removed_at)


def change_upstream(world: World) -> None:
    if world.choose.random() < 0.5:
        factories.upstream_error(world.choose.choice(["Down.", "Refused."]))
    else:
        Upstream.objects.update(error="", error_message="", error_since=None)
    CatalogSync.objects.update(
        error=world.choose.choice(["", "forbidden"]), error_since=timezone.now()
    )


def change_grants(world: World) -> None:
    Grant.objects.filter(group=world.group).delete()
    stage = world.choose.choice(["", "Production"])
    project = world.choose.choice([None, world.stages[0].pipeline.project])
    action = world.choose.choice(Action.values)
    Grant.objects.create(group=world.group, action=action, project=project, stage=stage)
    everybody = Grant.objects.filter(group=None)
    if world.choose.random() < 0.5:
        everybody.delete()
    elif not everybody.exists():
        Grant.objects.create(group=None, action=Action.VIEW)


def change_group(world: World) -> None:
    user = world.user
    user.groups.set(world.choose.sample(list(Group.objects.order_by("pk")), 1))


def change_views(world: World) -> None:
    user, name = world.user, world.choose.choice(["Mine", "Ours"])
    query = world.choose.choice(["status=failure", "status=running"])
    is_shared = world.choose.random() < 0.5
    with contextlib.suppress(PermissionDenied):
        view = saved_views.save(user, permissions.for_user(user), name, query, shared=is_shared)
        if world.choose.random() < 0.3:
            saved_views.set_default(user, view.pk)
        elif world.choose.random() < 0.5:
            saved_views.delete(user, view.pk)


def wait(world: World) -> None:
    seconds = world.choose.choice([15, 31, 45, 200, 1_000])
    offset = db_threads.now() - timezone.now() + timedelta(seconds=seconds)
    db_threads.set_clock_offset(offset)


CHANGES: list[Callable[[World], None]] = [
    start_run, end_run, become_overdue, abort, acknowledge, change_grants, change_group,
    change_views,
]  # fmt: skip
# They show after MAX_AGE.
LATE_CHANGES: list[Callable[[World], None]] = [
    read_stage, fail_to_read_stage, change_release_flow, change_catalog,
    change_upstream, wait,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kept_pages_equal_pages_rendered_anew_whatever_changes(
    visitors: Visitors, seed: int
) -> None:
    world = World(seed, visitors)
    pages = [(username, address) for username in world.users for address in world.addresses]
    pages = world.choose.sample(pages, 10)
    hits, history = 0, []
    for _ in range(30):
        history.append(world.change())
        for username, address in world.choose.sample(pages, 3):
            visitors.get(username, address)
            # Again, if it has changed with time between the two requests.
            for _attempt in range(3):
                with CaptureQueriesContext(connection) as queries:
                    page = normalize(visitors.text(username, address))
                is_kept = len(queries) == STATEMENTS  # another request resets the queries
                anew = normalize(visitors.text_rendered_anew(username, address))
                if page == anew:
                    break
            assert page == anew, (username, address, history)
            hits += is_kept
    assert hits >= 20
