"""Mirror projects, pipelines and stages; removed ones keep their history."""

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from dashboard.models import CatalogSync, ChangeCounter, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.northflank import Page, ReleaseFlow
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.northflank import Project as ApiProject
from dashboard.sync import mirror

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # a long list takes several requests
# An entry is removed once two complete lists at least this far apart lack it.
REMOVAL_CONFIRMATION_TIME = timedelta(minutes=5)


def start(now: datetime) -> None:
    """Schedule the first list of projects if there was none yet."""
    CatalogSync.objects.get_or_create(project=None, defaults={"next_sync_at": now})


def mirror_projects(
    page: Page[ApiProject], *, now: datetime, request_seq: int | None = None
) -> bool:
    """Mirror the list of projects; return whether a second list must confirm missing ones.

    A project is removed once two complete lists, REMOVAL_CONFIRMATION_TIME apart, lack it. Projects
    outside the setting NORTHFLANK_PROJECTS are removed at once.
    """
    configured = set(settings.NORTHFLANK_PROJECTS)
    listed_ids = {project.id for project in page.items}
    api_projects = [project for project in page.items if not configured or project.id in configured]
    for name in configured - listed_ids:
        log.warning("catalog.project_not_listed", project=name)
    with transaction.atomic():
        ChangeCounter.reserve(0)  # locked first, as by all writers
        reappeared = _reappeared_keys(
            Project.objects.filter(slug__in=[api.id for api in api_projects])
        )
        for api_project in api_projects:
            fields: dict[str, Any] = {"synced_at": now, "missing_since": None, "removed_at": None}
            if api_project.name is not None:  # else the known name stays
                fields["name"] = api_project.name
            project, _ = Project.objects.update_or_create(
                slug=api_project.id,
                defaults=fields,
                create_defaults={"name": api_project.id} | fields,
            )
            CatalogSync.objects.get_or_create(project=project, defaults={"next_sync_at": now})
        mirror.schedule_reread(Stage.objects.filter(pipeline__project__in=reappeared), now)
        if configured:
            _remove_projects(
                Project.objects.filter(removed_at=None).exclude(slug__in=configured), now
            )
        return _mark_missing(Project.objects.exclude(slug__in=listed_ids), page, now, request_seq)


def mirror_pipelines(
    project: Project,
    page: Page[ApiPipeline],
    *,
    now: datetime,
    request_seq: int | None = None,
) -> bool:
    """Mirror one project's pipelines, each with three stages; return like `mirror_projects`."""
    listed_ids = [api.id for api in page.items]
    with transaction.atomic():
        ChangeCounter.reserve(0)  # locked first, as by all writers
        reappeared = _reappeared_keys(project.pipelines.filter(slug__in=listed_ids))
        for api_pipeline in page.items:
            fields: dict[str, Any] = {"synced_at": now, "missing_since": None, "removed_at": None}
            if api_pipeline.name is not None:  # else what is known stays
                fields["name"] = api_pipeline.name
                if api_pipeline.description is not None:
                    fields["description"] = api_pipeline.description
            pipeline, is_new = Pipeline.objects.update_or_create(
                project=project,
                slug=api_pipeline.id,
                defaults=fields,
                create_defaults={"name": api_pipeline.id} | fields,
            )
            if is_new:
                # No list shows which stages have a release flow: each of the three is read.
                Stage.objects.bulk_create(
                    Stage(pipeline=pipeline, name=name, next_sync_at=now) for name in StageName
                )
        mirror.schedule_reread(Stage.objects.filter(pipeline__in=reappeared), now)
        return _mark_missing(project.pipelines.exclude(slug__in=listed_ids), page, now, request_seq)


def _reappeared_keys(entries: QuerySet[Any]) -> list[int]:
    """Return the keys of the entries that were marked as removed."""
    return list(entries.exclude(removed_at=None).values_list("pk", flat=True))


def _remove_projects(removed_projects: QuerySet[Project], now: datetime) -> None:
    """Remove projects that the settings no longer include, and stop tracking their runs."""
    project_keys = list(removed_projects.values_list("pk", flat=True))
    if project_keys:
        Project.objects.filter(pk__in=project_keys).update(removed_at=now)
        mirror.stop_tracking(Run.objects.filter(stage__pipeline__project__in=project_keys), now)


def _mark_missing(
    unlisted: QuerySet[Any], page: Page[Any], now: datetime, request_seq: int | None
) -> bool:
    """Mark entries missing from a complete list; return whether any awaits confirmation."""
    if not page.is_complete:
        return False
    missing = unlisted.filter(removed_at=None)
    removed = list(missing.filter(missing_since__lte=now - REMOVAL_CONFIRMATION_TIME))
    for entry in removed:
        log.info("catalog.removed", kind=entry._meta.model_name, name=str(entry), slug=entry.slug)
    missing.filter(pk__in=[entry.pk for entry in removed]).update(removed_at=now)
    if removed:
        mirror.mark_orphaned(now, request_seq)
    missing.filter(missing_since=None).update(missing_since=now)
    return missing.exists()


def mirror_release_flow(
    stage_pk: int, flow_and_segment: tuple[ReleaseFlow, str] | None, *, now: datetime
) -> None:
    """Mirror a stage's release flow and path segment; None means that it has no flow."""
    if flow_and_segment is None:
        Stage.objects.filter(pk=stage_pk).update(
            has_flow=False, flow_synced_at=now, in_flight_incomplete=False, omitted_by_page={}
        )
        mirror.schedule_reread(Stage.objects.filter(pk=stage_pk), now)
        return
    flow, path_segment = flow_and_segment
    updates: dict[str, Any] = {"concurrency_policy": flow.concurrency_policy, "paused": flow.paused}
    Stage.objects.filter(pk=stage_pk).update(
        has_flow=True,
        missing_since=None,
        confirmed_path_segment=path_segment,
        flow_synced_at=now,
        # What an answer lacks, or has in another type, stays as it was.
        **{name: value for name, value in updates.items() if value is not None},
    )


def mark_flow_missing(stage_pk: int, now: datetime) -> bool:
    """Record that a stage's release flow was not found; return whether this is confirmed.

    A second answer, REMOVAL_CONFIRMATION_TIME after the first, confirms it: a single 404 may come
    from a failing gateway.
    """
    stage = Stage.objects.filter(pk=stage_pk)
    stage.filter(missing_since=None).update(missing_since=now)
    return stage.filter(missing_since__lte=now - REMOVAL_CONFIRMATION_TIME).exists()


def mark_flow_checked(stage_pk: int, now: datetime) -> None:
    """Record that a stage's release flow was checked and has not changed."""
    Stage.objects.filter(pk=stage_pk).update(flow_synced_at=now, missing_since=None)


def claim_due(now: datetime) -> CatalogSync | None:
    """Lease one due catalog list, or return None; it is due again if its worker dies."""
    for catalog_sync in CatalogSync.objects.due(now).select_related("project")[:5]:
        unleased = CatalogSync.objects.filter(
            pk=catalog_sync.pk, next_sync_at=catalog_sync.next_sync_at
        )
        if unleased.update(next_sync_at=now + LEASE):
            return catalog_sync
    return None


def claim_first_reads(now: datetime, limit: int) -> list[CatalogSync]:
    """Lease up to `limit` due catalog lists that were never read."""
    if limit <= 0:
        return []
    due = CatalogSync.objects.never_synced().due(now)
    return [
        catalog_sync
        for catalog_sync in due.select_related("project")[:limit]
        if CatalogSync.objects.filter(
            pk=catalog_sync.pk, next_sync_at=catalog_sync.next_sync_at
        ).update(next_sync_at=now + LEASE)
    ]


def refresh_now(now: datetime, interval: timedelta) -> None:
    """Make lists older than `interval` due now, even if an earlier plan scheduled them later."""
    CatalogSync.objects.filter(
        next_sync_at__gt=now + LEASE, synced_at__lt=now - interval, failures=0
    ).update(next_sync_at=now)
