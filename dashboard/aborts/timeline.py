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
    EventType.ADOPTED: gettext_lazy("Another process went on with it: the one that had it ended."),
    EventType.SENT: gettext_lazy("Sent to Northflank."),
    EventType.ACCEPTED: gettext_lazy("Northflank accepted it."),
    EventType.ABORTING: gettext_lazy("Northflank says that the run is aborting."),
    EventType.NOT_ARRIVED: gettext_lazy("The run went on: it seems not to have arrived."),
    EventType.TOO_LATE: gettext_lazy("Northflank knew the run no more."),
    EventType.CONCLUDED: gettext_lazy("Northflank knows the run no more."),
    EventType.ANSWERED_LATE: gettext_lazy("Northflank’s answer came only now."),
}
_STATUS_TEXTS: dict[EventType, Promise] = {  # the detail is a run status
    EventType.ACCEPTED: gettext_lazy("Northflank accepted it, and says %(status)s."),
    EventType.TOO_LATE: gettext_lazy("Too late: the run had ended as %(status)s."),
    EventType.CONCLUDED: gettext_lazy("The run concluded as %(status)s."),
    EventType.STATUS_CHANGED_AFTER_END: gettext_lazy("Northflank now says %(status)s."),
}
_DETAIL_TEXTS: dict[EventType, Promise] = {
    EventType.JOINED: gettext_lazy("Pressed meanwhile by %(text)s"),
    EventType.REFUSED: gettext_lazy("Northflank refused: %(text)s"),
    EventType.NOT_SENT: gettext_lazy("Not sent: %(text)s"),
    EventType.SENT: gettext_lazy("Sent to Northflank again: sending %(text)s"),
    EventType.UNKNOWN: gettext_lazy("It may not have arrived: %(text)s"),
    EventType.NOT_ARRIVED: gettext_lazy(
        "The run went on: it seems not to have arrived. Not sent again: %(text)s"
    ),
    EventType.ANSWERED_LATE: gettext_lazy("Northflank’s answer came only now: %(text)s"),
    EventType.TRIED_AGAIN: gettext_lazy("Tried again by %(text)s"),
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
        return _("Another process went on with it.")
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
