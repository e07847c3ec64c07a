"""An act's trail as people read it: what happened to an abort, line by line. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts.messages import sentence, word
from dashboard.models import Abort, AbortEvent
from dashboard.models.aborts import What
from dashboard.models.bulk_aborts import Via
from dashboard.runs import statuses


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an act's trail."""

    at: datetime
    text: str


_BARE: dict[What, Promise] = {  # whatever its detail is, or where it has none
    What.ADOPTED: gettext_lazy("Another process went on with it: the one that had it ended."),
    What.SENT: gettext_lazy("Sent to Northflank."),
    What.ACCEPTED: gettext_lazy("Northflank accepted it."),
    What.ABORTING: gettext_lazy("Northflank says that the run is aborting."),
    What.NOT_ARRIVED: gettext_lazy("The run went on: it seems not to have arrived."),
    What.TOO_LATE: gettext_lazy("Northflank knew the run no more."),
    What.CONCLUDED: gettext_lazy("Northflank knows the run no more."),
    What.ANSWERED_LATE: gettext_lazy("Northflank’s answer came only now."),
}
_WITH_STATUS: dict[What, Promise] = {  # its detail is a run's status
    What.ACCEPTED: gettext_lazy("Northflank accepted it, and says %(status)s."),
    What.TOO_LATE: gettext_lazy("Too late: the run had ended as %(status)s."),
    What.CONCLUDED: gettext_lazy("The run concluded as %(status)s."),
    What.TURNED: gettext_lazy("Northflank now says %(status)s."),
}
_WITH_TEXT: dict[What, Promise] = {
    What.JOINED: gettext_lazy("Pressed meanwhile by %(text)s"),
    What.REFUSED: gettext_lazy("Northflank refused: %(text)s"),
    What.NOT_SENT: gettext_lazy("Not sent: %(text)s"),
    What.SENT: gettext_lazy("Sent to Northflank again: sending %(text)s"),
    What.UNKNOWN: gettext_lazy("It may not have arrived: %(text)s"),
    What.NOT_ARRIVED: gettext_lazy(
        "The run went on: it seems not to have arrived. Not sent again: %(text)s"
    ),
    What.ANSWERED_LATE: gettext_lazy("Northflank’s answer came only now: %(text)s"),
    What.TRIED_AGAIN: gettext_lazy("Tried again by %(text)s"),
}


def lines(abort: Abort, events: Iterable[AbortEvent]) -> list[Line]:
    """Tell what happened to an abort, in the order in which it was written down."""
    return [Line(event.at, _text(abort, What(event.what), event.detail)) for event in events]


def _text(abort: Abort, what: What, detail: str) -> str:
    if what is What.REQUESTED:
        return _requested(abort, detail)
    if what is What.ADOPTED and abort.via == Via.COMMAND:
        # The command may have left it to the sync.
        return _("Another process went on with it.")
    if detail and what in _WITH_STATUS:
        return str(_WITH_STATUS[what]) % {"status": word(detail)}
    if detail and what in _WITH_TEXT:
        said = word(detail) if detail in statuses.RUN else detail
        return str(_WITH_TEXT[what]) % {"text": sentence(said)}
    return str(_BARE.get(what, f"{what.label}."))


def _requested(abort: Abort, origin: str) -> str:
    if origin and abort.reason:
        said = _("Requested by %(who)s (%(origin)s): “%(reason)s”.")
    elif origin:
        said = _("Requested by %(who)s (%(origin)s).")
    elif abort.reason:
        said = _("Requested by %(who)s: “%(reason)s”.")
    else:
        said = _("Requested by %(who)s.")
    return said % {"who": abort.username, "origin": origin, "reason": abort.reason}
