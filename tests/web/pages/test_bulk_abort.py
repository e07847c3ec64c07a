"""Bulk abort pages: a fixed list of runs is confirmed, and each run has its result."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard import aborts
from dashboard.accounts import permissions
from dashboard.models import Abort, BulkAbort, Grant, RateBudget, Run, Stage
from dashboard.models.aborts import AbortState, EventType
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.models.grants import Action
from dashboard.web.components.aborts import abort_all
from tests.support import factories
from tests.support.html import HTMX, GetPage, live_tag, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.live_runs import LEDGER, SEARCH, create_run_in_flight, wait_until
from tests.support.stream import open_stream

BULK_PATH = "/aborts/bulk/new/"
PIPELINE = "/projects/shop/pipelines/checkout/"


def confirmation_address(*runs: Run) -> str:
    return f"{BULK_PATH}?{'&'.join(f'run={run.pk}' for run in runs)}"


def abort_all_address(html: LexborHTMLParser) -> str:
    """The address that the "abort all" button of a page opens."""
    fields = select_one(html, ".abort-all form").css("input")
    query = "&".join(f"{each.attributes['name']}={each.attributes['value']}" for each in fields)
    return f"{BULK_PATH}?{query}"


def confirmed_run_keys(html: LexborHTMLParser) -> list[str | None]:
    """The runs that the form of a confirmation holds."""
    return [box.attributes["value"] for box in html.css('form[method="post"] [name="run"]')]


def excluded_text(html: LexborHTMLParser) -> str:
    return text_of(select_one(html, ".excluded"))


@pytest.fixture
def run_in_each_stage(stage: Stage) -> list[Run]:
    """A run in each stage, Development first."""
    dev = factories.stage("Development", parent=stage.pipeline)
    staging = factories.stage("Staging", parent=stage.pipeline)
    return [
        factories.run(dev, name="Dev", step="build"),
        factories.run(staging, name="Stg"),
        factories.run(stage, name="Prod"),
    ]


# --- Rows and the bar ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["now", "stage"])
def test_run_in_flight_has_selection_checkbox(page: str, get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage)
    factories.run(stage, status="aborting")
    factories.run(stage, status="success")
    html = get_page("/" if page == "now" else factories.address(stage))
    box = select_one(html, 'td.select input[type="checkbox"]')
    assert (box.attributes["name"], box.attributes["value"]) == ("run", str(run.pk))
    assert box.attributes["form"] == select_one(html, "form#bulk-abort-form").attributes["id"]
    assert box.attributes["aria-label"] == f"Select {run.name}"


def test_run_with_abort_under_way_has_no_selection_checkbox(
    get_page: GetPage, run: Run, manager: User
) -> None:
    factories.abort(run, manager)
    assert get_page("/").css("td.select input") == []


@pytest.mark.parametrize("page", ["now", "stage"])
def test_viewer_sees_no_selection_checkboxes_and_no_bulk_bar(
    page: str, viewer_client: Client, stage: Stage
) -> None:
    factories.run(stage)
    factories.run(stage)
    html = parse_html(viewer_client.get("/" if page == "now" else factories.address(stage)))
    # CSS hides the header's checkbox in a table without others.
    assert html.css("td.select input, .bulk-abort-bar") == []


@pytest.mark.parametrize("page", ["now", "stage"])
def test_each_table_has_checkbox_that_selects_all_and_is_not_submitted(
    page: str, get_page: GetPage, stage: Stage
) -> None:
    factories.run(stage, overdue_severity=1)
    factories.run(stage)
    html = get_page("/" if page == "now" else factories.address(stage))
    found = [box.attributes for box in html.css("thead [data-select-all]")]
    assert [box["aria-label"] for box in found] == (
        [
            "Select all: Runs that need attention, Production first",
            "Select all: Other runs in flight",
        ]
        if page == "now"
        else ["Select all: Runs of this stage, newest first"]
    )
    assert all({"name", "form", "checked"}.isdisjoint(box) for box in found)


def abort_all_label(html: LexborHTMLParser) -> str:
    return text_of(select_one(html, "[data-abort-all]"))


def test_now_page_offers_no_abort_of_all_runs(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    assert get_page("/").css(".abort-all") == []
    html = get_page(f"{BULK_PATH}?page=now")
    assert text_of(select_one(html, "[data-reason]")) == "No runs selected."


def test_abort_all_is_offered_only_for_more_than_one_run(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    label = "Abort all 3 in flight in this pipeline…"
    assert abort_all_label(get_page(PIPELINE)) == label
    assert get_page(factories.address(run_in_each_stage[0].stage)).css("[data-abort-all]") == []
    Run.objects.exclude(pk=run_in_each_stage[0].pk).update(in_flight=False)
    assert get_page(PIPELINE).css("[data-abort-all]") == []


def test_abort_all_of_pipeline_excludes_other_pipelines(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    factories.run(factories.stage(parent=factories.pipeline("search")))
    html = get_page(PIPELINE)
    assert abort_all_label(html) == "Abort all 3 in flight in this pipeline…"
    confirmation = get_page(abort_all_address(html))
    assert confirmed_run_keys(confirmation) == [str(run.pk) for run in reversed(run_in_each_stage)]
    assert select_one(confirmation, "main [autofocus]").attributes["href"] == PIPELINE


def test_viewer_sees_no_offer_to_abort_all_of_pipeline(
    viewer_client: Client, run_in_each_stage: list[Run]
) -> None:
    assert parse_html(viewer_client.get(PIPELINE)).css(".abort-all") == []


def test_abort_all_counts_only_permitted_runs(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage
) -> None:
    Grant.objects.filter(action=Action.ABORT).update(stage="Production")
    factories.run(stage)
    assert abort_all_label(get_page(PIPELINE)) == "Abort all 2 in this pipeline that you can abort…"


@pytest.mark.parametrize("place", ["this pipeline", "Production"])
def test_abort_all_names_excluded_runs_already_aborting(
    place: str, get_page: GetPage, stage: Stage, manager: User
) -> None:
    for _ in range(2):
        factories.run(stage)
    factories.run(stage, status="aborting")
    factories.abort(factories.run(stage), manager)
    html = get_page(factories.address(stage) if place == "Production" else PIPELINE)
    assert abort_all_label(html) == f"Abort the other 2 in flight in {place}…"


def test_abort_all_names_both_reasons_for_excluded_runs(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage
) -> None:
    Grant.objects.filter(action=Action.ABORT).update(stage="Production")
    factories.run(stage)
    factories.run(stage, status="aborting")
    assert abort_all_label(get_page(PIPELINE)) == (
        "Abort the other 2 in this pipeline that you can abort…"
    )


def test_abort_all_text_reveals_no_hidden_runs(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, stage="Staging")
    factories.run(run_in_each_stage[1].stage)
    html = get_page(PIPELINE)
    assert abort_all_label(html) == "Abort all 2 in flight in this pipeline…"
    assert len(confirmed_run_keys(get_page(abort_all_address(html)))) == 2


def test_abort_all_of_status_with_aborting_runs_names_filter(
    get_page: GetPage, stage: Stage, manager: User
) -> None:
    for _ in range(3):
        factories.run(stage, status="pending")
    factories.abort(factories.run(stage, status="pending"), manager)
    html = get_page(f"{factories.address(stage)}?status=pending")
    assert abort_all_label(html) == (
        "Abort the other 3 in flight in Production that match the filter…"
    )


def test_abort_all_of_filter_includes_runs_of_other_pages(get_page: GetPage, stage: Stage) -> None:
    for number in range(105):
        factories.run(stage, status="pending" if number % 21 == 0 else "running")
    address = factories.address(stage)
    assert abort_all_label(get_page(address)) == "Abort all 105 in flight in Production…"
    html = get_page(f"{address}?status=pending")
    assert abort_all_label(html) == "Abort all 5 in flight in Production that match the filter…"
    assert len(confirmed_run_keys(get_page(abort_all_address(html)))) == 5


# --- Confirmation -------------------------------------------------------------------------------


def test_bulk_abort_confirmation_lists_runs_and_creates_nothing(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    html = get_page(confirmation_address(*run_in_each_stage))
    assert text_of(select_one(html, "h1")) == "Abort 3 runs?"
    list_text = text_of(select_one(html, ".list"))
    assert all(part in list_text for part in ("Dev", "Stg", "Prod", "Shop", "Checkout", "build"))
    assert "does not roll back" in text_of(select_one(html, "main .confirm"))
    assert not BulkAbort.objects.exists()


def test_bulk_abort_confirmation_lists_production_first_with_count(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    html = get_page(confirmation_address(*run_in_each_stage))
    headings = [text_of(heading) for heading in html.css(".list h2")]
    assert headings == ["Production 1", "Staging 1", "Development 1"]
    assert confirmed_run_keys(html) == [str(run.pk) for run in reversed(run_in_each_stage)]
    assert text_of(select_one(html, ".production-warning")) == "1 of them is in Production."


def test_bulk_abort_dialog_focuses_keep_running(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    html = get_page(confirmation_address(*run_in_each_stage), **HTMX)
    assert html.css("header, nav, main") == []
    assert text_of(select_one(html, "[autofocus]")) == "Keep running"
    assert text_of(select_one(html, 'button[type="submit"] .idle')) == "Abort 3 runs"


def test_bulk_abort_confirmation_without_javascript_links_back(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    assert (
        select_one(
            get_page(confirmation_address(*run_in_each_stage)), "main [autofocus]"
        ).attributes["href"]
        == PIPELINE
    )
    other = factories.run(factories.stage(parent=factories.pipeline("search")))
    html = get_page(confirmation_address(other, *run_in_each_stage))
    assert select_one(html, "main [autofocus]").attributes["href"] == "/"
    html = get_page(confirmation_address(run_in_each_stage[0]))
    assert select_one(html, "main [autofocus]").attributes["href"] == factories.address(
        run_in_each_stage[0].stage
    )


def test_bulk_abort_confirmation_lists_excluded_runs_with_reasons(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage, manager: User
) -> None:
    Grant.objects.filter(action=Action.ABORT).update(stage="Production")
    ended_run = factories.run(stage, status="success", name="Over")
    aborting_run = factories.run(stage, name="Mine")
    factories.abort(aborting_run, manager)
    html = get_page(confirmation_address(*run_in_each_stage, ended_run, aborting_run))
    assert confirmed_run_keys(html) == [str(run_in_each_stage[2].pk)]
    text = excluded_text(html)
    assert "4 runs excluded" in text
    assert "Already ended: success." in text
    assert "Abort accepted" in text
    assert "Only administrators can abort" in text


def test_bulk_abort_without_selection_shows_message(get_page: GetPage) -> None:
    html = get_page(BULK_PATH)
    assert text_of(select_one(html, "[data-reason]")) == "No runs selected."
    assert html.css('main form[method="post"]') == []


def test_bulk_abort_over_limit_is_rejected_before_confirmation(
    get_page: GetPage, stage: Stage
) -> None:
    for _ in range(aborts.MAX_RUNS + 1):
        factories.run(stage)
    html = get_page(f"{BULK_PATH}?stage={stage.pk}")
    assert text_of(select_one(html, "[data-reason]")).startswith(
        "At most 200 runs can be aborted at once"
    )
    assert html.css('main form[method="post"]') == []


def test_bulk_abort_confirmation_of_pipeline_fixes_list_of_runs(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage
) -> None:
    html = get_page(f"{BULK_PATH}?pipeline={stage.pipeline_id}")
    factories.run(stage)
    assert len(confirmed_run_keys(html)) == 3
    assert "Runs that start from now on are not aborted." in text_of(select_one(html, ".confirm"))


def test_bulk_abort_confirmation_excludes_hidden_runs(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, stage="Staging")
    assert confirmed_run_keys(get_page(confirmation_address(*run_in_each_stage))) == [
        str(run_in_each_stage[1].pk)
    ]
    pipeline = run_in_each_stage[1].stage.pipeline_id
    assert confirmed_run_keys(get_page(f"{BULK_PATH}?pipeline={pipeline}")) == [
        str(run_in_each_stage[1].pk)
    ]
    assert "Prod" not in get_page(confirmation_address(*run_in_each_stage)).html  # type: ignore[operator]


def test_bulk_abort_of_hidden_stage_returns_404(
    operator_client: Client, run_in_each_stage: list[Run]
) -> None:
    Grant.objects.all().delete()
    assert (
        operator_client.get(f"{BULK_PATH}?stage={run_in_each_stage[0].stage_id}").status_code == 404
    )
    assert operator_client.get(f"{BULK_PATH}?stage=x").status_code == 404


def test_bulk_abort_of_hidden_pipeline_returns_404(
    operator_client: Client, run_in_each_stage: list[Run]
) -> None:
    Grant.objects.all().delete()
    other = factories.project("other")
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, project=other)
    pipeline = run_in_each_stage[0].stage.pipeline_id
    assert operator_client.get(f"{BULK_PATH}?pipeline={pipeline}").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?pipeline=x").status_code == 404


def test_bulk_abort_confirmation_escapes_hostile_names(get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, name=factories.HOSTILE, step=factories.HOSTILE)
    html = get_page(confirmation_address(run))
    assert html.css("#hostile, main script") == []
    assert '<b id="hostile">' in select_one(html, ".list .name").text()


@pytest.mark.parametrize("query", ["run=x", "run=-1", "run=99999999999999999999", "run=²"])
def test_bulk_abort_with_invalid_run_keys_selects_nothing(query: str, get_page: GetPage) -> None:
    assert (
        text_of(select_one(get_page(f"{BULK_PATH}?{query}"), "[data-reason]"))
        == "No runs selected."
    )


def test_bulk_abort_confirmation_of_many_runs_asks_for_their_number(
    get_page: GetPage, stage: Stage
) -> None:
    runs = [factories.run(stage) for _ in range(aborts.MAX_RUNS_WITHOUT_COUNT + 1)]
    assert get_page(confirmation_address(*runs[1:])).css('[name="count"]') == []
    html = get_page(confirmation_address(*runs))
    assert text_of(select_one(html, 'label[for="count"]')) == "Type 6 to confirm"
    assert "more than 5 runs or several projects" in text_of(select_one(html, ".typed-count"))
    assert select_one(html, "#count").attributes["value"] == ""
    assert "hidden" in select_one(html, "#count-error").attributes


def test_bulk_abort_confirmation_of_two_projects_asks_for_number_of_runs(
    get_page: GetPage, stage: Stage
) -> None:
    other = factories.stage(parent=factories.pipeline(parent=factories.project("payments")))
    html = get_page(confirmation_address(factories.run(stage), factories.run(other)))
    assert text_of(select_one(html, 'label[for="count"]')) == "Type 2 to confirm"


def test_bulk_abort_confirmation_counts_only_runs_to_abort(get_page: GetPage, stage: Stage) -> None:
    runs = [factories.run(stage) for _ in range(aborts.MAX_RUNS_WITHOUT_COUNT)]
    html = get_page(confirmation_address(*runs, factories.run(stage, status="success")))
    assert html.css('[name="count"]') == []


# --- Submission ---------------------------------------------------------------------------------


def bulk_abort_form(runs: list[Run], **fields: str) -> dict[str, Any]:
    return {"run": [run.pk for run in runs], "key": str(uuid4()), **fields}


@pytest.mark.parametrize("typed", ["", "5"])
def test_bulk_abort_with_wrong_count_returns_422_about_that_field(
    typed: str, operator_client: Client, stage: Stage
) -> None:
    form = bulk_abort_form([factories.run(stage) for _ in range(6)], reason="Stuck", count=typed)
    answer = operator_client.post(BULK_PATH, form, headers=HTMX)
    assert (answer.status_code, answer.headers["X-Field"]) == (422, "count")
    assert answer.content.decode() == (
        "The number of runs is missing or wrong; nothing was aborted."
    )
    assert not BulkAbort.objects.exists()


def test_bulk_abort_with_wrong_count_without_javascript_keeps_form(
    operator_client: Client, stage: Stage
) -> None:
    runs = [factories.run(stage) for _ in range(6)]
    form = bulk_abort_form(runs, pick="Stuck", reason="Since three", count="60")
    answer = operator_client.post(BULK_PATH, form)
    assert answer.status_code == 422
    html = parse_html(answer)
    assert text_of(select_one(html, "#count-error")) == (
        "The number of runs is missing or wrong; nothing was aborted."
    )
    assert select_one(html, "#count").attributes["aria-invalid"] == "true"
    assert select_one(html, "#count").attributes["value"] == "60"
    assert select_one(html, "#reason").attributes["value"] == "Since three"
    assert select_one(html, '[name="pick"][checked]').attributes["value"] == "Stuck"
    assert select_one(html, '[name="key"]').attributes["value"] == form["key"]
    assert len(confirmed_run_keys(html)) == 6
    assert "hidden" in select_one(html, "#reason-error").attributes


@pytest.mark.parametrize("htmx", [True, False])
def test_bulk_abort_with_wrong_count_says_that_runs_have_ended_meanwhile(
    htmx: bool, operator_client: Client, stage: Stage
) -> None:
    runs = [factories.run(stage) for _ in range(8)]
    form = bulk_abort_form(runs, reason="Stuck", count="6")
    factories.change(runs[0], status="success", concluded=True, in_flight=False)
    factories.change(runs[1], status="aborting")
    answer = operator_client.post(BULK_PATH, form, headers=HTMX if htmx else {})
    message = (
        "The number of runs is missing or wrong; nothing was aborted. "
        "2 of the 8 runs can no longer be aborted."
    )
    if htmx:
        assert answer.content.decode() == message
        return
    html = parse_html(answer)
    assert text_of(select_one(html, "#count-error")) == message
    assert text_of(select_one(html, "h1")) == "Abort 6 runs?"
    assert text_of(select_one(html, 'label[for="count"]')) == "Type 6 to confirm"
    assert "2 runs excluded" in excluded_text(html)


def test_bulk_abort_form_keeps_wrong_count_where_fewer_runs_need_none(
    operator_client: Client, stage: Stage
) -> None:
    runs = [factories.run(stage) for _ in range(6)]
    form = bulk_abort_form(runs, reason="Stuck", count="60")
    factories.change(runs[0], status="success", concluded=True, in_flight=False)
    html = parse_html(operator_client.post(BULK_PATH, form))
    assert text_of(select_one(html, 'label[for="count"]')) == "Type 5 to confirm"
    assert "1 of the 6 runs can no longer be aborted." in text_of(select_one(html, "#count-error"))


@pytest.mark.parametrize("htmx", [True, False])
def test_bulk_abort_without_required_reason_returns_422_and_keeps_form(
    htmx: bool, operator_client: Client, run_in_each_stage: list[Run], settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Production"]
    key = str(uuid4())
    form = {"run": [run.pk for run in run_in_each_stage], "key": key, "reason": " "}
    answer = operator_client.post(BULK_PATH, form, headers=HTMX if htmx else {})
    assert answer.status_code == 422
    if htmx:
        assert answer.content.decode() == "A reason is required to abort runs in Production."
    else:
        html = parse_html(answer)
        assert (
            text_of(select_one(html, "#reason-error"))
            == "A reason is required to abort runs in Production."
        )
        assert select_one(html, '[name="key"]').attributes["value"] == key
        assert len(confirmed_run_keys(html)) == 3
    assert not BulkAbort.objects.exists()


def test_bulk_abort_without_form_key_returns_422(
    operator_client: Client, run_in_each_stage: list[Run]
) -> None:
    answer = operator_client.post(BULK_PATH, {"run": [run_in_each_stage[0].pk], "reason": "Stuck"})
    assert answer.status_code == 422
    assert not BulkAbort.objects.exists()


def test_bulk_abort_by_viewer_returns_403(
    viewer_client: Client, run_in_each_stage: list[Run]
) -> None:
    form = {"run": [run.pk for run in run_in_each_stage], "key": str(uuid4()), "reason": "Stuck"}
    answer = viewer_client.post(BULK_PATH, form)
    assert answer.status_code == 403
    assert permissions.RELEASE_MANAGERS in answer.content.decode()
    assert not BulkAbort.objects.exists()


def submit_bulk_abort(
    live: Live, runs: list[Run], *, htmx: bool
) -> tuple[httpx.Client, httpx.Response]:
    client = live.sign_in("manager")
    html = parse_html(client.get(confirmation_address(*runs)))
    form: dict[str, Any] = {
        "csrfmiddlewaretoken": token(client),
        "run": confirmed_run_keys(html),
        "key": select_one(html, '[name="key"]').attributes["value"],
        "reason": "Bad release",
        "count": f" {len(runs)} ",
    }
    return client, client.post(BULK_PATH, data=form, headers=HTMX if htmx else {})


@pytest.mark.parametrize("htmx", [True, False])
def test_bulk_abort_over_http_redirects_to_page_with_each_result(
    htmx: bool, live: Live, manager: User
) -> None:
    runs = [create_run_in_flight(live), create_run_in_flight(live, SEARCH)]
    client, answer = submit_bulk_abort(live, runs, htmx=htmx)
    batch = BulkAbort.objects.get()
    if htmx:
        assert (answer.status_code, answer.headers["hx-redirect"]) == (
            200,
            f"/aborts/bulk/{batch.pk}/",
        )
    else:
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            f"/aborts/bulk/{batch.pk}/",
        )
    wait_until(lambda: BulkAbort.objects.filter(settled_at__isnull=False).exists())
    html = parse_html(client.get(f"/aborts/bulk/{batch.pk}/"))
    assert text_of(select_one(html, ".summary .summary-text")) == "2 requested: 2 aborting."
    assert len(html.css("tbody tr")) == 2
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_bulk_abort_over_http_of_runs_that_ended_meanwhile_aborts_the_others(
    live: Live, manager: User
) -> None:
    runs = [create_run_in_flight(live) for _ in range(6)]
    client = live.sign_in("manager")
    html = parse_html(client.get(confirmation_address(*runs)))
    factories.change(runs[0], status="success", concluded=True, in_flight=False)
    form: dict[str, Any] = {
        "csrfmiddlewaretoken": token(client),
        "run": confirmed_run_keys(html),
        "key": select_one(html, '[name="key"]').attributes["value"],
        "reason": "Bad release",
        "count": "6",
    }
    answer = client.post(BULK_PATH, data=form)
    wait_until(lambda: BulkAbort.objects.filter(settled_at__isnull=False).exists())
    html = parse_html(client.get(answer.headers["location"]))
    assert text_of(select_one(html, ".summary .summary-text")) == (
        "6 requested: 5 aborting, 1 already ended."
    )
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs[1:]}


def test_bulk_abort_over_http_excludes_run_started_after_confirmation(
    live: Live, manager: User
) -> None:
    confirmed = create_run_in_flight(live, LEDGER)
    client = live.sign_in("manager")
    html = parse_html(client.get(f"{BULK_PATH}?pipeline={confirmed.stage.pipeline_id}"))
    later = create_run_in_flight(live, LEDGER)
    form: dict[str, Any] = {
        "csrfmiddlewaretoken": token(client),
        "run": confirmed_run_keys(html),
        "key": select_one(html, '[name="key"]').attributes["value"],
    }
    client.post(BULK_PATH, data=form)
    wait_until(lambda: BulkAbort.objects.filter(settled_at__isnull=False).exists())
    assert live.sandbox.abort_request_counts == {confirmed.run_id: 1}
    assert Run.objects.get(pk=later.pk).in_flight


def test_bulk_abort_form_sent_twice_over_http_aborts_once(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    form = {"csrfmiddlewaretoken": token(client), "run": [run.pk], "key": str(uuid4())}
    first, second = client.post(BULK_PATH, data=form), client.post(BULK_PATH, data=form)
    assert first.headers["location"] == second.headers["location"]
    wait_until(lambda: BulkAbort.objects.filter(settled_at__isnull=False).exists())
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


# --- The bulk abort's page ----------------------------------------------------------------------


def bulk_abort_of(runs: list[Run], user: User, *results: str) -> BulkAbort:
    batch = aborts.request_bulk_abort(
        [run.pk for run in runs], aborts.AbortRequest(user, "Why"), uuid4()
    )
    for item, result in zip(batch.items.all(), results, strict=False):
        item.result = BulkAbortItemResult(result)
        if result == "abort":
            item.abort = factories.abort(item.run, user)
        item.save(update_fields=["result", "abort"])
    return batch


def test_bulk_abort_page_shows_summary_counts(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    text = text_of(select_one(html, ".summary .summary-text"))
    assert text == "3 requested: 1 aborting, 1 already ended, 1 waiting."
    assert "aborting continues" in text_of(select_one(html, ".summary"))
    assert select_one(html, "noscript meta").attributes["http-equiv"] == "refresh"


def test_bulk_abort_page_when_finished_stops_refreshing(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "ended", "ended", "ended")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    assert html.css("noscript meta") == []
    assert "goes on" not in text_of(select_one(html, ".summary"))


def test_bulk_abort_rows_show_result_and_link_to_run(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    results = [
        (text_of(select_one(row, ".result")), text_of(select_one(row, ".subject a.title")))
        for row in html.css("tbody tr")
    ]
    assert results == [("Aborting", "Dev"), ("Already ended", "Stg"), ("Waiting", "Prod")]
    assert select_one(html, "tbody tr:first-child .subject a.title").attributes[
        "href"
    ] == factories.address(run_in_each_stage[0])


def test_bulk_abort_page_lists_only_visible_runs(
    client: Client, run_in_each_stage: list[Run], manager: User, viewer: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    Grant.objects.filter(action=Action.VIEW).update(stage="Staging")
    client.force_login(viewer)
    html = parse_html(client.get(f"/aborts/bulk/{batch.pk}/"))
    assert [text_of(select_one(row, ".subject a.title")) for row in html.css("tbody tr")] == ["Stg"]
    text = text_of(select_one(html, ".summary .summary-text"))
    assert text == "1 requested (only runs you may view): 1 waiting."
    assert "3" not in text_of(select_one(html, "h1"))
    Grant.objects.filter(action=Action.VIEW).delete()
    assert client.get(f"/aborts/bulk/{batch.pk}/").status_code == 404


def test_bulk_abort_page_when_rate_limited_shows_resume_time(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    now = timezone.now()
    resume_time = now + timedelta(minutes=3)
    RateBudget.objects.create(pk=1, limit=1000, remaining=0, resets_at=resume_time, synced_at=now)
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    text = text_of(select_one(html, ".summary .inline-notice"))
    assert "reserved for single aborts" in text
    assert f"{timezone.localtime(resume_time):%H:%M:%S}" in text


def test_bulk_abort_refresh_returns_live_region_or_304(
    operator_client: Client, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    first = operator_client.get(f"/aborts/bulk/{batch.pk}/", headers=HTMX)
    assert parse_html(first).css("header") == []
    tag = first.headers["HX-PTag"]
    second = operator_client.get(f"/aborts/bulk/{batch.pk}/", headers={**HTMX, "HX-PTag": tag})
    assert second.status_code == 304


def test_abort_all_offers_have_unique_safe_ids(manager: User, stage: Stage) -> None:
    factories.run(stage, status="hibernating <b>")
    offers = abort_all.offers_for_stage(permissions.for_user(manager), stage)
    assert offers["hibernating <b>"].count == 1
    assert len({offer.id for offer in offers.values()}) == len(offers)
    assert all("<" not in offer.id for offer in offers.values())


def test_bulk_abort_counts_run_in_flight_after_end(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended", "ended")
    abort = Abort.objects.get()
    now = timezone.now()
    assert abort.transition(
        AbortState.CONCLUDED, EventType.CONCLUDED, now, outcome="aborted", settled_at=now
    )
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    text = text_of(select_one(html, ".summary .summary-text"))
    assert text == "3 requested: 1 with a changed status, 2 already ended."


@pytest.mark.parametrize("key", ["9999999999999999999", "9" * 40, "0"])
def test_unknown_or_invalid_key_in_bulk_abort_addresses_is_handled(
    key: str, operator_client: Client, db: None
) -> None:
    assert operator_client.get(f"/aborts/bulk/{key}/").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?stage={key}").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?pipeline={key}").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?run={key}").status_code == 200
    assert operator_client.get(f"/live/?page=bulk_abort&key={key}").status_code == 404
    assert operator_client.get(f"/aborts/bulk/?before={key}").status_code == 200
    assert operator_client.get(f"/aborts/?before={key}").status_code == 200


# --- Links --------------------------------------------------------------------------------------


def bulk_abort_titles(html: LexborHTMLParser) -> list[str]:
    return [text_of(select_one(row, "a.title")) for row in html.css("[data-bulk-abort-row]")]


@pytest.mark.parametrize("page", ["audit", "run"])
def test_abort_of_bulk_abort_links_to_it(
    page: str, get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    factories.abort(run_in_each_stage[0], manager, bulk_abort=batch)
    html = get_page("/aborts/" if page == "audit" else factories.address(run_in_each_stage[0]))
    assert select_one(html, "[data-bulk-abort]").attributes["href"] == f"/aborts/bulk/{batch.pk}/"


def test_single_abort_links_to_no_bulk_abort(get_page: GetPage, run: Run, manager: User) -> None:
    factories.abort(run, manager)
    assert get_page("/aborts/").css("[data-bulk-abort]") == []


def test_aborts_page_links_to_bulk_aborts_page(get_page: GetPage) -> None:
    assert select_one(get_page("/aborts/"), 'a[href="/aborts/bulk/"]')


def test_bulk_aborts_page_shows_summary_user_and_reason(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended", "not_allowed")
    row = select_one(get_page("/aborts/bulk/"), "[data-bulk-abort-row]")
    assert (
        text_of(select_one(row, "a.title"))
        == "3 requested: 1 aborting, 1 already ended, 1 not allowed."
    )
    assert select_one(row, "a.title").attributes["href"] == f"/aborts/bulk/{batch.pk}/"
    assert text_of(select_one(row, ".requester")) == "manager via dashboard"
    assert text_of(select_one(row, ".reason")) == "Why"


def test_bulk_aborts_page_paginates_newest_first(
    get_page: GetPage, run: Run, manager: User
) -> None:
    keys = [bulk_abort_of([run], manager, "ended").pk for _ in range(21)][::-1]

    def addresses(html: LexborHTMLParser) -> list[str | None]:
        return [link.attributes["href"] for link in html.css("[data-bulk-abort-row] a.title")]

    first = get_page("/aborts/bulk/")
    assert addresses(first) == [f"/aborts/bulk/{key}/" for key in keys[:20]]
    second = get_page(f"/aborts/bulk/{select_one(first, '.pager [rel="next"]').attributes['href']}")
    assert addresses(second) == [f"/aborts/bulk/{keys[20]}/"]
    assert select_one(second, '.pager [rel="first"]').attributes["href"] == "/aborts/bulk/"


def test_bulk_aborts_page_with_more_rows_needs_no_more_queries(
    operator_client: Client, run_in_each_stage: list[Run], manager: User
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert operator_client.get("/aborts/bulk/").status_code == 200
        return len(captured)

    bulk_abort_of(run_in_each_stage, manager, "abort")
    query_count = queries()
    for _ in range(3):
        bulk_abort_of(run_in_each_stage, manager, "ended")
    assert queries() == query_count


def test_bulk_aborts_page_counts_only_visible_runs(
    viewer_client: Client, run_in_each_stage: list[Run], manager: User
) -> None:
    bulk_abort_of(run_in_each_stage, manager)
    bulk_abort_of(run_in_each_stage[:1], manager)
    Grant.objects.filter(action=Action.VIEW).update(stage="Staging")
    html = parse_html(viewer_client.get("/aborts/bulk/"))
    assert bulk_abort_titles(html) == ["1 requested (only runs you may view): 1 waiting."]
    Grant.objects.filter(action=Action.VIEW).delete()
    html = parse_html(viewer_client.get("/aborts/bulk/"))
    assert text_of(select_one(html, '[data-empty="nothing_exists"]')).startswith(
        "No bulk aborts of runs that you can see"
    )


def test_bulk_aborts_page_refreshes_after_progress(
    operator_client: Client, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    tag = live_tag(parse_html(operator_client.get("/aborts/bulk/")))
    headers = {**HTMX, "HX-PTag": tag}
    assert operator_client.get("/aborts/bulk/", headers=headers).status_code == 304
    batch.items.update(result=BulkAbortItemResult.ENDED)
    assert bulk_abort_titles(parse_html(operator_client.get("/aborts/bulk/", headers=headers))) == [
        "3 requested: 3 already ended."
    ]


# --- Its stream ---------------------------------------------------------------------------------


@pytest.fixture
def two_runs(live: Live, manager: User) -> list[Run]:
    """A run in Production and one in Staging, beside the running server."""
    return [factories.run(factories.stage(name), name=name) for name in ("Production", "Staging")]


def test_bulk_abort_stream_updates_item_and_summary(
    live: Live, two_runs: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(two_runs, manager)
    item = batch.items.get(position=1)
    with open_stream(live.sign_in("manager"), "bulk_abort", batch.pk) as stream:
        item.result = BulkAbortItemResult.ENDED
        item.save(update_fields=["result"])
        factories.change(item.run, status="success", concluded=True, in_flight=False)
        text_by_part = {}
        while "summary" not in text_by_part or f"item-{item.pk}" not in text_by_part:
            text_by_part |= {id: part.text() for id, part in next(stream).parts.items()}
    assert "Already ended" in text_by_part[f"item-{item.pk}"]
    assert "2 requested: 1 already ended, 1 waiting." in text_by_part["summary"]


def test_bulk_abort_stream_excludes_hidden_items(
    live: Live, two_runs: list[Run], manager: User, viewer: User
) -> None:
    batch = bulk_abort_of(two_runs, manager)
    Grant.objects.filter(action=Action.VIEW).update(stage="Staging")
    hidden_item, visible_item = batch.items.all()
    with open_stream(live.sign_in("viewer"), "bulk_abort", batch.pk) as stream:
        factories.change(hidden_item.run, step="x")
        factories.change(visible_item.run, step="y")
        parts: set[str] = set()
        while f"item-{visible_item.pk}" not in parts:
            parts |= set(next(stream).parts)
    assert f"item-{hidden_item.pk}" not in parts


def test_bulk_abort_stream_of_hidden_runs_returns_404(
    live: Live, two_runs: list[Run], manager: User, viewer: User
) -> None:
    batch = bulk_abort_of(two_runs, manager)
    Grant.objects.filter(action=Action.VIEW).delete()
    assert live.sign_in("viewer").get(f"/live/?page=bulk_abort&key={batch.pk}").status_code == 404
