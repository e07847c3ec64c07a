"""Mirror projects, pipelines and stages; removed ones keep their history."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, QuerySet, Value
from django.db.models.functions import Coalesce

from dashboard.db.prepared import NOW, Parameter, PreparedUpdate, update_row
from dashboard.models import CatalogSync, ChangeCounter, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.northflank import Page, ReleaseFlow
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.northflank import Project as ApiProject
from dashboard.sync import missing_runs

log = structlog.get_logger(__name__)

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
        ChangeCounter.lock()
        fields_by_slug = {
            project.id: {} if project.name is None else {"name": project.name}
            for project in api_projects
        }
        reappeared, new_slugs = _update_entries(Project.objects.all(), fields_by_slug, now)
        Project.objects.bulk_create(
            Project(slug=slug, synced_at=now, **{"name": slug} | fields_by_slug[slug])
            for slug in new_slugs
        )
        CatalogSync.objects.bulk_create(
            CatalogSync(project=project, next_sync_at=now)
            for project in Project.objects.filter(slug__in=fields_by_slug, catalog_sync=None)
        )
        if reappeared:
            stages = Stage.objects.filter(pipeline__project__in=reappeared)
            missing_runs.schedule_reread(stages, now)
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
    fields_by_slug = {pipeline.id: _pipeline_fields(pipeline) for pipeline in page.items}
    with transaction.atomic():
        ChangeCounter.lock()
        reappeared, new_slugs = _update_entries(project.pipelines.all(), fields_by_slug, now)
        new_pipelines = Pipeline.objects.bulk_create(
            Pipeline(
                project=project, slug=slug, synced_at=now, **{"name": slug} | fields_by_slug[slug]
            )
            for slug in new_slugs
        )
        # No list shows which stages have a release flow: each of the three is read.
        Stage.objects.bulk_create(
            Stage(pipeline=pipeline, name=name, next_sync_at=now)
            for pipeline in new_pipelines
            for name in StageName
        )
        if reappeared:
            missing_runs.schedule_reread(Stage.objects.filter(pipeline__in=reappeared), now)
        unlisted = project.pipelines.exclude(slug__in=fields_by_slug)
        return _mark_missing(unlisted, page, now, request_seq)


def _pipeline_fields(api_pipeline: ApiPipeline) -> dict[str, str]:
    """Return the fields that a list contains; those that it lacks keep their values."""
    if api_pipeline.name is None:
        return {}
    return {"name": api_pipeline.name, "description": api_pipeline.description}


def _update_entries(
    entries: QuerySet[Any], fields_by_slug: Mapping[str, dict[str, str]], now: datetime
) -> tuple[list[int], list[str]]:
    """Update those of the entries that a list contains.

    Return the keys of those that were marked as removed, and the listed slugs that have no entry.
    """
    by_slug = {entry.slug: entry for entry in entries.filter(slug__in=fields_by_slug)}
    if by_slug:
        keys = [entry.pk for entry in by_slug.values()]
        entries.filter(pk__in=keys).update(synced_at=now, missing_since=None, removed_at=None)
    for slug, entry in by_slug.items():
        fields = fields_by_slug[slug]
        if any(getattr(entry, name) != value for name, value in fields.items()):
            update_row(type(entry), entry.pk, **fields)
    reappeared = [entry.pk for entry in by_slug.values() if entry.removed_at is not None]
    return reappeared, [slug for slug in fields_by_slug if slug not in by_slug]


def _remove_projects(removed_projects: QuerySet[Project], now: datetime) -> None:
    """Remove projects that the settings no longer include, and stop tracking their runs."""
    project_keys = list(removed_projects.values_list("pk", flat=True))
    if project_keys:
        Project.objects.filter(pk__in=project_keys).update(removed_at=now)
        runs = Run.objects.filter(stage__pipeline__project__in=project_keys)
        missing_runs.stop_tracking(runs, now)


def _mark_missing(
    unlisted: QuerySet[Any], page: Page[Any], now: datetime, request_seq: int | None
) -> bool:
    """Mark entries missing from a complete list; return whether any awaits confirmation."""
    if not page.is_complete:
        return False
    missing = list(unlisted.filter(removed_at=None))
    confirmed_at = now - REMOVAL_CONFIRMATION_TIME
    removed = [
        entry
        for entry in missing
        if entry.missing_since is not None and entry.missing_since <= confirmed_at
    ]
    for entry in removed:
        log.info("catalog.removed", kind=entry._meta.model_name, name=str(entry), slug=entry.slug)
        update_row(type(entry), entry.pk, removed_at=now)
    if removed:
        missing_runs.mark_orphaned(now, request_seq)
    for entry in missing:
        if entry.missing_since is None:
            update_row(type(entry), entry.pk, missing_since=now)
    return len(removed) < len(missing)


def mirror_release_flow(stage_pk: int, flow: ReleaseFlow | None, *, now: datetime) -> None:
    """Mirror a stage's release flow; None means that it has none."""
    if flow is None:
        Stage.objects.filter(pk=stage_pk).update(
            has_flow=False,
            missing_since=Coalesce("missing_since", Value(now)),
            flow_synced_at=now,
            in_flight_incomplete=False,
        )
        # No list shows its runs in flight any more. This is repeated at each check of the stage.
        missing_runs.schedule_reread(Stage.objects.filter(pk=stage_pk), now, with_dismissed=False)
        return
    updates: dict[str, Any] = {"concurrency_policy": flow.concurrency_policy, "paused": flow.paused}
    update_row(
        Stage,
        stage_pk,
        has_flow=True,
        missing_since=None,
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
    update_row(Stage, stage_pk, flow_synced_at=now, missing_since=None)


def refresh_now(now: datetime, interval: timedelta) -> None:
    """Make lists older than `interval` due now, even if an earlier plan scheduled them later."""
    _refresh().execute(now=now, read_before=now - interval)


@cache
def _refresh() -> PreparedUpdate:
    old_lists = CatalogSync.objects.filter(
        next_sync_at__gt=NOW,
        synced_at__lt=Parameter("read_before", DateTimeField()),
        failures=0,
    )
    return PreparedUpdate(old_lists, next_sync_at=NOW)
