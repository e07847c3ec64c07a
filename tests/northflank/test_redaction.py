"""Redaction of runs before they are stored: no secret remains, wherever it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import OMITTED, redact
from dashboard.northflank.redaction import MAX_DEPTH, MAX_NODES
from tests.support import payloads

SECRET = "s3cr3t-marker"
URL = f"https://user:{SECRET}@hooks.example/{SECRET}?token={SECRET}#{SECRET}"


def redacted(run: Any) -> str:
    return json.dumps(redact(run))


@pytest.mark.parametrize(
    "field",
    ["arguments", "triggers", "refs", "gitops", "$schema", "richInputs", "teardownSpec", "new"],
)
@pytest.mark.parametrize("value", [SECRET, {"token": SECRET}, [{"spec": {"token": SECRET}}]])
def test_run_fields_with_secrets_are_dropped(field: str, value: Any) -> None:
    assert SECRET not in redacted(payloads.detail(**{field: value}))


@pytest.mark.parametrize(
    "spec",
    [
        {"webhookUrl": SECRET},
        {"connectionString": SECRET},
        {"importUrl": URL},
        {"runtimeEnvironment": {"PASSWORD": SECRET}},
        {"runtimeFiles": {"/key": {"data": SECRET}}},
        {"secrets": [SECRET]},
        {"configs": {"a": SECRET}},
        {"credentials": SECRET},
        {"token": SECRET},
        {"arguments": {"variables": [{"key": "a", "value": SECRET}]}},
        {"buildOverrides": {"buildArguments": {"A": SECRET}}},
        {"message": SECRET},
        {"iterations": [SECRET]},
        {"context": {"projectId": SECRET}},
        {"origin": {"credentials": SECRET, "imagePath": URL}},
        {"spec": {"data": {"command": f"login {SECRET}"}}},
        {"spec": {"webhookUrl": SECRET, "message": SECRET}},
        {"kind": {"nested": SECRET}},
        {"id": [SECRET]},
        {"branch": URL},
    ],
)
def test_step_spec_secrets_are_dropped(spec: Any) -> None:
    step = {"kind": "Anything", "spec": spec}
    assert SECRET not in redacted(payloads.detail(steps=[payloads.workflow(step)]))


@pytest.mark.parametrize(
    "response",
    [
        {"data": {"output": SECRET}},
        {"data": SECRET},
        {"error": {"message": f"POST {URL} failed: 404"}},
        {"error": {"details": SECRET}},
        {"error": {"message": f"cannot open postgres://u:{SECRET}/x@db:5432/a"}},
        {"status": {"a": SECRET}},
        {"retries": {"last": SECRET}},
        {"new": SECRET},
    ],
)
def test_step_response_secrets_are_dropped(response: Any) -> None:
    step = payloads.job_run(response=response)
    assert SECRET not in redacted(payloads.detail(steps=[step]))


def test_run_fields_shown_on_pages_are_kept() -> None:
    run = payloads.detail(
        name="Nightly", description="a\nb", options={"concurrencyPolicy": "queue"}
    )
    assert redact(run) == run


SUBJECT = {
    name: f"the {name}"
    for name in (
        "id", "projectId", "serviceId", "jobId", "addonId", "buildId", "backupId", "importId",
        "runId", "clusterId",
    )
} | {"timeoutDuration": 60}  # fmt: skip
TARGET = {"id": "api", "type": "build", "branch": "main", "build": "b-1"}
STEP = {
    "kind": "Condition",
    "ref": "ready",
    "condition": "success",
    "timeoutDuration": "1800",
    "skipNodeExecution": True,
    "spec": {
        "type": "parallel",
        "kind": "Service",
        "target": TARGET,
        "origin": TARGET,
        "spec": {"type": "running", "data": SUBJECT},
        "amount": 2,
        **{
            name: f"the {name}"
            for name in (
                "id", "name", "projectId", "jobId", "addonId", "branch", "sha", "pullRequestId",
                "backupType", "templateType", "templateId",
            )
        },
    },
    "settings": {"maxAttempts": 3, "backoff": {"type": "linear", "delay": 5}},
    "response": {
        "status": "failure",
        "startTime": 1760000190,
        "endTime": 1760000200.5,
        "error": {"code": 7, "message": "no\nroom"},
        "retries": {
            "attempts": 2, "maxAttempts": 3, "timestamp": 1760000190, "nextAttempt": 1760000260,
            "initialCheckTime": 1760000191,
        },
    },
}  # fmt: skip


def test_allowed_step_fields_are_kept_at_any_level() -> None:
    run = payloads.detail(steps=[payloads.workflow(STEP)], options={"paused": True})
    assert redact(run) == run


def test_loop_iterations_are_replaced_by_their_count() -> None:
    loop = {"kind": "LoopWorkflow", "spec": {"iterations": ["eu", "us"], "steps": []}}
    assert redact(payloads.detail(spec=loop))["spec"] == {
        "kind": "LoopWorkflow",
        "spec": {"iterations": 2, "steps": []},
    }


@pytest.mark.parametrize("empty", [{}, None, [], "x"])
def test_empty_or_invalid_objects_are_dropped(empty: Any) -> None:
    step = {"kind": "Build", "spec": empty, "settings": empty, "response": empty}
    run = payloads.detail(steps=[step, empty], options=empty)
    expected = payloads.detail(steps=[{"kind": "Build"}] + ([{}] if empty == {} else []))
    assert redact(run) == expected


def test_invalid_steps_are_dropped_and_others_kept() -> None:
    steps = [None, payloads.job_run("a"), "x", payloads.job_run("b")]
    assert redact(payloads.detail(steps=steps)) == payloads.detail(steps=[steps[1], steps[3]])


def test_run_texts_are_cleaned() -> None:
    redacted = redact(payloads.detail(name="a\nb", description="a\nb\x00"))
    assert (redacted["name"], redacted["description"]) == ("a\ufffdb", "a\nb\ufffd")


def test_error_message_keeps_lines_and_host() -> None:
    step = payloads.job_run(response={"error": {"message": f"tried\x00\n{URL}"}})
    redacted: Any = redact(payloads.detail(steps=[step]))
    message = redacted["spec"]["spec"]["steps"][0]["response"]["error"]["message"]
    assert message == "tried\ufffd\nhttps://hooks.example/…"


@pytest.mark.parametrize(
    ("value", "storable"),
    [
        (2**63 - 1, True), (1 - 2**63, True), (2**63, False), (-(2**63), False),
        (1.5, True), (float("nan"), False), (float("-inf"), False), (True, True), (None, False),
    ],
)  # fmt: skip
def test_number_is_kept_only_if_storable(value: Any, storable: bool) -> None:
    assert ("apiVersion" in redact(payloads.detail(apiVersion=value))) is storable


def nested(levels: int) -> Any:
    step: Any = {"kind": "Build"}
    for _ in range(levels):
        step = payloads.workflow(step)
    return step


def depth_of(node: Any) -> int:
    return 1 + max(map(depth_of, node.get("spec", {}).get("steps", [])), default=0)


def test_steps_at_maximum_depth_are_kept() -> None:
    run = payloads.detail(spec=nested(MAX_DEPTH - 1))
    assert redact(run) == run


def test_steps_below_maximum_depth_are_replaced_by_a_marker() -> None:
    redacted: Any = redact(payloads.detail(spec=nested(MAX_DEPTH)))["spec"]
    assert depth_of(redacted) == MAX_DEPTH + 1
    while "spec" in redacted:
        (redacted,) = redacted["spec"]["steps"]
    assert redacted == {"kind": OMITTED}


def test_steps_above_maximum_number_are_replaced_by_a_marker() -> None:
    group = payloads.workflow(*[{"kind": "Build"}] * (MAX_NODES // 2))
    redacted: Any = redact(payloads.detail(steps=[group, group, group, group]))["spec"]
    full_group, cut_group, *other_groups = redacted["spec"]["steps"]
    assert len(full_group["spec"]["steps"]) == MAX_NODES // 2
    # The root and the groups count too, and each list that is cut ends in a marker.
    assert len(cut_group["spec"]["steps"]) == MAX_NODES // 2 - 3 + 1
    assert cut_group["spec"]["steps"][-1] == {"kind": OMITTED}
    assert other_groups == [{"kind": OMITTED}]


def test_redact_does_not_change_its_input() -> None:
    run = payloads.detail(arguments={"a": SECRET})
    before = json.dumps(run)
    redact(run)
    assert json.dumps(run) == before


def test_redacted_texts_and_numbers_are_storable() -> None:
    run = payloads.detail(name="a\x00\ud800", apiVersion=float("nan"), updatedAt=10**5000)
    assert redact(run)["name"] == "a\ufffd\ufffd"
    assert redact(run).keys().isdisjoint({"apiVersion", "updatedAt"})


ALLOWED_TEXTS = {"kind", "ref", "condition", "timeoutDuration", "skipNodeExecution"}


@given(
    st.recursive(
        st.just(SECRET),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "secrets", "arguments", "value", "env", "webhookUrl"]),
                children,
                max_size=3,
            )
        ),
    ),
    st.text(min_size=1, max_size=12).filter(lambda name: name not in ALLOWED_TEXTS),
)
def test_fields_not_allowed_are_dropped(value: Any, field: str) -> None:
    if field in {"spec", "response", "settings"} and isinstance(value, str):
        value = [value]
    step = payloads.job_run() | {field: value}
    assert SECRET not in redacted(payloads.detail(steps=[step]))
