"""Messages of a bulk abort: one for each run, and a summary of all. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext_lazy

from dashboard.aborts import categories
from dashboard.aborts import messages as abort_messages
from dashboard.aborts.messages import AbortMessage
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.texts.rich_text import Message, MessageTable, RichText

_BADGES = {  # text and icon of the badge of one run, where they are not those of a category
    "aborting": (gettext_lazy("Aborting"), "stop"),
    "sending": (gettext_lazy("Sending"), "play"),
    "too_late": (gettext_lazy("Already ended"), "skip"),
    "unconfirmed": (gettext_lazy("Not confirmed yet"), "question"),
    "not_allowed": (gettext_lazy("Not allowed"), "lock"),
    "waiting": (gettext_lazy("Waiting"), "clock"),
}
# In the order of the summary: the categories of aborts, then those of runs without a settled abort.
OUTCOMES = tuple(dict.fromkeys([*categories.CATEGORIES, *_BADGES]))
_text = MessageTable(
    {
        "waiting": gettext_lazy("Waiting to be sent."),
        "too_late": gettext_lazy("The run had already ended; nothing was sent."),
        "other_abort_failed": gettext_lazy(
            "The other abort had no effect; nothing was sent from here."
        ),
        "summary": gettext_lazy("%(n)d requested: %(counts)s."),
        "partial_summary": gettext_lazy("%(n)d requested (only runs you may view): %(counts)s."),
    }
)
_OPEN_KINDS = {
    AbortState.REQUESTED: "sending",
    AbortState.ACCEPTED: "aborting",
    AbortState.UNKNOWN: "unconfirmed",
}
_TONES = {
    "waiting": "waiting",
    "too_late": "neutral",
    "removed": "warning",
    "not_allowed": "bad",
}


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """Outcome of one run of a bulk abort: a key of OUTCOMES, and a message."""

    kind: str
    message: AbortMessage

    @property
    def is_final(self) -> bool:
        """Whether no further outcome is expected."""
        return self.kind not in {"waiting", "sending", "aborting", "unconfirmed"}

    @property
    def label(self) -> str:
        """The badge text."""
        return _badge(self.kind)[0]

    @property
    def glyph(self) -> str:
        """The badge's icon."""
        return _badge(self.kind)[1]


def _badge(kind: str) -> tuple[str, str]:
    category = categories.CATEGORIES.get(kind)
    label, glyph = (
        _BADGES[kind] if category is None or kind in _BADGES else (category.label, category.glyph)
    )
    return str(label), glyph


def describe(result: BulkAbortItemResult, run: Run, abort: Abort | None, note: str) -> ItemOutcome:
    """Return the outcome of one item of a bulk abort.

    `abort` is the item's abort or, if the run was aborted again, the run's latest one.
    """
    match result:
        case BulkAbortItemResult.WAITING:
            return _simple_outcome("waiting", _text("waiting"))
        case BulkAbortItemResult.ENDED if note:  # its end was unknown
            return _simple_outcome("removed", note)
        case BulkAbortItemResult.ENDED:
            return _simple_outcome("too_late", _text("too_late"))
        case BulkAbortItemResult.NOT_ALLOWED:
            return _simple_outcome("not_allowed", note)
        case _ if abort is None:
            return _external_outcome(run, note)
        case _:
            return ItemOutcome(_outcome_kind(abort, run), abort_messages.describe(abort, run))


def summarize(outcomes: Iterable[ItemOutcome], *, is_partial: bool = False) -> Message:
    """Return the summary: “12 requested: 7 aborted, 3 aborting, 1 already ended, 1 waiting.”

    `is_partial`: the bulk abort has more runs than the user may view.
    """
    counts = Counter(outcome.kind for outcome in outcomes)
    labels = {kind: _badge(kind)[0] for kind in OUTCOMES if counts[kind]}
    texts = [f"{counts[kind]} {label[:1].lower()}{label[1:]}" for kind, label in labels.items()]
    key = "partial_summary" if is_partial else "summary"
    return _text(key, n=counts.total(), counts=", ".join(texts))


def _simple_outcome(kind: str, sentence: RichText) -> ItemOutcome:
    return ItemOutcome(kind, AbortMessage(sentence, _TONES[kind]))


def _external_outcome(run: Run, note: str) -> ItemOutcome:
    """Return the outcome of a run that was already being aborted from outside the dashboard."""
    if run.concluded:
        return ItemOutcome(categories.by_outcome(run.status), AbortMessage(note, "neutral"))
    if run.removed_at is not None:
        return ItemOutcome("removed", AbortMessage(note, "neutral"))
    if run.status == "aborting":
        return ItemOutcome("aborting", AbortMessage(note, "warning"))
    return ItemOutcome("not_stopped", AbortMessage(_text("other_abort_failed"), "bad"))


def _outcome_kind(abort: Abort, run: Run) -> str:
    """Return the category of an abort; of one that is under way, how far it is."""
    category = categories.category(abort, run)
    return category if category != "under_way" else _OPEN_KINDS[AbortState(abort.state)]
