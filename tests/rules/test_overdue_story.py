"""What is said of a run that is overdue, and of a stage's usual."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.models.typical_duration import Overdue, Usual
from dashboard.runs import overdue_messages
from dashboard.runs.overdue import Clock, Why

BEGAN = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
USUAL = Usual(timedelta(minutes=6), timedelta(minutes=9))


def clock(why: Why, usual: Usual | None = USUAL, limit: int = 15) -> Clock:
    """A clock that goes by what is usual, or by a limit of so many minutes."""
    if usual is not None:
        return Clock(why, BEGAN, *usual.since(BEGAN), usual)
    plain = timedelta(minutes=limit)
    return Clock(why, BEGAN, BEGAN + plain, BEGAN + 3 * plain, None)


CASES = [
    (Why.RUN, Overdue.YES, USUAL, "It takes longer than usual (usually 6 to 9 min)."),
    (Why.RUN, Overdue.VERY, USUAL, "It takes far longer than usual (usually 6 to 9 min)."),
    (Why.RUN, Overdue.YES, None, "It has gone on for more than 15 min."),
    (Why.RUN, Overdue.VERY, None, "It has gone on for more than 45 min."),
    (Why.QUEUE, Overdue.YES, USUAL,
     "It waits for its turn longer than usual (usually 6 to 9 min)."),
    (Why.QUEUE, Overdue.YES, None, "It has waited for its turn for more than 15 min."),
    (Why.STEP, Overdue.YES, USUAL,
     "The step it is at takes longer than usual (usually 6 to 9 min)."),
    (Why.APPROVAL, Overdue.VERY, USUAL,
     "It waits for people far longer than usual (usually 6 to 9 min)."),
    (Why.APPROVAL, Overdue.YES, None, "It has waited for people for more than 15 min."),
    (Why.SILENT, Overdue.YES, USUAL,
     "No step has changed for longer than all of it takes (usually 6 to 9 min)."),
]  # fmt: skip


@pytest.mark.parametrize(("why", "level", "usual", "sentence"), CASES)
def test_a_sentence_says_what_takes_too_long(
    why: Why, level: Overdue, usual: Usual | None, sentence: str
) -> None:
    story = overdue_messages.of(level, why, [clock(why, usual)])
    assert story is not None
    assert story.sentence == sentence


def test_the_last_attempt_needs_no_clock() -> None:
    story = overdue_messages.of(Overdue.YES, Why.ATTEMPTS, [clock(Why.RUN)])
    assert story is not None
    assert story.sentence == "The step it is at is on its last attempt."


@pytest.mark.parametrize("why", [*(why for why in Why if why is not Why.ATTEMPTS), ""])
def test_without_its_clock_no_more_is_said_than_is_known(why: str) -> None:
    story = overdue_messages.of(Overdue.YES, why)
    assert story is not None
    assert story.sentence == "It takes longer than it should."


def test_in_short_what_is_usual_is_left_out() -> None:
    story = overdue_messages.of(Overdue.YES, Why.RUN, [clock(Why.RUN)])
    assert story is not None
    assert story.short == "It takes longer than usual."


def test_each_level_has_a_word_a_tone_and_a_glyph_of_its_own() -> None:
    late, very = (overdue_messages.of(level) for level in (Overdue.YES, Overdue.VERY))
    assert late is not None
    assert very is not None
    assert (late.word, very.word) == ("Overdue", "Far overdue")
    assert late.tone != very.tone
    assert late.glyph != very.glyph


def test_nothing_is_said_where_nothing_is_overdue() -> None:
    assert overdue_messages.of(Overdue.NO, Why.RUN, [clock(Why.RUN)]) is None
    assert overdue_messages.word(Overdue.NO) == ""
