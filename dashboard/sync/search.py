"""What the reading process does for links and searches, ahead of the plan.

A link names a run's stage: one request for its detail. A search has only the id. Northflank finds a
run only within its stage, so the lists of the stages are read: one read answers every id that is
sought, and is that stage's read in the plan, so that a search repeats nothing. After
`SEARCH_AHEAD` or so many reads a search continues as the plan goes.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cache

import structlog
from django.db.models import Case, Exists, F, OuterRef, Q, When

from dashboard.db import expressions
from dashboard.db.prepared import NOW, PreparedQuery
from dashboard.models import ReadRequest, Run, Stage
from dashboard.models.catalog import StageName, StageQuerySet
from dashboard.upstream import budget_store

log = structlog.get_logger(__name__)

HOUR = timedelta(hours=1)
# Stages read ahead for all searches in an hour, and at most this share of the rate limit: however
# many invented ids are opened, the plan has the rest.
MAX_READS, MAX_READS_SHARE = 300, 0.3


def remaining_reads(moment: datetime) -> int:
    """Return how many stages may still be read ahead for searches in this hour."""
    ((used,),) = _usage_query().fetch(now=moment)
    most = min(MAX_READS, round(MAX_READS_SHARE * budget_store.load_limit()))
    return max(most - (used or 0), 0)


@cache
def _usage_query() -> PreparedQuery:
    recent = ReadRequest.objects.searches().filter(requested_at__gt=NOW - HOUR)
    return PreparedQuery(recent.values_list(expressions.Sum("reads")))


def searchable(keys: Collection[int]) -> StageQuerySet:
    """Return those of these stages that may have runs."""
    return Stage.objects.listed().filter(pk__in=keys).exclude(has_flow=False)


def is_searched(stage: Stage, request: ReadRequest) -> bool:
    """Return whether a stage was read since the search for a run began."""
    return stage.synced_at is not None and stage.synced_at >= request.requested_at


def next_stages(moment: datetime, limit: int, being_read: Collection[int]) -> Sequence[Stage]:
    """Return up to `limit` stages to read now for searches, and count these reads.

    Those with runs in flight come first, then Production, then those read least recently.
    """
    limit = min(limit, remaining_reads(moment)) if limit > 0 else 0
    pending = ReadRequest.objects.pending(moment).searches().order_by("requested_at")
    searches = list(pending) if limit > 0 else []
    if not searches:
        return []
    keys = {key for row in searches for key in row.stages}.difference(being_read)
    is_old = Q(synced_at=None) | Q(synced_at__lt=searches[-1].requested_at)
    in_flight = Exists(Run.objects.tracked().filter(stage=OuterRef("pk")))
    order = Case(When(in_flight, then=0), When(name=StageName.PRODUCTION, then=1), default=2)
    stages = searchable(keys).filter(is_old, failures=0).select_related("pipeline__project")
    stages = stages.order_by(order, F("synced_at").asc(nulls_first=True), "pk")
    chosen = list(stages[:limit])
    first = ReadRequest.objects.filter(pk=searches[0].pk)  # of all that may want them
    first.update(reads=F("reads") + len(chosen))
    return chosen


def unanswered_links(
    moment: datetime, limit: int, being_answered: Collection[int]
) -> Sequence[ReadRequest]:
    """Return up to `limit` links that somebody waits for and that are not being answered."""
    links = ReadRequest.objects.pending(moment).links().exclude(pk__in=being_answered)
    return list(links.select_related("stage__pipeline__project").order_by("requested_at")[:limit])
