"""What is said of a list of runs that is aborted by one press: of each run, and of all. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import messages as abort_messages
from dashboard.aborts.messages import Story
from dashboard.models import Abort, Run
from dashboard.models.aborts import AbortState
from dashboard.models.bulk_aborts import ItemResult

# What became of a run, in the words of the summary, in its order: the good end first.
# Of so many runs and, as a badge says it, of one.
WORDS: dict[str, tuple[Promise, Promise]] = {
    "aborted": (gettext_lazy("%(n)d aborted"), gettext_lazy("Aborted")),
    "turned": (gettext_lazy("%(n)d turned out otherwise"), gettext_lazy("Turned out otherwise")),
    "aborting": (gettext_lazy("%(n)d aborting"), gettext_lazy("Aborting")),
    "sending": (gettext_lazy("%(n)d being sent"), gettext_lazy("Being sent")),
    "ended": (gettext_lazy("%(n)d had ended"), gettext_lazy("Had ended")),
    "not_stopped": (gettext_lazy("%(n)d not stopped"), gettext_lazy("Not stopped")),
    "unclear": (gettext_lazy("%(n)d not clear yet"), gettext_lazy("Not clear yet")),
    "gone": (gettext_lazy("%(n)d gone from Northflank"), gettext_lazy("Gone from Northflank")),
    "lost": (gettext_lazy("%(n)d seem lost"), gettext_lazy("Seems lost")),
    "refused": (gettext_lazy("%(n)d refused"), gettext_lazy("Refused")),
    "not_sent": (gettext_lazy("%(n)d not sent"), gettext_lazy("Not sent")),
    "not_allowed": (gettext_lazy("%(n)d not allowed"), gettext_lazy("Not allowed")),
    "waits": (gettext_lazy("%(n)d waiting"), gettext_lazy("Waiting")),
}
_TONES = {"waits": "waiting", "ended": "neutral", "not_allowed": "bad"}


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one run of a list: a key of WORDS, and a sentence."""

    kind: str
    story: Story

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.kind not in {"waits", "sending", "aborting", "unclear"}

    @property
    def word(self) -> str:
        """The kind in words, as a badge says it."""
        return str(WORDS[self.kind][1])


def of(result: ItemResult, run: Run, abort: Abort | None, note: str) -> Told:
    """Say what became of one run of a list; `abort` is the latest act that stands for it."""
    match result:
        case ItemResult.WAITING:
            return _plain("waits", _("Waits for its turn."))
        case ItemResult.ENDED:
            return _plain("ended", _("It had ended when its turn came; nothing was sent."))
        case ItemResult.NOT_ALLOWED:
            return _plain("not_allowed", note)
        case _ if abort is None:  # it was being aborted by somebody who did not ask here
            kind = "aborting" if run.in_flight else _end_of(run.status if run.concluded else "")
            return Told(kind, Story(note, "warning" if run.in_flight else "neutral"))
        case _:
            return Told(_kind(abort, run), abort_messages.of(abort, run))


def summary(told: Iterable[Told], *, partly: bool = False) -> str:
    """Say how a list stands: “12 asked for: 7 aborted, 3 aborting, 1 had ended, 1 waiting.”

    `partly`: more were asked for than `told` are.
    """
    kinds = Counter(each.kind for each in told)
    parts = [str(each) % {"n": kinds[kind]} for kind, (each, _one) in WORDS.items() if kinds[kind]]
    said = (
        _("%(n)d asked for, as far as you may see: %(parts)s.")
        if partly
        else _("%(n)d asked for: %(parts)s.")
    )
    return said % {"n": kinds.total(), "parts": ", ".join(parts)}


def _plain(kind: str, sentence: str) -> Told:
    return Told(kind, Story(sentence, _TONES[kind]))


def _kind(abort: Abort, run: Run) -> str:
    if abort_messages.turned(abort, run):
        return "turned"
    match AbortState(abort.state):
        case AbortState.REQUESTED:
            return "sending"
        case AbortState.ACCEPTED:
            return "aborting"
        case AbortState.CONCLUDED:
            return _end_of(abort.outcome)
        case AbortState.NOT_SENT:
            return "not_sent"
        case AbortState.REFUSED:
            return "refused"
        case AbortState.TOO_LATE:
            return "ended" if abort.outcome else "gone"
        case AbortState.UNKNOWN if abort.settled_at is None:
            return "unclear"
        case _:
            return "lost"


def _end_of(status: str) -> str:
    if status == "aborted":
        return "aborted"
    return "not_stopped" if status else "gone"
