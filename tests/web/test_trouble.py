"""When Northflank cannot be seen, old rows stay, and the page says since when and why."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Run, Stage, Upstream
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.live import Live
from tests.support.pages import PAGES, address_of

SINCE = timezone.now() - timedelta(minutes=12)


@pytest.fixture
def trouble(db: None) -> Upstream:
    return factories.trouble("The connection was refused.", SINCE)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_every_page_says_since_when_and_why_and_keeps_its_rows(
    name: str, headers: dict[str, str], trouble: Upstream, run: Run, at_desk: Client
) -> None:
    html = parsed(at_desk.get(address_of(name, run), headers=headers))
    notice = one(html, "[data-trouble]")
    assert "The connection was refused." in words(notice)
    assert one(notice, "time").attributes["datetime"] == SINCE.isoformat()
    assert html.css("[data-run], [data-stage] [data-badge]") != []


def test_what_northflank_answered_ends_as_a_sentence(db: None, see: See) -> None:
    factories.trouble("Northflank has failed (503): Unavailable", SINCE)
    assert words(one(see("/"), "[data-trouble] .said")).endswith(": Unavailable.")


@pytest.mark.parametrize("name", PAGES)
def test_trouble_and_its_end_change_the_tag(
    name: str, trouble: Upstream, run: Run, at_desk: Client
) -> None:
    tag = at_desk.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    Upstream.objects.update(error="", error_message="", error_since=None)
    answer = at_desk.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert parsed(answer).css("[data-trouble]") == []


def test_a_stage_that_cannot_be_read_says_so_in_its_place(see: See, run: Run) -> None:
    Stage.objects.update(error="refused", error_message="No access.", error_since=SINCE)
    for name in ("board", "pipeline", "stage"):
        html = see(address_of(name, run))
        line = one(html, "#live .trouble")
        assert words(line).startswith("No access.")
        assert html.css("[data-trouble]") == []
        assert html.css("[data-badge]") != []
    assert one(see(factories.address(run.stage)), ".trouble time").attributes["datetime"] == (
        SINCE.isoformat()
    )


def empty(see: See, address: str, within: str = "#live") -> str | None:
    return one(one(see(address), within), "[data-empty]").attributes["data-empty"]


def test_nothing_in_flight_is_all_well(see: See, stage: Stage) -> None:
    assert empty(see, "/", '[aria-labelledby="in-flight"]') == "all_well"
    assert empty(see, "/", '[aria-labelledby="failed"]') == "all_well"


def test_nothing_in_flight_may_be_old_news(see: See, stage: Stage) -> None:
    Stage.objects.update(promised_at=timezone.now() - timedelta(hours=1))
    assert empty(see, "/", '[aria-labelledby="in-flight"]') == "cannot_see"


def test_before_the_first_reading_nothing_is_claimed(see: See, db: None) -> None:
    assert empty(see, "/", '[aria-labelledby="in-flight"]') == "cannot_see"
    assert empty(see, "/", '[aria-labelledby="failed"]') == "cannot_see"
    assert empty(see, "/board/") == "cannot_see"


def test_an_account_without_pipelines_is_told_from_one_not_read(see: See, db: None) -> None:
    factories.swept()
    assert empty(see, "/board/") == "nothing_exists"


def test_an_empty_stage_says_why(see: See, stage: Stage) -> None:
    address = factories.address(stage)
    assert empty(see, address) == "nothing_exists"
    assert empty(see, f"{address}?status=failure") == "nothing_matches"
    Stage.objects.update(synced_at=None)
    assert empty(see, address) == "cannot_see"
    Stage.objects.update(has_flow=False)
    assert empty(see, address) == "nothing_exists"
    assert "no release flow" in words(one(see(address), "[data-empty]"))


def test_a_broken_upstream_is_told_on_the_page_and_the_rows_stay(live: Live, viewer: User) -> None:
    from dashboard.sandbox import parse_fault

    live.sync()
    before = Run.objects.in_flight().count()
    live.sandbox.faults = [parse_fault("500")]
    Stage.objects.update(next_sync_at=timezone.now() - timedelta(seconds=1))
    live.sync(rounds=2)
    html = parsed(live.person("viewer").get("/"))
    assert "has failed (500)" in words(one(html, "[data-trouble]"))
    assert len(one(html, '[aria-labelledby="in-flight"]').css("[data-run]")) == before
