"""The dismissals of a removed run, and the button to dismiss or restore it."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permission
from dashboard.models import Dismissal, Run
from dashboard.runs import dismissals, removals


@dataclass(frozen=True, slots=True)
class DismissalPanel:
    """A run's dismissals, and what the user may do."""

    entries: list[Dismissal]
    action_label: str  # of the button; empty: nothing to do, or not allowed


def panel(run: Run, permission: Permission) -> DismissalPanel | None:
    """Return the panel of a run, or None if there is nothing to show or to dismiss."""
    entries = list(run.dismissals.all()) if run.removed_at else []
    is_dismissible = dismissals.is_dismissible(run)
    if not entries and not is_dismissible:
        return None
    if not permission.allowed:
        return DismissalPanel(entries, "")
    if is_dismissible:
        return DismissalPanel(entries, _("Dismiss"))
    is_restorable = any(dismissal.restored_at is None for dismissal in entries)
    if removals.not_read_reason(run.stage.pipeline):
        is_restorable = False
    return DismissalPanel(entries, _("Restore") if is_restorable else "")
