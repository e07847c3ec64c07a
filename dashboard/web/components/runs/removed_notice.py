"""Notices on pages about projects, pipelines and runs that were removed from Northflank."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext_lazy

from dashboard.models import Pipeline, Run
from dashboard.runs import removals
from dashboard.texts.rich_text import Message, MessageTable

_text = MessageTable(
    {
        "project": gettext_lazy("Project “%(project)s” was removed from Northflank."),
        "pipeline": gettext_lazy("Pipeline “%(pipeline)s” was removed from Northflank."),
        "run": gettext_lazy("This run was removed from Northflank."),
    }
)


@dataclass(frozen=True, slots=True)
class RemovedNotice:
    """A sentence about what was removed or is not read, and when that was detected."""

    text: Message
    noticed_at: datetime


def for_pipeline(pipeline: Pipeline) -> RemovedNotice | None:
    """Return the notice for a removed project or pipeline, or None if neither was removed.

    A project that the settings leave out counts as removed; the notice then names the setting.
    """
    project = pipeline.project
    if project.removed_at is not None:
        text = removals.not_read_reason(pipeline) or _text("project", project=str(project))
        return RemovedNotice(text, project.removed_at)
    if pipeline.removed_at is not None:
        return RemovedNotice(_text("pipeline", pipeline=str(pipeline)), pipeline.removed_at)
    return None


def for_run(run: Run) -> RemovedNotice | None:
    """Return the notice for a run's removed project or pipeline, or the removed run, or None."""
    pipeline_notice = for_pipeline(run.stage.pipeline)
    if pipeline_notice is not None or run.removed_at is None:
        return pipeline_notice
    return RemovedNotice(_text("run"), run.removed_at)
