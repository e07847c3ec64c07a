"""No query visits more rows with a longer history or, except those listed here, with more stages.

Rows are counted, not timed: see tests/support/growth.py.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from dashboard.aborts import bulk_send, reconcile, settle
from dashboard.accounts import access_log, permissions, sessions
from dashboard.accounts.administration import administrators
from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.throttle import Counter
from dashboard.models import Grant, LastVisit, NoticeRule, Run, Stage
from dashboard.models.accounts.api_tokens import Scope
from dashboard.models.notices import NoticeEvent
from dashboard.models.runs import ChangeCounter
from dashboard.northflank import Page
from dashboard.northflank import Project as ApiProject
from dashboard.notices.round import Round
from dashboard.runs import acknowledgements
from dashboard.sync import (
    catalog,
    due,
    mirror,
    overdue_checker,
    pruning,
    read_plan,
    reads,
    watchers,
)
from dashboard.sync.webhooks import status as webhook_status
from dashboard.upstream import budget_store
from dashboard.web.live import changes
from dashboard.web.live.changes import Channel
from dashboard.web.live.page import PAGES
from tests.support import api, factories, growth
from tests.support.abort_answers import claim_due_resends
from tests.support.deferred import finish
from tests.support.world import api_run

pytestmark = pytest.mark.slow

FEW_RUNS, SOME_RUNS, MANY_RUNS = 2_000, 5_000, 20_000
FEW_STAGES, MANY_STAGES = 600, 1_800  # few of them fill each list of a page
MAX_RATIO = 1.2
MAX_SURPLUS = 100  # rows or steps: another plan for the runs of a day, or for a page of a list

# Functions that may visit all stages, with the reason.
LINEAR_IN_STAGES = {
    "sync/read_plan:load_stages": "the sync's plan",
    "sync/read_plan:count_starts": "the sync's plan: how many runs each stage has",
    "sync/due:find_stages": "the sync's plan: which stages are due",
    "runs/search:_pipeline_names": "the search compares the names of all pipelines",
    "runs/search:pipelines": "all may have the text",
    "runs/search:projects": "the search compares the names of all projects",
    "runs/search:runs": "all stages may be visible, or have the text in their names",
    "sync/baselines:schedule_next_detail": "the sync's plan",
    "sync/reports/report:load": "the count of what is covered",
    "sync/reports/totals:load": "the count of what is covered",
    "notices/causes:of_dashboard": "whether the reading of any stage is behind its plan",
    "web/components/board/board_list:_matching_keys": "the board's order: one key a pipeline",
    "web/pages/health:_load_status": "Status sorts all stages",
    "web/components/aborts/abort_log:parse": "the filter offers all projects",
    "web/pages/people/group:render_group": "the form offers all projects",
    "web/pages/notices:_render": "the form offers all projects",
    "web/pages/people/who_may:who_may": "the form offers all projects",
}

type Work = Callable[[], object]


def pages(who: User) -> dict[str, Work]:
    """Return the views of all pages, by address, for a user."""
    client = Client()
    client.force_login(who)
    stage = Stage.objects.order_by("pk")[0]
    in_flight, ended = (
        Run.objects.filter(stage=stage, in_flight=flag).order_by("pk")[0] for flag in (True, False)
    )
    flow = factories.address(stage)
    addresses = [
        "/", "/?mine=1", "/away/", "/away/?mine=1", "/health/",
        "/board/", "/board/?page=2&q=pipeline", "/board/?mine=1",
        f"/projects/{stage.pipeline.project.slug}/",
        # What few runs have is looked for in the texts of all: see bench/search.py.
        "/search/?q=release", "/search/?q=pipeline", "/search/?q=re",
        "/aborts/", "/aborts/?state=aborted&username=man",
        "/aborts/?bulk=1", "/aborts/bulk/new/?page=now", f"/aborts/bulk/new/?stage={stage.pk}",
        factories.address(stage.pipeline), flow, f"{flow}?all=1", f"{flow}?by_me=1",
        f"{flow}?overdue=1", factories.address(in_flight), factories.address(ended),
        f"/projects/{stage.pipeline.project.slug}/trends/", f"{flow}trends/",
        factories.address(in_flight, "abort"), f"/runs/{ended.run_id}/", "/account/",
    ]  # fmt: skip
    if access_log.may_view(who):
        addresses += ["/access/", "/access/?kind=sign_in_failed", f"/access/?username={who}"]
        addresses += [f"/access/?username={who}&kind=sign_in_failed", "/access/?before=900"]
    if administrators.may_administer(who):
        group = Group.objects.get(name="parts")
        addresses += [
            "/people/", f"/people/accounts/{who.pk}/", "/people/groups/",
            f"/people/groups/{group.pk}/", "/people/rights/", "/people/changes/",
            "/people/changes/?name=somebody", f"/people/changes/?subject=account-{who.pk}",
            "/people/changes/?before=900", "/notices/",
        ]  # fmt: skip

    def view(address: str) -> None:
        cache.clear()
        response = finish(client.get(address))
        assert response.status_code in {200, 302}, (address, response.status_code)

    return {f"GET {address}": lambda address=address: view(address) for address in addresses}


def api_requests(who: User) -> dict[str, Work]:
    client = Client(headers={"Authorization": f"Bearer {api.create_token_secret(who, Scope.READ)}"})
    addresses = ["/api/runs/", "/api/runs/?q=run-1", "/api/runs/run-20/"]

    def get(address: str) -> None:
        response = client.get(address)
        assert response.status_code == 200, (address, response.content)

    return {f"GET {address}": lambda address=address: get(address) for address in addresses}


def feed_rounds(who: User) -> dict[str, Work]:
    """Return what the feed does after a change and between changes, for a viewer of each page."""
    stage = Stage.objects.order_by("pk")[0]
    run = stage.runs.order_by("pk")[0]
    keys = {"stage": stage.pk, "pipeline": stage.pipeline_id, "run": run.pk}
    user_permissions = permissions.for_user(who)

    def beat(page: str) -> None:
        cache.clear()
        channel = Channel(page, keys.get(page, 0), user_permissions)
        factories.change(run, status_since=timezone.now())
        change_set = changes.load_changes(ChangeCounter.latest() - 1)
        assert [changed_run.pk for changed_run in change_set.runs] == [run.pk]
        watchers.keep_alive([stage.pk], [run.pk], timezone.now())
        change_set.changed_parts(channel)
        change_set.status_parts(channel)

    return {f"feed {page}": lambda page=page: beat(page) for page in PAGES if page != "bulk_abort"}


def chores() -> dict[str, Work]:
    """Return what the sync and its chores do again and again, and the mirroring of a list."""
    now = timezone.now()
    busy = Stage.objects.order_by("pk")[0]
    listed = [
        api_run(
            run.run_id, status=run.status, concluded=run.concluded, concluded_at=run.ended_at,
            created_at=run.created_at,  # whatever the date, later than the history that is added
        )
        for run in busy.runs.newest_first()[:50]
    ]  # fmt: skip

    run = busy.runs.select_related("stage__pipeline__project").newest_first()[0]
    counters = [Counter(throttle.ACCOUNT, "manager"), Counter(throttle.ADDRESS, "192.0.2.1")]

    project = busy.pipeline.project
    renamed = Page((ApiProject(project.slug, f"{project.name} 2"),), True)

    def plan() -> Any:
        return reads.plan_reads(budget_store.load(now), now, read_plan.count_starts(now), 0.0)

    return {
        "plan": plan,
        "mirror a list": lambda: mirror.apply_runs(busy.pk, listed, requested_at=now),
        "look for due reads": lambda: due.has_due_reads(now),
        "find due runs": lambda: due.find_runs(now, 8),
        "find due stages": lambda: due.find_stages(now, 8),
        "find due lists": lambda: due.find_lists(now, 1),
        "rename a project": lambda: catalog.mirror_projects(renamed, now=now),
        "overdue": lambda: overdue_checker.check_runs(now),
        "end acknowledgements": lambda: acknowledgements.end_expired(now),
        "webhook": lambda: webhook_status.load(now),
        "look for aborts": reconcile.is_work_pending,
        "adopt aborts": lambda: reconcile.claim_unanswered(now),
        "settle aborts": lambda: settle.settle_resolved_aborts(now),
        "resend aborts": lambda: claim_due_resends(now),
        "notices": lambda: Round().tell(now),
        "escalate aborts": lambda: reconcile.update_severities(now),
        "adopt bulk aborts": lambda: bulk_send.claim_expired(now),
        "end sessions": lambda: sessions.delete_expired(now),
        "look for pruning": lambda: pruning.is_due(now),
        "throttle": lambda: throttle.remaining_wait(counters, now),
        "count a failure": lambda: throttle.count(counters, now),
        "open logs": lambda: access_log.record_logs_opened(
            User.objects.get(username="somebody"), run, "build a", now, client_address=None
        ),
    }


type Measured = dict[tuple[str, str, str], int]  # by work, function and statement


def measure(work: dict[str, Work]) -> Measured:
    """Return what each statement visits; what the work writes is rolled back."""
    measured: Measured = {}
    for name, do in work.items():
        with transaction.atomic(), growth.counting_visits() as visits:
            do()
            transaction.set_rollback(True)
        measured |= {(name, *key): count for key, count in visits.items()}
    return measured


@pytest.fixture
def compact_tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Remove what earlier tests have left in the files of the tables, before a transaction begins.

    Dead rows make an index seem larger, so that PostgreSQL may choose another plan.
    """
    with django_db_blocker.unblock():
        growth.compact_tables()


@pytest.fixture
def work(settings: Any, compact_tables: None, manager: User, viewer: User) -> dict[str, Work]:
    """Return all work of the product: of a user who may do everything, and of one who sees a part.

    There are FEW_RUNS in FEW_STAGES.
    """
    settings.NORTHFLANK_WEBHOOK_SECRET = "secret"
    settings.NOTIFY_URLS = {"oncall": "json://127.0.0.1"}
    year_ago = timezone.now() - timedelta(days=365)
    NoticeRule.objects.create(channel="oncall", events=NoticeEvent.values, created_at=year_ago)
    growth.create_stages(FEW_STAGES)
    Grant.objects.all().delete()
    for right in ("view", "abort"):
        factories.grant(right, "everything", manager)
    factories.grant(
        "view", "parts", viewer, project=Stage.objects.order_by("pk")[0].pipeline.project
    )
    factories.grant("view", "parts", viewer, stage="Production")
    factories.leader()
    factories.catalog_list()
    for name in ("view_accessevent", "change_user", "change_group", "change_grant"):
        manager.user_permissions.add(Permission.objects.get(codename=name))
    factories.pruning()
    for user in (manager, viewer):  # all runs have changed since
        LastVisit.objects.create(user=user, version=0, at=timezone.now() - timedelta(days=6))
    growth.create_runs(FEW_RUNS, manager)
    growth.create_access_events(FEW_RUNS, manager)
    of_users = {
        f"{user.username}: {name}": do
        for user in (manager, viewer)
        for name, do in (pages(user) | api_requests(user) | feed_rounds(user)).items()
    }
    return of_users | chores()


def growing(before: Measured, after: Measured) -> list[str]:
    """Return the statements that visit more than before, with both numbers."""
    return [
        f"{work}: {before.get((work, place, sql), 0)} -> {count} in {place}: {sql}"
        for (work, place, sql), count in after.items()
        if count > before.get((work, place, sql), 0) * MAX_RATIO + MAX_SURPLUS
    ]


def test_queries_with_longer_history_visit_no_more_rows(
    work: dict[str, Work], manager: User
) -> None:
    before = measure(work)
    growth.create_runs(MANY_RUNS, manager)
    growth.create_access_events(MANY_RUNS, manager)
    surplus = growing(before, measure(work))
    assert not surplus, "\n".join(surplus)


def test_queries_with_more_stages_visit_no_more_rows(work: dict[str, Work], manager: User) -> None:
    growth.create_runs(SOME_RUNS, manager)  # with fewer, PostgreSQL may well read a whole stage
    before = measure(work)
    growth.create_stages(MANY_STAGES)
    after = {
        (work, place, sql): count
        for (work, place, sql), count in measure(work).items()
        if place not in LINEAR_IN_STAGES
    }
    surplus = growing(before, after)
    assert not surplus, "\n".join(surplus)


@pytest.mark.parametrize("place", LINEAR_IN_STAGES)
def test_function_that_may_visit_all_stages_exists(place: str) -> None:
    module, function = place.split(":")
    source = (growth.PRODUCT / f"{module}.py").read_text()
    assert f"def {function}(" in source
