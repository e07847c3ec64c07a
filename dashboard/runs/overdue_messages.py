"""What is said of a run that is overdue: a word, a sentence and how it looks. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.typical_duration import Overdue
from dashboard.runs import durations
from dashboard.runs.overdue import Clock, Why


@dataclass(frozen=True, slots=True)
class Story:
    """How far something is overdue, told in a word and a sentence."""

    level: int  # of timing.Overdue
    word: str
    sentence: str
    short: str  # the same without what is usual, for where that is said already
    tone: str
    glyph: str


_LOOKS = {
    Overdue.YES: (gettext_lazy("Overdue"), "warning", "overdue"),
    Overdue.VERY: (gettext_lazy("Far overdue"), "bad", "far-overdue"),
}
# What is said where it is known how long it usually takes, and where that is exceeded by far.
_LONGER: dict[Why, tuple[Promise, Promise]] = {
    Why.QUEUE: (
        gettext_lazy("It waits for its turn longer than usual"),
        gettext_lazy("It waits for its turn far longer than usual"),
    ),
    Why.APPROVAL: (
        gettext_lazy("It waits for people longer than usual"),
        gettext_lazy("It waits for people far longer than usual"),
    ),
    Why.STEP: (
        gettext_lazy("The step it is at takes longer than usual"),
        gettext_lazy("The step it is at takes far longer than usual"),
    ),
    Why.SILENT: (
        gettext_lazy("No step has changed for longer than all of it takes"),
        gettext_lazy("No step has changed for far longer than all of it takes"),
    ),
    Why.RUN: (
        gettext_lazy("It takes longer than usual"),
        gettext_lazy("It takes far longer than usual"),
    ),
}
# What is said where there is a plain limit only.
_BEYOND: dict[Why, Promise] = {
    Why.QUEUE: gettext_lazy("It has waited for its turn for more than %(limit)s"),
    Why.APPROVAL: gettext_lazy("It has waited for people for more than %(limit)s"),
    Why.RUN: gettext_lazy("It has gone on for more than %(limit)s"),
}


def word(level: int) -> str:
    """Return what a level is called; empty where nothing is overdue."""
    return str(_LOOKS[Overdue(level)][0]) if level else ""


def of(level: int, why: str = "", clocks: Iterable[Clock] = ()) -> Story | None:
    """Tell what is overdue of a run; None where nothing is.

    `clocks` are the run's, from which the sentence knows what is usual. Without them it says no
    more than that this takes too long.
    """
    if not level:
        return None
    word, tone, glyph = _LOOKS[Overdue(level)]
    very = level >= Overdue.VERY
    clock = next((clock for clock in clocks if clock.why == why), None)
    said = _sentence(why, clock, very)
    usual = clock.usual if clock else None
    short = sentence = _("%(said)s.") % {"said": said}
    if usual:
        sentence = _("%(said)s (%(usual)s).") % {"said": said, "usual": durations.usually(usual)}
    return Story(int(level), str(word), sentence, short, tone, glyph)


def worst(overdue: int, aborting: int) -> Story | None:
    """Tell what is overdue of several runs: the worst of them, or of their aborts."""
    if not aborting or aborting < overdue:
        return of(overdue)
    _word, tone, glyph = _LOOKS[Overdue(aborting)]
    said = _("An abort takes longer than it should.")
    return Story(aborting, _("Abort overdue"), said, said, tone, glyph)


def _sentence(why: str, clock: Clock | None, very: bool) -> str:
    if why == Why.ATTEMPTS:
        return _("The step it is at is on its last attempt")
    if clock is None:
        return (
            _("It takes far longer than it should") if very else _("It takes longer than it should")
        )
    if clock.usual is None:
        at = clock.very_late_at if very else clock.late_at
        return str(_BEYOND[clock.why]) % {"limit": _limit(at - clock.since)}
    return str(_LONGER[clock.why][very])


def _limit(span: timedelta) -> str:
    # Limits are set, mostly to whole hours: "1 h", not "60 min" nor "1 h 0 min".
    hours, rest = divmod(round(span.total_seconds()), 3600)
    return durations.roughly(span) if rest or not hours else durations.hours(hours)
