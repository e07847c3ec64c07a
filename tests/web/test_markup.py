"""The markup that others rely on: design section 7, docs/architecture.md."""

from datetime import datetime, timedelta

import msgspec
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.flights import long_ago
from tests.support.html import See, one, parsed, words

IN_FLIGHT = [
    "pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait", "unknown",
]  # fmt: skip
ENDED = ["success", "failure", "aborted", "skipped"]


@pytest.mark.parametrize("place", ["now", "stage", "run"])
def test_a_run_is_one_element_that_says_what_it_is(place: str, see: See, run: Run) -> None:
    address = {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}
    element = one(see(address[place]), "[data-run]")
    assert element.attributes["id"] == "run-r-1"
    assert element.attributes["data-run"] == "r-1"
    assert element.attributes["data-status"] == "running"
    assert element.attributes["data-concluded"] == "false"
    assert words(one(element, ".headline [data-badge], .status [data-badge]")) == "Running"
    assert one(element, "[data-abort]").attributes["aria-label"] == "Abort Nightly"


@pytest.mark.parametrize("status", [*IN_FLIGHT, *ENDED, "aborting", "hibernating"])
def test_the_status_stands_as_northflank_sent_it(status: str, see: See, stage: Stage) -> None:
    run = factories.run(stage, status=status)
    element = one(see(factories.address(stage)), f'[data-run="{run.run_id}"]')
    assert element.attributes["data-status"] == status
    assert element.attributes["data-concluded"] == str(status in ENDED).lower()


def test_an_unknown_status_is_shown_as_itself(see: See, stage: Stage) -> None:
    run = factories.run(stage, status="hibernating")
    assert words(one(see(factories.address(run)), ".headline [data-badge]")) == "hibernating"


def test_concluded_is_read_and_never_derived(see: See, stage: Stage) -> None:
    factories.run(stage, "r-2", status="success", concluded=False, in_flight=True)
    element = one(see(factories.address(stage)), '[data-run="r-2"]')
    assert element.attributes["data-concluded"] == "false"
    assert element.css_first("[data-abort]") is not None


@pytest.mark.parametrize("status", IN_FLIGHT)
def test_what_is_in_flight_can_be_aborted(status: str, see: See, stage: Stage) -> None:
    run = factories.run(stage, status=status)
    button = one(see(factories.address(run)), "[data-abort]")
    assert "disabled" not in button.attributes


@pytest.mark.parametrize("status", [*ENDED, "aborting"])
def test_what_ended_or_is_aborting_has_no_abort_control(
    status: str, see: See, stage: Stage
) -> None:
    run = factories.run(stage, status=status)
    assert see(factories.address(run)).css("[data-abort]") == []
    assert see(factories.address(stage)).css("[data-abort]") == []


def test_a_run_northflank_no_longer_knows_has_no_abort_control(see: See, stage: Stage) -> None:
    run = factories.run(stage, in_flight=False, gone_at=timezone.now())
    html = see(factories.address(run))
    assert html.css("[data-abort]") == []
    assert "no longer knows" in words(one(html, "[data-verdict]"))


@pytest.mark.parametrize("place", ["now", "stage", "run"])
def test_who_may_not_abort_sees_a_disabled_button_and_why(
    place: str, looking_on: Client, run: Run
) -> None:
    address = {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}
    html = parsed(looking_on.get(address[place]))
    button = one(html, "[data-abort]")
    reason = one(html, f"#{button.attributes['aria-describedby']}")
    assert "disabled" in button.attributes
    assert words(reason) == "Only members of the group “Release managers” may abort runs here."


@pytest.mark.parametrize("place", ["now", "stage"])
def test_above_a_table_the_reason_stands_in_sight(place: str, looking_on: Client, run: Run) -> None:
    address = {"now": "/", "stage": factories.address(run.stage)}
    assert "Release managers" in words(
        one(parsed(looking_on.get(address[place])), "[data-why-not]")
    )


def test_no_reason_stands_where_there_is_nothing_to_abort(looking_on: Client, stage: Stage) -> None:
    factories.run(stage, status="success")
    assert parsed(looking_on.get(factories.address(stage))).css("[data-why-not]") == []


def test_a_managers_row_is_never_shown_to_a_viewer(
    client: Client, manager: User, viewer: User, run: Run
) -> None:
    for person, disabled in ((manager, False), (viewer, True), (manager, False)):
        client.force_login(person)
        button = one(parsed(client.get("/")), "[data-abort]")
        assert ("disabled" in button.attributes) is disabled


def test_read_only_says_so_on_the_button_and_above_every_page(
    see: See, run: Run, settings: Settings
) -> None:
    settings.READ_ONLY = True
    html = see(factories.address(run))
    assert "disabled" in one(html, "[data-abort]").attributes
    assert "read-only" in words(one(html, ".why-not"))
    assert any("Read-only" in words(banner) for banner in html.css(".banner"))


def test_aborts_switched_off_say_so_on_the_button_and_above_every_page(
    see: See, run: Run, settings: Settings
) -> None:
    settings.ABORTS_ENABLED = False
    html = see("/")
    assert "disabled" in one(html, "[data-abort]").attributes
    assert "switched off" in words(one(html, ".why-not"))
    assert any("switched off" in words(banner) for banner in html.css(".banner"))


def test_an_abort_under_way_takes_the_button_away_and_tells_its_story(
    see: See, run: Run, manager: User
) -> None:
    factories.abort(run, manager, reason="Stuck")
    for address in ("/", factories.address(run.stage), factories.address(run)):
        element = one(see(address), "[data-run]")
        line = one(element, ".abort-line")
        assert element.css("[data-abort]") == []
        assert words(line).startswith("Abort accepted")
        assert words(one(line, "q")) == "Stuck"
        assert "manager" in words(line)
        assert element.attributes["data-status"] == "running"


def test_the_run_page_carries_verdict_time_and_steps(see: See, stage: Stage) -> None:
    began = timezone.now() - timedelta(seconds=30)
    root = factories.node(
        "Workflow",
        steps=(
            factories.node(label="build", status="success", started_at=began, ended_at=began),
            factories.node("RunMigration", label="migrate", status="waiting", started_at=began),
            factories.node(label="deploy"),
        ),
    )
    run = factories.run(
        stage, steps=msgspec.to_builtins(root), detail_seen_at=timezone.now(), status="waiting"
    )
    html = see(factories.address(run))
    steps = one(html, "[data-steps]").css("li")
    assert [words(one(step, "bdi")) for step in steps] == ["build", "migrate", "deploy"]
    assert [words(one(step, "[data-badge]")) for step in steps] == [
        "Success",
        "Waiting",
        "Not started",
    ]
    assert "migrate" in words(one(html, "[data-verdict]"))
    told = datetime.fromisoformat(one(html, "[data-as-of]").attributes["data-as-of"] or "")
    assert abs(told - run.seen_at) < timedelta(seconds=2)


@pytest.mark.parametrize("place", ["/", "/board/", "pipeline", "stage", "run"])
def test_every_page_says_as_of_when(place: str, see: See, run: Run) -> None:
    address = {
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
        "run": factories.address(run),
    }.get(place, place)
    line = one(see(address), "[data-as-of]")
    assert datetime.fromisoformat(line.attributes["data-as-of"] or "").tzinfo is not None
    assert line.attributes["data-stale"] == "false"


def test_what_was_not_read_in_time_is_marked_as_old(see: See, run: Run) -> None:
    Stage.objects.update(promised_at=timezone.now() - timedelta(minutes=5))
    assert one(see("/"), "[data-as-of]").attributes["data-stale"] == "true"
    assert one(see(factories.address(run)), "[data-as-of]").attributes["data-stale"] == "true"


def test_a_concluded_run_is_never_old(see: See, stage: Stage) -> None:
    run = factories.run(stage, status="success")
    Stage.objects.update(promised_at=timezone.now() - timedelta(days=5))
    assert one(see(factories.address(run)), "[data-as-of]").attributes["data-stale"] == "false"


def test_now_lists_in_flight_and_what_failed_in_the_last_day(see: See, run: Run) -> None:
    hour_ago = timezone.now() - timedelta(hours=1)
    failed = factories.run(run.stage, status="failure", concluded_at=hour_ago)
    factories.run(run.stage, status="success")
    factories.run(run.stage, status="failure", concluded_at=timezone.now() - timedelta(days=2))
    html = see("/")
    shown = {
        name: [
            row.attributes["data-run"]
            for row in one(html, f'section[aria-labelledby="{name}"]').css("[data-run]")
        ]
        for name in ("in-flight", "failed")
    }
    assert shown == {"in-flight": [run.run_id], "failed": [failed.run_id]}


def test_now_shows_fifty_failures_and_says_how_many_there_were(see: See, stage: Stage) -> None:
    for _ in range(53):
        factories.run(stage, status="failure", concluded_at=timezone.now() - timedelta(hours=1))
    failed = one(see("/"), 'section[aria-labelledby="failed"]')
    assert len(failed.css("[data-run]")) == 50
    assert words(one(failed, ".count")) == "53"
    assert words(one(failed, "[data-cut]")) == "The 50 most recent are shown."


@pytest.mark.parametrize("status", ["aborted", "success"])
def test_a_run_aborted_here_stays_on_now_for_an_hour(
    status: str, see: See, run: Run, manager: User
) -> None:
    ended = timezone.now()
    factories.abort(run, manager, "concluded", outcome=status, settled_at=ended)
    factories.change(run, status=status, concluded=True, in_flight=False, concluded_at=ended)
    section = one(see("/"), 'section[aria-labelledby="aborted"]')
    assert one(section, "[data-run]").attributes["data-status"] == status
    long_ago(run.aborts.get(), requested_at=7200)
    assert see("/").css("[data-run]") == []


def test_a_run_that_failed_in_spite_of_an_abort_is_on_now_once(
    see: See, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, status="failure")
    factories.abort(run, manager, "concluded", outcome="failure", settled_at=timezone.now())
    assert len(see("/").css("[data-run]")) == 1


def test_the_board_has_a_cell_a_stage_with_its_latest_run(see: See, run: Run) -> None:
    factories.stage("Staging", has_flow=False)
    factories.stage("Development", has_flow=None, synced_at=None)
    html = see("/board/")
    states = {
        cell.attributes["data-stage"]: cell.attributes["data-state"] for cell in html.css("td")
    }
    assert states == {"Development": "unknown", "Staging": "none", "Production": "flow"}
    assert words(one(html, '[data-stage="Production"] [data-badge]')) == "Running"
    assert words(one(html, '[data-stage="Production"] .in-flight')) == "1 in flight"


def test_a_pipelines_page_has_its_stages_side_by_side_in_order(see: See, run: Run) -> None:
    for name in ("Staging", "Development"):
        factories.stage(name)
    html = see(factories.address(run.stage.pipeline))
    assert [words(one(part, "h2 a")) for part in html.css("section")] == [
        "Development",
        "Staging",
        "Production",
    ]
    assert one(html, "[data-run]").attributes["data-run"] == "r-1"
