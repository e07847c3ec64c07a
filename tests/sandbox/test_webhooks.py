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
from dashboard.sandbox.faults import When
from dashboard.sandbox.posting import post
from dashboard.sandbox.webhooks import DISABLED_AFTER, EVENTS, HEADER, Webhooks
from tests.support.sandbox import TOKEN, Served

PLACE = "/integrations/notifications"
WANTED = {"name": "Dashboard", "type": "RAW_WEBHOOK", "events": dict.fromkeys(EVENTS, True)}


class Receiver:
    """A server that keeps what is posted to it, and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.statuses: list[int] = []  # of the next answers; then 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {**dict(self.headers), ":path": self.path}
                outer.got.append((headers, json.loads(body)))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in?from=nf"

    @property
    def events(self) -> list[str]:
        return [body["event"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def tell(served: Served) -> None:
    """Have the sandbox look at its world, and tell what has happened, to the end."""

    async def look() -> None:
        hooks = served.sandbox.webhooks
        for happening in hooks.look():
            hooks.tell(happening)
        await hooks.idle()

    asyncio.run(look())


@pytest.fixture
def hooks(served: Served, receiver: Receiver) -> Webhooks:
    """A sandbox that tells the receiver, and has had its first look."""
    hooks = served.sandbox.webhooks
    hooks.retries = (0.0, 0.0)
    hooks.connect(receiver.url, "the secret")
    tell(served)
    return hooks


def start(served: Served, flow: str = "payments/ledger/staging") -> Any:
    found = served.sandbox.world.flow(*flow.split("/"))
    assert found is not None
    return served.sandbox.world.start(found, served.clock.now, {})


# --- what is told ------------------------------------------------------------------------------


def test_what_is_there_already_is_not_told(hooks: Webhooks, receiver: Receiver) -> None:
    assert receiver.got == []


def test_a_run_is_told_as_documented(served: Served, hooks: Webhooks, receiver: Receiver) -> None:
    start(served)
    tell(served)
    ((headers, body),) = receiver.got
    assert body == {
        "event": "release-flow-template-run:start",
        "data": {"project": {"id": "payments", "name": "Payments"}},
    }
    assert headers[f"{HEADER}Token"] == "the secret"
    assert headers[f"{HEADER}Event-Type"] == body["event"]
    assert headers[f"{HEADER}Id"] == "webhook"
    assert headers[f"{HEADER}Name"] == "Webhook"
    assert len(headers[f"{HEADER}Event-Id"]) == 36
    assert headers["Content-Type"] == "application/json"
    assert headers[":path"] == "/in?from=nf"


def test_a_life_is_told_from_start_to_end(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    run = start(served)
    served.sandbox.choices["webhook-body"] = "ids"
    while served.clock.now < run.concluded:
        tell(served)
        served.clock.now += 5
    tell(served)
    told = [
        (body["event"].split(":")[1], body["data"]["releaseFlowRun"]["status"])
        for _, body in receiver.got
        if body["data"]["releaseFlowRun"]["id"] == run.id
    ]
    statuses = [status for _, status in told]
    assert told[0][0] == "start"
    assert told[-1][0] == run.outcome == statuses[-1]
    assert {word for word, _ in told[1:-1]} == {"update"}
    assert all(a != b for a, b in pairwise(statuses))


def test_an_abort_is_told(served: Served, hooks: Webhooks, receiver: Receiver) -> None:
    run = start(served)
    tell(served)
    served.sandbox.world.abort(run.flow, run.id, served.clock.now, at_once=True)
    tell(served)
    assert receiver.events == [
        "release-flow-template-run:start",
        "release-flow-template-run:aborted",
    ]


def test_each_event_has_an_id_of_its_own(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    for _ in range(3):
        start(served)
    tell(served)
    assert len({headers[f"{HEADER}Event-Id"] for headers, _ in receiver.got}) == 3


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("project", {"project"}),
        ("ids", {"project", "pipeline", "releaseFlow", "releaseFlowRun"}),
        ("empty", set()),
    ],
)
def test_what_a_body_names_can_be_chosen(
    served: Served, hooks: Webhooks, receiver: Receiver, body: str, named: set[str]
) -> None:
    served.sandbox.choices["webhook-body"] = body
    start(served)
    tell(served)
    assert set(receiver.got[0][1]["data"]) == named


def test_without_a_secret_there_is_no_token(served: Served, receiver: Receiver) -> None:
    served.sandbox.webhooks.connect(receiver.url)
    tell(served)
    start(served)
    tell(served)
    assert f"{HEADER}Token" not in receiver.got[0][0]


def test_the_world_is_watched_while_it_runs(served: Served, receiver: Receiver) -> None:
    hooks = served.sandbox.webhooks
    hooks.connect(receiver.url)

    async def watch() -> None:
        watching = asyncio.create_task(hooks.run())
        while not hooks.last_look:
            await asyncio.sleep(0.01)
        start(served)
        while not receiver.got:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait([watching])

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert receiver.events == ["release-flow-template-run:start"]


def test_the_command_line_may_name_a_receiver(served: Served, receiver: Receiver) -> None:
    served.configure(Options(webhooks=[receiver.url], webhook_secret="from the command line"))
    tell(served)
    start(served)
    tell(served)
    assert receiver.got[0][0][f"{HEADER}Token"] == "from the command line"


# --- receivers that fail -----------------------------------------------------------------------


def test_an_event_that_is_not_taken_is_sent_again(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500, 301]
    start(served)
    tell(served)
    assert len(receiver.got) == 3
    assert len({headers[f"{HEADER}Event-Id"] for headers, _ in receiver.got}) == 1
    assert hooks.integrations["webhook"].failures == 0


def test_an_event_is_given_up_after_some_time(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 9
    start(served)
    tell(served)
    assert len(receiver.got) == 3
    status = served.get(f"{PLACE}/webhook").json()["data"]["status"]
    assert (status["disabled"], status["numberOfFailedRequests"]) == (False, 3)
    assert status["timeOfFirstFailedRequest"]


def test_a_receiver_that_keeps_failing_is_told_no_more(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 99
    for _ in range(10):
        start(served)
        tell(served)
    assert len(receiver.got) == DISABLED_AFTER
    assert served.get(f"{PLACE}/webhook").json()["data"]["status"]["disabled"] is True


def test_a_receiver_that_is_not_there_is_a_failure(served: Served, hooks: Webhooks) -> None:
    hooks.integrations["webhook"].webhook = "http://127.0.0.1:1/"
    start(served)
    tell(served)
    assert hooks.integrations["webhook"].failures == 3


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://127.0.0.1:0/ä€", "http:///x"]
)
def test_an_address_that_leads_nowhere_answers_nothing(url: str) -> None:
    assert asyncio.run(post(url, {}, b"")) == 0


def test_a_header_that_cannot_be_sent_is_no_crash(receiver: Receiver) -> None:
    assert asyncio.run(post(receiver.url, {"X": "€"}, b"")) == 0


# --- faults ------------------------------------------------------------------------------------


def test_a_lost_webhook_never_comes(served: Served, hooks: Webhooks, receiver: Receiver) -> None:
    served.sandbox.faults = [parse_fault("webhook-lost*1@:start")]
    start(served)
    tell(served)
    assert receiver.got == []
    start(served)
    tell(served)
    assert len(receiver.got) == 1


def test_a_webhook_may_come_twice(served: Served, hooks: Webhooks, receiver: Receiver) -> None:
    served.sandbox.faults = [parse_fault("webhook-twice")]
    start(served)
    tell(served)
    assert len(receiver.got) == 2
    assert len({headers[f"{HEADER}Event-Id"] for headers, _ in receiver.got}) == 1


def test_a_late_webhook_is_overtaken(served: Served, hooks: Webhooks, receiver: Receiver) -> None:
    served.sandbox.faults = [parse_fault("webhook-late:0.3@:start")]
    served.sandbox.choices["webhook-body"] = "ids"
    world, now = served.sandbox.world, served.clock.now
    runs = (run for flow in world.flows() for run in world.runs(flow, now))
    going = next(run for run in runs if now < run.concluded)
    start(served)
    world.abort(going.flow, going.id, now, at_once=True)
    tell(served)
    assert [event.split(":")[1] for event in receiver.events][-1] == "start"
    assert len(receiver.events) > 1


def test_faults_of_webhooks_leave_requests_alone(served: Served) -> None:
    served.sandbox.faults = [parse_fault("webhook-lost")]
    assert served.get("/projects").status_code == 200
    assert served.sandbox.faults[0].struck == 0


def test_faults_of_requests_leave_webhooks_alone(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    served.sandbox.faults = [parse_fault("500"), parse_fault("latency:9")]
    start(served)
    tell(served)
    assert len(receiver.got) == 1
    assert all(fault.kind.when is not When.WEBHOOK for fault in served.sandbox.faults)


# --- the API -----------------------------------------------------------------------------------


def test_whoever_is_created_is_told(served: Served, receiver: Receiver) -> None:
    request = WANTED | {"webhook": receiver.url, "secret": "s3cr3t-hook"}
    answer = served.post(PLACE, json=request)
    assert answer.status_code == 200
    assert answer.json()["data"]["id"] == "dashboard"
    tell(served)
    start(served)
    tell(served)
    assert receiver.got[0][0][f"{HEADER}Token"] == "s3cr3t-hook"


@pytest.mark.parametrize("team", ["", "/teams/acme"])
def test_the_secret_is_never_told(served: Served, team: str) -> None:
    request = WANTED | {"webhook": "https://x.example/", "secret": "s3cr3t-hook"}
    answers = [
        served.post(f"{team}{PLACE}", json=request),
        served.get(f"{team}{PLACE}"),
        served.get(f"{team}{PLACE}/dashboard"),
        served.post(f"{team}{PLACE}/dashboard", json={"name": "Another"}),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer for answer in answers if "s3cr3t" in answer.text]


def test_the_list_is_shorter_than_the_whole(served: Served) -> None:
    served.post(PLACE, json=WANTED | {"webhook": "https://x.example/"})
    (listed,) = served.get(PLACE).json()["data"]["notificationIntegrations"]
    whole = served.get(f"{PLACE}/dashboard").json()["data"]
    assert set(whole) - set(listed) == {"events", "projects", "restricted"}


def test_the_same_name_makes_another_id(served: Served) -> None:
    ids = [
        served.post(PLACE, json=WANTED | {"webhook": "https://x.example/"}).json()["data"]["id"]
        for _ in range(3)
    ]
    assert ids == ["dashboard", "dashboard-2", "dashboard-3"]


def test_only_what_was_asked_for_is_told(served: Served, receiver: Receiver) -> None:
    events = {"trigger:release-flow-template-run:success": True}
    served.post(PLACE, json=WANTED | {"webhook": receiver.url, "events": events})
    tell(served)
    start(served)
    tell(served)
    assert receiver.got == []


def test_only_the_projects_asked_for_are_told(served: Served, receiver: Receiver) -> None:
    restricted = {"restricted": True, "projects": ["shop"]}
    served.post(PLACE, json=WANTED | restricted | {"webhook": receiver.url})
    tell(served)
    start(served, "payments/ledger/staging")
    start(served, "shop/checkout/staging")
    tell(served)
    assert [body["data"]["project"]["id"] for _, body in receiver.got] == ["shop"]


def test_whoever_is_deleted_is_told_no_more(
    served: Served, hooks: Webhooks, receiver: Receiver
) -> None:
    assert served.request("DELETE", f"{PLACE}/webhook").status_code == 200
    start(served)
    tell(served)
    assert receiver.got == []
    assert served.get(f"{PLACE}/webhook").status_code == 404


def test_a_change_lets_a_disabled_one_be_tried_again(served: Served, hooks: Webhooks) -> None:
    hooks.integrations["webhook"].disabled = True
    served.post(f"{PLACE}/webhook", json={"webhook": "https://x.example/"})
    assert hooks.integrations["webhook"].disabled is False


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
def test_nonsense_is_refused(served: Served, change: dict[str, Any], wrong: str) -> None:
    answer = served.post(PLACE, json=WANTED | {"webhook": "https://x.example/"} | change)
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == [wrong]
    assert served.sandbox.webhooks.integrations == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_what_is_no_object_is_refused(served: Served, body: bytes) -> None:
    assert served.post(PLACE, content=body).status_code == 400


def test_what_is_required_is_told(served: Served) -> None:
    details = served.post(PLACE, json={}).json()["error"]["details"]
    assert set(details) == {"name", "type", "webhook", "events"}


def test_the_official_client_can_create_list_and_delete(served: Served) -> None:
    client = ApiClient(api_token=TOKEN, base_url=served.url)
    # It wants an id that its address has no place for.
    request = WANTED | {"webhook": "https://x.example/"}
    made = client.create.notification(notification_id="", data=request)
    listed = client.list.notifications()
    client.delete.notification(notification_id=made.data["id"])
    assert [one["id"] for one in listed.data["notificationIntegrations"]] == [made.data["id"]]
    assert served.sandbox.webhooks.integrations == {}


def test_an_address_that_is_none_is_refused_on_the_command_line() -> None:
    with pytest.raises(ValueError, match="not a web address"):
        Options(webhooks=["dashboard:8000"])


def test_choices_name_the_bodies() -> None:
    assert Choices()["webhook-body"] == "project"
