"""Labels and icons of statuses; an unknown status is shown as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.runs import statuses

DOCUMENTED = [
    "pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait",
    "aborting", "aborted", "success", "failure", "skipped", "unknown",
]  # fmt: skip


def test_run_statuses_cover_all_documented() -> None:
    assert set(statuses.RUN_STATUSES) == set(DOCUMENTED)


@pytest.mark.parametrize("status", DOCUMENTED)
def test_known_status_has_a_unique_word(status: str) -> None:
    labels = [display.label for display in statuses.RUN_STATUSES.values()]
    assert labels.count(statuses.for_run(status).label) == 1


@pytest.mark.parametrize(
    "display", [*statuses.RUN_STATUSES.values(), *statuses.STEP_STATUSES.values()]
)
def test_status_explanation_is_a_sentence(display: statuses.StatusDisplay) -> None:
    assert display.description[0].isupper()
    assert display.description.endswith(".")


@given(st.text(min_size=1).filter(lambda text: text not in statuses.RUN_STATUSES))
def test_unknown_run_status_is_shown_as_received(status: str) -> None:
    assert statuses.for_run(status).label == status


@pytest.mark.parametrize(
    ("status", "word"),
    [("failure", "failed"), ("approval_wait", "needs approval"), ("hibernating", "hibernating")],
)
def test_status_within_sentence_is_lower_case(status: str, word: str) -> None:
    assert statuses.inline_label(status) == word


def test_unknown_status_explanation_says_so() -> None:
    assert "does not recognize" in statuses.for_run("hibernating").description


@pytest.mark.parametrize("status", ["hibernating", "unknown"])
def test_unknown_status_is_neutral_with_question_glyph(status: str) -> None:
    display = statuses.for_run(status)
    assert (display.tone, display.glyph) == ("neutral", "question")


def test_unknown_status_explanation_is_one_sentence() -> None:
    sentence = statuses.for_run("hibernating").description
    assert sentence == "This dashboard does not recognize this status."


@pytest.mark.parametrize(
    ("candidates", "worst"),
    [
        (["approval_wait", "success"], "approval_wait"),
        (["approval_wait", "retrying"], "retrying"),
        (["approval_wait", "aborting", "failure", "running"], "failure"),
    ],
)
def test_most_urgent_status_is_the_one_needing_attention_most(
    candidates: list[str], worst: str
) -> None:
    assert statuses.most_urgent(candidates) == statuses.RUN_STATUSES[worst]


def test_most_urgent_status_of_normal_ones_is_none() -> None:
    assert statuses.most_urgent(["success", "running", "queued", "hibernating"]) is None


def step(
    status: str | None,
    *,
    has_started: bool = False,
    has_ended: bool = False,
    run_concluded: bool = False,
) -> statuses.StatusDisplay:
    return statuses.for_step(
        status, started=has_started, ended=has_ended, run_in_flight=not run_concluded
    )


def test_step_without_status_or_start_is_not_started() -> None:
    assert step(None).label == "Not started"


def test_started_step_without_status_is_running() -> None:
    assert step(None, has_started=True).label == "Running"


def test_step_without_status_of_concluded_run_is_not_carried_out() -> None:
    assert step(None, run_concluded=True).label == "Not run"


def test_step_not_carried_out_explains_why_in_neutral_tone() -> None:
    display = step(None, run_concluded=True)
    assert display.description == "The run ended before this step."
    assert (display.tone, display.glyph) == ("neutral", "skip")


def test_started_step_without_status_of_concluded_run_is_unknown() -> None:
    display = step(None, has_started=True, run_concluded=True)
    assert display.label == "Unknown"
    assert display.description == "Northflank reports no outcome."


@pytest.mark.parametrize("run_concluded", [True, False])
def test_ended_step_without_status_is_unknown(run_concluded: bool) -> None:
    assert (
        step(None, has_started=True, has_ended=True, run_concluded=run_concluded).label == "Unknown"
    )


def test_step_status_takes_precedence_over_inference() -> None:
    assert step("success", run_concluded=True).label == "Succeeded"


def test_invalid_step_has_bad_tone() -> None:
    assert step("invalid").tone == "bad"


def test_unknown_step_status_is_shown_as_received() -> None:
    assert step("teleporting").label == "teleporting"
