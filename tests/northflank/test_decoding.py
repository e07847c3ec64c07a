"""From JSON to models: every field; no unexpected value raises an error."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboard.northflank import OMITTED, Node, NorthflankError, Project, Run, decoding, responses
from dashboard.northflank.models import Auth, Omission, Page, Pipeline, ReleaseFlow
from dashboard.northflank.redaction import MAX_DEPTH, MAX_NODES
from dashboard.northflank.values import as_text
from tests.support import payloads

# Values that no database, page or address accepts unchanged.
ODD_VALUES = [
    "a\0b",
    "a\x7fb\x80",
    "a\nb",
    "\ud800",
    "..",
    "x" * 256,
    "",
    math.nan,
    math.inf,
    10**400,
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["2021-01-01 12:01:00.000Z", "success", "Workflow", "true"])
    | st.sampled_from(ODD_VALUES)
)
KEYS = (
    "data",
    "id",
    "status",
    "concluded",
    "createdAt",
    "spec",
    "steps",
    "kind",
    "ref",
    "response",
    "error",
    "retries",
    "startTime",
    "target",
    "settings",
    "pagination",
    "cursor",
    "hasNextPage",
    "runs",
    "stages",
    "nfObjects",
    "permissions",
    "role",
    "options",
    "message",
    "name",
)
any_json = st.recursive(
    scalars,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), children, max_size=5)
    ),
    max_leaves=20,
)


# --- runs and steps ------------------------------------------------------------------------------


def decode_step(step: Any) -> Node:
    """Decode one step inside a Workflow."""
    detail = decoding.parse_run_detail(payloads.detail(steps=[step]))
    assert detail is not None
    assert detail.root is not None
    return detail.root.steps[0]


def test_run_is_decoded_as_documented() -> None:
    assert decoding.parse_run(
        payloads.run(concludedAt="2026-03-02T08:20:00Z", description="a\nb")
    ) == Run(
        id=payloads.RUN_ID,
        name="Nightly 42",
        description="a\nb",
        status="running",
        concluded=False,
        created_at=datetime(2026, 3, 2, 8, 15, 1, 4000, UTC),
        started_at=datetime(2026, 3, 2, 8, 15, 3, 120000, UTC),
        concluded_at=datetime(2026, 3, 2, 8, 20, tzinfo=UTC),
        updated_at=datetime(2026, 3, 2, 8, 16, 40, 551000, UTC),
    )


def test_run_with_only_an_id_is_decoded() -> None:
    assert decoding.parse_run({"id": "r"}) == Run(
        "r",
        None,
        None,
        "unknown",
        concluded=False,
        created_at=None,
        started_at=None,
        concluded_at=None,
        updated_at=None,
    )


@pytest.mark.parametrize("status", ["aborted", "success", "failure", "skipped"])
def test_run_concluded_is_derived_only_when_missing(status: str) -> None:
    derived = decoding.parse_run(payloads.run(status=status, concluded=...))
    contradicted = decoding.parse_run(payloads.run(status=status, concluded=False))
    assert derived is not None
    assert derived.concluded
    assert contradicted is not None
    assert not contradicted.concluded


@pytest.mark.parametrize("status", ["running", "unknown", "paused_by_moon", "Success"])
def test_run_with_unknown_status_keeps_it_and_is_not_concluded(status: str) -> None:
    run = decoding.parse_run(payloads.run(status=status, concluded=None))
    assert run is not None
    assert (run.status, run.concluded) == (status, False)


def test_run_detail_without_id_gets_requested_id() -> None:
    detail = decoding.parse_run_detail({"status": "aborting"}, requested_id="r1")
    assert detail is not None
    assert detail.run.id == "r1"


@pytest.mark.parametrize("payload", [{"concluded": True}, {"concluded": False}, {"status": "new"}])
def test_run_detail_with_status_or_concluded_is_decoded(payload: Any) -> None:
    detail = decoding.parse_run_detail(payload, requested_id="r1")
    assert detail is not None
    assert detail.run.id == "r1"


@pytest.mark.parametrize("payload", [None, {}, {"id": "r1", "name": "x"}, {"concluded": "yes"}])
def test_run_detail_without_status_or_concluded_is_none(payload: Any) -> None:
    assert decoding.parse_run_detail(payload, requested_id="r1") is None


def test_run_detail_raw_has_no_secrets() -> None:
    detail = decoding.parse_run_detail(payloads.detail(arguments={"token": "s3cr3t"}))
    assert detail is not None
    assert detail.raw == payloads.detail()


def test_step_is_decoded_as_documented() -> None:
    node = decode_step(
        payloads.job_run(
            ref="db",
            timeoutDuration="1800",
            skipNodeExecution="true",
            response={
                "status": "retrying",
                "error": {"code": 7, "message": "no\nroom"},
                "retries": {"attempts": 2, "maxAttempts": 3, "nextAttempt": 1760000260},
                "startTime": 1760000190000,
                "endTime": "1760000200",
            },
        )
    )
    assert node == Node(
        kind="JobRun",
        ref="db",
        label="db",
        status="retrying",
        error_code=7,
        error_message="no\nroom",
        attempts=2,
        max_attempts=3,
        next_attempt_at=datetime.fromtimestamp(1760000260, UTC),
        started_at=datetime.fromtimestamp(1760000190, UTC),
        ended_at=datetime.fromtimestamp(1760000200, UTC),
        condition="success",
        timeout_seconds=1800,
        parallel=False,
        skip=True,
        steps=(),
    )


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ({"kind": "JobRun", "spec": {"jobId": "migrate"}}, "JobRun migrate"),
        ({"kind": "Build", "spec": {"id": "api"}}, "Build api"),
        ({"kind": "Release", "spec": {"target": {"id": "api"}}}, "Release api"),
        ({"kind": "AddonBackup", "spec": {"addonId": "db"}}, "AddonBackup db"),
        (
            {
                "kind": "Condition",
                "spec": {"kind": "Service", "spec": {"data": {"serviceId": "a"}}},
            },
            "Condition Service a",
        ),
        ({"kind": "Message", "spec": {"kind": "SLACK", "webhookUrl": "x"}}, "Message SLACK"),
        ({"kind": "Approval"}, "Approval"),
        ({"kind": "FutureThing", "ref": "x"}, "x"),
        ({}, "unknown"),
    ],
)
def test_step_label_is_readable(step: Any, label: str) -> None:
    assert decode_step(step).label == label


def test_step_max_attempts_fall_back_to_settings() -> None:
    assert decode_step({"kind": "Build", "settings": {"maxAttempts": 5}}).max_attempts == 5


@pytest.mark.parametrize(
    ("value", "skipped"),
    [(True, True), ("true", True), (False, False), ("false", False), (None, False)],
)
def test_step_is_skipped_only_when_true(value: Any, skipped: bool) -> None:
    assert decode_step({"kind": "Build", "skipNodeExecution": value}).skip is skipped


def test_condition_timeout_is_found_in_nested_spec() -> None:
    step = {"kind": "Condition", "spec": {"spec": {"data": {"timeoutDuration": 60}}}}
    assert decode_step(step).timeout_seconds == 60


@pytest.mark.parametrize("kind", ["Condition", "Action"])
def test_step_subject_kind_is_decoded(kind: str) -> None:
    assert decode_step({"kind": kind, "spec": {"kind": "Service"}}).target_kind == "Service"


def test_condition_type_is_decoded() -> None:
    step = {"kind": "Condition", "spec": {"kind": "Build", "spec": {"type": "success"}}}
    assert decode_step(step).condition == "success"


def test_action_type_is_no_condition() -> None:
    step = {"kind": "Action", "spec": {"kind": "Service", "spec": {"type": "restart"}}}
    assert decode_step(step).condition is None


def test_approval_amount_is_decoded() -> None:
    assert decode_step({"kind": "Approval", "spec": {"amount": 2}}).required_approvals == 2


@pytest.mark.parametrize(
    ("iterations", "count"), [(["eu", "us"], 2), ([], 0), ("${args.regions}", None), (None, None)]
)
def test_loop_iterations_are_counted(iterations: Any, count: int | None) -> None:
    loop = {"kind": "LoopWorkflow", "spec": {"iterations": iterations, "steps": []}}
    assert decode_step(loop).iterations == count


@pytest.mark.parametrize("kind", ["Workflow", "LoopWorkflow"])
def test_workflow_and_loop_steps_are_decoded(kind: str) -> None:
    node = decode_step({"kind": kind, "spec": {"type": "parallel", "steps": [payloads.job_run()]}})
    assert node.parallel
    assert [step.kind for step in node.steps] == ["JobRun"]


@pytest.mark.parametrize(
    "root",
    [
        {"kind": "Workflow"},
        {"kind": "Workflow", "spec": None},
        payloads.workflow(steps=None),
        payloads.workflow(steps={"a": 1}),
        payloads.workflow(None, 3, "x", []),
    ],
)
def test_workflow_without_valid_steps_has_none(root: Any) -> None:
    detail = decoding.parse_run_detail(payloads.detail(spec=root))
    assert detail is not None
    assert detail.root is not None
    assert detail.root.steps == ()


@pytest.mark.parametrize("spec", [None, [], "x", ...])
def test_run_without_valid_spec_has_no_steps(spec: Any) -> None:
    detail = decoding.parse_run_detail(payloads.detail(spec=spec))
    assert detail is not None
    assert detail.root is None


def test_run_whose_steps_have_neither_kind_nor_status_has_no_steps() -> None:
    spec = {"kind": 7, "spec": {"steps": [{"kind": 7, "response": {"status": 7}}]}}
    detail = decoding.parse_run_detail(payloads.detail(spec=spec))
    assert detail is not None
    assert detail.root is None
    spec["spec"] = {"steps": [{"kind": 7, "response": {"status": "success"}}]}
    detail = decoding.parse_run_detail(payloads.detail(spec=spec))
    assert detail is not None
    assert detail.root is not None


def nested(levels: int) -> Any:
    step: Any = payloads.job_run()
    for _ in range(levels):
        step = payloads.workflow(step)
    return step


@pytest.mark.parametrize("levels", [MAX_DEPTH, 1000, 50_000])
def test_steps_nested_too_deeply_end_in_a_marker(levels: int) -> None:
    detail = decoding.parse_run_detail(payloads.detail(spec=nested(levels)))
    assert detail is not None
    node, depth = detail.root, 1
    while node and node.steps:
        node, depth = node.steps[0], depth + 1
    assert node is not None
    assert (node.kind, node.label, depth) == (OMITTED, "More steps, not shown", MAX_DEPTH + 1)


def test_steps_above_maximum_end_in_a_marker() -> None:
    detail = decoding.parse_run_detail(payloads.detail(steps=[payloads.job_run()] * 5000))
    assert detail is not None
    assert detail.root is not None
    assert len(detail.root.steps) == MAX_NODES  # including the root; the marker replaces one
    assert detail.root.steps[-1].kind == OMITTED


def test_steps_and_raw_run_are_json_serializable() -> None:
    detail = decoding.parse_run_detail(payloads.detail(steps=[nested(80), {"kind": "\ud800\x00"}]))
    assert detail is not None
    json.dumps(detail.raw, allow_nan=False).encode()
    assert msgspec.to_builtins(detail.root)["steps"][1]["kind"] == "\ufffd\ufffd"


def test_flow_policy_in_options_is_decoded() -> None:
    flow = decoding.parse_release_flow(
        {"options": {"concurrencyPolicy": "replace", "paused": True}}
    )
    assert flow is not None
    assert (flow.concurrency_policy, flow.paused) == ("replace", True)


def test_flow_is_decoded_as_documented() -> None:
    payload = {
        "paused": False,
        "concurrencyPolicy": "queue",
        "options": {"concurrencyPolicy": "replace", "paused": True},  # older: the outer fields win
    }
    assert decoding.parse_release_flow(payload) == ReleaseFlow(
        paused=False, concurrency_policy="queue"
    )


def test_flow_with_null_paused_has_that_of_its_options() -> None:
    flow = decoding.parse_release_flow({"paused": None, "options": {"paused": True}})
    assert flow is not None
    assert flow.paused is True


def test_flow_without_paused_is_not_paused() -> None:
    assert decoding.parse_release_flow({"stage": "Production"}) == ReleaseFlow(
        paused=False, concurrency_policy=None
    )


@pytest.mark.parametrize("paused", [7, "yes", [], {}])
def test_flow_with_odd_paused_has_none(paused: Any) -> None:
    flow = decoding.parse_release_flow({"stage": "Production", "paused": paused})
    assert flow == ReleaseFlow(paused=None, concurrency_policy=None)


@pytest.mark.parametrize("payload", [None, {}, [], "x", {"message": "down for maintenance"}])
def test_flow_without_any_field_is_none(payload: Any) -> None:
    assert decoding.parse_release_flow(payload) is None


def test_auth_is_decoded_as_documented() -> None:
    payload = {
        "tokenKind": "api",
        "entityId": "acme",
        "entityType": "team",
        "role": {"name": "Release manager", "roleId": "r1"},
        "permissions": {"teamScope": ["a"], "projectScope": ["b", "c"]},
        "projectRestrictions": {"enabled": True, "projects": ["shop"], "restrictionMode": "notIn"},
        "expiresAt": "2026-03-02T08:15:03.120Z",
    }
    assert decoding.parse_auth(payload) == Auth(
        entity_id="acme",
        entity_type="team",
        token_kind="api",
        role="Release manager",
        permissions=("a", "b", "c"),
        restriction_mode="notIn",
        restricted_projects=("shop",),
        expires_at=datetime(2026, 3, 2, 8, 15, 3, 120_000, tzinfo=UTC),
    )


def test_disabled_restriction_of_token_is_none() -> None:
    payload = {"enabled": False, "projects": ["shop"], "restrictionMode": "in"}
    auth = decoding.parse_auth({"projectRestrictions": payload})
    assert (auth.restriction_mode, auth.restricted_projects) == (None, ())


@pytest.mark.parametrize("odd", [None, 7, "x", [None, 7], {"a": None, "b": 7, "c": [7, None, ""]}])
def test_auth_with_odd_permissions_has_none(odd: Any) -> None:
    payload = {"permissions": odd, "projectRestrictions": odd, "role": odd, "expiresAt": odd}
    assert decoding.parse_auth(payload) == Auth(None, None)


def test_auth_without_data_has_empty_fields() -> None:
    assert decoding.parse_auth(None) == Auth(None, None)


def test_project_is_decoded_as_documented() -> None:
    assert decoding.parse_project({"id": "p", "name": "P"}) == Project("p", "P")


def test_listed_pipeline_is_decoded_as_documented() -> None:
    payload = {"id": "p", "name": "P", "description": "a\nb"}
    assert decoding.parse_pipeline(payload) == Pipeline("p", "P", "a\nb")


@pytest.mark.parametrize(
    ("description", "decoded"), [(None, ""), ("", ""), (" ", ""), (7, None), ([], None)]
)
def test_description_of_pipeline_is_none_only_in_another_type(
    description: object, decoded: str | None
) -> None:
    payload = {"id": "p", "name": "P", "description": description}
    assert decoding.parse_pipeline(payload) == Pipeline("p", "P", decoded)


@pytest.mark.parametrize("blank", ["  ", "\u200b"])
def test_blank_name_is_none(blank: str) -> None:
    payload = {"id": "a", "name": blank, "status": "running"}
    run = decoding.parse_run(payload)
    assert run is not None
    assert run.name is None
    assert decoding.parse_project(payload) == Project("a", None)
    assert decoding.parse_pipeline(payload) == Pipeline("a", None, "")


@pytest.mark.parametrize(
    ("decode", "decoded"),
    [
        (decoding.parse_project, Project("x", None)),
        (decoding.parse_pipeline, Pipeline("x", None, "")),
    ],
)
def test_object_with_odd_name_has_none(decode: Callable[[Any], Any], decoded: Any) -> None:
    assert decode({"id": "x", "name": 7}) == decoded


@pytest.mark.parametrize(
    "decode",
    [decoding.parse_project, decoding.parse_pipeline, decoding.parse_run],
)
@pytest.mark.parametrize("payload", [None, {}, {"id": 7}, {"id": ".."}, ["x"]])
def test_object_without_valid_id_is_none(decode: Callable[[Any], Any], payload: Any) -> None:
    assert decode(payload) is None


# --- a page of a list ---------------------------------------------------------------------------


def test_page_is_decoded_as_documented() -> None:
    page = decoding.parse_page(
        {
            "data": {"projects": [{"id": "a"}, {"name": "no id"}, {"id": "b"}], "runs": []},
            "pagination": {"hasNextPage": True, "cursor": "next", "count": 3},
        },
        "projects",
        decoding.parse_project,
        limit=3,
    )
    projects = (Project("a", None), Project("b", None))
    assert page == Page(items=projects, has_next=True, cursor="next", omitted={Omission.NO_ID: 1})


def test_page_counts_every_entry_with_the_id_of_an_earlier_one() -> None:
    body = {"data": [{"id": id} for id in ("a", "b", "a", "b", "a")]}
    page = decoding.parse_page(body, "projects", decoding.parse_project, limit=9)
    assert page == Page(
        (Project("a", None), Project("b", None)), False, None, {Omission.DUPLICATE_ID: 3}
    )


@pytest.mark.parametrize(
    ("entry", "omission"),
    [
        ({"id": "a"}, Omission.UNREADABLE),  # a run without its state
        ({"id": "x" * 255}, Omission.UNREADABLE),
        ({"id": "x" * 254 + "\0"}, Omission.NO_ID),  # none that can be used, though not too long
        ({"id": "x" * 256}, Omission.LONG_ID),
        ({"status": "running"}, Omission.NO_ID),
        (7, Omission.UNREADABLE),
    ],
)
def test_page_says_why_an_entry_is_omitted(entry: Any, omission: Omission) -> None:
    page = decoding.parse_page({"data": [entry]}, "runs", decoding.parse_listed_run, limit=9)
    assert page == Page((), False, None, {omission: 1})


@pytest.mark.parametrize("has_next", [False, None, "true", 1])
def test_page_has_next_only_when_true(has_next: Any) -> None:
    body = {"data": [], "pagination": {"hasNextPage": has_next}}
    assert decoding.parse_page(body, "projects", decoding.parse_project, limit=9) == Page(
        (), False, None
    )


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        ([{"id": "a"}], ["a"]),
        ({"projects": [{"id": "a"}], "others": [{"id": "b"}]}, ["a"]),
        ({"others": [{"id": "b"}], "count": 1}, ["b"]),
        ([], []),
        ({"projects": []}, []),
    ],
)
def test_page_list_is_found_bare_by_name_or_as_only_array(data: Any, ids: list[str]) -> None:
    page = decoding.parse_page({"data": data}, "projects", decoding.parse_project, limit=9)
    assert page is not None
    assert [item.id for item in page.items] == ids


@pytest.mark.parametrize(
    "data",
    [
        {"projects": None, "others": [{"id": "b"}]},
        {"projects": "odd"},
        {"others": [{"id": "b"}], "more": [{"id": "c"}]},
        {"message": "down for maintenance"},
        {},
        None,
        "text",
        7,
    ],
)
def test_page_without_list_is_none(data: Any) -> None:
    assert decoding.parse_page({"data": data}, "projects", decoding.parse_project, limit=9) is None


def test_page_of_runs_without_list_is_empty() -> None:
    assert decoding.parse_page({"data": {}}, "runs", decoding.parse_run, limit=9) == Page(
        (), False, None
    )


@pytest.mark.parametrize(
    "payload", [{"id": "a"}, {"id": "a", "status": 7}, {"status": "running"}, 7]
)
def test_listed_run_without_id_or_state_is_none(payload: Any) -> None:
    assert decoding.parse_listed_run(payload) is None


@pytest.mark.parametrize("fields", [{"status": "running"}, {"concluded": True}])
def test_listed_run_with_status_or_concluded_is_decoded(fields: Any) -> None:
    assert decoding.parse_listed_run({"id": "a"} | fields) == decoding.parse_run(
        {"id": "a"} | fields
    )


@pytest.mark.parametrize(
    ("page", "complete"),
    [
        (Page((), False, None), True),
        (Page((), True, None), False),
        (Page((), False, None, {Omission.UNREADABLE: 1}), False),
        (Page((), False, None, {Omission.SURPLUS: 1}), False),
    ],
)
def test_page_is_complete_only_at_end_without_gaps(page: Page[Any], complete: bool) -> None:
    assert page.is_complete is complete


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for child in value.values() if isinstance(value, dict) else value:
            yield from texts(child)


def is_storable(decoded: Any) -> bool:
    """Return whether a database can store the decoded value."""
    builtins = msgspec.to_builtins(decoded)
    json.dumps(builtins, allow_nan=False)  # raises
    return not any(re.search("[\0\ud800-\udfff]", text) for text in texts(builtins))


def id_of(payload: Any) -> str | None:
    """Return the object's id if it can be stored and be part of an address."""
    id = payload.get("id") if isinstance(payload, dict) else None
    if not isinstance(id, str) or not 0 < len(id) <= 255 or id in {".", ".."}:
        return None
    return None if re.search("[\x00-\x1f\ud800-\udfff]", id) else id


any_object = any_json | st.builds(
    lambda key, fields: fields | {"id": key},
    st.sampled_from(["an-id", *ODD_VALUES]) | scalars,
    st.dictionaries(st.sampled_from(KEYS), any_json, max_size=5),
)


@pytest.mark.slow
@settings(max_examples=100)
@given(any_object)
def test_any_json_is_decoded_only_with_valid_id(payload: Any) -> None:
    for decode, model in (
        (decoding.parse_project, Project),
        (decoding.parse_pipeline, Pipeline),
        (decoding.parse_run, Run),
    ):
        decoded: Any = decode(payload)
        assert (decoded.id if decoded else None) == id_of(payload)
        assert decoded is None or (type(decoded) is model and is_storable(decoded))
    detail = decoding.parse_run_detail(payload)
    assert (detail.run if detail else None) == decoding.parse_listed_run(payload)
    assert detail is None or is_storable(detail)


@pytest.mark.slow
@settings(max_examples=100)
@given(any_object)
def test_any_json_without_id_is_decoded_to_storable_value(payload: Any) -> None:
    auth = decoding.parse_auth(payload)
    assert isinstance(auth, Auth)
    assert is_storable(auth)
    assert is_storable(decoding.parse_pipeline_name(payload))
    flow = decoding.parse_release_flow(payload)
    assert flow is None or isinstance(payload, dict)
    assert flow is None or (isinstance(flow, ReleaseFlow) and is_storable(flow))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(any_object, max_size=6))
def test_page_of_any_json_counts_what_it_leaves_out(items: list[Any]) -> None:
    page = decoding.parse_page({"data": {"runs": items}}, "runs", decoding.parse_run, limit=4)
    assert page is not None
    assert [run.id for run in page.items] == list(
        dict.fromkeys(filter(None, map(id_of, items[:4])))
    )
    assert sum(page.omitted.values()) == len(items) - len(page.items)
    assert page.omitted.get(Omission.SURPLUS, 0) == len(items[4:])


@settings(max_examples=50)
@given(any_json)
def test_page_of_any_json_is_storable_or_none(payload: Any) -> None:
    page = decoding.parse_page(payload, "runs", decoding.parse_run, limit=100)
    if page is None:
        return
    assert all(type(run) is Run for run in page.items)
    assert type(page.has_next) is bool
    assert is_storable(page)


OPTIONAL = {"name": "name", "createdAt": "created_at", "startedAt": "started_at"}


OPTIONAL_TIMES = dict.fromkeys(
    [*OPTIONAL, "status", "concluded", "updatedAt", "spec"], scalars | any_json
)


@pytest.mark.slow
@given(st.fixed_dictionaries({}, optional=OPTIONAL_TIMES))
def test_run_detail_survives_invalid_optional_fields(fields: dict[str, Any]) -> None:
    payload = payloads.run() | fields
    detail = decoding.parse_run_detail(payload, requested_id=payloads.RUN_ID)
    # One of the two must contain the run's state.
    is_status_visible = as_text(payload["status"]) is not None
    has_state = isinstance(payload["concluded"], bool) or is_status_visible
    assert (detail is not None) == has_state
    if detail is None:
        return
    assert is_storable(detail)
    assert detail.run.id == payloads.RUN_ID
    run = decoding.parse_run(payloads.run())
    for field, name in OPTIONAL.items():
        if field not in fields:
            assert getattr(detail.run, name) == getattr(run, name) != None  # noqa: E711


nodes = st.recursive(
    any_json,
    lambda children: st.builds(
        lambda steps, fields: payloads.workflow(*steps) | fields,
        st.lists(children, max_size=5),
        st.dictionaries(st.sampled_from(["ref", "response", "settings"]), any_json, max_size=2),
    ),
    max_leaves=15,
)


@pytest.mark.slow
@settings(max_examples=50)
@given(nodes)
def test_steps_of_any_tree_are_decoded(root: Any) -> None:
    detail = decoding.parse_run_detail(payloads.detail(spec=root))
    assert detail is not None
    assert detail.root is None or isinstance(root, dict)
    kind = root.get("kind") if isinstance(root, dict) else None
    assert detail.root is not None or as_text(kind) is None


@example(500, {}, {"message": "a\x7fb\x80c"})
@given(st.integers(100, 599), st.dictionaries(st.text(), st.text()), st.binary() | any_json)
def test_any_response_is_json_or_raises_northflank_error(
    status: int, headers: dict[str, str], body: Any
) -> None:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    text = "an answer"
    try:
        responses.unwrap(responses.decode(status, headers, payload), status)
    except NorthflankError as failure:
        text = str(failure)
    assert not {"Cc", "Cs"} & set(map(unicodedata.category, text))  # controls, half characters
