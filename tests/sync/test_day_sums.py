"""Sums of days follow the mirror: each run counts once, as it ended, and stays when deleted."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from dashboard.models import ProjectDay, Run, Stage, StageDay
from dashboard.runs import trends
from dashboard.runs.trends import Measure
from dashboard.sync import mirror, pruning
from tests.support import factories
from tests.support.factories import node
from tests.support.world import (
    ENDED,
    FAILED,
    T0,
    api_run,
    at,
    detail,
    get_run,
    mirror_list,
    request_fields,
)

TODAY = T0.date()


def counts(day: date = TODAY) -> dict[str, int]:
    """Return the sums of the only stage's day, which are also those of its project."""
    return {word: n for row in StageDay.objects.filter(day=day) for word, n in row.counts.items()}


def word(measure: Measure, seconds: float) -> str:
    return trends.word(measure, timedelta(seconds=seconds))


def all_sums() -> list[list[Any]]:
    stages = StageDay.objects.exclude(counts={}).values_list("stage", "day", "counts")
    places = ProjectDay.objects.exclude(counts={})
    return [
        sorted(stages, key=str),
        sorted(places.values_list("project", "stage_name", "day", "counts"), key=str),
    ]


@pytest.fixture(autouse=True)
def _same_as_made_anew(stage: Stage) -> Iterator[None]:
    """Compare the sums with those made anew of all runs, at the end of each test."""
    yield
    if not Run.objects.exists():  # they were pruned
        return
    before = all_sums()
    StageDay.objects.all().delete()
    ProjectDay.objects.all().delete()
    Run.objects.update(counted_as=None)
    factories.day_sums()
    assert all_sums() == before


def test_run_counts_with_its_durations_once_it_has_ended(stage: Stage) -> None:
    mirror_list(stage, api_run())
    assert not StageDay.objects.exists()
    mirror_list(stage, api_run(**ENDED), requested_at=6)
    assert counts() == {"success": 1, word(Measure.DURATION, 55): 1, word(Measure.QUEUEING, 10): 1}
    project_day = ProjectDay.objects.get()
    assert (project_day.stage_name, project_day.counts) == ("Production", counts())


def test_run_that_is_read_again_counts_once(stage: Stage) -> None:
    for second in range(6, 9):
        mirror_list(stage, api_run(name=f"Nightly {second}", **ENDED), requested_at=second)
        mirror.apply_detail(stage.pk, detail(**ENDED), **request_fields(second + 0.5))
    assert counts()["success"] == 1


def test_corrected_end_moves_the_run_to_another_day_and_outcome(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    mirror_list(stage, api_run(**FAILED | {"concluded_at": at(90_000)}), requested_at=90_001)
    assert counts() == {}
    assert counts(TODAY + timedelta(days=1)) == {"failure": 1, word(Measure.QUEUEING, 10): 1}


def test_run_that_is_in_flight_again_does_not_count(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    mirror_list(stage, api_run(), requested_at=1)
    assert counts() == {}
    assert get_run().counted_as is None


def test_unknown_outcomes_count_as_other(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED | {"status": "evaporated"}))
    assert counts() == {"other": 1, word(Measure.QUEUEING, 10): 1}


def run_at(minute: int, ends: dict[str, Any], **fields: Any) -> object:
    """Return a run that took a minute, from `minute` on."""
    times = {"created_at": at(60 * minute), "started_at": at(60 * minute)}
    return api_run(f"r{minute}", **ends | times | {"concluded_at": at(60 * minute + 60)} | fields)


@pytest.mark.parametrize("order", [(0, 2, 4, 6, 8), (8, 6, 4, 2, 0), (4, 8, 0, 6, 2)])
def test_time_from_the_first_failure_to_the_next_success(
    stage: Stage, order: tuple[int, ...]
) -> None:
    outcomes = {0: ENDED, 2: FAILED, 4: FAILED, 6: ENDED, 8: ENDED}
    for read_at, minute in enumerate(order):
        mirror_list(stage, run_at(minute, outcomes[minute]), requested_at=1_000 + read_at)
    assert {w: n for w, n in counts().items() if w[0] == "r"} == {word(Measure.RECOVERY, 240): 1}


def test_corrected_failure_changes_the_time_to_the_next_success(stage: Stage) -> None:
    mirror_list(stage, run_at(0, FAILED), run_at(4, ENDED))
    mirror_list(stage, run_at(0, FAILED, concluded_at=at(180)), requested_at=1)
    assert counts()[word(Measure.RECOVERY, 120)] == 1
    mirror_list(stage, run_at(0, ENDED), requested_at=2)
    assert not [w for w in counts() if w[0] == "r"]


def test_waits_for_people_count_once_the_steps_of_the_end_are_read(stage: Stage) -> None:
    approval = node("Approval", started_at=at(-40), ended_at=at(-10), status="success")
    mirror_list(stage, api_run("r2", **ENDED))
    mirror.apply_detail(stage.pk, detail(steps=approval), **request_fields(1))
    mirror_list(stage, api_run(**ENDED), api_run("r2", **ENDED), requested_at=6)
    assert not [w for w in counts() if w[0] == "p"]
    mirror.apply_detail(stage.pk, detail(steps=approval, **ENDED), **request_fields(7))
    mirror_list(stage, api_run(**ENDED | {"concluded_at": at(6)}), requested_at=8)
    assert {w: n for w, n in counts().items() if w[0] == "p"} == {word(Measure.APPROVAL, 30): 1}


ABORTED = ENDED | {"status": "aborted"}


def test_aborted_runs_count_by_the_reason_of_their_abort(stage: Stage, viewer: User) -> None:
    reasons = {"a": "Stuck: again", "b": "too slow", "c": "", "d": "Stuck", "e": "Incident"}
    mirror_list(stage, *(api_run(run_id) for run_id in (*reasons, "f")))
    for run_id, reason in reasons.items():
        state = "refused" if run_id == "d" else "accepted"
        factories.abort(get_run(run_id), viewer, state, reason=reason)
    ended = [api_run(run_id, **ABORTED) for run_id in "abcdf"]
    mirror_list(stage, *ended, api_run("e", **ENDED), requested_at=6)
    mirror_list(stage, api_run("a", **ABORTED | {"name": "New"}), requested_at=7)
    by_reason = {w: n for w, n in counts().items() if w.startswith("by-")}
    assert by_reason == {"by-stuck": 1, "by-other": 1, "by-none": 1, "by-elsewhere": 2}


def test_sums_stay_when_runs_are_deleted(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    pruning.delete_runs(dict.fromkeys(Run.objects.values_list("pk", flat=True), stage.pk), at(99))
    assert not Run.objects.exists()
    assert counts() == {"success": 1, word(Measure.DURATION, 55): 1, word(Measure.QUEUEING, 10): 1}
