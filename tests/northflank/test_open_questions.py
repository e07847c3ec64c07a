"""What one answer shows of what Northflank's documentation leaves open."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import Answer, open_questions
from dashboard.sandbox.choices import CHOICES
from tests.support import payloads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer("GET runs", status, headers, content)


def observed(found: Iterable[tuple[str, str]], question: str) -> list[str]:
    found = list(found)
    assert {name for name, _ in found} <= open_questions.QUESTIONS.keys()
    return [text for name, text in found if name == question]


def runs(*times: str) -> Answer:
    return answer(
        payloads.page("runs", *(payloads.run(str(n), createdAt=t) for n, t in enumerate(times)))
    )


T1, T2, T3 = (f"2026-03-02 08:00:0{second}.000Z" for second in (1, 2, 3))


@pytest.mark.parametrize(
    ("times", "order"),
    [
        ((T3, T2, T1), ["newest-first"]),
        ((T1, T2, T3), ["oldest-first"]),
        ((T1, T3, T2), ["shuffled"]),
        ((T1,), []),
        ((T1, T1), []),
        ((), []),
    ],
)
def test_order_of_runs_is_observed(times: tuple[str, ...], order: list[str]) -> None:
    assert observed(open_questions.from_runs(runs(*times)), "run-order") == order


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2026-03-02 08:15:03.120Z", "space"),
        ("2026-03-02T08:15:03.120Z", "T"),
        ("2026-03-02 08:15:03Z", "no-fraction"),
        ("2026-03-02T08:15:03+01:00", "0000-00-00T00:00:00+00:00"),
    ],
)
def test_form_of_times_is_observed_without_the_time(text: str, form: str) -> None:
    times = dict.fromkeys(("createdAt", "startedAt", "updatedAt"), text)
    page = payloads.page("runs", payloads.run(**times))
    assert set(observed(open_questions.from_runs(answer(page)), "timestamps")) == {form}


def test_text_in_place_of_time_is_not_observed() -> None:
    fields = dict.fromkeys(("createdAt", "startedAt", "updatedAt"), "secret")
    found = list(open_questions.from_runs(answer(payloads.page("runs", payloads.run(**fields)))))
    assert "secret" not in str(found)


def test_statuses_of_runs_are_observed_with_their_end() -> None:
    page = payloads.page(
        "runs", payloads.run("a", status="skipped", concluded=True), payloads.run("b")
    )
    found = observed(open_questions.from_runs(answer(page)), "concluded-by-status")
    assert found == ["skipped concluded", "running in flight"]


def test_missing_times_of_concluded_runs_are_observed() -> None:
    page = payloads.page(
        "runs",
        payloads.run("a", startedAt=...),  # in flight: nothing odd
        payloads.run("b", status="aborted", concluded=True, name=..., concludedAt=None),
    )
    found = observed(open_questions.from_runs(answer(page)), "missing-fields")
    assert found == ["name (concluded)", "concludedAt (concluded)"]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"updatedAt": T1}, ["created"]),
        ({"updatedAt": T2}, ["exact"]),
        ({"updatedAt": T3}, ["exact"]),
        ({"updatedAt": T2, "concludedAt": T3}, ["before the end"]),
        ({"updatedAt": T1, "concluded": False}, []),
        ({"updatedAt": T1, "concludedAt": T1}, []),  # ended as it was created
        ({"updatedAt": T1, "concludedAt": ...}, []),
        ({"updatedAt": T1, "createdAt": ...}, []),
        ({"updatedAt": ...}, []),
        ({"updatedAt": "secret"}, []),
    ],
)
def test_last_update_of_ended_run_is_observed(fields: dict[str, Any], texts: list[str]) -> None:
    ended = {"status": "success", "concluded": True, "createdAt": T1, "concludedAt": T2}
    page = payloads.page("runs", payloads.run(**ended | fields))
    assert observed(open_questions.from_runs(answer(page)), "updated-at") == texts


@pytest.mark.parametrize(
    ("pagination", "text"),
    [
        ({}, "omitted"),
        ({"cursor": None}, "null"),
        ({"cursor": ""}, "empty"),
        ({"cursor": "c"}, "present"),
    ],
)
def test_cursor_of_last_page_is_observed(pagination: dict[str, Any], text: str) -> None:
    body = payloads.page("runs") | {"pagination": {"hasNextPage": False, "count": 0} | pagination}
    assert observed(open_questions.from_any(answer(body)), "last-cursor") == [text]


def test_cursor_of_other_page_is_not_observed() -> None:
    body = payloads.page("runs", cursor="c")
    assert observed(open_questions.from_any(answer(body)), "last-cursor") == []


@pytest.mark.parametrize(
    ("body", "text"),
    [(payloads.error("No"), "error"), ({"message": "No"}, "no-wrapper"), (b"No", "text")],
)
def test_429_is_observed(body: Any, text: str) -> None:
    found = list(open_questions.from_any(answer(body, 429, **{"retry-after": "5"})))
    assert observed(found, "429-body") == [text]
    assert observed(found, "retry-after") == ["present"]


def test_403_and_missing_rate_limit_headers_are_observed() -> None:
    found = list(open_questions.from_any(answer(payloads.error("No"), 403)))
    assert observed(found, "no-access") == ["403"]
    assert observed(found, "rate-limit-headers") == ["absent"]


@pytest.mark.parametrize(("time", "unit"), [(1760000190, "seconds"), (1.76e12, "milliseconds")])
def test_unit_of_step_times_is_observed(time: float, unit: str) -> None:
    step = payloads.job_run(response={"status": "success", "startTime": time})
    found = open_questions.from_run(answer(payloads.data(payloads.detail(steps=[step]))))
    assert observed(found, "step-times") == [unit]


def test_steps_and_outputs_of_run_are_observed_by_type() -> None:
    secret = {"password": "s3cr3t"}
    done = payloads.job_run(response={"status": "success", "data": {"token": "s3cr3t"}})
    detail = payloads.detail(steps=[done, {"kind": "Approval"}], refs={"build": secret})
    found = list(open_questions.from_run(answer(payloads.data(detail))))
    assert observed(found, "steps-without-response") == ["2 of 3 (in flight)"]  # with the root
    assert observed(found, "refs") == ["object"]
    assert observed(found, "response-data") == ["text"]
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "absent"),
        ({"stages": [{"id": "x"}, {"id": "y"}]}, "array of 2 (object)"),
        ({"stages": []}, "array of 0 (empty)"),
        ({"stages": {"a": 1}}, "object"),
    ],
)
def test_stages_of_pipeline_are_observed_by_type(fields: dict[str, Any], text: str) -> None:
    found = open_questions.from_pipeline(answer(payloads.data({"name": "Main"} | fields)))
    assert observed(found, "pipeline-stages") == [text]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (payloads.error("No", id="e"), "404 with message, id"),
        (b"", "404 with no error object"),
    ],
)
def test_answer_for_unknown_run_is_observed(body: Any, text: str) -> None:
    assert observed(open_questions.from_unknown_run(answer(body, 404)), "unknown-run") == [text]


def test_questions_of_the_sandbox_have_its_names() -> None:
    """Those that reading cannot answer are about aborts and webhooks."""
    unanswerable = CHOICES.keys() - open_questions.QUESTIONS.keys()
    assert unanswerable == {"abort-answer", "abort-concluded", "abort-seconds", "webhook-body"}


@pytest.mark.slow
@given(body=JSON, inner=JSON, status=st.sampled_from([200, 403, 404, 429]))
def test_arbitrary_answer_is_observed_without_error(body: Any, inner: Any, status: int) -> None:
    nested = {"data": {"runs": inner, "spec": inner, "stages": inner, "refs": inner}}
    step = {"kind": "Workflow", "spec": {"steps": [inner, {"response": inner}]}}
    for sent in (body, {"data": inner}, nested, {"data": {"runs": [inner], "spec": step}}):
        for observe in (
            open_questions.from_any,
            open_questions.from_runs,
            open_questions.from_run,
            open_questions.from_pipeline,
            open_questions.from_unknown_run,
        ):
            list(observe(answer(sent, status)))
