"""Names in headings and tab titles, where Northflank's may be long, or missing."""

from django.utils.translation import gettext as _

from dashboard.models import Run

MAX_LENGTH = 120  # characters: five lines on a phone


def cut(name: str) -> str:
    """Return a name of at most MAX_LENGTH characters; the end of a longer one becomes “…”."""
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 1]}…"


def run_title(run: Run) -> str:
    """Return the name of a run or, if it has none, the beginning of its id as one."""
    return run.name or _("Run %(id)s") % {"id": run.run_id[:8]}
