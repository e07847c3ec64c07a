"""Messages about overdue runs, and about a stage's typical durations."""

from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.runs import overdue_messages
from dashboard.runs.overdue import OverdueReason, Timer
from tests.support.messages import keys, keys_and_params

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


@pytest.mark.parametrize("level", [Severity.WARNING, Severity.CRITICAL])
@pytest.mark.parametrize(
    "overdue_reason",
    sorted(set(OverdueReason) - {OverdueReason.LAST_ATTEMPT, OverdueReason.BLOCKED}),
)
def test_overdue_message_per_reason_has_typical_duration(
    overdue_reason: OverdueReason, level: Severity, settings: Settings
) -> None:
    settings.OVERDUE_CRITICAL_FACTOR = 2.5
    message = overdue_messages.describe(level, overdue_reason, [timer(overdue_reason)])
    assert message is not None
    is_critical = level == Severity.CRITICAL
    key = f"{'times_as_long' if is_critical else 'longer'} {overdue_reason.name.lower()}"
    params = {"factor": "2.5"} if is_critical else {}
    expected = f"{key} sentence_typical", params | {"typical": TYPICAL}
    assert keys_and_params(message.text) == expected
    assert keys_and_params(message.short_text) == (f"{key} sentence", params)


@pytest.mark.parametrize(
    ("level", "limit"), [(Severity.WARNING, "15 min"), (Severity.CRITICAL, "45 min")]
)
@pytest.mark.parametrize(
    "overdue_reason", [OverdueReason.QUEUE, OverdueReason.APPROVAL, OverdueReason.RUN]
)
def test_overdue_message_without_typical_duration_has_limit(
    overdue_reason: OverdueReason, level: Severity, limit: str
) -> None:
    message = overdue_messages.describe(level, overdue_reason, [timer(overdue_reason, None)])
    assert message is not None
    key = f"{overdue_reason.name}_limit".lower()
    assert keys_and_params(message.text) == (f"{key} sentence", {"limit": limit})


def test_overdue_message_for_last_attempt_needs_no_clock() -> None:
    message = overdue_messages.describe(
        Severity.WARNING, OverdueReason.LAST_ATTEMPT, [timer(OverdueReason.RUN)]
    )
    assert message is not None
    assert keys(message.text) == "last_attempt sentence"


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
    assert keys(message.text) == "run_overdue sentence"


def test_overdue_severities_differ_in_word_tone_and_glyph() -> None:
    warning, critical = (
        overdue_messages.describe(level) for level in (Severity.WARNING, Severity.CRITICAL)
    )
    assert warning is not None
    assert critical is not None
    assert (warning.label, critical.label) == ("Overdue", "Overdue 3×")
    assert warning.tone != critical.tone
    assert warning.glyph != critical.glyph


def test_overdue_message_of_run_on_time_is_none() -> None:
    assert (
        overdue_messages.describe(Severity.OK, OverdueReason.RUN, [timer(OverdueReason.RUN)])
        is None
    )
    assert overdue_messages.severity_label(Severity.OK) == ""
