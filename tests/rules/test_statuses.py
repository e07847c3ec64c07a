"""What a status is called and looks like; one that nobody knows is shown as itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.runs import statuses

DOCUMENTED = [
    "pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait",
    "aborting", "aborted", "success", "failure", "skipped", "unknown",
]  # fmt: skip


def test_every_documented_status_of_a_run_has_a_look() -> None:
    assert set(statuses.RUN) == set(DOCUMENTED)


@pytest.mark.parametrize("status", DOCUMENTED)
def test_a_known_status_has_a_word_of_its_own(status: str) -> None:
    words = [look.word for look in statuses.RUN.values()]
    assert words.count(statuses.of_run(status).word) == 1


@pytest.mark.parametrize("look", [*statuses.RUN.values(), *statuses.STEP.values()])
def test_what_a_status_means_is_a_sentence(look: statuses.Look) -> None:
    assert look.sentence[0].isupper()
    assert look.sentence.endswith(".")


@given(st.text(min_size=1).filter(lambda text: text not in statuses.RUN))
def test_an_unknown_status_is_shown_as_sent(status: str) -> None:
    assert statuses.of_run(status).word == status


@pytest.mark.parametrize(
    ("status", "word"),
    [("failure", "failed"), ("approval_wait", "needs approval"), ("hibernating", "hibernating")],
)
def test_a_status_within_a_sentence_is_a_word_of_it(status: str, word: str) -> None:
    assert statuses.within(status) == word


def test_an_unknown_status_says_that_it_is_unknown() -> None:
    assert "does not know" in statuses.of_run("hibernating").sentence


@pytest.mark.parametrize("status", ["hibernating", "unknown"])
def test_an_unknown_status_looks_like_a_question_and_no_worse(status: str) -> None:
    look = statuses.of_run(status)
    assert (look.tone, look.glyph) == ("neutral", "question")


def test_what_is_not_known_of_a_status_is_said_in_one_sentence() -> None:
    said = statuses.of_run("hibernating").sentence
    assert said == "This dashboard does not know that status."


@pytest.mark.parametrize(
    ("of", "worst"),
    [
        (["approval_wait", "success"], "approval_wait"),
        (["approval_wait", "retrying"], "retrying"),
        (["approval_wait", "aborting", "failure", "running"], "failure"),
    ],
)
def test_the_most_urgent_status_is_what_wants_a_person_most(of: list[str], worst: str) -> None:
    assert statuses.most_urgent(of) == statuses.RUN[worst]


def test_no_status_is_urgent_where_none_wants_a_person() -> None:
    assert statuses.most_urgent(["success", "running", "queued", "hibernating"]) is None


def step(
    status: str | None, *, started: bool = False, ended: bool = False, over: bool = False
) -> statuses.Look:
    return statuses.of_step(status, started=started, ended=ended, run_in_flight=not over)


def test_a_step_without_status_has_not_started() -> None:
    assert step(None).word == "Not started"


def test_a_started_step_without_status_is_running() -> None:
    assert step(None, started=True).word == "Running"


def test_a_step_without_status_of_a_run_that_is_over_was_not_carried_out() -> None:
    assert step(None, over=True).word == "Not carried out"


def test_a_step_that_was_not_carried_out_says_why_and_blames_nobody() -> None:
    look = step(None, over=True)
    assert look.sentence == "The run ended before it."
    assert (look.tone, look.glyph) == ("neutral", "skip")


def test_a_step_of_which_only_the_start_is_known_was_carried_out_in_part_at_least() -> None:
    look = step(None, started=True, over=True)
    assert look.word == "Unknown"
    assert look.sentence == "Northflank does not say how it ended."


@pytest.mark.parametrize("over", [True, False])
def test_a_step_without_status_that_has_ended_is_neither_to_come_nor_left_out(over: bool) -> None:
    assert step(None, started=True, ended=True, over=over).word == "Unknown"


def test_a_steps_status_wins_over_what_is_inferred() -> None:
    assert step("success", over=True).word == "Success"


def test_an_invalid_step_is_bad() -> None:
    assert step("invalid").tone == "bad"


def test_an_unknown_status_of_a_step_is_shown_as_sent() -> None:
    assert step("teleporting").word == "teleporting"
