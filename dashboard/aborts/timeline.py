"""Timeline of an abort: one line of text for each recorded event. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext_lazy

from dashboard.aborts.messages import end_with_period, status_label
from dashboard.models import Abort, AbortEvent
from dashboard.models.abort_lifecycle import EventType
from dashboard.runs import statuses
from dashboard.texts.rich_text import MessageTable, RichText

_text = MessageTable(
    {
        "requested": gettext_lazy("Requested by %(who)s."),
        "requested_reason": gettext_lazy("Requested by %(who)s: “%(reason)s”."),
        # An event type, if no detail is recorded or shown.
        "adopted": gettext_lazy("Taken over by another process."),
        "sent": gettext_lazy("Sent to Northflank."),
        "accepted": gettext_lazy("Accepted by Northflank."),
        "aborting": gettext_lazy("The run is aborting."),
        "not_arrived": gettext_lazy("Not confirmed, and not ended."),
        "too_late": gettext_lazy("Not found on Northflank (404)."),
        "concluded": gettext_lazy("Removed from Northflank."),
        "late_response": gettext_lazy("Late response from Northflank."),
        # An event type whose detail is a run status.
        "accepted_status": gettext_lazy("Accepted by Northflank; run status: %(status)s."),
        "too_late_status": gettext_lazy("Too late: already ended (%(status)s)."),
        "concluded_status": gettext_lazy("Ended as %(status)s."),
        "status_changed_status": gettext_lazy("Status changed to %(status)s."),
        # An event type with another detail.
        "joined_detail": gettext_lazy("Also requested by %(text)s"),
        "refused_detail": gettext_lazy("Northflank refused: %(text)s"),
        "not_sent_detail": gettext_lazy("Not sent: %(text)s"),
        "sent_detail": gettext_lazy("Resent to Northflank: attempt %(text)s"),
        "unknown_detail": gettext_lazy("Not confirmed yet: %(text)s"),
        "not_arrived_detail": gettext_lazy("Not confirmed, and not ended. Not resent: %(text)s"),
        "late_response_detail": gettext_lazy("Late response from Northflank: %(text)s"),
        "aborted_again_detail": gettext_lazy("Aborted again by %(text)s"),
    }
)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of an abort's timeline."""

    at: datetime
    message: RichText

    @property
    def text(self) -> str:
        """The message as plain text."""
        return str(self.message)


def entries(abort: Abort, events: Iterable[AbortEvent]) -> list[TimelineEntry]:
    """Return the timeline of an abort, in the order of `events`."""
    return [
        TimelineEntry(event.occurred_at, _message(abort, EventType(event.event_type), event.detail))
        for event in events
    ]


def _message(abort: Abort, event_type: EventType, detail: str) -> RichText:
    if event_type is EventType.REQUESTED:
        who = f"{abort.username} ({detail})" if detail else abort.username
        key = "requested_reason" if abort.reason else "requested"
        return _text(key, who=who, reason=abort.reason)
    for form in ("status", "detail") if detail else ():
        if (key := f"{event_type}_{form}") in _text:
            is_status = form == "status" or detail in statuses.RUN_STATUSES
            text = status_label(detail) if is_status else detail
            return _text(
                key, **{"status": text} if form == "status" else {"text": end_with_period(text)}
            )
    return _text(event_type) if event_type in _text else f"{event_type.label}."
