"""From JSON to models: every field, nothing secret; no unexpected value raises an error."""

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboard.northflank import (
    Auth,
    Node,
    NorthflankError,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
    WorkRef,
    decoding,
    responses,
)
from dashboard.northflank.decoding import MAX_DEPTH, MAX_NODES
from dashboard.northflank.models import OMITTED
from tests.support import payloads

SECRET = "s3cr3t-marker"
URL = f"https://user:{SECRET}@hooks.example/{SECRET}?token={SECRET}#{SECRET}"

# Values that no database, page or address accepts unchanged.
ODD_VALUES = ["a\0b", "a\x7fb\x80", "a\nb", "\ud800", "..", "x" * 256, "", 1e300, 10**400]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["2021-01-01 12:01:00.000Z", "success", "Workflow", "true", *ODD_VALUES])
)
KEYS = (
    "data", "id", "status", "concluded", "createdAt", "spec", "steps", "kind", "ref", "response",
    "error", "retries", "startTime", "target", "settings", "pagination", "hasNextPage", "runs",
    "permissions", "projectRestrictions", "role", "options", "paused", "message", "name",
)  # fmt: skip
any_json = st.recursive(
    scalars,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), children, max_size=5)
    ),
    max_leaves=20,
)
any_object = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), any_json, max_size=6)
nodes = st.recursive(
    any_object,
    lambda children: st.builds(
        lambda steps, fields: payloads.workflow(*steps) | fields,
        st.lists(children | any_json, max_size=5),
        st.dictionaries(st.sampled_from(["ref", "response", "settings"]), any_json, max_size=2),
    ),
    max_leaves=15,
)


def decode_detail(**fields: Any) -> RunDetail:
    detail = decoding.parse_run_detail(payloads.detail(**fields))
    assert detail is not None
    return detail


def decode_step(step: Any) -> Node:
    """Decode one step inside a Workflow."""
    root = decode_detail(steps=[step]).root
    assert root is not None
    return root.steps[0]


def build(built: object, status: str = "success", **spec: object) -> payloads.Json:
    response = {"status": status, "data": {"sha": built, "pullSecret": "s3cret"}}
    return {"kind": "Build", "spec": {"id": "api", **spec}, "response": response}


def release(build_id: object, status: str = "success") -> payloads.Json:
    spec = {"type": "build", "origin": {"id": "api", "build": build_id}}
    return {"kind": "Release", "spec": spec, "response": {"status": status}}


A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([build(A), release("joyous-view-6290")], f"commit {A}"),
        ([build(B), payloads.workflow(build(A), build(B))], f"commit {A} {B}"),
        ([build(None, sha=A)], f"commit {A}"),
        ([build(A, "failure")], None),
        ([build("${refs.build.sha}"), build("s3cret"), build(A + "a"), build({})], None),
        ([release("two"), release("one"), release("latest")], "build one two"),
        ([release("${refs.build.id}"), release("latest"), release("one", "skipped")], None),
        ([build(f"{n:040}") for n in range(decoding.MAX_RELEASED + 1)], None),
        ([payloads.job_run()], None),
    ],
)  # fmt: skip
def test_release_key_is_of_commits_else_of_builds_that_steps_name(
    steps: list[payloads.Json], expected: str | None
) -> None:
    assert decode_detail(steps=steps).release_key == expected


def test_steps_name_the_branch_and_commit_of_a_build_and_the_build_of_a_release() -> None:
    built = decode_step(build(A, branch="main", sha=B))
    assert (built.branch, built.commit, built.build) == ("main", A, None)
    released = decode_step(release("joyous-view-6290"))
    assert (released.branch, released.commit, released.build) == (None, None, "joyous-view-6290")
    references = decode_step(build("${args.SHA}", branch="${args.BRANCH}"))
    assert (references.branch, references.commit) == (None, None)


def test_of_arguments_only_the_names_are_kept() -> None:
    detail = decode_detail(steps=[], arguments={"TOKEN": SECRET, "REGION": {"a": SECRET}})
    assert detail.root is not None
    assert detail.root.argument_names == ("TOKEN", "REGION")
    assert SECRET not in repr(detail)


# --- runs ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("status", ["success", "paused_by_moon", "Success"])
def test_run_keeps_any_status_beside_what_concluded_says(status: str) -> None:
    run = decoding.parse_run(payloads.run(status=status))
    assert run is not None
    assert (run.status, run.concluded) == (status, False)


@pytest.mark.parametrize(
    "fields", [{"id": ...}, {"id": ".."}, {"concluded": ...}, {"concluded": "yes"}]
)
def test_run_without_id_or_end_is_none(fields: Any) -> None:
    assert decoding.parse_run(payloads.run(**fields)) is None
    assert decoding.parse_run_detail(payloads.detail(**fields)) is None


OPTIONAL = {
    "name": "name", "description": "description", "status": "status", "createdAt": "created_at",
    "startedAt": "started_at", "concludedAt": "concluded_at", "updatedAt": "updated_at",
}  # fmt: skip


@example({"createdAt": "\ud800"})
@given(st.dictionaries(st.sampled_from(list(OPTIONAL)), scalars | any_json))
def test_odd_field_of_a_run_costs_no_other(fields: dict[str, Any]) -> None:
    complete = payloads.run(description="a", concludedAt="2026-03-02T08:20:00Z")
    run, expected = decoding.parse_run(complete | fields), decoding.parse_run(complete)
    assert is_storable(run)
    for field, name in OPTIONAL.items():
        assert field in fields or getattr(run, name) == getattr(expected, name)


# --- steps ---------------------------------------------------------------------------------------


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
        work=WorkRef("job_run", "job", "migrate", None),
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


@pytest.mark.parametrize(
    ("step", "field", "value"),
    [
        ({"settings": {"maxAttempts": 5}}, "max_attempts", 5),
        ({"skipNodeExecution": True}, "skip", True),
        ({"skipNodeExecution": "false"}, "skip", False),
        ({"skipNodeExecution": "${args.skip}"}, "skip", False),
        ({"timeoutDuration": "${args.timeout}"}, "timeout_seconds", None),
        ({"spec": {"spec": {"data": {"timeoutDuration": 60}}}}, "timeout_seconds", 60),
        ({"spec": {"kind": "Service"}}, "target_kind", "Service"),
        ({"kind": "Condition", "spec": {"spec": {"type": "success"}}}, "condition", "success"),
        ({"kind": "Action", "spec": {"spec": {"type": "restart"}}}, "condition", None),
        ({"kind": "Approval", "spec": {"amount": 2}}, "required_approvals", 2),
        ({"spec": {"iterations": ["eu", "us"]}}, "iterations", 2),
        ({"spec": {"iterations": "${args.regions}"}}, "iterations", None),
        ({"spec": {"type": "parallel"}}, "parallel", True),
    ],
)
def test_field_of_a_step_is_decoded(step: Any, field: str, value: Any) -> None:
    assert getattr(decode_step({"kind": "Build"} | step), field) == value


@pytest.mark.parametrize("kind", ["Workflow", "LoopWorkflow"])
def test_invalid_steps_are_dropped_and_others_kept(kind: str) -> None:
    steps = [None, payloads.job_run("a"), 3, "x", [], payloads.job_run("b")]
    node = decode_step({"kind": kind, "spec": {"steps": steps}})
    assert [step.label for step in node.steps] == ["JobRun a", "JobRun b"]


@pytest.mark.parametrize("spec", [None, {}, {"steps": None}, {"steps": {"a": 1}}])
def test_workflow_without_valid_steps_has_none(spec: Any) -> None:
    assert decode_step({"kind": "Workflow", "spec": spec}).steps == ()


@pytest.mark.parametrize("spec", [None, [], "x", ..., {}, {"kind": 7}])
def test_run_without_valid_spec_has_no_steps(spec: Any) -> None:
    assert decode_detail(spec=spec).root is None


def nested(levels: int) -> Any:
    step: Any = payloads.job_run()
    for _ in range(levels):
        step = payloads.workflow(step)
    return step


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, 50_000])
def test_steps_nested_too_deeply_end_in_a_marker(levels: int) -> None:
    node, depth = decode_detail(spec=nested(levels)).root, 1
    while node and node.steps:
        node, depth = node.steps[0], depth + 1
    assert node is not None
    if levels < MAX_DEPTH:
        assert (node.kind, depth) == ("JobRun", MAX_DEPTH)
    else:
        assert (node.kind, depth) == (OMITTED, MAX_DEPTH + 1)
        assert node.label == "More steps, not shown"


def test_steps_above_maximum_end_in_a_marker() -> None:
    group = payloads.workflow(*[{"kind": "Build"}] * (MAX_NODES // 2))
    root = decode_detail(steps=[group, group, group, group]).root
    assert root is not None
    full_group, cut_group, *other_groups = root.steps
    assert len(full_group.steps) == MAX_NODES // 2
    # The root and the groups count too, and each list that is cut ends in a marker.
    assert len(cut_group.steps) == MAX_NODES // 2 - 3 + 1
    assert cut_group.steps[-1].kind == OMITTED
    assert [step.kind for step in other_groups] == [OMITTED]


@pytest.mark.slow
@settings(max_examples=50)
@given(nodes)
def test_steps_of_any_tree_are_decoded(root: Any) -> None:
    assert is_storable(decode_detail(spec=root))


# --- no secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": {"token": SECRET}},
        {"triggers": [{"spec": {"token": SECRET}}]},
        {"refs": {"build": {"token": SECRET}}},
        {"new": SECRET},
    ],
)
def test_run_fields_with_secrets_are_not_kept(fields: Any) -> None:
    assert SECRET not in str(decode_detail(**fields))


@pytest.mark.parametrize(
    "spec",
    [
        {"webhookUrl": SECRET},
        {"connectionString": SECRET},
        {"importUrl": URL},
        {"runtimeEnvironment": {"PASSWORD": SECRET}},
        {"runtimeFiles": {"/key": {"data": SECRET}}},
        {"arguments": {"variables": [{"key": "a", "value": SECRET}]}},
        {"message": SECRET},
        {"iterations": [SECRET]},
        {"origin": {"credentials": SECRET, "imagePath": URL}},
        {"spec": {"data": {"command": f"login {SECRET}"}}},
        {"spec": {"webhookUrl": SECRET, "message": SECRET}},
        {"kind": {"nested": SECRET}},
        {"id": [SECRET]},
        {"id": URL},
    ],
)
def test_step_spec_secrets_are_not_kept(spec: Any) -> None:
    step = {"kind": "Anything", "spec": spec}
    assert SECRET not in str(decode_step(payloads.workflow(step)))


@pytest.mark.parametrize(
    "response",
    [
        {"data": {"output": SECRET}},
        {"error": {"message": f"cannot open postgres://u:{SECRET}/x@db:5432/a"}},
        {"error": {"details": SECRET}},
        {"status": {"a": SECRET}},
        {"retries": {"last": SECRET}},
        {"new": SECRET},
    ],
)
def test_step_response_secrets_are_not_kept(response: Any) -> None:
    assert SECRET not in str(decode_step(payloads.job_run(response=response)))


def test_error_message_keeps_lines_and_host() -> None:
    step = payloads.job_run(response={"error": {"message": f"tried\x00\n{URL}"}})
    assert decode_step(step).error_message == "tried\ufffd\nhttps://[redacted]@hooks.example/…"


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
    st.text(min_size=1, max_size=12).filter(lambda name: name not in {"kind", "ref", "condition"}),
)
def test_field_that_is_not_named_is_not_kept(value: Any, field: str) -> None:
    assert SECRET not in str(decode_step(payloads.job_run() | {field: value}))


# --- the token, projects, pipelines, release flows -----------------------------------------------


def test_flow_is_decoded_as_documented() -> None:
    payload = {
        "spec": {},
        "paused": False,
        "concurrencyPolicy": "queue",
        "options": {"concurrencyPolicy": "replace", "paused": True},  # older: the outer fields win
    }
    assert decoding.parse_release_flow(payload) == ReleaseFlow(
        paused=False, concurrency_policy="queue"
    )


def test_flow_has_the_policy_and_pause_of_its_options() -> None:
    payload = {"spec": {}, "options": {"concurrencyPolicy": "replace", "paused": True}}
    assert decoding.parse_release_flow(payload) == ReleaseFlow(
        paused=True, concurrency_policy="replace"
    )


@pytest.mark.parametrize("odd", [{}, {"paused": "maybe", "concurrencyPolicy": 7}])
def test_flow_without_either_has_neither(odd: Any) -> None:
    assert decoding.parse_release_flow({"spec": {}} | odd) == ReleaseFlow(
        paused=None, concurrency_policy=None
    )


def test_answer_without_spec_is_no_flow() -> None:
    assert decoding.parse_release_flow({"message": "down for maintenance"}) is None


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
    assert auth == Auth(None, None)


def test_listed_project_and_pipeline_are_decoded_as_documented() -> None:
    payload = {"id": "p", "name": "P", "description": "a\nb"}
    assert decoding.parse_project(payload) == Project("p", "P")
    assert decoding.parse_pipeline(payload) == Pipeline("p", "P", "a\nb")


@pytest.mark.parametrize("odd", ["  ", "\u200b", 7, None])
def test_blank_or_odd_name_is_none(odd: Any) -> None:
    payload = {"id": "a", "name": odd, "description": odd}
    assert decoding.parse_project(payload) == Project("a", None)
    assert decoding.parse_pipeline(payload) == Pipeline("a", None, "")


@pytest.mark.parametrize("payload", [{}, {"id": 7}, {"id": ".."}])
def test_object_without_valid_id_is_none(payload: Any) -> None:
    assert decoding.parse_project(payload) is None
    assert decoding.parse_pipeline(payload) is None


# --- a page of a list ----------------------------------------------------------------------------


def parse_projects(body: Any) -> Page[Project] | None:
    return decoding.parse_page(body, "projects", decoding.parse_project, limit=9)


def test_page_is_decoded_as_documented() -> None:
    page = parse_projects(
        payloads.page("projects", {"id": "a"}, {"name": "no id"}, {"id": "b"}, has_next=True)
    )
    projects = (Project("a", None), Project("b", None))
    assert page == Page(items=projects, has_next=True, omitted=1)


def test_page_counts_every_entry_with_the_id_of_an_earlier_one() -> None:
    page = parse_projects(payloads.page("projects", *({"id": id} for id in "ababa")))
    assert page == Page((Project("a", None), Project("b", None)), False, 3)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "a", "status": "running"},  # a run without its state
        {"id": "x" * 254 + "\0", "concluded": True},
        {"id": "x" * 256, "concluded": True},
        {"concluded": True},
        7,
    ],
)
def test_page_omits_an_entry_that_cannot_be_decoded(entry: Any) -> None:
    body = payloads.page("runs", entry, payloads.run("b"))
    page = decoding.parse_page(body, "runs", decoding.parse_run, limit=9)
    assert page is not None
    assert ([run.id for run in page.items], page.omitted) == (["b"], 1)


@pytest.mark.parametrize("has_next", [False, None, "yes", 1])
def test_page_has_next_only_when_true(has_next: Any) -> None:
    body = {"data": {"projects": []}, "pagination": {"hasNextPage": has_next}}
    assert parse_projects(body) == Page((), False)


@pytest.mark.parametrize("data", [{"projects": None}, {"projects": "odd"}, {"others": []}, {}])
def test_page_without_list_is_none(data: Any) -> None:
    assert parse_projects({"data": data}) is None


def test_page_of_runs_is_empty_without_any_data_only() -> None:
    def parse_runs(data: Any) -> Page[Run] | None:
        return decoding.parse_page({"data": data}, "runs", decoding.parse_run, limit=9)

    assert parse_runs({}) == Page((), False)
    assert parse_runs({"message": "down for maintenance"}) is None


@pytest.mark.parametrize(
    ("page", "complete"),
    [
        (Page((), False), True),
        (Page((), True), False),
        (Page((), False, 1), False),
    ],
)
def test_page_is_complete_only_at_end_without_gaps(page: Page[Run], complete: bool) -> None:
    assert page.is_complete is complete


# --- any JSON ------------------------------------------------------------------------------------


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


entries = any_object | st.builds(
    lambda key, fields: fields | {"id": key},
    st.sampled_from(["an-id", *ODD_VALUES]) | scalars,
    any_object,
)


@pytest.mark.slow
@settings(max_examples=100)
@given(entries)
def test_any_object_is_decoded_to_storable_values_or_none(payload: Any) -> None:
    for parse in (decoding.parse_project, decoding.parse_pipeline):
        decoded = parse(payload)
        assert (decoded.id if decoded else None) == id_of(payload)
        assert is_storable(decoded)
    detail = decoding.parse_run_detail(payload)
    assert (detail.run if detail else None) == decoding.parse_run(payload)
    assert is_storable(detail)
    assert is_storable(decoding.parse_auth(payload))
    assert is_storable(decoding.parse_release_flow(payload))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(entries | any_json, max_size=6))
def test_page_of_any_entries_counts_what_it_leaves_out(items: list[Any]) -> None:
    body = {"data": {"projects": items}}
    page = decoding.parse_page(body, "projects", decoding.parse_project, limit=4)
    assert page is not None
    ids = list(dict.fromkeys(filter(None, map(id_of, items[:4]))))
    assert [project.id for project in page.items] == ids
    assert page.omitted == len(items) - len(page.items)


@example(500, {}, {"message": "a\x7fb\x80c"})
@given(st.integers(100, 599), st.dictionaries(st.text(), st.text()), st.binary() | any_json)
def test_any_response_is_json_or_raises_northflank_error(
    status: int, headers: dict[str, str], body: Any
) -> None:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    text = "an answer"
    try:
        responses.decode(status, headers, payload, "TKN")
    except NorthflankError as failure:
        text = str(failure)
    assert not {"Cc", "Cs"} & set(map(unicodedata.category, text))  # controls, half characters
