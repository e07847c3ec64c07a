"""Projects, pipelines and stages: listed rarely, followed without losing history."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from dashboard.models import CatalogueSweep, Pipeline, Project, Stage
from dashboard.models.catalog import StageName
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.northflank import Project as ApiProject
from dashboard.northflank import ReleaseFlow
from dashboard.sync import mirror

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # a long list is several questions


def begin(now: datetime) -> None:
    """Have the projects listed now, where they never were."""
    CatalogueSweep.objects.get_or_create(project=None, defaults={"next_at": now})


def projects(said: Sequence[ApiProject], *, now: datetime) -> None:
    """Mirror the list of projects; one that is missing is gone, with its history kept."""
    wanted = set(settings.NORTHFLANK_PROJECTS)
    kept = [project for project in said if not wanted or project.id in wanted]
    for name in wanted - {project.id for project in said}:
        log.warning("catalogue.project_not_listed", project=name)
    with transaction.atomic():
        for api in kept:
            project, _ = Project.objects.update_or_create(
                slug=api.id,
                defaults={"name": api.name or api.id, "seen_at": now, "gone_at": None},
            )
            CatalogueSweep.objects.get_or_create(project=project, defaults={"next_at": now})
        gone = Project.objects.filter(gone_at=None).exclude(slug__in=[api.id for api in kept])
        for project in gone:
            log.info("catalogue.project_gone", project=project.slug)
        if gone.update(gone_at=now):
            mirror.gone_with_its_place(now)


def pipelines(project: Project, said: Sequence[ApiPipeline], *, now: datetime) -> None:
    """Mirror one project's pipelines, each with its three stages."""
    with transaction.atomic():
        for api in said:
            pipeline, created = Pipeline.objects.update_or_create(
                project=project,
                slug=api.id,
                defaults={
                    "name": api.name or api.id,
                    "description": api.description or "",
                    "seen_at": now,
                    "gone_at": None,
                },
            )
            if created:
                # No list says which stages have a release flow: each of the three is asked.
                Stage.objects.bulk_create(
                    Stage(pipeline=pipeline, name=name, next_sync_at=now) for name in StageName
                )
        gone = project.pipelines.filter(gone_at=None).exclude(slug__in=[api.id for api in said])
        for pipeline in gone:
            log.info("catalogue.pipeline_gone", project=project.slug, pipeline=pipeline.slug)
        if gone.update(gone_at=now):
            mirror.gone_with_its_place(now)


def release_flow(stage_pk: int, found: tuple[ReleaseFlow, str] | None, *, now: datetime) -> None:
    """Mirror what is known of a stage's release flow; None: it has none."""
    if found is None:
        Stage.objects.filter(pk=stage_pk).update(has_flow=False, flow_seen_at=now)
        return
    flow, spelling = found
    Stage.objects.filter(pk=stage_pk).update(
        has_flow=True,
        path=spelling,
        concurrency_policy=flow.concurrency_policy or "",
        paused=flow.paused,
        flow_seen_at=now,
    )


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
    due = never_read().filter(next_at__lte=now).order_by("next_at", "pk")
    return [
        sweep
        for sweep in due.select_related("project")[:limit]
        if CatalogueSweep.objects.filter(pk=sweep.pk, next_at=sweep.next_at).update(
            next_at=now + LEASE
        )
    ]


def never_read() -> QuerySet[CatalogueSweep]:
    """Return the lists of the catalogue, of what is not gone, that were never read."""
    return CatalogueSweep.objects.filter(Q(project=None) | Q(project__gone_at=None), swept_at=None)


def hurry(now: datetime, every: timedelta) -> None:
    """Make due what was last listed longer than `every` ago, and was booked under a poorer plan."""
    CatalogueSweep.objects.filter(
        next_at__gt=now + LEASE, swept_at__lt=now - every, failures=0
    ).update(next_at=now)
