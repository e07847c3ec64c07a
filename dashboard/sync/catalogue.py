"""Projects, pipelines and stages: listed rarely, followed without losing history."""

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from dashboard.models import CatalogueSweep, ChangeCounter, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.northflank import Page, ReleaseFlow
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.northflank import Project as ApiProject
from dashboard.sync import mirror

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # a long list is several questions
APART = timedelta(minutes=5)  # two complete lists that lack what is gone are at least so far apart


def begin(now: datetime) -> None:
    """Have the projects listed now, where they never were."""
    CatalogueSweep.objects.get_or_create(project=None, defaults={"next_at": now})


def projects(said: Page[ApiProject], *, now: datetime, asked_seq: int | None = None) -> bool:
    """Mirror the list of projects; one that is gone keeps its history.

    Gone is what two complete lists lack, some time apart; return whether the second is awaited.
    """
    wanted = set(settings.NORTHFLANK_PROJECTS)
    listed = {project.id for project in said.items}
    kept = [project for project in said.items if not wanted or project.id in wanted]
    for name in wanted - listed:
        log.warning("catalogue.project_not_listed", project=name)
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the counter first, as all writers
        back = _back(Project.objects.filter(slug__in=[api.id for api in kept]))
        for api in kept:
            project, _ = Project.objects.update_or_create(
                slug=api.id,
                defaults={
                    "name": api.name or api.id,
                    "seen_at": now,
                    "missing_at": None,
                    "gone_at": None,
                },
            )
            CatalogueSweep.objects.get_or_create(project=project, defaults={"next_at": now})
        mirror.look_again(Stage.objects.filter(pipeline__project__in=back), now)
        if wanted:
            _leave(Project.objects.filter(gone_at=None).exclude(slug__in=wanted), now)
        return _miss(Project.objects.exclude(slug__in=listed), said, now, asked_seq)


def pipelines(
    project: Project,
    said: Page[ApiPipeline],
    *,
    now: datetime,
    asked_seq: int | None = None,
) -> bool:
    """Mirror one project's pipelines, each with its three stages, and return as `projects` does."""
    listed = [api.id for api in said.items]
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the counter first, as all writers
        back = _back(project.pipelines.filter(slug__in=listed))
        for api in said.items:
            pipeline, created = Pipeline.objects.update_or_create(
                project=project,
                slug=api.id,
                defaults={
                    "name": api.name or api.id,
                    "description": api.description or "",
                    "seen_at": now,
                    "missing_at": None,
                    "gone_at": None,
                },
            )
            if created:
                # No list says which stages have a release flow: each of the three is asked.
                Stage.objects.bulk_create(
                    Stage(pipeline=pipeline, name=name, next_sync_at=now) for name in StageName
                )
        mirror.look_again(Stage.objects.filter(pipeline__in=back), now)
        return _miss(project.pipelines.exclude(slug__in=listed), said, now, asked_seq)


def _back(listed: QuerySet[Any]) -> list[int]:
    """Return the keys of what is listed and was gone."""
    return list(listed.exclude(gone_at=None).values_list("pk", flat=True))


def _leave(projects_: QuerySet[Project], now: datetime) -> None:
    """Read no more of projects that the settings no longer name."""
    left = list(projects_.values_list("pk", flat=True))
    if left:
        Project.objects.filter(pk__in=left).update(gone_at=now)
        mirror.leave(Run.objects.filter(stage__pipeline__project__in=left), now)


def _miss(lacking: QuerySet[Any], said: Page[Any], now: datetime, asked_seq: int | None) -> bool:
    """Note what a list lacks, and what has gone by that; return whether a second look is due."""
    if not said.complete:
        return False
    missing = lacking.filter(gone_at=None)
    gone = list(missing.filter(missing_at__lte=now - APART))
    for each in gone:
        log.info("catalogue.gone", what=each._meta.model_name, of=str(each), slug=each.slug)
    missing.filter(pk__in=[each.pk for each in gone]).update(gone_at=now)
    if gone:
        mirror.gone_with_its_place(now, asked_seq)
    missing.filter(missing_at=None).update(missing_at=now)
    return missing.exists()


def release_flow(stage_pk: int, found: tuple[ReleaseFlow, str] | None, *, now: datetime) -> None:
    """Mirror what is known of a stage's release flow; None: it has none."""
    if found is None:
        Stage.objects.filter(pk=stage_pk).update(
            has_flow=False, flow_seen_at=now, in_flight_unread=False
        )
        mirror.look_again(Stage.objects.filter(pk=stage_pk), now)
        return
    flow, spelling = found
    Stage.objects.filter(pk=stage_pk).update(
        has_flow=True,
        missing_at=None,
        path=spelling,
        concurrency_policy=flow.concurrency_policy or "",
        paused=flow.paused,
        flow_seen_at=now,
    )


def miss_flow(stage_pk: int, now: datetime) -> bool:
    """Note that Northflank knows a stage's release flow no more; return whether that is believed.

    It is by a second answer, some time after the first: one may be of a gateway in trouble.
    """
    this = Stage.objects.filter(pk=stage_pk)
    this.filter(missing_at=None).update(missing_at=now)
    return this.filter(missing_at__lte=now - APART).exists()


def flow_was_looked_for(stage_pk: int, now: datetime) -> None:
    """Note that nothing new was learned of a stage's release flow."""
    Stage.objects.filter(pk=stage_pk).update(flow_seen_at=now, missing_at=None)


def claim_due(now: datetime) -> CatalogueSweep | None:
    """Claim one sweep that is due, or None; the claim falls due again if its holder dies."""
    due = CatalogueSweep.objects.filter(
        Q(project=None) | Q(project__gone_at=None), next_at__lte=now
    ).order_by("next_at", "pk")
    for sweep in due.select_related("project")[:5]:
        claimed = CatalogueSweep.objects.filter(pk=sweep.pk, next_at=sweep.next_at)
        if claimed.update(next_at=now + LEASE):
            return sweep
    return None


def claim_first(now: datetime, limit: int) -> list[CatalogueSweep]:
    """Claim up to `limit` lists that are due and were never read."""
    if limit <= 0:
        return []
    due = CatalogueSweep.objects.never_read().filter(next_at__lte=now).order_by("next_at", "pk")
    return [
        sweep
        for sweep in due.select_related("project")[:limit]
        if CatalogueSweep.objects.filter(pk=sweep.pk, next_at=sweep.next_at).update(
            next_at=now + LEASE
        )
    ]


def hurry(now: datetime, every: timedelta) -> None:
    """Make due what was last listed longer than `every` ago, and was booked under a poorer plan."""
    CatalogueSweep.objects.filter(
        next_at__gt=now + LEASE, swept_at__lt=now - every, failures=0
    ).update(next_at=now)
