"""What pages depend on, as queries of few rows: while their rows are equal, so is the page.

Each function returns querysets for a `CombinedQuery`. `NOW`, `KEY` and `USER` are given at each
execution: the time, the page's key and the user's key. A change of a run, of its aborts or of its
acknowledgements gives the run the highest version of all, so the count and the highest version of
some runs stand for all of them. A new name of a pipeline or project does the same to the runs that
pages list among runs of others.
"""

from typing import Any

from django.contrib.auth.models import User
from django.db.models import (
    BigIntegerField,
    Case,
    F,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import NOW, Count, Max, Min, Parameter, Sum, Texts, count_if, joined
from dashboard.models import (
    Abort,
    CatalogSync,
    DefaultView,
    Lead,
    Project,
    RateBudget,
    Run,
    SavedView,
    Stage,
    Upstream,
)
from dashboard.runs import acknowledgement_rules, attention
from dashboard.sync import lead
from dashboard.sync.reports import freshness, sync_state, totals
from dashboard.sync.schedule import FIRST_READ_ORDER
from dashboard.upstream import budget_store
from dashboard.upstream.rate_budget import DEFAULT_LIMIT
from dashboard.web.components import in_flight
from dashboard.web.http import lookup

type Querysets = list[QuerySet[Any, Any]]

KEY = Parameter("key", BigIntegerField())
USER = Parameter("user", BigIntegerField())


def upstream() -> Querysets:
    """The upstream error, and the refusal of the list of projects."""
    return [
        Upstream.objects.values_list("error", "error_message", "error_since"),
        CatalogSync.objects.filter(project=None).values_list(
            "error", "error_message", "error_since"
        ),
    ]


def sync() -> Querysets:
    """Whether a process reads, and the rate limit as far as it slows reading."""
    is_alive = Q(renewed_at__gte=NOW - lead.SILENCE) & ~Q(holder="")
    is_behind = Q(renewed_at__gt=NOW + lead.CLOCK_TOLERANCE)
    reserved = budget_store.abort_reserve(DEFAULT_LIMIT) / DEFAULT_LIMIT
    is_low = Q(remaining__lt=F("limit") * (reserved + sync_state.SLOW_SHARE))
    return [
        Lead.objects.order_by().values_list(
            Case(When(is_behind, then=2), When(is_alive, then=1), default=0)
        ),
        RateBudget.objects.order_by().values_list(
            "backoff_until", "refusals", Case(When(is_low, then=F("remaining")))
        ),
    ]


def stage() -> Querysets:
    """The stage with the page's key, and the runs of its release flow."""
    runs = Run.objects.filter(stage=KEY)
    # As a range, so that only the index by stage and version has this order.
    ended = Run.objects.filter(stage__gte=KEY, stage__lte=KEY)
    # Of all stages, since they are few: of one stage, SQLite would read all runs.
    failures = Run.objects.filter(
        status="failure", concluded=True, ended_at__gt=NOW - attention.FAILURE_WINDOW
    )
    return [
        Stage.objects.filter(pk=KEY).values_list(
            "synced_at", "fresh_until", "has_flow", "missing_since", "in_flight_incomplete",
            "error", "error_message", "error_since", "omitted_by_page",
            "concurrency_policy", "paused",
            "pipeline__name", "pipeline__removed_at",
            "pipeline__project__name", "pipeline__project__removed_at",
        ),
        ended.filter(in_flight=False).order_by("stage_id", "-version").values_list("version")[:1],
        runs.in_flight().values_list(
            Count(), Max("version"), _due_approvals()
        ),
        failures.values_list(count_if(Q(stage=KEY))),
    ]  # fmt: skip


def saved_views() -> Querysets:
    """The saved views that the user sees, and which of them they may share or delete."""
    visible = SavedView.objects.filter(Q(owner=USER) | Q(shared=True))
    return [
        visible.values_list(
            *_fingerprint(Q(owner=USER)),
            Texts(joined("pk", "name", "query", "shared", "owner_id", "owner__username")),
        ),
        DefaultView.objects.filter(user=USER).values_list("view"),
        User.objects.filter(pk=USER).values_list("is_staff", "is_superuser"),
    ]


def runs_of_all_stages(permissions: Permissions) -> Querysets:
    """The runs of the Now page that the user may view: in flight, aborted here, failed."""
    visible = in_flight.visible_runs(permissions)
    last_day, just_now = NOW - acknowledgement_rules.MAX_FAILURE_AGE, NOW - attention.FAILURE_WINDOW
    failures = visible.filter(status="failure", concluded=True, ended_at__gt=last_day)
    aborts = Abort.objects.filter(
        permissions.stage_filter("run__stage"), requested_at__gt=NOW - in_flight.ABORTED_WINDOW
    )
    return [
        visible.in_flight().values_list(Count(), Max("version"), _due_approvals()),
        failures.values_list(Count(), Max("version"), count_if(Q(ended_at__gt=just_now))),
        aborts.values_list(Count(), Max("run__version")),
    ]


def listed_stages(permissions: Permissions) -> Querysets:
    """The stages that the user may view: which there are, and how far they can be read.

    Of the stages with runs in flight, each of their reads counts.
    """
    stages = Stage.objects.listed().filter(permissions.stage_filter())
    is_stale = Q(fresh_until__lt=NOW - freshness.GRACE)
    # Without runs in flight, Now is as old as the oldest stage.
    with_flow_synced_at = Case(When(~Q(has_flow=False), then=F("synced_at")))
    has_flow, names = ~Q(has_flow=False), FIRST_READ_ORDER
    stages_in_flight = in_flight.visible_runs(permissions).in_flight().order_by().values("stage")
    catalog_lists = lookup.visible_catalog_lists(permissions)
    return [
        stages.values_list(
            *_fingerprint(Q()),
            *_fingerprint(Q(has_flow=True)),
            *_fingerprint(Q(has_flow=False)),
            *_fingerprint(Q(synced_at=None)),
            *_fingerprint(is_stale),
            *_fingerprint(~Q(error="")),
            *_fingerprint(~Q(omitted_by_page={})),
            Min("synced_at"),
            Min(with_flow_synced_at),
            *(Max(Case(When(has_flow & Q(name=name), then=totals.INTERVAL))) for name in names),
        ),
        stages.filter(pk__in=stages_in_flight).values_list(
            Texts(joined("pk", "synced_at", "fresh_until", "concurrency_policy"))
        ),
        catalog_lists.values_list(
            Count(),
            count_if(Q(synced_at=None)),
            count_if(~Q(error="")),
            count_if(~Q(omitted_by_page={})),
        ),
    ]


def newest_aborts(permissions: Permissions, per_page: int) -> Querysets:
    """The newest aborts that the user may view, and the projects by which they can be filtered."""
    visible = Abort.objects.filter(permissions.stage_filter("run__stage")).order_by("-pk")
    first = Coalesce(Subquery(visible.values("pk")[per_page : per_page + 1]), Value(0))
    return [
        visible.order_by().filter(pk__gte=first).values_list(
            Count(), Max("pk"), Max("run__version"), count_if(Q(settled_at=None))
        ),
        Project.objects.values_list(Texts(joined("pk", "slug", "name"))),
        Stage.objects.values_list(Max("pk")),  # a project is offered once it has a stage
    ]  # fmt: skip


def _due_approvals() -> Sum:
    return count_if(Q(approval_since__lte=NOW - attention.APPROVAL_PATIENCE))


def _fingerprint(condition: Q) -> tuple[Sum, Sum]:
    """Return two sums that hardly ever agree for two sets of rows that meet a condition."""
    key = Case(When(condition, then=F("pk")), default=0) if condition else F("pk")
    return Sum(key), Sum(key * key)
