"""What a step waits for, as a run's detail, job runs, builds and their logs say it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard.northflank import LogLine, SecretValues, Work, WorkRef, decoding, show_lines
from dashboard.northflank.work_decoding import parse_build, parse_job_run, parse_log
from tests.support import payloads

JOB_RUN = WorkRef("job_run", "job", "migrate", "r1")
BUILD = WorkRef("build", "service", "api", "b1", "main")
BUILD_STEP = {"kind": "Build", "ref": "image", "spec": {"id": "api", "branch": "main"}}


def condition(kind: str, **data: Any) -> dict[str, Any]:
    spec = {"kind": kind, "spec": {"type": "success", "data": data}}
    return {"kind": "Condition", "spec": spec}


def decoded_works(*steps: Any, refs: Any) -> list[WorkRef | None]:
    detail = decoding.parse_run_detail(payloads.detail(steps=list(steps), refs=refs))
    assert detail is not None
    assert detail.root is not None
    return [step.work for step in detail.root.steps]


@pytest.mark.parametrize(
    ("step", "refs", "work"),
    [
        (payloads.job_run(ref="db"), {"db": {"id": "r1", "token": "x"}}, JOB_RUN),
        (payloads.job_run(response={"data": {"id": "r1"}}), None, JOB_RUN),
        (payloads.job_run(ref="db", response={"data": {"id": "x"}}), {"db": {"id": "r1"}}, JOB_RUN),
        (payloads.job_run("${refs.job.id}"), {"job": {"id": "migrate"}},
         WorkRef("job_run", "job", "migrate", None)),
        (payloads.job_run("${refs.gone.id}"), {}, None),
        (condition("JobRun", jobId="migrate", runId="r1"), [], JOB_RUN),
        (condition("JobRun", jobId="migrate", runId="${refs.d.id}"), {"d": {"id": "r1"}}, JOB_RUN),
        (condition("JobRun", jobId="migrate", runId="${args.ID}"), {},
         WorkRef("job_run", "job", "migrate", None)),
        (condition("Service", serviceId="api"), {}, None),
        (condition("Build", buildId="b1"), {}, None),
        (BUILD_STEP, {"image": {"id": "b1"}}, BUILD),
        ({"kind": "Build", "spec": {"id": "api", "type": "job"}}, {},
         WorkRef("build", "job", "api", None)),
        ({"kind": "Build", "spec": {}}, {}, None),
        ({"kind": "Approval", "response": {"data": {"id": "r1"}}}, {}, None),
    ],
)  # fmt: skip
def test_step_names_what_it_waits_for(step: Any, refs: Any, work: WorkRef | None) -> None:
    assert decoded_works(step, refs=refs) == [work]


@pytest.mark.parametrize("build_id", ["b1", "${refs.image.id}"])
def test_condition_waits_for_the_build_of_the_step_that_started_it(build_id: str) -> None:
    works = decoded_works(
        BUILD_STEP, condition("Build", buildId=build_id), refs={"image": {"id": "b1"}}
    )
    assert works == [BUILD, BUILD]


def test_job_run_is_decoded_as_documented() -> None:
    fields: dict[str, Any] = {
        "id": "r1", "runName": "migrate-1", "status": "RUNNING", "concluded": False,
        "startedAt": "2026-03-02T08:00:00Z", "concludedAt": "",
    }  # fmt: skip
    started_at = datetime(2026, 3, 2, 8, tzinfo=UTC)
    assert parse_job_run(fields) == Work("r1", "migrate-1", "RUNNING", False, started_at, None)


def test_build_is_decoded_as_documented() -> None:
    fields: dict[str, Any] = {
        "id": "b1", "branch": "main", "sha": "a" * 40, "status": "SUCCESS", "concluded": True,
        "createdAt": "2026-03-02T08:00:00.000Z", "buildConcludedAt": 1772438460,
    }  # fmt: skip
    started_at, ended_at = (datetime(2026, 3, 2, 8, minute, tzinfo=UTC) for minute in (0, 1))
    expected = Work("b1", "b1", "SUCCESS", True, started_at, ended_at, "main", "a" * 40)
    assert parse_build(fields) == expected


@pytest.mark.parametrize("fields", [{}, {"id": "..", "concluded": True}])
def test_work_without_id_is_none(fields: dict[str, Any]) -> None:
    assert parse_job_run(fields) is None
    assert parse_build(fields) is None


def test_job_run_that_may_have_ended_is_none() -> None:
    assert parse_job_run({"id": "r1"}) is None


@pytest.mark.parametrize(("ended_at", "concluded"), [(None, False), (1772438460, True)])
def test_build_of_which_only_the_id_is_certain_has_ended_if_it_says_when(
    ended_at: int | None, *, concluded: bool
) -> None:
    build = parse_build({"id": "b1", "concluded": None, "buildConcludedAt": ended_at})
    assert build is not None
    assert (build.id, build.status, build.concluded) == ("b1", "unknown", concluded)


LINE = {"containerId": "c", "log": "one", "ts": "2026-03-02T08:00:00.250Z"}


@pytest.mark.parametrize("data", [[LINE], {"logs": [LINE]}, {"data": [LINE]}])
def test_lines_are_found_in_each_shape_of_the_answer(data: Any) -> None:
    at = datetime(2026, 3, 2, 8, 0, 0, 250_000, tzinfo=UTC)
    assert parse_log({"data": data}) == [LogLine(at, "one")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"message": "m"}, "m"),
        ({"line": "n"}, "n"),
        ({"log": {"ok": True, "at": None, "what": "ü"}}, '{"ok": true, "at": null, "what": "ü"}'),
        ({"log": 7}, "7"),
        ("x", ""),
    ],
)
def test_line_of_another_form_keeps_its_text(line: Any, text: str) -> None:
    assert parse_log({"data": [line]}) == [LogLine(None, text)]


def test_half_a_surrogate_in_a_structured_line_is_shown_as_one_in_a_text() -> None:
    lines = parse_log({"data": [{"log": {"msg": "half \ud83d"}}]})
    assert lines is not None
    assert show_lines([lines[0].text], SecretValues())[0].text == '{"msg": "half \ufffd"}'


def test_answer_without_lines_is_none() -> None:
    assert parse_log({"data": {}}) is None
