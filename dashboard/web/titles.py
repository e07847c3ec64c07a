"""What a tab is called: the worst of what the page shows comes first, where tabs cut last."""

from collections.abc import Iterable

from django.utils.translation import gettext as _

from dashboard import statuses
from dashboard.models import Run, Stage


def now(in_flight: int, run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of everything in flight; `blind`: Northflank can't be read."""
    return _led_by(_("Now (%(count)d)") % {"count": in_flight}, run_statuses, blind=blind)


def stage(of: Stage, run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of a stage, some of whose runs are in flight."""
    return _led_by(f"{of.pipeline} / {of.name}", run_statuses, blind=blind)


def run(of: Run) -> str:
    """Name the page of one run."""
    return f"{statuses.of_run(of.status).word}: {of.title}"


def _led_by(name: str, run_statuses: Iterable[str], *, blind: bool) -> str:
    if blind:
        return _("Can’t see · %(page)s") % {"page": name}
    worst = statuses.most_urgent(run_statuses)
    return f"{worst.word} · {name}" if worst else name
