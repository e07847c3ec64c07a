"""Messages about overdue runs, and about a stage's typical durations."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.runs import overdue_messages
from dashboard.runs.overdue import OverdueReason, Timer

BEGAN = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
TYPICAL = TypicalDuration(timedelta(minutes=6), timedelta(minutes=9))


def timer(
    overdue_reason: OverdueReason, typical: TypicalDuration | None = TYPICAL, limit: int = 15
) -> Timer:
    """A timer with a typical duration or, without one, a limit in minutes."""
    if typical is not None:
        return Timer(overdue_reason, BEGAN, *typical.deadlines(BEGAN), typical)
    interval = timedelta(minutes=limit)
    return Timer(overdue_reason, BEGAN, BEGAN + interval, BEGAN + 3 * interval, None)


CASES = [
    (
        OverdueReason.RUN,
        Severity.WARNING,
        TYPICAL,
        "The run takes longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.RUN,
        Severity.CRITICAL,
        TYPICAL,
        "The run takes far longer than usual (usually 6 to 9 min).",
    ),
    (OverdueReason.RUN, Severity.WARNING, None, "Running for more than 15 min."),
    (OverdueReason.RUN, Severity.CRITICAL, None, "Running for more than 45 min."),
    (
        OverdueReason.QUEUE,
        Severity.WARNING,
        TYPICAL,
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
        TYPICAL,
        "The current step takes longer than usual (usually 6 to 9 min).",
    ),
    (
        OverdueReason.APPROVAL,
        Severity.CRITICAL,
        TYPICAL,
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
        TYPICAL,
        "No step progress for longer than a whole run usually takes (usually 6 to 9 min).",
    ),
]


@pytest.mark.parametrize(("overdue_reason", "level", "typical", "sentence"), CASES)
def test_overdue_message_per_reason_has_its_text(
    overdue_reason: OverdueReason, level: Severity, typical: TypicalDuration | None, sentence: str
) -> None:
    message = overdue_messages.describe(level, overdue_reason, [timer(overdue_reason, typical)])
    assert message is not None
    assert message.text == sentence


def test_overdue_message_for_last_attempt_needs_no_clock() -> None:
    message = overdue_messages.describe(
        Severity.WARNING, OverdueReason.LAST_ATTEMPT, [timer(OverdueReason.RUN)]
    )
    assert message is not None
    assert message.text == "The current step is on its last attempt."


@pytest.mark.parametrize(
    "overdue_reason",
    [
        *(
            overdue_reason
            for overdue_reason in OverdueReason
            if overdue_reason is not OverdueReason.LAST_ATTEMPT
        ),
        "",
    ],
)
def test_overdue_message_without_clock_is_generic(overdue_reason: str) -> None:
    message = overdue_messages.describe(Severity.WARNING, overdue_reason)
    assert message is not None
    assert message.text == "The run is overdue."


def test_overdue_message_short_form_leaves_out_typical_duration() -> None:
    message = overdue_messages.describe(
        Severity.WARNING, OverdueReason.RUN, [timer(OverdueReason.RUN)]
    )
    assert message is not None
    assert message.short_text == "The run takes longer than usual."


def test_overdue_severities_differ_in_word_tone_and_glyph() -> None:
    warning, critical = (
        overdue_messages.describe(level) for level in (Severity.WARNING, Severity.CRITICAL)
    )
    assert warning is not None
    assert critical is not None
    assert (warning.label, critical.label) == ("Overdue", "Far overdue")
    assert warning.tone != critical.tone
    assert warning.glyph != critical.glyph


def test_overdue_message_of_run_on_time_is_none() -> None:
    assert (
        overdue_messages.describe(Severity.OK, OverdueReason.RUN, [timer(OverdueReason.RUN)])
        is None
    )
    assert overdue_messages.severity_label(Severity.OK) == ""
