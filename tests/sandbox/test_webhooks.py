"""Webhooks: what is told to whom, over real HTTP, and the routes to ask for them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from northflank import ApiClient

from dashboard.sandbox import Choices, Options, parse_fault
from dashboard.sandbox.faults import FaultPhase
from dashboard.sandbox.posting import post
from dashboard.sandbox.webhooks import EVENTS, HEADER_PREFIX, MAX_FAILURES, Webhooks
from tests.support.sandbox import TOKEN, SandboxServer

PATH = "/integrations/notifications"
INTEGRATION = {"name": "Dashboard", "type": "RAW_WEBHOOK", "events": dict.fromkeys(EVENTS, True)}


class Receiver:
    """A server that keeps what is posted to it, and answers as told."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[dict[str, str], Any]] = []
        self.statuses: list[int] = []  # of the next answers; then 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {**dict(self.headers), ":path": self.path}
                outer.deliveries.append((headers, json.loads(body)))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in?from=nf"

    @property
    def events(self) -> list[str]:
        return [body["event"] for _, body in self.deliveries]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def tell(sandbox_server: SandboxServer) -> None:
    """Have the sandbox look at its world, and tell what has happened, to the end."""

    async def look() -> None:
        hooks = sandbox_server.sandbox.webhooks
        for happening in hooks.detect_events():
            hooks.dispatch(happening)
        await hooks.wait_until_delivered()

    asyncio.run(look())


@pytest.fixture
def hooks(sandbox_server: SandboxServer, receiver: Receiver) -> Webhooks:
    """A sandbox that tells the receiver, and has had its first look."""
    hooks = sandbox_server.sandbox.webhooks
    hooks.retry_delays = (0.0, 0.0)
    hooks.subscribe(receiver.url, "the secret")
    tell(sandbox_server)
    return hooks


def start(sandbox_server: SandboxServer, flow: str = "payments/ledger/staging") -> Any:
    found = sandbox_server.sandbox.world.find_flow(*flow.split("/"))
    assert found is not None
    return sandbox_server.sandbox.world.start_run(found, sandbox_server.clock.now, {})


# --- what is told ------------------------------------------------------------------------------


def test_existing_runs_send_no_events(hooks: Webhooks, receiver: Receiver) -> None:
    assert receiver.deliveries == []


def test_started_run_sends_documented_event(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    start(sandbox_server)
    tell(sandbox_server)
    ((headers, body),) = receiver.deliveries
    assert body == {
        "event": "release-flow-template-run:start",
        "data": {"project": {"id": "payments", "name": "Payments"}},
    }
    assert headers[f"{HEADER_PREFIX}Token"] == "the secret"
    assert headers[f"{HEADER_PREFIX}Event-Type"] == body["event"]
    assert headers[f"{HEADER_PREFIX}Id"] == "webhook"
    assert headers[f"{HEADER_PREFIX}Name"] == "Webhook"
    assert len(headers[f"{HEADER_PREFIX}Event-Id"]) == 36
    assert headers["Content-Type"] == "application/json"
    assert headers[":path"] == "/in?from=nf"


def test_run_sends_events_from_start_to_end(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    run = start(sandbox_server)
    sandbox_server.sandbox.choices["webhook-body"] = "ids"
    while sandbox_server.clock.now < run.concluded_at:
        tell(sandbox_server)
        sandbox_server.clock.now += 5
    tell(sandbox_server)
    event_statuses = [
        (body["event"].split(":")[1], body["data"]["releaseFlowRun"]["status"])
        for _, body in receiver.deliveries
        if body["data"]["releaseFlowRun"]["id"] == run.id
    ]
    statuses = [status for _, status in event_statuses]
    assert event_statuses[0][0] == "start"
    assert event_statuses[-1][0] == run.outcome == statuses[-1]
    assert {word for word, _ in event_statuses[1:-1]} == {"update"}
    assert all(a != b for a, b in pairwise(statuses))


def test_aborted_run_sends_event(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    run = start(sandbox_server)
    tell(sandbox_server)
    sandbox_server.sandbox.world.abort_run(run.flow, run.id, sandbox_server.clock.now, at_once=True)
    tell(sandbox_server)
    assert receiver.events == [
        "release-flow-template-run:start",
        "release-flow-template-run:aborted",
    ]


def test_events_have_distinct_ids(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    for _ in range(3):
        start(sandbox_server)
    tell(sandbox_server)
    assert len({headers[f"{HEADER_PREFIX}Event-Id"] for headers, _ in receiver.deliveries}) == 3


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("project", {"project"}),
        ("ids", {"project", "pipeline", "releaseFlow", "releaseFlowRun"}),
        ("empty", set()),
    ],
)
def test_webhook_body_choice_sets_its_fields(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver, body: str, named: set[str]
) -> None:
    sandbox_server.sandbox.choices["webhook-body"] = body
    start(sandbox_server)
    tell(sandbox_server)
    assert set(receiver.deliveries[0][1]["data"]) == named


def test_event_without_secret_has_no_token(
    sandbox_server: SandboxServer, receiver: Receiver
) -> None:
    sandbox_server.sandbox.webhooks.subscribe(receiver.url)
    tell(sandbox_server)
    start(sandbox_server)
    tell(sandbox_server)
    assert f"{HEADER_PREFIX}Token" not in receiver.deliveries[0][0]


def test_running_webhooks_send_events(sandbox_server: SandboxServer, receiver: Receiver) -> None:
    hooks = sandbox_server.sandbox.webhooks
    hooks.subscribe(receiver.url)

    async def watch() -> None:
        watching = asyncio.create_task(hooks.run())
        while not hooks.last_statuses:
            await asyncio.sleep(0.01)
        start(sandbox_server)
        while not receiver.deliveries:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait([watching])

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert receiver.events == ["release-flow-template-run:start"]


def test_receiver_of_options_gets_events(sandbox_server: SandboxServer, receiver: Receiver) -> None:
    sandbox_server.configure(
        Options(webhook_urls=[receiver.url], webhook_secret="from the command line")
    )
    tell(sandbox_server)
    start(sandbox_server)
    tell(sandbox_server)
    assert receiver.deliveries[0][0][f"{HEADER_PREFIX}Token"] == "from the command line"


# --- receivers that fail -----------------------------------------------------------------------


def test_event_not_accepted_is_sent_again(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500, 301]
    start(sandbox_server)
    tell(sandbox_server)
    assert len(receiver.deliveries) == 3
    assert len({headers[f"{HEADER_PREFIX}Event-Id"] for headers, _ in receiver.deliveries}) == 1
    assert hooks.integrations["webhook"].failure_count == 0


def test_event_is_dropped_after_three_attempts(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 9
    start(sandbox_server)
    tell(sandbox_server)
    assert len(receiver.deliveries) == 3
    status = sandbox_server.get(f"{PATH}/webhook").json()["data"]["status"]
    assert (status["disabled"], status["numberOfFailedRequests"]) == (False, 3)
    assert status["timeOfFirstFailedRequest"]


def test_failing_receiver_is_disabled(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 99
    for _ in range(10):
        start(sandbox_server)
        tell(sandbox_server)
    assert len(receiver.deliveries) == MAX_FAILURES
    assert sandbox_server.get(f"{PATH}/webhook").json()["data"]["status"]["disabled"] is True


def test_unreachable_receiver_counts_failures(
    sandbox_server: SandboxServer, hooks: Webhooks
) -> None:
    hooks.integrations["webhook"].webhook = "http://127.0.0.1:1/"
    start(sandbox_server)
    tell(sandbox_server)
    assert hooks.integrations["webhook"].failure_count == 3


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://127.0.0.1:0/ä€", "http:///x"]
)
def test_post_to_invalid_address_returns_zero(url: str) -> None:
    assert asyncio.run(post(url, {}, b"")) == 0


def test_post_with_invalid_header_returns_zero(receiver: Receiver) -> None:
    assert asyncio.run(post(receiver.url, {"X": "€"}, b"")) == 0


# --- faults ------------------------------------------------------------------------------------


def test_webhook_lost_fault_drops_event(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    sandbox_server.sandbox.faults = [parse_fault("webhook-lost*1@:start")]
    start(sandbox_server)
    tell(sandbox_server)
    assert receiver.deliveries == []
    start(sandbox_server)
    tell(sandbox_server)
    assert len(receiver.deliveries) == 1


def test_webhook_twice_fault_sends_event_twice(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    sandbox_server.sandbox.faults = [parse_fault("webhook-twice")]
    start(sandbox_server)
    tell(sandbox_server)
    assert len(receiver.deliveries) == 2
    assert len({headers[f"{HEADER_PREFIX}Event-Id"] for headers, _ in receiver.deliveries}) == 1


def test_webhook_late_fault_delays_event_behind_others(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    sandbox_server.sandbox.faults = [parse_fault("webhook-late:0.3@:start")]
    sandbox_server.sandbox.choices["webhook-body"] = "ids"
    world, now = sandbox_server.sandbox.world, sandbox_server.clock.now
    runs = (run for flow in world.list_flows() for run in world.list_runs(flow, now))
    in_flight_run = next(run for run in runs if now < run.concluded_at)
    start(sandbox_server)
    world.abort_run(in_flight_run.flow, in_flight_run.id, now, at_once=True)
    tell(sandbox_server)
    assert [event.split(":")[1] for event in receiver.events][-1] == "start"
    assert len(receiver.events) > 1


def test_webhook_faults_do_not_apply_to_requests(sandbox_server: SandboxServer) -> None:
    sandbox_server.sandbox.faults = [parse_fault("webhook-lost")]
    assert sandbox_server.get("/projects").status_code == 200
    assert sandbox_server.sandbox.faults[0].hit_count == 0


def test_request_faults_do_not_apply_to_webhooks(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    sandbox_server.sandbox.faults = [parse_fault("500"), parse_fault("latency:9")]
    start(sandbox_server)
    tell(sandbox_server)
    assert len(receiver.deliveries) == 1
    assert all(
        fault.kind.phase is not FaultPhase.WEBHOOK for fault in sandbox_server.sandbox.faults
    )


# --- the API -----------------------------------------------------------------------------------


def test_created_integration_gets_events(sandbox_server: SandboxServer, receiver: Receiver) -> None:
    request = INTEGRATION | {"webhook": receiver.url, "secret": "s3cr3t-hook"}
    answer = sandbox_server.post(PATH, json=request)
    assert answer.status_code == 200
    assert answer.json()["data"]["id"] == "dashboard"
    tell(sandbox_server)
    start(sandbox_server)
    tell(sandbox_server)
    assert receiver.deliveries[0][0][f"{HEADER_PREFIX}Token"] == "s3cr3t-hook"


@pytest.mark.parametrize("team", ["", "/teams/acme"])
def test_integration_secret_is_never_returned(sandbox_server: SandboxServer, team: str) -> None:
    request = INTEGRATION | {"webhook": "https://x.example/", "secret": "s3cr3t-hook"}
    answers = [
        sandbox_server.post(f"{team}{PATH}", json=request),
        sandbox_server.get(f"{team}{PATH}"),
        sandbox_server.get(f"{team}{PATH}/dashboard"),
        sandbox_server.post(f"{team}{PATH}/dashboard", json={"name": "Another"}),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer for answer in answers if "s3cr3t" in answer.text]


def test_listed_integration_has_fewer_fields(sandbox_server: SandboxServer) -> None:
    sandbox_server.post(PATH, json=INTEGRATION | {"webhook": "https://x.example/"})
    (listed,) = sandbox_server.get(PATH).json()["data"]["notificationIntegrations"]
    whole = sandbox_server.get(f"{PATH}/dashboard").json()["data"]
    assert set(whole) - set(listed) == {"events", "projects", "restricted"}


def test_integration_with_same_name_gets_another_id(sandbox_server: SandboxServer) -> None:
    ids = [
        sandbox_server.post(PATH, json=INTEGRATION | {"webhook": "https://x.example/"}).json()[
            "data"
        ]["id"]
        for _ in range(3)
    ]
    assert ids == ["dashboard", "dashboard-2", "dashboard-3"]


def test_integration_gets_only_selected_events(
    sandbox_server: SandboxServer, receiver: Receiver
) -> None:
    events = {"trigger:release-flow-template-run:success": True}
    sandbox_server.post(PATH, json=INTEGRATION | {"webhook": receiver.url, "events": events})
    tell(sandbox_server)
    start(sandbox_server)
    tell(sandbox_server)
    assert receiver.deliveries == []


def test_integration_gets_only_events_of_selected_projects(
    sandbox_server: SandboxServer, receiver: Receiver
) -> None:
    restricted = {"restricted": True, "projects": ["shop"]}
    sandbox_server.post(PATH, json=INTEGRATION | restricted | {"webhook": receiver.url})
    tell(sandbox_server)
    start(sandbox_server, "payments/ledger/staging")
    start(sandbox_server, "shop/checkout/staging")
    tell(sandbox_server)
    assert [body["data"]["project"]["id"] for _, body in receiver.deliveries] == ["shop"]


def test_deleted_integration_gets_no_events(
    sandbox_server: SandboxServer, hooks: Webhooks, receiver: Receiver
) -> None:
    assert sandbox_server.request("DELETE", f"{PATH}/webhook").status_code == 200
    start(sandbox_server)
    tell(sandbox_server)
    assert receiver.deliveries == []
    assert sandbox_server.get(f"{PATH}/webhook").status_code == 404


def test_changed_integration_is_enabled_again(
    sandbox_server: SandboxServer, hooks: Webhooks
) -> None:
    hooks.integrations["webhook"].is_disabled = True
    sandbox_server.post(f"{PATH}/webhook", json={"webhook": "https://x.example/"})
    assert hooks.integrations["webhook"].is_disabled is False


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"name": "x"}, "name"),
        ({"name": None}, "name"),
        ({"type": "SLACK"}, "type"),
        ({"webhook": "ftp://x.example/"}, "webhook"),
        ({"webhook": "http://[half"}, "webhook"),
        ({"events": ["a"]}, "events"),
        ({"events": {"trigger:build:start": 1}}, "events"),
        ({"events": {"build:start": True}}, "events"),
        ({"secret": "ü"}, "secret"),
        ({"secret": "a\nb"}, "secret"),
        ({"type": "DISCORD", "secret": "x"}, "secret"),
        ({"restricted": "yes"}, "restricted"),
        ({"projects": "shop"}, "projects"),
    ],
)
def test_invalid_integration_is_400_with_details(
    sandbox_server: SandboxServer, change: dict[str, Any], wrong: str
) -> None:
    answer = sandbox_server.post(
        PATH, json=INTEGRATION | {"webhook": "https://x.example/"} | change
    )
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == [wrong]
    assert sandbox_server.sandbox.webhooks.integrations == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_integration_body_without_object_is_400(sandbox_server: SandboxServer, body: bytes) -> None:
    assert sandbox_server.post(PATH, content=body).status_code == 400


def test_missing_integration_fields_are_named(sandbox_server: SandboxServer) -> None:
    details = sandbox_server.post(PATH, json={}).json()["error"]["details"]
    assert set(details) == {"name", "type", "webhook", "events"}


def test_integration_is_created_listed_and_deleted_by_official_client(
    sandbox_server: SandboxServer,
) -> None:
    client = ApiClient(api_token=TOKEN, base_url=sandbox_server.url)
    # It wants an id that its address has no place for.
    request = INTEGRATION | {"webhook": "https://x.example/"}
    created = client.create.notification(notification_id="", data=request)
    listed = client.list.notifications()
    client.delete.notification(notification_id=created.data["id"])
    assert [one["id"] for one in listed.data["notificationIntegrations"]] == [created.data["id"]]
    assert sandbox_server.sandbox.webhooks.integrations == {}


def test_invalid_receiver_address_raises_value_error() -> None:
    with pytest.raises(ValueError, match="not a web address"):
        Options(webhook_urls=["dashboard:8000"])


def test_webhook_body_choice_defaults_to_project() -> None:
    assert Choices()["webhook-body"] == "project"
