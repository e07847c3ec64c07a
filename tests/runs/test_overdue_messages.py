"""Messages about overdue runs, and about a stage's typical durations."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.runs import overdue_messages
from dashboard.runs.overdue import OverdueReason, Timer

BEGAN = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
USUAL = TypicalDuration(timedelta(minutes=6), timedelta(minutes=9))


def clock(why: OverdueReason, usual: TypicalDuration | None = USUAL, limit: int = 15) -> Timer:
    """A clock that goes by what is usual, or by a limit of so many minutes."""
    if usual is not None:
        return Timer(why, BEGAN, *usual.deadlines(BEGAN), usual)
    plain = timedelta(minutes=limit)
    return Timer(why, BEGAN, BEGAN + plain, BEGAN + 3 * plain, None)


CASES = [
    (
        OverdueReason.RUN,
        Severity.WARNING,
        USUAL,
        "The run takes longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.RUN,
        Severity.CRITICAL,
        USUAL,
        "The run takes far longer than usual (usually 6 to 9 min).",
    ),
    (OverdueReason.RUN, Severity.WARNING, None, "Running for more than 15 min."),
    (OverdueReason.RUN, Severity.CRITICAL, None, "Running for more than 45 min."),
    (
        OverdueReason.QUEUE,
        Severity.WARNING,
        USUAL,
        "Queued longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.QUEUE,
        Severity.WARNING,
        None,
        "Queued for more than 15 min.",
    ),
    (
        OverdueReason.STEP,
        Severity.WARNING,
        USUAL,
        "The current step takes longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.APPROVAL,
        Severity.CRITICAL,
        USUAL,
        "Waiting for approval far longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.APPROVAL,
        Severity.WARNING,
        None,
        "Waiting for approval for more than 15 min.",
    ),
    (
        OverdueReason.NO_PROGRESS,
        Severity.WARNING,
        USUAL,
        "No step progress for longer than a whole run usually takes (usually 6 to 9 min).",
    ),
]


@pytest.mark.parametrize(("why", "level", "usual", "sentence"), CASES)
def test_overdue_message_per_reason_has_its_text(
    why: OverdueReason, level: Severity, usual: TypicalDuration | None, sentence: str
) -> None:
    story = overdue_messages.describe(level, why, [clock(why, usual)])
    assert story is not None
    assert story.text == sentence


def test_overdue_message_for_last_attempt_needs_no_clock() -> None:
    story = overdue_messages.describe(
        Severity.WARNING, OverdueReason.LAST_ATTEMPT, [clock(OverdueReason.RUN)]
    )
    assert story is not None
    assert story.text == "The current step is on its last attempt."


@pytest.mark.parametrize(
    "why", [*(why for why in OverdueReason if why is not OverdueReason.LAST_ATTEMPT), ""]
)
def test_overdue_message_without_clock_is_generic(why: str) -> None:
    story = overdue_messages.describe(Severity.WARNING, why)
    assert story is not None
    assert story.text == "The run is overdue."


def test_overdue_message_short_form_leaves_out_typical_duration() -> None:
    story = overdue_messages.describe(
        Severity.WARNING, OverdueReason.RUN, [clock(OverdueReason.RUN)]
    )
    assert story is not None
    assert story.short_text == "The run takes longer than usual."


def test_overdue_severities_differ_in_word_tone_and_glyph() -> None:
    late, very = (
        overdue_messages.describe(level) for level in (Severity.WARNING, Severity.CRITICAL)
    )
    assert late is not None
    assert very is not None
    assert (late.label, very.label) == ("Overdue", "Far overdue")
    assert late.tone != very.tone
    assert late.glyph != very.glyph


def test_overdue_message_of_run_on_time_is_none() -> None:
    assert (
        overdue_messages.describe(Severity.OK, OverdueReason.RUN, [clock(OverdueReason.RUN)])
        is None
    )
    assert overdue_messages.severity_label(Severity.OK) == ""
