"""What of a run may be stored: no secret survives, wherever it stands."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import redact
from tests.support import payloads

SECRET = "s3cr3t-marker"
URL = f"https://user:{SECRET}@hooks.example/{SECRET}?token={SECRET}#{SECRET}"


def kept(run: Any) -> str:
    return json.dumps(redact(run))


@pytest.mark.parametrize(
    "field",
    ["arguments", "triggers", "refs", "gitops", "$schema", "richInputs", "teardownSpec", "new"],
)
@pytest.mark.parametrize("value", [SECRET, {"token": SECRET}, [{"spec": {"token": SECRET}}]])
def test_a_runs_secrets_are_dropped(field: str, value: Any) -> None:
    assert SECRET not in kept(payloads.detail(**{field: value}))


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
def test_a_steps_secrets_are_dropped(spec: Any) -> None:
    step = {"kind": "Anything", "spec": spec}
    assert SECRET not in kept(payloads.detail(steps=[payloads.workflow(step)]))


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
def test_a_responses_secrets_are_dropped(response: Any) -> None:
    step = payloads.job_run(response=response)
    assert SECRET not in kept(payloads.detail(steps=[step]))


def test_what_the_pages_need_is_kept() -> None:
    run = payloads.detail(
        name="Nightly", description="a\nb", options={"concurrencyPolicy": "queue"}
    )
    assert redact(run) == run


def test_the_answer_itself_is_not_changed() -> None:
    run = payloads.detail(arguments={"a": SECRET})
    before = json.dumps(run)
    redact(run)
    assert json.dumps(run) == before


def test_texts_and_numbers_can_be_stored() -> None:
    run = payloads.detail(name="a\x00\ud800", apiVersion=float("nan"), updatedAt=10**5000)
    assert redact(run)["name"] == "a\ufffd\ufffd"
    assert redact(run).keys().isdisjoint({"apiVersion", "updatedAt"})


ALLOWED_TEXTS = {"kind", "ref", "condition", "timeoutDuration", "skipNodeExecution"}


@given(
    st.recursive(
        st.just(SECRET),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "secrets", "arguments", "value", "env", "webhookUrl"]),
                inner,
                max_size=3,
            )
        ),
    ),
    st.text(min_size=1, max_size=12).filter(lambda name: name not in ALLOWED_TEXTS),
)
def test_no_field_that_is_not_named_survives(value: Any, field: str) -> None:
    if field in {"spec", "response", "settings"} and isinstance(value, str):
        value = [value]
    step = payloads.job_run() | {field: value}
    assert SECRET not in kept(payloads.detail(steps=[step]))
