"""A stage's list: filtered, in pages, and deaf to nonsense."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from dashboard import statuses
from dashboard.models import Run, Stage
from tests.web import factories
from tests.web.conftest import See, one, words

NONSENSE = ["abc", "-1", "0", "½", "٣", "1.5", "1e3", " 1", "", "²", "0x1", "None", "1;drop"]


@pytest.fixture
def many(stage: Stage) -> Stage:
    """A stage with 250 runs, of which the five oldest are in flight."""
    now = timezone.now()
    for number in range(250):
        status = "running" if number >= 245 else "success"
        created = now - timedelta(minutes=number)
        factories.run(stage, f"r-{number}", status=status, created_at=created)
    return stage


def shown(html: object) -> list[str | None]:
    return [row.attributes["data-run"] for row in html.css("[data-run]")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [*statuses.RUN, "hibernating"])
def test_each_status_can_be_filtered_for(status: str, see: See, stage: Stage) -> None:
    for each in [*statuses.RUN, "hibernating"]:
        factories.run(stage, each, status=each)
    html = see(f"{factories.address(stage)}?status={status}")
    assert shown(html) == [status]
    assert one(html, "option[selected]").attributes["value"] == status


def test_a_filter_that_nothing_matches_says_so_and_leads_back(see: See, run: Run) -> None:
    html = see(f"{factories.address(run.stage)}?status=skipped")
    empty = one(html, '[data-empty="nothing_matches"]')
    assert one(empty, "a").attributes["href"] == factories.address(run.stage)


@pytest.mark.parametrize("status", ["nope", "RUNNING", "<b>", "\0", "x" * 5000])
def test_an_unknown_status_is_ignored_with_a_notice(
    status: str, at_desk: Client, see: See, run: Run
) -> None:
    from urllib.parse import quote

    html = see(f"{factories.address(run.stage)}?status={quote(status)}")
    assert shown(html) == ["r-1"]
    assert words(one(html, "main > .trouble")).startswith("There is no status “")


def test_the_list_comes_in_pages_of_a_hundred(see: See, many: Stage) -> None:
    address = factories.address(many)
    pages = [shown(see(f"{address}?page={number}")) for number in (1, 2, 3)]
    assert [len(each) for each in pages] == [100, 100, 50]
    assert len({run for each in pages for run in each}) == 250


def test_in_flight_is_on_top_however_old_then_newest_first(see: See, many: Stage) -> None:
    assert shown(see(factories.address(many)))[:7] == [
        "r-245", "r-246", "r-247", "r-248", "r-249", "r-0", "r-1",
    ]  # fmt: skip


def test_pages_lead_to_each_other_and_keep_the_filter(see: See, many: Stage) -> None:
    address = f"{factories.address(many)}?status=success"
    first = see(address)
    assert words(one(first, ".pager span")) == "1 to 100 of 245"
    assert first.css('.pager [rel="prev"]') == []
    following = one(first, '.pager [rel="next"]').attributes["href"] or ""
    second = see(factories.address(many) + following)
    assert words(one(second, ".pager span")) == "101 to 200 of 245"
    assert one(second, '.pager [rel="prev"]').attributes["href"] == "?status=success"


@pytest.mark.parametrize("number", NONSENSE)
def test_a_nonsense_page_is_the_first_with_a_notice(number: str, see: See, run: Run) -> None:
    html = see(f"{factories.address(run.stage)}?page={number}")
    assert shown(html) == ["r-1"]
    assert "is no page number" in words(one(html, "main > .trouble"))


@pytest.mark.parametrize("number", ["4", "999999", "9" * 30, "9" * 5000])
def test_a_page_past_the_end_is_the_last_with_a_notice(number: str, see: See, many: Stage) -> None:
    html = see(f"{factories.address(many)}?page={number}")
    assert words(one(html, ".pager span")) == "201 to 250 of 250"
    assert "this is the last one" in words(one(html, "main > .trouble"))


def test_a_page_that_is_asked_for_with_zeros_in_front_is_that_page(see: See, many: Stage) -> None:
    html = see(f"{factories.address(many)}?page=0000000000002")
    assert words(one(html, ".pager span")) == "101 to 200 of 250"


def test_parameters_that_nobody_knows_are_left_alone(see: See, run: Run) -> None:
    html = see(f"{factories.address(run.stage)}?foo=bar&status=&utm_source=x")
    assert html.css("main > .trouble") == []
    assert shown(html) == ["r-1"]


def test_a_refresh_keeps_filter_and_page(see: See, many: Stage) -> None:
    address = f"{factories.address(many)}?status=success&page=2"
    assert one(see(address), "#live").attributes["hx-get"] == address
