"""Why a project is not read, and why it is unknown whether one of its runs has ended."""

from django.conf import settings
from django.utils.translation import gettext_lazy

from dashboard.models import Pipeline, Run
from dashboard.texts.rich_text import Message, MessageTable

_text = MessageTable(
    {
        "not_configured": gettext_lazy(
            "This dashboard no longer follows project “%(project)s” (NORTHFLANK_PROJECTS)."
        ),
        "dismissed": gettext_lazy(
            "Removed from Northflank and from the list; its end is unknown. "
            "Restore the run to abort it."
        ),
        # Its project was not in NORTHFLANK_PROJECTS for a time; it can be neither dismissed nor
        # restored.
        "removed": gettext_lazy("Removed from Northflank; its end is unknown."),
    }
)


def not_read_reason(pipeline: Pipeline) -> Message | None:
    """Return why a pipeline's project is not read; None if the settings include it.

    Northflank may list one that they leave out; its runs count as removed all the same.
    """
    configured = settings.NORTHFLANK_PROJECTS
    if not configured or pipeline.project.slug in configured:
        return None
    return _text("not_configured", project=pipeline.project.slug)


def unknown_end_reason(run: Run) -> Message:
    """Return why it is unknown how `run`, which is not in flight and has not concluded, ended.

    `run` is loaded with its stage. If it can be restored, the text says so.
    """
    if reason := not_read_reason(run.stage.pipeline):
        return reason
    return _text("dismissed" if run.dismissals.open().exists() else "removed")
