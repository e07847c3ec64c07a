"""Timeline of an abort: one line of text for each recorded event. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts.messages import end_with_period, status_label
from dashboard.models import Abort, AbortEvent
from dashboard.models.aborts import EventType
from dashboard.models.bulk_aborts import Via
from dashboard.runs import statuses


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of an abort's timeline."""

    at: datetime
    text: str


_PLAIN_TEXTS: dict[EventType, Promise] = {  # if no detail is recorded or shown
    EventType.ADOPTED: gettext_lazy("Taken over by another worker after its process stopped."),
    EventType.SENT: gettext_lazy("Sent to Northflank."),
    EventType.ACCEPTED: gettext_lazy("Accepted by Northflank."),
    EventType.ABORTING: gettext_lazy("The run is aborting."),
    EventType.NOT_ARRIVED: gettext_lazy("Probably lost: the run continued."),
    EventType.TOO_LATE: gettext_lazy("The run no longer existed."),
    EventType.CONCLUDED: gettext_lazy("Northflank removed the run."),
    EventType.ANSWERED_LATE: gettext_lazy("Late response from Northflank."),
}
_STATUS_TEXTS: dict[EventType, Promise] = {  # the detail is a run status
    EventType.ACCEPTED: gettext_lazy("Accepted by Northflank; run status: %(status)s."),
    EventType.TOO_LATE: gettext_lazy("Too late: the run had finished (%(status)s)."),
    EventType.CONCLUDED: gettext_lazy("The run ended as %(status)s."),
    EventType.STATUS_CHANGED_AFTER_END: gettext_lazy("Status changed to %(status)s."),
}
_DETAIL_TEXTS: dict[EventType, Promise] = {
    EventType.JOINED: gettext_lazy("Also requested by %(text)s"),
    EventType.REFUSED: gettext_lazy("Northflank refused: %(text)s"),
    EventType.NOT_SENT: gettext_lazy("Not sent: %(text)s"),
    EventType.SENT: gettext_lazy("Resent to Northflank: attempt %(text)s"),
    EventType.UNKNOWN: gettext_lazy("May not have arrived: %(text)s"),
    EventType.NOT_ARRIVED: gettext_lazy("Probably lost: the run continued. Not resent: %(text)s"),
    EventType.ANSWERED_LATE: gettext_lazy("Late response from Northflank: %(text)s"),
    EventType.RETRIED: gettext_lazy("Resent by %(text)s"),
}


def entries(abort: Abort, events: Iterable[AbortEvent]) -> list[TimelineEntry]:
    """Return the timeline of an abort, in the order of `events`."""
    return [
        TimelineEntry(
            event.occurred_at, _event_text(abort, EventType(event.event_type), event.detail)
        )
        for event in events
    ]


def _event_text(abort: Abort, event_type: EventType, detail: str) -> str:
    if event_type is EventType.REQUESTED:
        return _requested_text(abort, detail)
    if event_type is EventType.ADOPTED and abort.via == Via.COMMAND:
        # No process need have ended: the command may leave the abort to the sync worker.
        return _("Taken over by another worker.")
    if detail and event_type in _STATUS_TEXTS:
        return str(_STATUS_TEXTS[event_type]) % {"status": status_label(detail)}
    if detail and event_type in _DETAIL_TEXTS:
        detail_text = status_label(detail) if detail in statuses.RUN_STATUSES else detail
        return str(_DETAIL_TEXTS[event_type]) % {"text": end_with_period(detail_text)}
    return str(_PLAIN_TEXTS.get(event_type, f"{event_type.label}."))


def _requested_text(abort: Abort, origin: str) -> str:
    if origin and abort.reason:
        template = _("Requested by %(who)s (%(origin)s): “%(reason)s”.")
    elif origin:
        template = _("Requested by %(who)s (%(origin)s).")
    elif abort.reason:
        template = _("Requested by %(who)s: “%(reason)s”.")
    else:
        template = _("Requested by %(who)s.")
    return template % {"who": abort.username, "origin": origin, "reason": abort.reason}
