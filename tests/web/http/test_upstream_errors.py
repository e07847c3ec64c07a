"""Outages of Northflank: old rows stay, and the page shows since when and why."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from dashboard.models import Run, Stage, Upstream
from tests.support import factories
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of
from tests.support.pages import PAGES, address_of

SINCE = timezone.now() - timedelta(minutes=12)


@pytest.fixture
def upstream_error(db: None) -> Upstream:
    return factories.upstream_error("The connection was refused.", SINCE)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_page_during_outage_shows_start_reason_and_last_rows(
    name: str, headers: dict[str, str], upstream_error: Upstream, run: Run, operator_client: Client
) -> None:
    html = parse_html(operator_client.get(address_of(name, run), headers=headers))
    notice = select_one(html, "[data-upstream-error]")
    assert "The connection was refused." in text_of(notice)
    assert select_one(notice, "time").attributes["datetime"] == SINCE.isoformat()
    assert html.css("[data-run], [data-stage] .latest, .stages [data-badge]") != []


def test_outage_notice_for_refused_token_names_settings_to_check(
    db: None, get_page: GetPage
) -> None:
    factories.upstream_error("Northflank rejected the API token (401).", SINCE, "unauthorised")
    notice = text_of(select_one(get_page("/"), "[data-upstream-error]"))
    assert "Check NORTHFLANK_API_TOKEN: the token may be incomplete, expired or revoked." in notice
    assert "check NORTHFLANK_TEAM_ID too" in notice


@pytest.mark.parametrize("name", PAGES)
def test_page_with_refused_list_of_projects_names_role_to_check(
    name: str, run: Run, operator_client: Client
) -> None:
    factories.failed_catalog_list(None, "The API token lacks permission (403).")
    html = parse_html(operator_client.get(address_of(name, run)))
    notice = text_of(select_one(html, "[data-upstream-error]"))
    assert notice.startswith("Projects cannot be listed since")
    assert "Check the role of NORTHFLANK_API_TOKEN: it needs Project > Projects" in notice
    assert "Showing last known data" not in notice  # known stages are read


def test_tab_title_with_refused_list_of_projects_is_not_that_of_an_outage(
    run: Run, get_page: GetPage
) -> None:
    factories.failed_catalog_list(None)
    assert "Not updating" not in select_one(get_page("/"), "title").text()
    factories.upstream_error("It fell over.", SINCE)
    assert "Not updating" in select_one(get_page("/"), "title").text()


@pytest.mark.parametrize("name", PAGES)
def test_end_of_outage_changes_page_tag(
    name: str, upstream_error: Upstream, run: Run, operator_client: Client
) -> None:
    tag = operator_client.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    Upstream.objects.update(error="", error_message="", error_since=None)
    answer = operator_client.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert parse_html(answer).css("[data-upstream-error]") == []


def test_stage_with_error_shows_message_in_its_cell(get_page: GetPage, run: Run) -> None:
    Stage.objects.update(error="rejected", error_message="No access.", error_since=SINCE)
    for name in ("board", "pipeline", "stage"):
        html = get_page(address_of(name, run))
        line = select_one(html, "#live .inline-notice")
        assert text_of(line).startswith("No access.")
        assert html.css("[data-upstream-error]") == []
        assert html.css("[data-badge], [data-stage] .latest") != []
    assert select_one(get_page(factories.address(run.stage)), ".inline-notice time").attributes[
        "datetime"
    ] == (SINCE.isoformat())


def empty_state(get_page: GetPage, address: str, region: str = "#live") -> str | None:
    return select_one(select_one(get_page(address), region), "[data-empty]").attributes[
        "data-empty"
    ]


def test_now_page_without_runs_shows_all_well(get_page: GetPage, stage: Stage) -> None:
    assert empty_state(get_page, "/", '[aria-labelledby="in-flight"]') == "known"
    assert empty_state(get_page, "/", '[aria-labelledby="failed"]') == "known"


def test_now_page_without_runs_and_stale_data_shows_cannot_see(
    get_page: GetPage, stage: Stage
) -> None:
    Stage.objects.update(fresh_until=timezone.now() - timedelta(hours=1))
    assert empty_state(get_page, "/", '[aria-labelledby="in-flight"]') == "cannot_see"


def test_pages_before_first_sync_show_cannot_see(get_page: GetPage, db: None) -> None:
    assert empty_state(get_page, "/", '[aria-labelledby="in-flight"]') == "cannot_see"
    assert empty_state(get_page, "/", '[aria-labelledby="failed"]') == "cannot_see"
    assert empty_state(get_page, "/board/") == "cannot_see"


def test_board_of_synced_account_without_pipelines_shows_nothing_exists(
    get_page: GetPage, db: None
) -> None:
    factories.catalog_list()
    assert empty_state(get_page, "/board/") == "known"


def test_empty_stage_page_shows_reason(get_page: GetPage, stage: Stage) -> None:
    address = factories.address(stage)
    assert empty_state(get_page, address) == "known"
    assert empty_state(get_page, f"{address}?status=failure") == "known"
    Stage.objects.update(synced_at=None)
    assert empty_state(get_page, address) == "cannot_see"
    Stage.objects.update(has_flow=False)
    assert empty_state(get_page, address) == "known"
    assert "no release flow" in text_of(select_one(get_page(address), "[data-empty]"))
