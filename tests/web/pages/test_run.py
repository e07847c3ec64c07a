"""A run's page and row: run summary, related runs, and incident summary."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Grant, Run, Stage, StageTiming
from dashboard.models.accounts.grants import Action
from dashboard.runs import concurrency
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of

current_time = timezone.now


@pytest.fixture
def retrying_run(stage: Stage) -> Run:
    """A run at its second attempt to migrate, in a stage where that usually takes 2 to 4 min."""
    StageTiming.objects.create(
        stage=stage,
        observed_run_median=480,
        observed_run_p95=600,
        observed_steps={"migrate": [120, 240]},
    )
    started_at = current_time() - timedelta(minutes=18, seconds=20)
    step = factories.node(
        "JobRun",
        label="migrate",
        ref="migrate",
        status="retrying",
        started_at=started_at,
        attempts=2,
        max_attempts=3,
        next_attempt_at=current_time() + timedelta(minutes=5, seconds=30),
    )
    return factories.run(
        stage,
        "r-1",
        status="retrying",
        name="Nightly",
        started_at=started_at,
        created_at=started_at,
        step="migrate, attempt 2 of 3",
        step_key="migrate",
        step_started_at=started_at,
        steps=msgspec.to_builtins(factories.node("Workflow", steps=(step,))),
        detail_synced_at=current_time(),
    )


def queued_run(stage: Stage, name: str, **fields: Any) -> Run:
    defaults = {"status": "queued", "started_at": None, "created_at": current_time()}
    return factories.run(stage, name=name, **defaults | fields)


# --- the run summary ---------------------------------------------------------------------------


def test_run_page_says_what_is_in_it_and_how_that_differs_from_the_last_success(
    get_page: GetPage, stage: Stage
) -> None:
    trees = {
        name: msgspec.to_builtins(
            factories.node(
                "Workflow",
                steps=(factories.node("Build", label="api", ref="api", commit=commit * 40),),
                argument_names=("REGION",),
            )
        )
        for name, commit in (("before", "a"), ("now", "b"))
    }
    success = factories.run(stage, "before", status="success", steps=trees["before"])
    StageTiming.objects.create(stage=stage, last_success=success)
    run = factories.run(stage, "now", steps=trees["now"])
    panel = text_of(select_one(get_page(factories.address(run)), "[data-contents]"))
    assert panel == "What is in it api bbbbbbbbbb last success: aaaaaaaaaa ArgumentsREGION"
    panel = text_of(select_one(get_page(factories.address(success)), "[data-contents]"))
    assert panel == "What is in it api aaaaaaaaaa ArgumentsREGION"


def test_header_of_an_aborted_run_says_how_long_it_took_and_what_has_started(
    get_page: GetPage, stage: Stage, manager: User
) -> None:
    ended_at = current_time() - timedelta(minutes=5)
    run = factories.run(
        stage, status="aborted", concluded_at=ended_at, created_at=ended_at - timedelta(hours=1)
    )
    factories.abort(
        run, manager, "concluded", outcome="aborted", settled_at=ended_at,
        requested_at=ended_at - timedelta(seconds=5),
    )  # fmt: skip
    factories.run(stage, "before", name="Before", started_at=ended_at - timedelta(seconds=1))
    factories.run(stage, "next", name="Next", started_at=ended_at + timedelta(seconds=1))
    header = select_one(get_page(factories.address(run)), "[data-abort-state]")
    assert text_of(header) == "Aborted after 5 s. Next has started."


def test_run_page_says_when_its_steps_cannot_be_read(get_page: GetPage, retrying_run: Run) -> None:
    address = factories.address(retrying_run)
    assert get_page(address).css("[data-steps-as-of]") == []
    Run.objects.update(failures=1, version=retrying_run.version + 1)
    note = text_of(select_one(get_page(address), "[data-steps-as-of]"))
    assert note.startswith("The steps could not be read from Northflank. Shown as of ")
    Run.objects.update(steps=None, version=retrying_run.version + 2)
    text = text_of(select_one(get_page(address), "[data-steps]"))
    assert text == "The steps could not be read from Northflank. Retrying."


def test_run_page_shows_summary(get_page: GetPage, retrying_run: Run) -> None:
    queued_run(retrying_run.stage, "Hotfix")
    assert text_of(select_one(get_page(factories.address(retrying_run)), "[data-verdict]")) == (
        "Checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). "
        "Attempt 2 of 3, next in 5 min. Blocks 1 run."
    )


def test_run_summary_isolates_foreign_names_in_bdi(get_page: GetPage, retrying_run: Run) -> None:
    summary = select_one(get_page(factories.address(retrying_run)), "[data-verdict]")
    assert [text_of(name) for name in summary.css("bdi")] == ["Checkout", "migrate"]


def test_run_row_shows_current_step(get_page: GetPage, retrying_run: Run) -> None:
    cell = select_one(get_page(factories.address(retrying_run.stage)), "[data-run] p.step")
    start = timezone.localtime(retrying_run.step_started_at)
    assert text_of(cell) == (
        f"migrate, attempt 2 of 3, since {start.day} {start:%b %H:%M:%S} (usually 2 to 4 min)"
    )
    assert (
        select_one(cell, "time[data-since][data-sentence]").attributes["datetime"]
        == start.isoformat()
    )
    assert cell.attributes["title"] == "migrate, attempt 2 of 3"


@pytest.mark.usefixtures("stopped_clock")
def test_run_rows_with_step_durations_need_no_extra_queries(
    operator_client: Client, stage: Stage
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            assert operator_client.get(factories.address(stage)).status_code == 200
        return len(captured)

    StageTiming.objects.create(stage=stage, observed_steps={"migrate": [120, 240]})
    factories.run(stage, step="migrate", step_key="migrate", step_started_at=current_time())
    operator_client.get(
        factories.address(stage)
    )  # marks the run watched, which it does once in a while
    query_count = queries()
    for _ in range(40):
        factories.run(stage, step="migrate", step_key="migrate", step_started_at=current_time())
    assert queries() == query_count


# --- times that Northflank does not report -----------------------------------------------------


STARTS = [
    ({"status": "queued"}, "not started"),
    ({"status": "pending"}, "not started"),
    ({"status": "skipped"}, "not started"),
    ({"status": "running"}, "unknown"),
    ({"status": "success"}, "unknown"),
    ({"status": "aborted"}, "unknown"),
    ({"status": "hibernating"}, "unknown"),
    ({"status": "queued", "removed_at": current_time()}, "unknown"),
]


def fact(page: LexborHTMLParser, name: str) -> str:
    """The value of one of the details on a run's page."""
    [value] = [
        text_of(select_one(row, "dd"))
        for row in page.css("dl.facts > div")
        if text_of(select_one(row, "dt")) == name
    ]
    return value


@pytest.mark.parametrize(("fields", "text"), STARTS)
def test_run_without_start_time_has_not_started_only_by_its_status(
    fields: dict[str, Any], text: str, get_page: GetPage, stage: Stage
) -> None:
    run = factories.run(stage, started_at=None, **fields)
    assert fact(get_page(factories.address(run)), "Started") == text
    row = select_one(get_page(factories.address(stage)), f'tr[data-run="{run.run_id}"]')
    assert text_of(select_one(row, "td.started")) == text


ENDS = [
    ({}, "not yet"),
    ({"removed_at": current_time()}, "unknown"),
    ({"removed_at": current_time(), "in_flight": False}, "unknown"),
    ({"status": "success", "concluded_at": None}, "yes"),
]


@pytest.mark.parametrize(
    ("fields", "text"), ENDS, ids=["in flight", "removed", "dismissed", "concluded"]
)
def test_run_without_end_time_has_its_conclusion(
    fields: dict[str, Any], text: str, get_page: GetPage, stage: Stage
) -> None:
    run = factories.run(stage, **fields)
    assert fact(get_page(factories.address(run)), "Ended") == text


# --- related runs ------------------------------------------------------------------------------


def test_related_runs_list_queued_runs_behind(get_page: GetPage, retrying_run: Run) -> None:
    first, second = (
        queued_run(retrying_run.stage, "Hotfix"),
        queued_run(retrying_run.stage, "Fix of it"),
    )
    queued = select_one(
        get_page(factories.address(retrying_run)), "[data-related-runs] [data-blocks]"
    )
    assert text_of(select_one(queued, "p")) == "Blocks 2 runs:"
    assert [link.attributes["href"] for link in queued.css("a")] == [
        factories.address(first),
        factories.address(second),
    ]


def test_related_runs_with_many_queued_list_five_and_count_rest(
    get_page: GetPage, retrying_run: Run
) -> None:
    for number in range(8):
        queued_run(retrying_run.stage, f"Fix {number}")
    queued = select_one(
        get_page(factories.address(retrying_run)), "[data-related-runs] [data-blocks]"
    )
    assert len(queued.css("a")) == 5
    assert text_of(queued).startswith("Blocks 8 runs:")
    assert text_of(queued).endswith("and 3 more")


def test_related_runs_list_other_runs_in_flight_of_pipeline(get_page: GetPage, run: Run) -> None:
    other = factories.run(factories.stage("Staging", parent=run.stage.pipeline))
    factories.run(factories.stage(parent=factories.pipeline("elsewhere")))
    in_flight = select_one(get_page(factories.address(run)), "[data-related-runs] [data-in-flight]")
    assert [link.attributes["href"] for link in in_flight.css("a")] == [factories.address(other)]
    assert text_of(select_one(in_flight, "li")).endswith("Staging")


def test_related_runs_exclude_hidden_runs(client: Client, run: Run, viewer: User) -> None:
    Grant.objects.all().delete()
    group = Group.objects.create(name="Watchers")
    group.user_set.add(viewer)
    Grant.objects.create(group=group, action=Action.VIEW, stage="Production")
    factories.run(factories.stage("Staging", parent=run.stage.pipeline), name="Secret")
    client.force_login(viewer)
    page = parse_html(client.get(factories.address(run)))
    assert "Secret" not in text_of(page)
    assert (
        text_of(select_one(page, "[data-in-flight]"))
        == "No other runs in flight in this pipeline that you can see."
    )


@pytest.mark.parametrize(("policy", "name"), [("queue", "abort"), ("forbid", "run")])
@pytest.mark.usefixtures("stopped_clock")
def test_related_runs_with_more_runs_need_no_more_queries(
    policy: str, name: str, operator_client: Client, run: Run
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            assert operator_client.get(factories.address(run, name)).status_code == 200
        return len(captured)

    def create_runs(count: int) -> None:
        for number in range(count):
            skipped_run(run.stage, f"Dropped {number}")
            factories.run(run.stage, status="aborted")
            queued_run(run.stage, f"Fix {number}")
            factories.run(factories.stage("Staging", parent=run.stage.pipeline))

    create_runs(1)
    Stage.objects.update(concurrency_policy=policy)
    operator_client.get(
        factories.address(run, name)
    )  # marks the run watched, which it does once in a while
    query_count = queries()
    create_runs(30)
    assert queries() == query_count


# --- skipped runs -------------------------------------------------------------------------------


def skipped_run(stage: Stage, name: str, **fields: Any) -> Run:
    """A run that was created now and skipped at once."""
    defaults = {"started_at": None, "created_at": current_time(), "concluded_at": current_time()}
    return factories.run(stage, name=name, status="skipped", **defaults | fields)


@pytest.fixture
def run_with_forbid_policy(run: Run) -> Run:
    """A run in flight in a stage that allows no other run beside it."""
    Stage.objects.update(concurrency_policy="forbid")
    return Run.objects.with_stage().get(pk=run.pk)


def skipped_meanwhile(run: Run) -> list[str]:
    return [other.name for other in concurrency.load_skipped(run, Q())]


def test_runs_skipped_while_a_run_is_in_flight_are_listed_latest_first(
    get_page: GetPage, run_with_forbid_policy: Run
) -> None:
    run, at = run_with_forbid_policy, run_with_forbid_policy.created_at
    skipped_run(run.stage, "Before", created_at=at - timedelta(minutes=1))
    first, second = (
        skipped_run(run.stage, name, created_at=at + timedelta(minutes=n))
        for n, name in enumerate(("First", "Second"), 1)
    )
    factories.run(run.stage, name="Aborted", status="aborted", created_at=at + timedelta(minutes=1))
    group = select_one(get_page(factories.address(run)), "[data-related-runs] [data-skipped]")
    assert [text_of(link) for link in group.css("a.title")] == ["Second", "First"]
    assert skipped_meanwhile(first) == skipped_meanwhile(second) == []
    assert concurrency.load_skipped(run, Q(pk__in=[])) == []
    Stage.objects.update(concurrency_policy="latest")
    assert skipped_meanwhile(Run.objects.with_stage().get(pk=run.pk)) == []


@pytest.mark.parametrize(
    "end", [{"concluded": True, "status": "failure"}, {"removed_at": current_time()}]
)
def test_runs_skipped_after_a_run_ended_are_not_listed(
    end: dict[str, Any], run_with_forbid_policy: Run
) -> None:
    run, at = run_with_forbid_policy, run_with_forbid_policy.created_at
    ended_at = at + timedelta(minutes=2)
    factories.change(
        run, in_flight=False, **{"concluded_at": ended_at, "synced_at": ended_at, **end}
    )
    skipped_run(run.stage, "During", created_at=at + timedelta(minutes=1))
    skipped_run(run.stage, "After", created_at=at + timedelta(minutes=3))
    assert skipped_meanwhile(Run.objects.with_stage().get(pk=run.pk)) == ["During"]


# --- the incident summary ----------------------------------------------------------------------


def test_run_page_shows_incident_summary_to_copy(
    get_page: GetPage, retrying_run: Run, settings: Settings
) -> None:
    settings.BASE_URL = "https://flows.example"
    box = select_one(get_page(factories.address(retrying_run)), ".incident-summary")
    text = select_one(box, "pre")
    assert select_one(box, "[data-copy]").attributes["data-copy"] == text.attributes["id"]
    lines = text.text().splitlines()
    assert lines[0].startswith("Checkout / Production: step “migrate” for 18 min")
    assert "Location: Shop / Checkout / Production" in lines
    assert lines[-1] == f"https://flows.example{factories.address(retrying_run)}"


# --- long names ----------------------------------------------------------------------------------


def test_run_page_cuts_long_title_and_has_it_whole_in_details(
    get_page: GetPage, stage: Stage
) -> None:
    page = get_page(factories.address(factories.run(stage, name="T" * 5000)))
    assert select_one(page, "h1").text() == "T" * 119 + "…"
    assert select_one(page, ".facts .whole-name").text() == "T" * 5000


def test_pipeline_page_cuts_long_name_and_has_it_whole(get_page: GetPage) -> None:
    stage = factories.stage(parent=factories.pipeline(name="P" * 5000))
    page = get_page(factories.address(stage.pipeline))
    assert select_one(page, "h1").text() == "P" * 119 + "…"
    assert select_one(page, ".whole-name").text() == "P" * 5000
    assert (
        select_one(get_page(factories.address(stage)), "h1").text() == "P" * 119 + "… / Production"
    )


# --- the link to Northflank ----------------------------------------------------------------------

NO_RUN_LINK = "Northflank documents no link to a run."


@pytest.mark.parametrize("place", ["#next-steps", "[aria-labelledby=details-title]"])
def test_link_to_northflank_without_address_of_run_says_so(
    get_page: GetPage, stage: Stage, settings: Settings, place: str
) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "https://northflank.example/{project}"
    run = factories.run(stage, status="aborting", abort_severity=2)
    text = text_of(select_one(get_page(factories.address(run)), place))
    assert f"Open Northflank {NO_RUN_LINK}" in text


def test_link_to_northflank_with_address_of_run_says_that_it_opens_run(
    get_page: GetPage, stage: Stage, settings: Settings
) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "https://northflank.example/{run}"
    run = factories.run(stage, status="aborting", abort_severity=2)
    page = get_page(factories.address(run))
    assert text_of(page).count("Open this run on Northflank") == 2
    assert NO_RUN_LINK not in text_of(page)
