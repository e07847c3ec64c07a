"""What Northflank has no more: what is kept of it is shown with since when that is so."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard.models import Pipeline, Run


@dataclass(frozen=True, slots=True)
class RemovedNotice:
    """What has gone, in a sentence, and when that was noticed."""

    text: str
    noticed_at: datetime


def for_pipeline(pipeline: Pipeline) -> RemovedNotice | None:
    """Return what has gone: the project, the pipeline, or nothing."""
    project = pipeline.project
    if project.removed_at is not None:
        text = _("Northflank no longer lists project “%(project)s”.") % {"project": project}
        return RemovedNotice(text, project.removed_at)
    if pipeline.removed_at is not None:
        text = _("Northflank no longer lists pipeline “%(pipeline)s”.") % {"pipeline": pipeline}
        return RemovedNotice(text, pipeline.removed_at)
    return None


def for_run(run: Run) -> RemovedNotice | None:
    """Return what has gone: the place of a run, the run itself, or nothing."""
    pipeline_notice = for_pipeline(run.stage.pipeline)
    if pipeline_notice is not None or run.removed_at is None:
        return pipeline_notice
    return RemovedNotice(_("Northflank no longer knows this run."), run.removed_at)
