"""What a tab is called: the worst of what the page shows comes first, where tabs cut last."""

from collections.abc import Iterable

from django.utils.translation import gettext as _

from dashboard import statuses
from dashboard.models import Pipeline, Run, Stage


def now(in_flight: int, run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of everything in flight; `blind`: Northflank can't be read."""
    return _led_by(_("Now (%(count)d)") % {"count": in_flight}, run_statuses, blind=blind)


def board(run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of all pipelines."""
    return _led_by(_("Board"), run_statuses, blind=blind)


def pipeline(of: Pipeline, run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of a pipeline, some of whose runs are in flight."""
    return _led_by(str(of), run_statuses, blind=blind)


def stage(of: Stage, run_statuses: Iterable[str], *, blind: bool) -> str:
    """Name the page of a stage, some of whose runs are in flight."""
    return _led_by(f"{of.pipeline} / {of.name}", run_statuses, blind=blind)


def run(of: Run, *, blind: bool) -> str:
    """Name the page of one run; one that has ended stays as it is, whether we can see or not."""
    name = f"{statuses.of_run(of.status).word}: {of.title}"
    return _led_by(name, (), blind=blind and of.in_flight)


def status(*, blind: bool) -> str:
    """Name the page of the mirror's state."""
    return _led_by(_("Status"), (), blind=blind)


def _led_by(name: str, run_statuses: Iterable[str], *, blind: bool) -> str:
    if blind:
        return _("Can’t see · %(page)s") % {"page": name}
    worst = statuses.most_urgent(run_statuses)
    return f"{worst.word} · {name}" if worst else name
