"""Choose runs for a bulk abort, and confirm a fixed list of them."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.aborts.bulk_request import MAX_RUNS, MAX_RUNS_WITHOUT_COUNT
from dashboard.models import BulkAbort, Grant, Run, Stage
from dashboard.models.accounts.grants import Action
from tests.support import factories
from tests.support.bulk_aborts import (
    BULK_PATH,
    PIPELINE,
    abort_all_address,
    confirmation_address,
    confirmed_run_keys,
    excluded_text,
)
from tests.support.html import GetPage, parse_html, select_one, text_of

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


PLACES = ["this pipeline", "Production"]  # as the buttons of their pages name them


def abort_all_label(html: LexborHTMLParser) -> str:
    return text_of(select_one(html, "[data-abort-all]"))


def label(count: int, place: str = "this pipeline") -> str:
    return f"Abort {count} runs in {place}…"


def test_now_page_offers_no_abort_of_all_runs(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    assert get_page("/").css(".abort-all") == []
    html = get_page(f"{BULK_PATH}?page=now")
    assert text_of(select_one(html, "[data-reason]")) == "No runs selected."


def test_abort_all_is_offered_only_for_more_than_one_run(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    assert abort_all_label(get_page(PIPELINE)) == label(3)
    assert get_page(factories.address(run_in_each_stage[0].stage)).css("[data-abort-all]") == []
    Run.objects.exclude(pk=run_in_each_stage[0].pk).update(in_flight=False)
    assert get_page(PIPELINE).css("[data-abort-all]") == []


def test_page_with_too_many_runs_to_abort_at_once_says_so(get_page: GetPage, stage: Stage) -> None:
    addresses = PIPELINE, factories.address(stage), f"{factories.address(stage)}?status=running"
    run = factories.run(stage)
    factories.create_copies(run, MAX_RUNS)
    limit = "At most 200 runs can be aborted at once;"
    pages = [get_page(address) for address in addresses]
    texts = [text_of(select_one(html, ".abort-all")) for html in pages]
    assert texts == [f"{limit} there are 201."] * 3
    assert [html.css(".abort-all button") for html in pages] == [[], [], []]
    factories.change(run, status="aborting")
    labels = [abort_all_label(get_page(address)) for address in addresses[:2]]
    assert labels == [label(200, place) for place in PLACES]


def test_abort_all_of_pipeline_excludes_other_pipelines(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    factories.run(factories.stage(parent=factories.pipeline("search")))
    html = get_page(PIPELINE)
    assert abort_all_label(html) == label(3)
    confirmation = get_page(abort_all_address(html))
    assert confirmed_run_keys(confirmation) == [str(run.pk) for run in reversed(run_in_each_stage)]


def test_viewer_sees_no_offer_to_abort_all_of_pipeline(
    viewer_client: Client, run_in_each_stage: list[Run]
) -> None:
    assert parse_html(viewer_client.get(PIPELINE)).css(".abort-all") == []


def test_abort_all_counts_only_permitted_runs(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage
) -> None:
    Grant.objects.filter(action=Action.ABORT).update(stage="Production")
    factories.run(stage)
    assert abort_all_label(get_page(PIPELINE)) == label(2)


def test_abort_all_text_reveals_no_hidden_runs(
    get_page: GetPage, run_in_each_stage: list[Run]
) -> None:
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, stage="Staging")
    factories.run(run_in_each_stage[1].stage)
    html = get_page(PIPELINE)
    assert abort_all_label(html) == label(2)
    assert len(confirmed_run_keys(get_page(abort_all_address(html)))) == 2


def test_abort_all_of_filter_includes_runs_of_other_pages(get_page: GetPage, stage: Stage) -> None:
    for number in range(105):
        factories.run(stage, status="pending" if number % 21 == 0 else "running")
    address = factories.address(stage)
    assert abort_all_label(get_page(address)) == label(105, "Production")
    html = get_page(f"{address}?status=pending")
    assert abort_all_label(html) == label(5, "Production")
    assert len(confirmed_run_keys(get_page(abort_all_address(html)))) == 5


@pytest.mark.parametrize("status", ["%00", "running%00%00x", "nope"])
def test_bulk_abort_of_a_status_that_no_run_has_selects_none(
    status: str, get_page: GetPage, run_in_each_stage: list[Run], stage: Stage
) -> None:
    html = get_page(f"{BULK_PATH}?stage={stage.pk}&status={status}")
    assert text_of(select_one(html, "[data-reason]")) == "No runs selected."
    assert confirmed_run_keys(html) == []


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
    assert text_of(select_one(html, ".production-warning")) == "1 run is in Production."


def test_bulk_abort_confirmation_lists_excluded_runs_with_reasons(
    get_page: GetPage, run_in_each_stage: list[Run], stage: Stage, manager: User
) -> None:
    Grant.objects.filter(action=Action.ABORT).update(stage="Production")
    # Northflank lists runs for some time only.
    ended_run = factories.run(stage, status="success", name="Over", removed_at=timezone.now())
    aborting_run = factories.run(stage, name="Mine")
    factories.abort(aborting_run, manager)
    html = get_page(confirmation_address(*run_in_each_stage, ended_run, aborting_run))
    assert confirmed_run_keys(html) == [str(run_in_each_stage[2].pk)]
    text = excluded_text(html)
    assert "4 runs excluded" in text
    assert "Already ended: succeeded." in text
    assert "Abort accepted" in text
    assert "Ask a superuser" in text


def test_bulk_abort_without_selection_shows_message(get_page: GetPage) -> None:
    html = get_page(BULK_PATH)
    assert text_of(select_one(html, "[data-reason]")) == "No runs selected."
    assert html.css('main form[method="post"]') == []


def test_bulk_abort_over_limit_is_rejected_before_confirmation(
    get_page: GetPage, stage: Stage
) -> None:
    for _ in range(MAX_RUNS + 1):
        factories.run(stage)
    html = get_page(f"{BULK_PATH}?stage={stage.pk}")
    assert text_of(select_one(html, "[data-reason]")).startswith(
        "At most 200 runs can be aborted at once"
    )
    assert html.css('main form[method="post"]') == []


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
    runs = [factories.run(stage) for _ in range(MAX_RUNS_WITHOUT_COUNT + 1)]
    assert get_page(confirmation_address(*runs[1:])).css('[name="count"]') == []
    html = get_page(confirmation_address(*runs))
    assert text_of(select_one(html, 'label[for="count"]')) == "Type 6 to confirm"
    assert "more than 5 runs or several projects" in text_of(select_one(html, ".typed-count"))
    assert select_one(html, "#count").attributes["value"] == ""
    assert "hidden" in select_one(html, "#count-error").attributes
