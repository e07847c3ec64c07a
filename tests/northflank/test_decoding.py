"""From JSON to models: what is read, and that nothing odd is fatal."""

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

from dashboard.northflank import OMITTED, Node, NorthflankError, Project, Run, answers, decoding
from dashboard.northflank.models import Auth, Page, Pipeline, PipelineDetail, ReleaseFlow, Team
from dashboard.northflank.redaction import MAX_DEPTH, MAX_NODES
from tests.support import payloads

BORN = datetime(2021, 1, 20, 11, 19, 53, 175000, UTC)
CHANGED = datetime(2021, 1, 21, 11, 19, 53, tzinfo=UTC)

# What no database, page or address can take as it is.
ODD = ["a\0b", "a\x7fb\x80", "a\nb", "\ud800", "..", "x" * 256, "", math.nan, math.inf, 10**400]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["2021-01-01 12:01:00.000Z", "success", "Workflow", "true"])
    | st.sampled_from(ODD)
)
KEYS = (
    "data", "id", "status", "concluded", "createdAt", "spec", "steps", "kind", "ref", "response",
    "error", "retries", "startTime", "target", "settings", "pagination", "cursor", "hasNextPage",
    "runs", "stages", "nfObjects", "permissions", "role", "options", "message", "name",
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


def the_node(step: Any) -> Node:
    """Decode one step inside a Workflow."""
    detail = decoding.run_detail(payloads.detail(steps=[step]))
    assert detail is not None
    assert detail.steps is not None
    return detail.steps.steps[0]


def test_a_run_is_read_as_documented() -> None:
    assert decoding.run(
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


def test_a_run_with_nothing_but_an_id_is_a_run() -> None:
    assert decoding.run({"id": "r"}) == Run(
        "r", None, None, "unknown", concluded=False, created_at=None, started_at=None,
        concluded_at=None, updated_at=None,
    )  # fmt: skip


@pytest.mark.parametrize("status", ["aborted", "success", "failure", "skipped"])
def test_concluded_is_derived_only_where_it_is_missing(status: str) -> None:
    derived = decoding.run(payloads.run(status=status, concluded=...))
    contradicted = decoding.run(payloads.run(status=status, concluded=False))
    assert derived is not None
    assert derived.concluded
    assert contradicted is not None
    assert not contradicted.concluded


@pytest.mark.parametrize("status", ["running", "unknown", "paused_by_moon", "Success"])
def test_an_unknown_status_is_kept_as_sent_and_not_concluded(status: str) -> None:
    run = decoding.run(payloads.run(status=status, concluded=None))
    assert run is not None
    assert (run.status, run.concluded) == (status, False)


def test_an_answer_that_does_not_repeat_its_id_is_of_the_run_that_was_asked_for() -> None:
    detail = decoding.run_detail({"status": "aborting"}, asked="r1")
    assert detail is not None
    assert detail.run.id == "r1"


@pytest.mark.parametrize("sent", [{"concluded": True}, {"concluded": False}, {"status": "new"}])
def test_an_answer_that_says_how_its_run_stands_tells_of_it(sent: Any) -> None:
    detail = decoding.run_detail(sent, asked="r1")
    assert detail is not None
    assert detail.run.id == "r1"


@pytest.mark.parametrize("sent", [None, {}, {"id": "r1", "name": "x"}, {"concluded": "yes"}])
def test_an_answer_that_does_not_say_how_its_run_stands_tells_nothing(sent: Any) -> None:
    assert decoding.run_detail(sent, asked="r1") is None


def test_what_was_sent_of_a_run_is_kept_without_its_secrets() -> None:
    detail = decoding.run_detail(payloads.detail(arguments={"token": "s3cr3t"}))
    assert detail is not None
    assert detail.raw == payloads.detail()


def test_a_node_is_read_as_documented() -> None:
    node = the_node(
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
def test_a_step_is_called_what_a_person_would_call_it(step: Any, label: str) -> None:
    assert the_node(step).label == label


def test_attempts_allowed_fall_back_to_the_settings() -> None:
    assert the_node({"kind": "Build", "settings": {"maxAttempts": 5}}).max_attempts == 5


@pytest.mark.parametrize(
    ("sent", "skip"),
    [(True, True), ("true", True), (False, False), ("false", False), (None, False)],
)
def test_a_step_is_skipped_only_where_that_is_said(sent: Any, skip: bool) -> None:
    assert the_node({"kind": "Build", "skipNodeExecution": sent}).skip is skip


def test_a_conditions_timeout_is_found_further_in() -> None:
    step = {"kind": "Condition", "spec": {"spec": {"data": {"timeoutDuration": 60}}}}
    assert the_node(step).timeout_seconds == 60


@pytest.mark.parametrize("kind", ["Condition", "Action"])
def test_what_a_step_concerns_is_read(kind: str) -> None:
    assert the_node({"kind": kind, "spec": {"kind": "Service"}}).about == "Service"


def test_a_condition_is_what_it_waits_for() -> None:
    step = {"kind": "Condition", "spec": {"kind": "Build", "spec": {"type": "success"}}}
    assert the_node(step).condition == "success"


def test_what_an_action_does_is_no_condition() -> None:
    step = {"kind": "Action", "spec": {"kind": "Service", "spec": {"type": "restart"}}}
    assert the_node(step).condition is None


def test_an_approval_says_how_many_people_it_needs() -> None:
    assert the_node({"kind": "Approval", "spec": {"amount": 2}}).approvals == 2


@pytest.mark.parametrize(
    ("iterations", "read"), [(["eu", "us"], 2), ([], 0), ("${args.regions}", None), (None, None)]
)
def test_a_loop_says_how_often_it_goes_round(iterations: Any, read: int | None) -> None:
    loop = {"kind": "LoopWorkflow", "spec": {"iterations": iterations, "steps": []}}
    assert the_node(loop).iterations == read


@pytest.mark.parametrize("kind", ["Workflow", "LoopWorkflow"])
def test_workflows_and_loops_hold_their_steps_in_the_same_place(kind: str) -> None:
    node = the_node({"kind": kind, "spec": {"type": "parallel", "steps": [payloads.job_run()]}})
    assert node.parallel
    assert [step.kind for step in node.steps] == ["JobRun"]


@pytest.mark.parametrize(
    "root",
    [{"kind": "Workflow"}, {"kind": "Workflow", "spec": None}, payloads.workflow(steps=None),
     payloads.workflow(steps={"a": 1}), payloads.workflow(None, 3, "x", [])],
)  # fmt: skip
def test_a_workflow_without_proper_steps_has_none(root: Any) -> None:
    detail = decoding.run_detail(payloads.detail(spec=root))
    assert detail is not None
    assert detail.steps is not None
    assert detail.steps.steps == ()


@pytest.mark.parametrize("spec", [None, [], "x", ...])
def test_a_run_without_a_proper_spec_has_no_tree(spec: Any) -> None:
    detail = decoding.run_detail(payloads.detail(spec=spec))
    assert detail is not None
    assert detail.steps is None


def nested(levels: int) -> Any:
    step: Any = payloads.job_run()
    for _ in range(levels):
        step = payloads.workflow(step)
    return step


@pytest.mark.parametrize("levels", [MAX_DEPTH, 1000, 50_000])
def test_steps_nested_too_deep_end_in_a_marker(levels: int) -> None:
    detail = decoding.run_detail(payloads.detail(spec=nested(levels)))
    assert detail is not None
    node, depth = detail.steps, 1
    while node and node.steps:
        node, depth = node.steps[0], depth + 1
    assert node is not None
    assert (node.kind, node.label, depth) == (OMITTED, "Further steps, not shown", MAX_DEPTH + 1)


def test_too_many_steps_end_in_a_marker() -> None:
    detail = decoding.run_detail(payloads.detail(steps=[payloads.job_run()] * 5000))
    assert detail is not None
    assert detail.steps is not None
    assert len(detail.steps.steps) == MAX_NODES  # the root counts; the marker takes its place
    assert detail.steps.steps[-1].kind == OMITTED


def test_a_tree_and_its_raw_form_can_be_stored_as_json() -> None:
    detail = decoding.run_detail(payloads.detail(steps=[nested(80), {"kind": "\ud800\x00"}]))
    assert detail is not None
    json.dumps(detail.raw, allow_nan=False).encode()
    assert msgspec.to_builtins(detail.steps)["steps"][1]["kind"] == "\ufffd\ufffd"


def test_stages_are_named_by_members_and_by_the_untyped_list() -> None:
    detail = decoding.pipeline_detail(
        {
            "name": "main",
            "stages": ["Development", {"name": "Staging"}, 7, None],
            "nfObjects": [{"id": "a", "stage": "Production"}, {"stage": "Staging"}, "odd"],
        }
    )
    assert detail.stages_named == ("Development", "Staging", "Production")


def test_a_flows_policy_may_stand_in_its_options() -> None:
    flow = decoding.release_flow({"options": {"concurrencyPolicy": "replace", "paused": True}})
    assert flow is not None
    assert (flow.status, flow.concurrency_policy, flow.paused) == ("unknown", "replace", True)


def test_a_flow_is_read_as_documented() -> None:
    sent = {
        "status": "success", "paused": False, "concurrencyPolicy": "queue", "stage": "Production",
        "createdAt": "2021-01-20T11:19:53.175Z", "updatedAt": "2021-01-21T11:19:53Z",
        "options": {"concurrencyPolicy": "replace", "paused": True},  # older: what is outside wins
    }  # fmt: skip
    assert decoding.release_flow(sent) == ReleaseFlow(
        status="success",
        paused=False,
        concurrency_policy="queue",
        stage="Production",
        created_at=BORN,
        updated_at=CHANGED,
    )


def test_a_flow_is_not_paused_unless_it_is_said() -> None:
    assert decoding.release_flow({"stage": "Production"}) == ReleaseFlow(
        "unknown", False, None, "Production", None, None
    )


@pytest.mark.parametrize("sent", [None, {}, [], "x", {"message": "down for maintenance"}])
def test_an_answer_without_a_field_of_a_flow_names_none(sent: Any) -> None:
    assert decoding.release_flow(sent) is None


def test_a_token_says_whose_it_is() -> None:
    sent = {
        "tokenKind": "api", "id": "ci", "name": "CI", "entityId": "acme", "entityType": "team",
        "orgId": "acme-org", "role": {"name": "Releaser"},
        "permissions": {"orgScope": ["a", 7], "teamScope": None, "projectScope": ["b"]},
        "createdAt": "2021-01-20T11:19:53.175Z", "expiresAt": "2021-01-21T11:19:53Z",
    }  # fmt: skip
    assert decoding.auth(sent) == Auth(
        token_kind="api",
        id="ci",
        name="CI",
        entity_id="acme",
        entity_type="team",
        org_id="acme-org",
        role="Releaser",
        permissions=("a", "b"),
        created_at=BORN,
        expires_at=CHANGED,
    )


def test_a_token_of_which_nothing_is_said_is_read_all_the_same() -> None:
    assert decoding.auth(None) == Auth(*[None] * 7, (), None, None)


def test_a_team_is_read_as_documented() -> None:
    sent = {"id": "t", "name": "T", "description": "a\nb", "createdAt": "2021-01-20T11:19:53.175Z"}
    assert decoding.team(sent) == Team("t", "T", "a\nb", BORN)


def test_a_project_is_read_as_documented() -> None:
    sent = {"id": "p", "name": "P", "description": "a\nb", "lifecycleStatus": "ready"}
    assert decoding.project(sent) == Project("p", "P", "a\nb", "ready")


def test_a_pipeline_of_a_list_is_read_as_documented() -> None:
    sent = {
        "id": "p", "name": "P", "description": "a\nb",
        "createdAt": "2021-01-20T11:19:53.175Z", "updatedAt": "2021-01-21T11:19:53Z",
    }  # fmt: skip
    assert decoding.pipeline(sent) == Pipeline("p", "P", "a\nb", BORN, CHANGED)


@pytest.mark.parametrize(
    ("decode", "called"),
    [
        (decoding.team, Team("x", "x", None, None)),
        (decoding.project, Project("x", "x", None, None)),
        (decoding.pipeline, Pipeline("x", "x", None, None, None)),
    ],
)
def test_nameless_things_are_called_by_their_id(decode: Callable[[Any], Any], called: Any) -> None:
    assert decode({"id": "x", "name": 7}) == called


@pytest.mark.parametrize(
    "decode", [decoding.team, decoding.project, decoding.pipeline, decoding.run]
)
@pytest.mark.parametrize("sent", [None, {}, {"id": 7}, {"id": ".."}, ["x"]])
def test_what_has_no_usable_id_is_left_out(decode: Callable[[Any], Any], sent: Any) -> None:
    assert decode(sent) is None


def test_a_pipeline_read_by_itself_says_what_it_is_called() -> None:
    sent = {"name": "P", "description": "a\nb", "stages": [{"stage": "Staging"}]}
    assert decoding.pipeline_detail(sent) == PipelineDetail("P", "a\nb", ("Staging",))


# --- a page of a list ---------------------------------------------------------------------------


def test_a_page_is_read_as_documented() -> None:
    page = decoding.page(
        {
            "data": {"projects": [{"id": "a"}, {"name": "no id"}, {"id": "b"}], "runs": []},
            "pagination": {"hasNextPage": True, "cursor": "next", "count": 3},
        },
        "projects",
        decoding.project,
        most=3,
    )
    found = (Project("a", "a", None, None), Project("b", "b", None, None))
    assert page == Page(items=found, has_next=True, cursor="next", left_out=1)


@pytest.mark.parametrize("more", [False, None, "true", 1])
def test_there_is_another_page_only_where_that_is_said(more: Any) -> None:
    body = {"data": [], "pagination": {"hasNextPage": more}}
    assert decoding.page(body, "projects", decoding.project, most=9) == Page((), False, None, 0)


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
def test_a_list_stands_bare_or_by_its_name_or_is_the_only_one(data: Any, ids: list[str]) -> None:
    page = decoding.page({"data": data}, "projects", decoding.project, most=9)
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
def test_what_holds_no_list_is_not_taken_for_an_empty_one(data: Any) -> None:
    assert decoding.page({"data": data}, "projects", decoding.project, most=9) is None


def test_a_list_of_runs_may_be_left_out_where_it_is_empty() -> None:
    assert decoding.page({"data": {}}, "runs", decoding.run, most=9) == Page((), False, None)


@pytest.mark.parametrize("sent", [{"id": "a"}, {"id": "a", "status": 7}, {"status": "running"}, 7])
def test_a_listed_run_says_which_it_is_and_how_it_stands(sent: Any) -> None:
    assert decoding.listed_run(sent) is None


@pytest.mark.parametrize("said", [{"status": "running"}, {"concluded": True}])
def test_one_of_two_is_enough_to_say_how_a_run_stands(said: Any) -> None:
    assert decoding.listed_run({"id": "a"} | said) == decoding.run({"id": "a"} | said)


@pytest.mark.parametrize(
    ("page", "complete"),
    [
        (Page((), False, None), True),
        (Page((), True, None), False),
        (Page((), False, None, left_out=1), False),
        (Page((), False, None, surplus=1), False),
    ],
)
def test_a_list_is_complete_where_it_ends_and_nothing_was_left_out(
    page: Page[Any], complete: bool
) -> None:
    assert page.complete is complete


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def kept(decoded: Any) -> bool:
    """Whether a database can keep all that was decoded."""
    plain = msgspec.to_builtins(decoded)
    json.dumps(plain, allow_nan=False)  # raises
    return not any(re.search("[\0\ud800-\udfff]", text) for text in texts(plain))


def id_of(sent: Any) -> str | None:
    """The id of an object that has one which can be kept and put into an address."""
    id = sent.get("id") if isinstance(sent, dict) else None
    if not isinstance(id, str) or not 0 < len(id) <= 255 or id in {".", ".."}:
        return None
    return None if re.search("[\x00-\x1f\ud800-\udfff]", id) else id


things = anything | st.builds(
    lambda key, fields: fields | {"id": key},
    st.sampled_from(["an-id", *ODD]) | scalars,
    st.dictionaries(st.sampled_from(KEYS), anything, max_size=5),
)


@settings(max_examples=100)
@given(things)
def test_any_json_with_an_id_is_decoded_and_any_other_left_out(sent: Any) -> None:
    for decode, model in (
        (decoding.team, Team), (decoding.project, Project), (decoding.pipeline, Pipeline),
        (decoding.run, Run),
    ):  # fmt: skip
        decoded: Any = decode(sent)
        assert (decoded.id if decoded else None) == id_of(sent)
        assert decoded is None or (type(decoded) is model and kept(decoded))
    detail = decoding.run_detail(sent)
    assert (detail.run if detail else None) == decoding.run(sent)
    assert detail is None or kept(detail)


@settings(max_examples=100)
@given(things)
def test_any_json_is_decoded_where_no_id_is_needed(sent: Any) -> None:
    auth = decoding.auth(sent)
    assert isinstance(auth, Auth)
    assert kept(auth)
    pipeline = decoding.pipeline_detail(sent)
    assert isinstance(pipeline, PipelineDetail)
    assert kept(pipeline)
    flow = decoding.release_flow(sent)
    assert flow is None or isinstance(sent, dict)
    assert flow is None or (isinstance(flow, ReleaseFlow) and flow.status and kept(flow))


@settings(max_examples=50)
@given(st.lists(things, max_size=6))
def test_a_page_has_what_can_be_decoded_and_counts_the_rest(sent: list[Any]) -> None:
    page = decoding.page({"data": {"runs": sent}}, "runs", decoding.run, most=4)
    assert page is not None
    assert [run.id for run in page.items] == [id for each in sent[:4] if (id := id_of(each))]
    assert page.left_out == len(sent[:4]) - len(page.items)
    assert page.surplus == len(sent[4:])


@settings(max_examples=50)
@given(anything)
def test_any_json_is_a_page_or_none(sent: Any) -> None:
    page = decoding.page(sent, "runs", decoding.run, most=100)
    if page is None:
        return
    assert all(type(run) is Run for run in page.items)
    assert type(page.has_next) is bool
    assert kept(page)


OPTIONAL = {"name": "name", "createdAt": "created_at", "startedAt": "started_at"}


MAYBE = dict.fromkeys([*OPTIONAL, "status", "concluded", "updatedAt", "spec"], scalars | anything)


@given(st.fixed_dictionaries({}, optional=MAYBE))
def test_no_optional_field_costs_a_run(fields: dict[str, Any]) -> None:
    sent = payloads.run() | fields
    detail = decoding.run_detail(sent, asked=payloads.RUN_ID)
    # One of two has to say how the run stands.
    says = isinstance(sent["concluded"], bool) or (
        isinstance(sent["status"], str) and sent["status"] != ""
    )
    assert (detail is not None) == says
    if detail is None:
        return
    assert kept(detail)
    assert detail.run.id == payloads.RUN_ID
    plain = decoding.run(payloads.run())
    for field, name in OPTIONAL.items():
        if field not in fields:
            assert getattr(detail.run, name) == getattr(plain, name) != None  # noqa: E711


nodes = st.recursive(
    anything,
    lambda inner: st.builds(
        lambda steps, fields: payloads.workflow(*steps) | fields,
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["ref", "response", "settings"]), anything, max_size=2),
    ),
    max_leaves=15,
)


@settings(max_examples=50)
@given(nodes)
def test_any_tree_of_steps_is_decoded(root: Any) -> None:
    detail = decoding.run_detail(payloads.detail(spec=root))
    assert detail is not None
    assert (detail.steps is not None) == isinstance(root, dict)


@example(500, {}, {"message": "a\x7fb\x80c"})
@given(st.integers(100, 599), st.dictionaries(st.text(), st.text()), st.binary() | anything)
def test_any_answer_is_json_or_one_of_our_errors(
    status: int, headers: dict[str, str], body: Any
) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = "an answer"
    try:
        answers.unwrap(answers.decode(status, headers, sent), status)
    except NorthflankError as failure:
        told = str(failure)
    assert not {"Cc", "Cs"} & set(map(unicodedata.category, told))  # controls, half characters
