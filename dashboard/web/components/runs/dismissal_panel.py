"""The dismissals of a removed run, and the button to dismiss or restore it."""

from typing import Any

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permission
from dashboard.models import Run
from dashboard.runs import dismissals, removals


def panel(run: Run, permission: Permission) -> dict[str, Any] | None:
    """Return the panel of a run, as template context; None: nothing to show or to dismiss."""
    entries = list(run.dismissals.all()) if run.removed_at else []
    is_dismissible = dismissals.is_dismissible(run)
    if not entries and not is_dismissible:
        return None
    is_restorable = any(dismissal.restored_at is None for dismissal in entries)
    if not permission.allowed:
        label = ""
    elif is_dismissible:
        label = _("Remove from list")
    else:
        is_read = not removals.not_read_reason(run.stage.pipeline)
        label = _("Restore") if is_restorable and is_read else ""
    return {"entries": entries, "action_label": label}
