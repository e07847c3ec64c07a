"""Links from alerts are correct: each URL of docs/use/alerts.md and of the shipped alerts, its
placeholders filled in, opens the page it names.
"""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial, reduce
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

import httpx
import pytest
from django.contrib.auth.models import User
from django.urls import resolve

from dashboard.models import Run
from dashboard.models.sync.read_requests import SEARCH_AHEAD
from dashboard.sync import requests, search
from tests.support import live_runs
from tests.support.html import parse_html, select_one
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.live_runs import LEDGER, wait_until

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "use" / "alerts.md").read_text()
ALERTS = (ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text()
HOME = "https://releases.example.com"
# A template's markers, a table's <run>, and a placeholder in capitals.
PLACEHOLDER = re.compile(
    r"\{\{[^}]*?\.(?P<go>\w+)[^}]*\}\}|\$\{[\w.]*?\.(?P<grafana>\w+)(?::percentencode)?\}"
    r"|<(?P<table>\w+)>|\b(?P<plain>RUN|PROJECT|PIPELINE|STAGE)\b"
)
DOCUMENTED_ADDRESSES = sorted(
    set(re.findall(rf"{HOME}/(?:\{{\{{.*?\}}\}}|\$\{{.*?\}}|<\w+>|[^\s\"'<>|`)])*", DOC))
)
# After the template that inserts HOME.
ALERT_PATHS = re.findall(r"dashboard_url: '\{\{ query [^}]*\}\}/(.*)'", ALERTS)
JSON_EXAMPLES = re.findall(r"^```json\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


def fill_placeholders(address: str, run_id: str) -> str:
    project, pipeline, stage = LEDGER
    values = {"project": project, "pipeline": pipeline, "stage": stage, "run": run_id, "name": "x"}
    return PLACEHOLDER.sub(lambda match: values[(match[match.lastgroup or 0]).lower()], address)


def test_documented_addresses_are_found_and_filled() -> None:
    assert len(DOCUMENTED_ADDRESSES) >= 12
    assert {fill_placeholders(address, "x") for address in DOCUMENTED_ADDRESSES} >= {
        f"{HOME}/runs/x/",
        f"{HOME}/",
    }
    assert len(ALERT_PATHS) == ALERTS.count("- alert:")
    assert not [
        documented
        for documented in DOCUMENTED_ADDRESSES
        if re.search(r"[{}<>$]|[A-Z]{3}", fill_placeholders(documented, "x"))
    ]


# Of those that only differ in the template language, one.
DISTINCT_ADDRESSES = {
    fill_placeholders(each, "x"): each
    for each in (*DOCUMENTED_ADDRESSES, *(f"{HOME}/{path}" for path in ALERT_PATHS))
}


@pytest.mark.parametrize("is_mirrored", [True, False], ids=["read", "never read"])
@pytest.mark.parametrize("address", DISTINCT_ADDRESSES.values())
def test_documented_address_opens_its_page_after_sign_in(
    address: str, is_mirrored: bool, live: Live, viewer: User
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    if is_mirrored:
        live_runs.mirror_run(live, LEDGER, run_id)
    target = fill_placeholders(address, run_id).replace(HOME, live.base_url)
    with (
        live.ticking(),
        httpx.Client(follow_redirects=True, timeout=WAIT_TIMEOUT) as client,
    ):
        page = client.get(target)
        assert page.url.path == "/accounts/login/"
        token = select_one(parse_html(page), "[name=csrfmiddlewaretoken]").attributes["value"] or ""
        form = {"username": "viewer", "password": "viewer", "csrfmiddlewaretoken": token}
        answer = client.post(page.url, data=form)
        if parse_html(answer).css("[data-search]"):  # its page follows the search
            wait_until(Run.objects.filter(run_id=run_id).exists)
            answer = client.get(answer.url)
    assert answer.status_code == 200
    assert answer.url.query == httpx.URL(target).query
    if run_id in target:
        element = select_one(parse_html(answer), "section[data-run]")
        assert element.attributes["data-run"] == run_id
        assert Run.objects.filter(run_id=run_id).exists()
    else:
        assert str(answer.url) == target
        assert parse_html(answer).css("main .inline-notice") == []  # no invalid filter


def test_slack_example_links_to_run_without_preview() -> None:
    message, _ = map(json.loads, JSON_EXAMPLES)
    # https://docs.slack.dev/messaging/formatting-message-text#linking-urls
    match = re.fullmatch(r"[^<>]+<(\S+)\|[^<>|]+>", message.pop("text"))
    assert match is not None
    assert match[1] in DOCUMENTED_ADDRESSES
    assert "/runs/RUN/" in match[1]
    assert message == {"unfurl_links": False}


def test_pagerduty_example_has_required_fields_and_links_to_run() -> None:
    _, event = map(json.loads, JSON_EXAMPLES)
    # https://developer.pagerduty.com/docs/send-alert-event
    required = {"routing_key", "event_action", "payload"}
    assert required <= event.keys() <= required | {"dedup_key", "client", "client_url", "links"}
    assert event["event_action"] == "trigger"
    assert event["payload"].keys() == {"summary", "source", "severity"}
    assert event["payload"]["severity"] in {"critical", "error", "warning", "info"}
    assert "RUN" in event["dedup_key"]  # one incident a run
    assert "/runs/RUN/" in event["client_url"]
    assert [link.keys() for link in event["links"]] == [{"href", "text"}]
    assert {event["client_url"], event["links"][0]["href"]} <= set(DOCUMENTED_ADDRESSES)


@pytest.mark.parametrize("run_id", ["a/b", "50%", "a%2Fb", "ü?#"])
def test_run_in_a_path_is_encoded_as_its_page_decodes_it(run_id: str) -> None:
    # https://pkg.go.dev/text/template#hdr-Functions
    functions: dict[str, Callable[[str], str]] = {
        "urlquery": quote_plus,
        "percentencode": partial(quote, safe=""),
    }
    inserted = re.findall(r"/runs/(?:\{\{ \$labels\.(.*?) \}\}|\$\{[\w.]*\.(run.*?)\})/", DOC)
    pipelines = [re.split(r" \| |:", go or grafana) for go, grafana in inserted]
    assert sorted(pipelines) == [["run", "percentencode"], *[["run", "urlquery", "urlquery"]] * 2]
    for _name, *names in pipelines:
        segment = reduce(lambda text, name: functions[name](text), names, run_id)
        path = unquote(f"/runs/{segment}/")  # as the server does
        if "percentencode" in names and set("/%") & set(run_id):
            continue  # the document excepts such ids
        assert resolve(path).kwargs["run_id"] == run_id


def test_documented_run_search_limits_match_code() -> None:
    text = " ".join(DOC.split())
    assert f"at once for {SEARCH_AHEAD.seconds} seconds" in text
    assert f"at most {search.MAX_READS} an hour for all searches" in text
    assert f"At most {requests.MAX_LINKS} such runs" in text
    assert f"counts for {requests.ANSWER_LIFETIME // timedelta(minutes=1)} minutes" in text
