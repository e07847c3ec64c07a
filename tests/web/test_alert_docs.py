"""docs/alerts.md is true: each address in it opens what it says, its placeholders filled in."""

import json
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models import Run
from dashboard.sync import run_lookup
from tests.support import flights
from tests.support.flights import LEDGER
from tests.support.html import one, parsed
from tests.support.live import PATIENCE, Live

DOC = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text()
HOME = "https://releases.example.com"
# Of a template's markers, of a table's <run>, and of a placeholder in capitals.
MARKER = re.compile(
    r"\{\{[^}]*?\.(?P<go>\w+)[^}]*\}\}|\$\{[\w.]*?\.(?P<grafana>\w+)\}|<(?P<table>\w+)>"
    r"|\b(?P<plain>RUN|PROJECT|PIPELINE|STAGE)\b"
)
WRITTEN = sorted(
    set(re.findall(rf"{HOME}/(?:\{{\{{.*?\}}\}}|\$\{{.*?\}}|<\w+>|[^\s\"'<>|`)])*", DOC))
)
JSON = re.findall(r"^```json\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


def filled(address: str, run_id: str) -> str:
    project, pipeline, stage = LEDGER
    facts = {"project": project, "pipeline": pipeline, "stage": stage, "run": run_id}
    return MARKER.sub(lambda found: facts[(found[found.lastgroup or 0]).lower()], address)


def test_the_examples_are_found() -> None:
    assert len(WRITTEN) >= 12
    assert {filled(address, "x") for address in WRITTEN} >= {f"{HOME}/runs/x/", f"{HOME}/"}
    assert not [one_ for one_ in WRITTEN if re.search(r"[{}<>$]|[A-Z]{3}", filled(one_, "x"))]


@pytest.mark.parametrize("mirrored", [True, False], ids=["read", "never read"])
@pytest.mark.parametrize("address", WRITTEN)
def test_an_address_leads_through_sign_in_to_what_it_is_for(
    address: str, mirrored: bool, live: Live, viewer: User
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    if mirrored:
        flights.mirrored(live, LEDGER, run_id)
    target = filled(address, run_id).replace(HOME, live.base_url)
    with httpx.Client(follow_redirects=True, timeout=PATIENCE) as person:
        page = person.get(target)
        assert page.url.path == "/accounts/login/"
        token = one(parsed(page), "[name=csrfmiddlewaretoken]").attributes["value"] or ""
        form = {"username": "viewer", "password": "viewer", "csrfmiddlewaretoken": token}
        answer = person.post(page.url, data=form)
    assert answer.status_code == 200
    assert answer.url.query == httpx.URL(target).query
    if run_id in target:
        shown = one(parsed(answer), "section[data-run]")
        assert shown.attributes["data-run"] == run_id
        assert Run.objects.filter(run_id=run_id).exists()
    else:
        assert str(answer.url) == target
        assert parsed(answer).css("main .trouble") == []  # no filter that means nothing


def test_a_message_to_slack_leads_to_the_run_without_a_preview() -> None:
    message, _ = map(json.loads, JSON)
    # https://docs.slack.dev/messaging/formatting-message-text#linking-urls
    found = re.fullmatch(r"[^<>]+<(\S+)\|[^<>|]+>", message.pop("text"))
    assert found is not None
    assert found[1] in WRITTEN
    assert "/runs/RUN/" in found[1]
    assert message == {"unfurl_links": False}


def test_an_event_for_pagerduty_has_what_it_must_and_leads_to_the_run() -> None:
    _, event = map(json.loads, JSON)
    # https://developer.pagerduty.com/docs/send-alert-event
    required = {"routing_key", "event_action", "payload"}
    assert required <= event.keys() <= required | {"dedup_key", "client", "client_url", "links"}
    assert event["event_action"] == "trigger"
    assert event["payload"].keys() == {"summary", "source", "severity"}
    assert event["payload"]["severity"] in {"critical", "error", "warning", "info"}
    assert "RUN" in event["dedup_key"]  # one incident a run
    assert "/runs/RUN/" in event["client_url"]
    assert [link.keys() for link in event["links"]] == [{"href", "text"}]
    assert {event["client_url"], event["links"][0]["href"]} <= set(WRITTEN)


def test_what_it_says_of_the_search_is_so() -> None:
    told = " ".join(DOC.split())
    numbers = {8: "eight", 0.2: "a fifth", 0.5: "half"}
    assert f"{numbers[run_lookup.AT_ONCE]} at a time" in told
    assert f"{numbers[run_lookup.SEARCH_SHARE]} of the requests that Northflank allows" in told
    assert f"counts for {run_lookup.REMEMBERED // timedelta(hours=1)} hours" in told
    assert f"after {run_lookup.AGAIN_AFTER // timedelta(minutes=1)} minutes at the earliest" in told
    assert f"from {numbers[run_lookup.FOR_NEW]} of the share at most" in told
