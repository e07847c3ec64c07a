"""Who looks at a run, as rows and its page show it, and what the person may say about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.models import Acknowledgement, Run
from dashboard.runs import alerts
from dashboard.runs.summary import ExternalText

MAX_NAMES = 3  # people that are named


@dataclass(frozen=True, slots=True)
class AcknowledgementEntry:
    """Somebody who looks, or has looked."""

    name: ExternalText
    acknowledged_at: datetime
    released_at: datetime | None
    reassigned_to: ExternalText


@dataclass(frozen=True, slots=True)
class ActiveAcknowledgements:
    """Those who look now: the first of them by name."""

    entries: list[AcknowledgementEntry]
    more_count: int

    @property
    def names(self) -> str:
        """Who looks, on one line; empty: nobody."""
        names = ", ".join(entry.name for entry in self.entries)
        if not self.more_count:
            return names
        return _("%(names)s and %(n)d more") % {"names": names, "n": self.more_count}


@dataclass(frozen=True, slots=True)
class AcknowledgementPanel:
    """What a run's page says of it; the same for all who see the run."""

    id: str  # changes with what can be said about it
    url: str
    current: ActiveAcknowledgements | None
    previous: list[AcknowledgementEntry]  # the latest first
    more_count: int  # how many more have looked
    has_actions: bool  # there is something that people can say


@dataclass(frozen=True, slots=True)
class AcknowledgementActions:
    """What one person can say."""

    is_acknowledged: bool
    acknowledge_label: str  # to say that one looks, too
    reassign_from_keys: list[int]  # the keys of the others
    reassign_from: str  # from whom; empty: nobody else looks


def active(acknowledgements: Sequence[Acknowledgement]) -> ActiveAcknowledgements | None:
    """Prepare those who look now; None where nobody does."""
    if not acknowledgements:
        return None
    return ActiveAcknowledgements(
        [_entry(acknowledgement) for acknowledgement in acknowledgements[:MAX_NAMES]],
        max(len(acknowledgements) - MAX_NAMES, 0),
    )


def panel(
    run: Run, url: str, acknowledgements: Sequence[Acknowledgement], now: datetime
) -> AcknowledgementPanel | None:
    """Prepare all who look or have looked at a run; None where there is nothing to say."""
    unreleased = _unreleased(acknowledgements)
    previous = [
        _entry(acknowledgement)
        for acknowledgement in reversed(acknowledgements)
        if acknowledgement.ended_at is not None
    ]
    has_actions = bool(unreleased) or alerts.needs_attention(run, now)
    if not has_actions and not previous:
        return None
    # Another element where there is another choice: the stream brings it without one, since that is
    # each person's own, and the page then asks for it (run.html).
    state = "-".join(str(one.pk) for one in unreleased) or "nobody"
    return AcknowledgementPanel(
        id=f"acknowledgements-{state}",
        url=url,
        current=active(unreleased),
        previous=previous[:MAX_NAMES],
        more_count=max(len(previous) - MAX_NAMES, 0),
        has_actions=has_actions,
    )


def actions(
    run: Run, user_id: int, permissions: Permissions, acknowledgements: Sequence[Acknowledgement]
) -> AcknowledgementActions | None:
    """Return what a person, by their key, can say about a run; None where they may say nothing."""
    if not permissions.acknowledge_permission(run.stage).allowed:
        return None
    unreleased = _unreleased(acknowledgements)
    others = [
        acknowledgement for acknowledgement in unreleased if acknowledgement.user_id != user_id
    ]
    return AcknowledgementActions(
        is_acknowledged=len(others) < len(unreleased),
        acknowledge_label=_("I’m looking too") if others else _("I’m looking"),
        reassign_from_keys=[one.pk for one in others],
        reassign_from=active_others.names if (active_others := active(others)) else "",
    )


def _unreleased(acknowledgements: Sequence[Acknowledgement]) -> list[Acknowledgement]:
    return [
        acknowledgement for acknowledgement in acknowledgements if acknowledgement.ended_at is None
    ]


def _entry(acknowledgement: Acknowledgement) -> AcknowledgementEntry:
    return AcknowledgementEntry(
        ExternalText(acknowledgement.username),
        acknowledgement.acknowledged_at,
        acknowledgement.ended_at,
        ExternalText(acknowledgement.reassigned_to),
    )
