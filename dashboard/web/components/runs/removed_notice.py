"""Notices on pages about projects, pipelines and runs that were removed from Northflank."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext_lazy

from dashboard.models import Pipeline, Run
from dashboard.texts.rich_text import Message, MessageTable

_text = MessageTable(
    {
        "project": gettext_lazy("Northflank no longer lists project “%(project)s”."),
        "pipeline": gettext_lazy("Northflank no longer lists pipeline “%(pipeline)s”."),
        "run": gettext_lazy("Northflank no longer lists this run."),
    }
)


@dataclass(frozen=True, slots=True)
class RemovedNotice:
    """A sentence about what was removed, and when the removal was detected."""

    text: Message
    noticed_at: datetime


def for_pipeline(pipeline: Pipeline) -> RemovedNotice | None:
    """Return the notice for a removed project or pipeline, or None if neither was removed."""
    project = pipeline.project
    if project.removed_at is not None:
        return RemovedNotice(_text("project", project=str(project)), project.removed_at)
    if pipeline.removed_at is not None:
        return RemovedNotice(_text("pipeline", pipeline=str(pipeline)), pipeline.removed_at)
    return None


def for_run(run: Run) -> RemovedNotice | None:
    """Return the notice for a run's removed project or pipeline, or the removed run, or None."""
    pipeline_notice = for_pipeline(run.stage.pipeline)
    if pipeline_notice is not None or run.removed_at is None:
        return pipeline_notice
    return RemovedNotice(_text("run"), run.removed_at)
