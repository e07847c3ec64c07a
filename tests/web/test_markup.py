"""The markup that external tools rely on: docs/build/api.md."""

from datetime import datetime, timedelta

import msgspec
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Run, Stage
from dashboard.web.components.now_sections import MAX_FAILED, UNFOLDED_FAILURES
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of
from tests.support.live_runs import backdate_abort

IN_FLIGHT = [
    "pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait", "unknown",
]  # fmt: skip
ENDED = ["success", "failure", "aborted", "skipped"]


@pytest.mark.parametrize("page_name", ["now", "stage", "run"])
def test_run_element_carries_id_status_and_abort_button(
    page_name: str, get_page: GetPage, run: Run
) -> None:
    address = {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}
    element = select_one(get_page(address[page_name]), "[data-run]")
    assert element.attributes["id"] == "run-r-1"
    assert element.attributes["data-run"] == "r-1"
    assert element.attributes["data-status"] == "running"
    assert element.attributes["data-concluded"] == "false"
    assert text_of(select_one(element, ".headline [data-badge], .status [data-badge]")) == "Running"
    assert select_one(element, "[data-abort]").attributes["aria-label"] == "Abort Nightly"


@pytest.mark.parametrize("status", [*IN_FLIGHT, *ENDED, "aborting", "hibernating"])
def test_run_element_carries_northflank_status_and_concluded(
    status: str, get_page: GetPage, stage: Stage
) -> None:
    run = factories.run(stage, status=status)
    element = select_one(get_page(factories.address(stage)), f'[data-run="{run.run_id}"]')
    assert element.attributes["data-status"] == status
    assert element.attributes["data-concluded"] == str(status in ENDED).lower()


def test_unknown_status_badge_shows_raw_status(get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, status="hibernating")
    assert (
        text_of(select_one(get_page(factories.address(run)), ".headline [data-badge]"))
        == "hibernating"
    )


def test_concluded_attribute_follows_northflank_not_status(get_page: GetPage, stage: Stage) -> None:
    factories.run(stage, "r-2", status="success", concluded=False, in_flight=True)
    element = select_one(get_page(factories.address(stage)), '[data-run="r-2"]')
    assert element.attributes["data-concluded"] == "false"
    assert element.css_first("[data-abort]") is not None


@pytest.mark.parametrize("status", IN_FLIGHT)
def test_run_in_flight_has_enabled_abort_button(
    status: str, get_page: GetPage, stage: Stage
) -> None:
    run = factories.run(stage, status=status)
    button = select_one(get_page(factories.address(run)), "[data-abort]")
    assert "disabled" not in button.attributes


@pytest.mark.parametrize("status", [*ENDED, "aborting"])
def test_ended_or_aborting_run_has_no_abort_button(
    status: str, get_page: GetPage, stage: Stage
) -> None:
    run = factories.run(stage, status=status)
    assert get_page(factories.address(run)).css("[data-abort]") == []
    assert get_page(factories.address(stage)).css("[data-abort]") == []


def test_removed_run_has_no_abort_button(get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, in_flight=False, removed_at=timezone.now())
    html = get_page(factories.address(run))
    assert html.css("[data-abort]") == []
    assert "Removed from Northflank" in text_of(select_one(html, "[data-verdict]"))


@pytest.mark.parametrize("page_name", ["now", "stage", "run"])
def test_viewer_sees_disabled_abort_button_with_reason(
    page_name: str, viewer_client: Client, run: Run
) -> None:
    address = {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}
    html = parse_html(viewer_client.get(address[page_name]))
    button = select_one(html, "[data-abort]")
    reason = select_one(html, f"#{button.attributes['aria-describedby']}")
    assert "disabled" in button.attributes
    assert text_of(reason) == "Ask someone in “Release managers” to abort here."


def test_cached_run_row_is_not_shared_across_permissions(
    client: Client, manager: User, viewer: User, run: Run
) -> None:
    for user, disabled in ((manager, False), (viewer, True), (manager, False)):
        client.force_login(user)
        button = select_one(parse_html(client.get("/")), "[data-abort]")
        assert ("disabled" in button.attributes) is disabled


def test_read_only_mode_disables_abort_button_and_shows_banner(
    get_page: GetPage, run: Run, settings: Settings
) -> None:
    settings.READ_ONLY = True
    html = get_page(factories.address(run))
    assert "disabled" in select_one(html, "[data-abort]").attributes
    assert "read-only" in text_of(select_one(html, ".denied-reason"))
    assert any("read-only" in text_of(banner) for banner in html.css(".banner"))


def test_aborts_disabled_disables_abort_button_and_shows_banner(
    get_page: GetPage, run: Run, settings: Settings
) -> None:
    settings.ABORTS_ENABLED = False
    html = get_page("/")
    assert "disabled" in select_one(html, "[data-abort]").attributes
    assert "disabled" in text_of(select_one(html, ".denied-reason"))
    assert any("disabled" in text_of(banner) for banner in html.css(".banner"))


def test_run_with_abort_under_way_shows_message_instead_of_button(
    get_page: GetPage, run: Run, manager: User
) -> None:
    factories.abort(run, manager, reason="Stuck")
    for address in ("/", factories.address(run.stage), factories.address(run)):
        element = select_one(get_page(address), "[data-run]")
        line = select_one(element, ".abort-line")
        assert element.css("[data-abort]") == []
        assert text_of(line).startswith("Abort accepted")
        assert text_of(select_one(line, "q")) == "Stuck"
        assert "manager" in text_of(line)
        assert element.attributes["data-status"] == "running"


def test_run_page_shows_summary_data_age_and_steps(get_page: GetPage, stage: Stage) -> None:
    started_at = timezone.now() - timedelta(seconds=30)
    root = factories.node(
        "Workflow",
        steps=(
            factories.node(
                label="build", status="success", started_at=started_at, ended_at=started_at
            ),
            factories.node(
                "RunMigration", label="migrate", status="waiting", started_at=started_at
            ),
            factories.node(label="deploy"),
        ),
    )
    run = factories.run(
        stage, steps=msgspec.to_builtins(root), detail_synced_at=timezone.now(), status="waiting"
    )
    html = get_page(factories.address(run))
    steps = select_one(html, "[data-steps]").css("li")
    assert [text_of(select_one(step, "bdi")) for step in steps] == ["build", "migrate", "deploy"]
    assert [text_of(select_one(step, "[data-badge]")) for step in steps] == [
        "Succeeded",
        "Waiting",
        "Not started",
    ]
    assert "migrate" in text_of(select_one(html, "[data-verdict]"))
    as_of = datetime.fromisoformat(select_one(html, "[data-as-of]").attributes["data-as-of"] or "")
    assert abs(as_of - run.synced_at) < timedelta(seconds=2)


def test_page_with_stale_data_is_marked_stale(get_page: GetPage, run: Run) -> None:
    Stage.objects.update(fresh_until=timezone.now() - timedelta(minutes=5))
    assert select_one(get_page("/"), "[data-as-of]").attributes["data-stale"] == "true"
    assert (
        select_one(get_page(factories.address(run)), "[data-as-of]").attributes["data-stale"]
        == "true"
    )


def test_concluded_run_page_is_never_stale(get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, status="success")
    Stage.objects.update(fresh_until=timezone.now() - timedelta(days=5))
    assert (
        select_one(get_page(factories.address(run)), "[data-as-of]").attributes["data-stale"]
        == "false"
    )


def test_now_page_lists_runs_in_flight_and_failures_of_last_day(
    get_page: GetPage, run: Run
) -> None:
    hour_ago = timezone.now() - timedelta(hours=1)
    failed = factories.run(run.stage, status="failure", concluded_at=hour_ago)
    factories.run(run.stage, status="success")
    factories.run(run.stage, status="failure", concluded_at=timezone.now() - timedelta(days=2))
    html = get_page("/")
    section_by_run = {
        name: [
            row.attributes["data-run"]
            for row in select_one(html, f'section[aria-labelledby="{name}"]').css("[data-run]")
        ]
        for name in ("in-flight", "failed")
    }
    assert section_by_run == {"in-flight": [run.run_id], "failed": [failed.run_id]}


@pytest.mark.parametrize(
    ("count", "text"), [(12, "All 12"), (MAX_FAILED + 3, f"Showing {MAX_FAILED} of 203.")]
)
def test_now_page_with_many_failures_folds_all_but_ten(
    count: int, text: str, get_page: GetPage, stage: Stage
) -> None:
    ended_at = timezone.now() - timedelta(hours=1)
    run = factories.run(stage, status="failure", concluded_at=ended_at)
    factories.create_copies(run, count - 1)
    failed = select_one(get_page("/"), 'section[aria-labelledby="failed"]')
    folded = select_one(failed, "details.folded")
    assert len(failed.css("[data-run]")) == min(count, MAX_FAILED)
    assert len(folded.css("[data-run]")) == min(count, MAX_FAILED) - UNFOLDED_FAILURES
    assert text_of(select_one(failed, ".count")) == str(count)
    assert text_of(select_one(folded, "summary")) == text


@pytest.mark.parametrize("status", ["aborted", "success"])
def test_now_page_lists_aborted_run_for_one_hour(
    status: str, get_page: GetPage, run: Run, manager: User
) -> None:
    ended_at = timezone.now()
    settled = {"response_status": 200, "outcome": status, "settled_at": ended_at}
    factories.abort(run, manager, "concluded", **settled)
    factories.change(run, status=status, concluded=True, in_flight=False, concluded_at=ended_at)
    section = select_one(get_page("/"), 'section[aria-labelledby="aborted"]')
    assert select_one(section, "[data-run]").attributes["data-status"] == status
    backdate_abort(run.aborts.get(), requested_at=7200)
    assert get_page("/").css("[data-run]") == []


def test_board_shows_latest_run_of_each_stage(get_page: GetPage, run: Run) -> None:
    factories.stage("Staging", has_flow=False)
    factories.stage("Development", has_flow=None, synced_at=None)
    html = get_page("/board/")
    states = {
        cell.attributes["data-stage"]: cell.attributes["data-state"] for cell in html.css("td")
    }
    assert states == {"Development": "unknown", "Staging": "none", "Production": "flow"}
    assert text_of(select_one(html, '[data-stage="Production"] .latest .label')) == "Running"


def test_pipeline_page_orders_stages_from_development_to_production(
    get_page: GetPage, run: Run
) -> None:
    for name in ("Staging", "Development"):
        factories.stage(name)
    html = get_page(factories.address(run.stage.pipeline))
    assert [text_of(select_one(part, "h2 a")) for part in html.css("section")] == [
        "Development",
        "Staging",
        "Production",
    ]
    assert select_one(html, "[data-run]").attributes["data-run"] == "r-1"
