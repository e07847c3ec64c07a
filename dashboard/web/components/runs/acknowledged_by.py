"""Acknowledgements of a run, for rows and for the run's page with its acknowledgement form."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.models import Acknowledgement, Run
from dashboard.runs.acknowledgements import can_be_acknowledged
from dashboard.texts.rich_text import ExternalText


def names(acknowledgements: Iterable[Acknowledgement]) -> str:
    """Return the users' names on one line; empty if there are none."""
    return ", ".join(ExternalText(acknowledgement.username) for acknowledgement in acknowledgements)


def active(acknowledgements: Iterable[Acknowledgement]) -> list[Acknowledgement]:
    """Return those that have not ended."""
    return [item for item in acknowledgements if item.ended_at is None]


def panel(
    run: Run, url: str, acknowledgements: Sequence[Acknowledgement], now: datetime
) -> dict[str, Any] | None:
    """Return the acknowledgements on a run's page, or None if there is nothing to show or to do.

    They are template context, the same for all users who may see the run.

    `acknowledgements` are the run's active and ended ones, in the order of their creation.
    """
    current = active(acknowledgements)
    previous = [item for item in reversed(acknowledgements) if item.ended_at is not None]
    has_actions = bool(current) or can_be_acknowledged(run, now)
    if not has_actions and not previous:
        return None
    # A new id when the available actions change: the stream sends the element without a form,
    # since the form differs per user, and the page then fetches it (run.html).
    state = "-".join(str(acknowledgement.pk) for acknowledgement in current) or "nobody"
    return {
        "id": f"acknowledgements-{state}",
        "url": url,
        "current": current,
        "previous": previous,
        "has_actions": has_actions,
    }


def actions(
    run: Run, user_id: int, permissions: Permissions, acknowledgements: Sequence[Acknowledgement]
) -> dict[str, Any] | None:
    """Return the form of a user, given by key, or None if they may not acknowledge the run."""
    if not permissions.acknowledge_permission(run.stage).allowed:
        return None
    current = active(acknowledgements)
    others = [acknowledgement for acknowledgement in current if acknowledgement.user_id != user_id]
    return {
        "is_acknowledged": len(others) < len(current),
        "acknowledge_label": _("Acknowledge too") if others else _("Acknowledge"),
        "take_over_keys": [acknowledgement.pk for acknowledgement in others],
        "take_over_from": names(others),
    }
