"""The chip with the age of a page's data: within what time new runs show, and what is wrong."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from selectolax.lexbor import LexborNode

from dashboard.models import Lead, Pipeline, RateBudget, Run, Stage
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of

PAGES = ["now", "board", "pipeline", "stage", "run"]
MINUTES = {"Production": 28, "Staging": 40, "Development": 60}


def address(page: str, stage: Stage) -> str:
    """The address of a page about the stage, its pipeline, its run in flight, or all."""
    if page == "run":
        return factories.address(Run.objects.get(stage=stage))
    of_place: dict[str, Stage | Pipeline] = {"stage": stage, "pipeline": stage.pipeline}
    if page in of_place:
        return factories.address(of_place[page])
    return "/board/" if page == "board" else "/"


def chip(get_page: GetPage, address: str) -> LexborNode:
    return select_one(get_page(address), "#data-age [data-chip]")


def read_every(stage: Stage, **interval: float) -> None:
    """Set that the stage was read 40 s ago, and is read at this interval."""
    synced_at = timezone.now() - timedelta(seconds=40)
    fresh_until = synced_at + timedelta(**interval)
    Stage.objects.filter(pk=stage.pk).update(synced_at=synced_at, fresh_until=fresh_until)


@pytest.fixture
def stages(db: None) -> dict[str, Stage]:
    """A pipeline's three stages with their intervals, another pipeline, and a worker."""
    factories.leader()
    stages = {name: factories.stage(name) for name in MINUTES}
    for name, stage in stages.items():
        read_every(stage, minutes=MINUTES[name])
        factories.run(stage)
    other = factories.stage("Production", factories.pipeline("other"))
    read_every(other, minutes=4)
    return stages


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["Production", "Development"])
def test_figure_is_the_plan_of_the_worst_stage_meant(
    page: str, name: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    figure = chip(get_page, address(page, stages[name])).attributes["data-new-runs-within"]
    meant = name if page in {"stage", "run"} else "Production"
    assert figure == str(60 * MINUTES[meant])


@pytest.mark.parametrize("page", ["now", "board", "pipeline"])
def test_chip_says_when_new_production_runs_show(
    page: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    element = chip(get_page, address(page, stages["Staging"]))
    assert text_of(element) == "New runs within 28 min"
    assert element.attributes["data-tone"] == "neutral"
    assert element.css("time") == []
    assert select_one(get_page("/"), "#data-age").css("time") == []  # one clock a page


def test_page_read_every_20_seconds_shows_its_age(
    get_page: GetPage, stages: dict[str, Stage]
) -> None:
    read_every(stages["Staging"], seconds=20)
    element = chip(get_page, factories.address(stages["Staging"]))
    time = select_one(element, "time[data-age]")
    assert text_of(time).startswith("As of ")
    assert time.attributes["data-live"] == "Live"
    assert element.attributes["data-tone"] == "neutral"  # green is up to the browser


def test_page_of_ended_run_has_no_figure(get_page: GetPage, stages: dict[str, Stage]) -> None:
    run = factories.run(stages["Staging"], status="success")
    Lead.objects.all().delete()
    element = chip(get_page, factories.address(run))
    assert "data-new-runs-within" not in element.attributes
    assert element.attributes["data-tone"] == "neutral"


def rate_budget(**fields: Any) -> None:
    now = timezone.now()
    defaults = {"limit": 1000, "remaining": 500, "resets_at": now + timedelta(minutes=45)}
    RateBudget.objects.create(synced_at=now, **defaults | fields)


@pytest.mark.parametrize("page", PAGES)
def test_chip_is_amber_with_the_reason_while_requests_are_used_up(
    page: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    rate_budget(remaining=100)
    line = select_one(get_page(address(page, stages["Staging"])), "#data-age")
    assert select_one(line, "[data-chip]").attributes["data-tone"] == "warning"
    problem = select_one(line, "[data-problem]")
    assert text_of(problem).startswith("This hour’s requests are used up: updates paused until ")
    assert line.attributes["data-stale"] == "false"


@pytest.mark.parametrize("page", PAGES)
def test_chip_is_amber_while_no_worker_runs(
    page: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    Lead.objects.update(renewed_at=timezone.now() - timedelta(minutes=5))
    line = select_one(get_page(address(page, stages["Staging"])), "#data-age")
    assert select_one(line, "[data-chip]").attributes["data-tone"] == "warning"
    assert "Sync stopped" in text_of(select_one(line, "[data-problem]"))


@pytest.mark.parametrize("page", PAGES)
def test_chip_during_outage_is_amber_and_leaves_the_reason_to_the_banner(
    page: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    factories.upstream_error("It fell over.")
    html = get_page(address(page, stages["Staging"]))
    assert select_one(html, "[data-chip]").attributes["data-tone"] == "warning"
    assert html.css("[data-problem]") == []
    assert len(html.css("[data-upstream-error]")) == 1


@pytest.mark.parametrize("page", PAGES)
def test_chip_is_amber_with_the_age_while_reading_is_behind_the_plan(
    page: str, get_page: GetPage, stages: dict[str, Stage]
) -> None:
    stage = stages["Staging"]
    Stage.objects.filter(pk=stage.pk).update(
        synced_at=timezone.now() - timedelta(minutes=4),
        fresh_until=timezone.now() - timedelta(minutes=2),
    )
    line = select_one(get_page(address(page, stage)), "#data-age")
    assert select_one(line, "[data-chip]").attributes["data-tone"] == "warning"
    assert line.css_first("[data-chip] time[data-age]")
    assert "out of date" in text_of(line)


def test_status_is_green_while_all_is_read_as_planned(
    get_page: GetPage, stages: dict[str, Stage]
) -> None:
    state = select_one(get_page("/health/"), "[data-state]")
    assert state.attributes["data-tone"] == "good"
    assert text_of(state) == "All 4 stages are up to date."
