"""The list of bulk aborts, and links between aborts and their bulk abort."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Grant, Run
from dashboard.models.accounts.grants import Action
from dashboard.models.bulk_aborts import BulkAbortItemResult
from tests.support import factories
from tests.support.bulk_aborts import (
    bulk_abort_of,
)
from tests.support.html import HTMX, GetPage, live_tag, parse_html, select_one, text_of


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
    queries()  # which identifies the session
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
    assert text_of(select_one(html, '[data-empty="nothing_exists"]')) == (
        "No bulk aborts yet. Only what you can see is listed."
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
