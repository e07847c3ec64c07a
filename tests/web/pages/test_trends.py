"""Trends of a stage, a pipeline and a project, of the days that the address asks for."""

import csv
from datetime import UTC, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Grant, Stage
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of

ADDRESSES = (
    "/projects/shop/trends/",
    "/projects/shop/pipelines/checkout/trends/",
    "/projects/shop/pipelines/checkout/release-flows/production/trends/",
)


def end(stage: Stage, status: str, days_ago: float = 0, **fields: Any) -> None:
    """Create a run that has ended, and was queued for 5 s and took 2 min."""
    ended_at = timezone.now() - timedelta(days=days_ago)
    times = {"started_at": ended_at - timedelta(minutes=2), "concluded_at": ended_at}
    created_at = ended_at - timedelta(minutes=2, seconds=5)
    factories.run(stage, status=status, created_at=created_at, **times | fields)


@pytest.fixture
def stages(stage: Stage) -> list[Stage]:
    """Stages with runs: Production of a pipeline, its Staging, and Production of another one."""
    staging = factories.stage("Staging", parent=stage.pipeline)
    other = factories.stage(parent=factories.pipeline("search", stage.pipeline.project))
    for status in ("failure", "success", "success", "aborted"):
        end(stage, status)
    end(stage, "success", days_ago=60)
    end(staging, "skipped")
    end(other, "success")
    factories.day_sums()
    return [stage, staging, other]


def runs_shown(page: LexborHTMLParser) -> str:
    return text_of(select_one(page, "[aria-labelledby=chart-runs] .figure"))


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize(
    ("address", "few", "more"), [*zip(ADDRESSES, (6, 5, 4), (7, 6, 5), strict=True)]
)
def test_page_shows_the_runs_of_its_place_in_30_or_90_days(
    address: str, few: int, more: int, get_page: GetPage
) -> None:
    assert runs_shown(get_page(address)) == f"{few} runs"
    assert runs_shown(get_page(f"{address}?days=nonsense")) == f"{few} runs"
    assert runs_shown(get_page(f"{address}?days=90")) == f"{more} runs"


@pytest.mark.usefixtures("stages")
def test_table_has_the_figures_of_each_week_and_of_all(get_page: GetPage) -> None:
    page = get_page(ADDRESSES[-1])
    heads = [text_of(cell) for cell in page.css("thead th")]
    total = [text_of(cell) for cell in page.css("tbody tr")[-1].css("th, td")]
    figures = dict(zip(heads, total, strict=True))
    assert figures["Week"] == "Total"
    assert (figures["Runs"], figures["Succeeded"], figures["Failed"]) == ("4", "2", "1")
    assert figures["Failure rate"] == "33 %"
    assert figures["Duration of successes"] == "2 min, p95 2 min (n = 2)"
    assert figures["Queueing"] == "5 s, p95 5 s (n = 4)"
    assert figures["Waiting for people"] == "–"
    assert text_of(select_one(page, "[aria-labelledby=reasons] dt")) == "Not aborted here"


@pytest.mark.usefixtures("stages")
def test_csv_has_a_row_for_each_week(operator_client: Client) -> None:
    answer = operator_client.get(f"{ADDRESSES[-1]}export.csv?days=90")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    rows = [*csv.DictReader(answer.content.decode().splitlines())]
    assert sum(int(row["runs"]) for row in rows) == 5
    assert float(rows[0]["duration_median_seconds"]) == pytest.approx(120, rel=0.05)
    assert rows[-1]["last_day"] == str(timezone.now().astimezone(UTC).date())


def test_place_without_runs_says_so(stage: Stage, get_page: GetPage, client: Client) -> None:
    for address in ADDRESSES:
        page = get_page(address)
        assert text_of(select_one(page, ".empty-state")) == "No run has ended in these 30 days."
        assert client.get(f"{address}export.csv").content.count(b"\r\n") == 2


def test_who_may_view_some_stages_sees_trends_of_these_alone(
    stages: list[Stage], viewer: User, client: Client
) -> None:
    Grant.objects.all().delete()
    factories.grant("view", "people", viewer, project=stages[0].pipeline.project, stage="Staging")
    client.force_login(viewer)
    for address in ADDRESSES[:2]:
        page = parse_html(client.get(address))
        assert runs_shown(page) == "1 run"
        assert "Staging." in text_of(page)
    assert client.get(ADDRESSES[2]).status_code == 404
    assert client.get(f"{ADDRESSES[2]}export.csv").status_code == 404
    assert client.get(ADDRESSES[2].replace("production", "staging")).status_code == 200


def test_pages_link_to_trends(stages: list[Stage], get_page: GetPage) -> None:
    project, pipeline, stage = ADDRESSES
    for address, targets in {
        factories.address(stages[0]): [stage],
        factories.address(stages[0].pipeline): [stage, pipeline],
        "/projects/shop/": [project, pipeline],
        "/board/": [pipeline],
    }.items():
        for target in targets:
            assert get_page(address).css(f'a[href="{target}"]'), (address, target)
