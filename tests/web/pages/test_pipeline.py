"""A pipeline's page: the runs of stages with and without a release flow, read or not."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from selectolax.lexbor import LexborNode

from dashboard.models import Stage
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of

NO_FLOW = {"has_flow": False}
NEVER_READ = {"has_flow": None, "synced_at": None}
ONLY_FLOW_READ = {"has_flow": True, "synced_at": None}  # its first list of runs has failed


def section_of(stage: Stage, get_page: GetPage) -> LexborNode:
    return select_one(get_page(factories.address(stage.pipeline)), f"#stage-{stage.pk}")


def listed_runs(section: LexborNode) -> list[str | None]:
    return [row.attributes["data-run"] for row in section.css("[data-run]")]


@pytest.mark.parametrize("fields", [NO_FLOW, NEVER_READ, ONLY_FLOW_READ])
def test_pipeline_page_shows_runs_in_flight_or_failed_of_stage_without_flow_or_never_read(
    fields: dict[str, Any], get_page: GetPage
) -> None:
    stage = factories.stage(**fields)
    now = timezone.now()
    factories.run(stage, "ended", status="success")
    factories.run(stage, "newer", created_at=now - timedelta(minutes=1))
    factories.run(stage, "older", created_at=now - timedelta(minutes=2))
    factories.run(stage, "failed", status="failure")
    section = section_of(stage, get_page)
    assert listed_runs(section) == ["failed", "newer", "older"]
    assert select_one(section, "h2 a").attributes["href"] == factories.address(stage)
    assert text_of(select_one(section, "h2 .in-flight")) == "2 in flight"
    assert section.css("p.muted") == []


@pytest.mark.parametrize(
    ("fields", "text", "has_link"),
    [
        (NO_FLOW, "No release flow.", False),
        (NEVER_READ, "Not read yet.", True),
        (ONLY_FLOW_READ, "Not read yet.", True),
        ({}, "No runs.", True),
    ],
)
def test_pipeline_page_says_why_a_stage_has_no_run(
    fields: dict[str, Any], text: str, has_link: bool, get_page: GetPage
) -> None:
    section = section_of(factories.stage(**fields), get_page)
    assert [text_of(line) for line in section.css("p.muted")] == [text]
    assert bool(section.css("h2 a")) is has_link
