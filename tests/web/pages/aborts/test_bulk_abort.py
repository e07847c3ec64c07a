"""A bulk abort: its form, and its page with the result of each run."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import permissions
from dashboard.models import BulkAbort, Grant, RateBudget, Run, Stage
from dashboard.models.accounts.grants import Action
from dashboard.models.bulk_aborts import BulkAbortItemResult
from tests.support import factories
from tests.support.bulk_aborts import (
    BULK_PATH,
    bulk_abort_of,
    confirmation_address,
    confirmed_run_keys,
)
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.live_runs import SEARCH, create_run_in_flight, wait_until
from tests.support.stream import open_stream

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
    assert answer.content.decode() == ("Type the number of runs to confirm. Nothing was aborted.")
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
        "Type the number of runs to confirm. Nothing was aborted."
    )
    assert select_one(html, "#count").attributes["aria-invalid"] == "true"
    assert select_one(html, "#count").attributes["value"] == "60"
    assert select_one(html, "#reason").attributes["value"] == "Since three"
    assert select_one(html, '[name="pick"][checked]').attributes["value"] == "Stuck"
    assert select_one(html, '[name="key"]').attributes["value"] == form["key"]
    assert len(confirmed_run_keys(html)) == 6
    assert "hidden" in select_one(html, "#reason-error").attributes


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
    assert text_of(select_one(html, ".summary .summary-text")) == "2 requested: 2 under way."
    assert len(html.css("tbody tr")) == 2
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_bulk_abort_form_sent_twice_over_http_aborts_once(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    form = {"csrfmiddlewaretoken": token(client), "run": [run.pk], "key": str(uuid4())}
    first, second = client.post(BULK_PATH, data=form), client.post(BULK_PATH, data=form)
    assert first.headers["location"] == second.headers["location"]
    wait_until(lambda: BulkAbort.objects.filter(settled_at__isnull=False).exists())
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


# --- The bulk abort's page ----------------------------------------------------------------------


def test_bulk_abort_page_shows_summary_counts(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    text = text_of(select_one(html, ".summary .summary-text"))
    assert text == "3 requested: 1 under way, 1 already ended, 1 waiting."
    assert "aborting continues" in text_of(select_one(html, ".summary"))
    assert select_one(html, "noscript meta").attributes["http-equiv"] == "refresh"


def test_bulk_abort_page_links_to_each_job_that_still_runs(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "abort")
    first, second, third = run_in_each_stage
    factories.work(first)
    factories.work(second, concluded=True)
    factories.work(third)
    Run.objects.update(in_flight=False, concluded=True, status="aborted")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    links = [(text_of(link), link.attributes["href"]) for link in html.css("[data-left-running] a")]
    assert links == [("migrate-j1", f"{factories.address(first)}#left-running")]


def test_bulk_abort_rows_show_result_and_link_to_run(
    get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager, "abort", "ended")
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    results = [
        (text_of(select_one(row, "[data-badge]")), text_of(select_one(row, ".subject a.title")))
        for row in html.css("tbody tr")
    ]
    assert results == [("Under way", "Dev"), ("Already ended", "Stg"), ("Waiting", "Prod")]
    links = [link.attributes["href"] for link in html.css("tbody .subject a.title")]
    assert links == [factories.address(run) for run in run_in_each_stage]


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
    RateBudget.objects.create(pk=1, limit=1000, remaining=25, resets_at=resume_time, synced_at=now)
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    text = text_of(select_one(html, ".summary .inline-notice"))
    assert "reserved for single aborts" in text
    assert f"{timezone.localtime(resume_time):%H:%M:%S}" in text


@pytest.mark.parametrize(
    ("result", "label", "note"),
    [
        ("waiting", "Waiting", ""),
        ("joined", "Aborted elsewhere", "The run was already being aborted."),
        ("ended", "Already ended", "Nothing was sent."),
        ("not_allowed", "Not allowed", "You may not."),
    ],
)
def test_bulk_abort_page_tells_why_a_run_has_no_abort(
    result: str, label: str, note: str, get_page: GetPage, run: Run, manager: User
) -> None:
    batch = bulk_abort_of([run], manager)
    batch.items.update(result=result, note=note)
    html = get_page(f"/aborts/bulk/{batch.pk}/")
    assert text_of(select_one(html, "tbody .status")) == f"{label} {note}".strip()
    text = text_of(select_one(html, ".summary .summary-text"))
    assert text == f"1 requested: 1 {label[0].lower()}{label[1:]}."
    assert ("aborting continues" in text_of(select_one(html, ".summary"))) is (result == "waiting")


def test_bulk_abort_page_shows_its_aborts_as_the_log_does(
    get_page: GetPage, run: Run, manager: User
) -> None:
    batch = bulk_abort_of([run], manager, "abort")
    row = select_one(get_page(f"/aborts/bulk/{batch.pk}/"), "[data-abort-row]")
    assert row.html == select_one(get_page("/aborts/"), "[data-abort-row]").html


@pytest.mark.parametrize("key", ["9999999999999999999", "9" * 40, "0"])
def test_unknown_or_invalid_key_in_bulk_abort_addresses_is_handled(
    key: str, operator_client: Client, db: None
) -> None:
    assert operator_client.get(f"/aborts/bulk/{key}/").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?stage={key}").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?pipeline={key}").status_code == 404
    assert operator_client.get(f"{BULK_PATH}?run={key}").status_code == 200
    assert operator_client.get(f"/live/?page=bulk_abort&key={key}").status_code == 404
    assert operator_client.get(f"/aborts/?before={key}").status_code == 200


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


def test_bulk_abort_by_viewer_returns_403(
    viewer_client: Client, run_in_each_stage: list[Run]
) -> None:
    form = {"run": [run.pk for run in run_in_each_stage], "key": str(uuid4()), "reason": "Stuck"}
    answer = viewer_client.post(BULK_PATH, form)
    assert answer.status_code == 403
    assert permissions.RELEASE_MANAGERS in answer.content.decode()
    assert not BulkAbort.objects.exists()


@pytest.mark.parametrize("page", ["audit", "run"])
def test_abort_of_bulk_abort_links_to_it(
    page: str, get_page: GetPage, run_in_each_stage: list[Run], manager: User
) -> None:
    batch = bulk_abort_of(run_in_each_stage, manager)
    factories.abort(run_in_each_stage[0], manager, bulk_abort=batch)
    html = get_page("/aborts/" if page == "audit" else factories.address(run_in_each_stage[0]))
    assert select_one(html, "[data-bulk-abort]").attributes["href"] == f"/aborts/bulk/{batch.pk}/"
