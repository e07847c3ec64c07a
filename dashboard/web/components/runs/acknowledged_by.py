"""Acknowledgements of a run, for rows and for the run's page with its acknowledgement form."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.models import Acknowledgement, Run
from dashboard.runs.acknowledgements import can_be_acknowledged
from dashboard.texts.rich_text import ExternalText

MAX_NAMES = 3  # users listed by name; the others are counted


@dataclass(frozen=True, slots=True)
class ActiveAcknowledgements:
    """The active acknowledgements: the first MAX_NAMES, and the number of others."""

    entries: Sequence[Acknowledgement]
    more_count: int

    @property
    def names(self) -> str:
        """The users' names on one line; empty if there are none."""
        names = ", ".join(ExternalText(entry.username) for entry in self.entries)
        if not self.more_count:
            return names
        return _("%(names)s and %(n)d more") % {"names": names, "n": self.more_count}


def active(acknowledgements: Sequence[Acknowledgement]) -> ActiveAcknowledgements | None:
    """Return the given active acknowledgements for templates, or None if there are none."""
    if not acknowledgements:
        return None
    return ActiveAcknowledgements(
        acknowledgements[:MAX_NAMES], max(len(acknowledgements) - MAX_NAMES, 0)
    )


def panel(
    run: Run, url: str, acknowledgements: Sequence[Acknowledgement], now: datetime
) -> dict[str, Any] | None:
    """Return the acknowledgements on a run's page, or None if there is nothing to show or to do.

    They are template context, the same for all users who may see the run.

    `acknowledgements` are the run's active and ended ones, in the order of their creation.
    """
    current = _current(acknowledgements)
    previous = [
        acknowledgement
        for acknowledgement in reversed(acknowledgements)
        if acknowledgement.ended_at is not None
    ]
    has_actions = bool(current) or can_be_acknowledged(run, now)
    if not has_actions and not previous:
        return None
    # A new id when the available actions change: the stream sends the element without a form,
    # since the form differs per user, and the page then fetches it (run.html).
    state = "-".join(str(acknowledgement.pk) for acknowledgement in current) or "nobody"
    return {
        "id": f"acknowledgements-{state}",
        "url": url,
        "current": active(current),
        "previous": previous[:MAX_NAMES],
        "more_count": max(len(previous) - MAX_NAMES, 0),
        "has_actions": has_actions,
    }


def actions(
    run: Run, user_id: int, permissions: Permissions, acknowledgements: Sequence[Acknowledgement]
) -> dict[str, Any] | None:
    """Return the form of a user, given by key, or None if they may not acknowledge the run."""
    if not permissions.acknowledge_permission(run.stage).allowed:
        return None
    current = _current(acknowledgements)
    others = [acknowledgement for acknowledgement in current if acknowledgement.user_id != user_id]
    names_of_others = active(others)
    return {
        "is_acknowledged": len(others) < len(current),
        "acknowledge_label": _("Acknowledge too") if others else _("Acknowledge"),
        "take_over_keys": [acknowledgement.pk for acknowledgement in others],
        "take_over_from": names_of_others.names if names_of_others else "",
    }


def _current(acknowledgements: Sequence[Acknowledgement]) -> list[Acknowledgement]:
    return [
        acknowledgement for acknowledgement in acknowledgements if acknowledgement.ended_at is None
    ]
