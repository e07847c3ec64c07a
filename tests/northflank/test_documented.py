"""Comparison of answers with the documentation: what counts as a difference, and its name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import Answer, find_differences
from dashboard.northflank.documented import MAX_DIFFERENCES, RATE_LIMIT_HEADERS
from tests.support import payloads

HEADERS = dict.fromkeys(RATE_LIMIT_HEADERS, "7") | {"content-type": "application/json"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
ROUTES = [
    "GET auth",
    "GET projects",
    "GET pipelines",
    "GET pipeline",
    "GET release-flow",
    "GET runs",
    "GET run",
]


def answer(route: str, body: Any, status: int = 200, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(route, status, HEADERS | headers, content)


def differences(route: str, body: Any, status: int = 200, **headers: str) -> list[tuple[str, str]]:
    found = find_differences(answer(route, body, status, **headers))
    assert {difference.route for difference in found} <= {route}
    return [(difference.field, difference.problem) for difference in found]


def test_documented_page_of_runs_has_no_difference() -> None:
    optional = payloads.run("b", name=None, startedAt=..., concludedAt=None)
    assert differences("GET runs", payloads.page("runs", payloads.run(), optional)) == []


def test_documented_run_has_no_difference() -> None:
    steps = [payloads.workflow(payloads.job_run()), {"kind": "Approval", "spec": {"amount": 2}}]
    assert differences("GET run", payloads.data(payloads.detail(steps=steps))) == []


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"status": "hibernating"}, ("status", "value “hibernating” is not documented")),
        ({"status": 7}, ("status", "a number instead of text")),
        ({"concluded": ...}, ("concluded", "missing")),
        ({"concluded": "false"}, ("concluded", "text instead of true or false")),
        ({"createdAt": 1760000190}, ("createdAt", "a number instead of a time as text")),
        ({"createdAt": "yesterday"}, ("createdAt", "text instead of a time as text")),
        ({"updatedAt": None}, ("updatedAt", "null instead of a time as text")),
        ({"startedBy": "ana"}, ("startedBy", "field is not documented")),
    ],
)
def test_difference_in_run_names_field_and_problem(
    fields: dict[str, Any], difference: tuple[str, str]
) -> None:
    field, problem = difference
    body = payloads.page("runs", payloads.run(**fields))
    assert differences("GET runs", body) == [(f"data.runs[].{field}", problem)]


def test_difference_is_counted_once_per_entry() -> None:
    odd = [payloads.run(str(number), status="hibernating") for number in range(3)]
    [difference] = find_differences(answer("GET runs", payloads.page("runs", *odd, payloads.run())))
    assert difference.count == 3


def test_difference_in_step_is_found_at_any_depth() -> None:
    odd = payloads.job_run(kind="Teleport")
    body = payloads.data(payloads.detail(steps=[payloads.workflow(payloads.workflow(odd))]))
    [(field, problem)] = differences("GET run", body)
    assert problem == "value “Teleport” is not documented"
    assert field == "data.spec.spec.steps[].spec.steps[].spec.steps[].kind"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", "not JSON but text/html"),
        (b'{"data": {"ru', "not JSON but text/html"),
        (b"", "empty body"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_answer_without_json_is_one_difference(body: bytes, problem: str) -> None:
    headers = {"content-type": "text/html; charset=utf-8"}
    found = find_differences(Answer("GET runs", 200, HEADERS | headers, body))
    assert [(difference.field, difference.problem) for difference in found] == [("", problem)]


def test_steps_nested_too_deeply_are_a_difference() -> None:
    step: dict[str, Any] = payloads.job_run()
    for _ in range(100):
        step = payloads.workflow(step)
    body = payloads.data(payloads.detail(steps=[step]))
    assert ("", "nested too deeply") in differences("GET run", body)


@pytest.mark.parametrize("status", [201, 202])
def test_success_by_another_status_is_a_difference(status: int) -> None:
    found = differences("GET runs", payloads.page("runs"), status)
    assert found == [("", f"status {status} instead of 200")]


@pytest.mark.parametrize("value", [None, "soon", "-1", ""])
def test_rate_limit_header_missing_or_odd_is_a_difference(value: str | None) -> None:
    headers = {name: text for name, text in HEADERS.items() if name != "x-ratelimit-reset"}
    if value is not None:
        headers["x-ratelimit-reset"] = value
    body = json.dumps(payloads.page("runs")).encode()
    [difference] = find_differences(Answer("GET runs", 200, headers, body))
    assert difference.field == "header x-ratelimit-reset"
    assert difference.problem == ("missing" if value is None else "no plain number")


def test_error_in_documented_form_has_no_difference() -> None:
    assert differences("GET run", payloads.error("Not found", id="e1", status=404), 404) == []


@pytest.mark.parametrize(
    ("body", "difference"),
    [
        ({"message": "No"}, ("error", "missing")),
        ({"error": "No"}, ("error", "text instead of an object")),
        ({"error": {}}, ("error.message", "missing")),
    ],
)
def test_error_in_another_form_is_a_difference(body: Any, difference: tuple[str, str]) -> None:
    assert difference in differences("GET run", body, 404)


@pytest.mark.parametrize("status", [429, 500, 502])
def test_error_body_without_documented_form_is_not_compared(status: int) -> None:
    assert differences("GET run", b"<html>", status) == []


def test_names_and_values_of_the_account_are_not_quoted() -> None:
    secret = "s3cr3t-value-of-the-account"
    body = payloads.page(
        "runs",
        payloads.run(status=secret, **{secret: 1, "two words": 2}, concluded=secret),
    )
    found = differences("GET runs", body, **{"content-type": secret})
    assert ("data.runs[].status", f"value of {len(secret)} characters is not documented") in found
    assert ("data.runs[].…", "field is not documented") in found
    assert secret not in str(found)


def test_differences_of_one_answer_are_limited() -> None:
    names = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    body = payloads.data(payloads.detail(**dict.fromkeys(names, 1)))
    assert len(differences("GET run", body)) == MAX_DIFFERENCES


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@given(body=JSON, inner=JSON, status=st.sampled_from([200, 202, 302, 403, 404]))
def test_arbitrary_answer_is_compared_without_error(
    route: str, body: Any, inner: Any, status: int
) -> None:
    find_differences(answer(route, body, status))
    find_differences(answer(route, {"data": inner}, status))
    find_differences(answer(route, {"data": {route.removeprefix("GET "): inner}}, status))
    find_differences(answer(route, {"data": {"spec": {"spec": {"steps": inner}}}}, status))
