"""What Northflank has no more: what is kept of it is shown with since when that is so."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard.models import Pipeline, Run


@dataclass(frozen=True, slots=True)
class Gone:
    """What has gone, in a sentence, and when that was noticed."""

    text: str
    since: datetime


def place(pipeline: Pipeline) -> Gone | None:
    """Return what has gone: the project, the pipeline, or nothing."""
    project = pipeline.project
    if project.gone_at is not None:
        text = _("Northflank no longer lists project “%(project)s”.") % {"project": project}
        return Gone(text, project.gone_at)
    if pipeline.gone_at is not None:
        text = _("Northflank no longer lists pipeline “%(pipeline)s”.") % {"pipeline": pipeline}
        return Gone(text, pipeline.gone_at)
    return None


def run(run: Run) -> Gone | None:
    """Return what has gone: the place of a run, the run itself, or nothing."""
    its_place = place(run.stage.pipeline)
    if its_place is not None or run.gone_at is None:
        return its_place
    return Gone(_("Northflank no longer knows this run."), run.gone_at)
