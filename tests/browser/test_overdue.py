"""What is overdue in a real browser: bars that grow by themselves, marks by the stream."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run, Stage
from dashboard.sync import overdue_checker
from tests.support import factories
from tests.support.browser import (
    Open,
    is_marked,
    listens,
    mark,
    note_requests,
    pass_time,
    take_clock,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser

SOON = 10_000  # milliseconds in which three seconds have passed, on a slow machine too


@pytest.fixture
def stage(live: Live) -> Stage:
    """A stage whose runs take a minute: overdue after two, far overdue after three."""
    of = factories.stage()
    factories.timing(of, run_median=60, run_p95=70, steps={"migrate": [20, 40]})
    return of


def flying(stage: Stage, seconds: float, **fields: object) -> Run:
    """A run that started so many seconds ago."""
    began = timezone.now() - timedelta(seconds=seconds)
    return factories.run(
        stage, "r-1", name="Nightly", **{"created_at": began, "started_at": began} | fields
    )


def bar_of(page: Page) -> Locator:
    return page.locator('tr[data-run="r-1"] .pace')


def spent(page: Page) -> float:
    """How much of its bar a run has used, in hundredths."""
    return float(bar_of(page).locator(".spent").get_attribute("width") or 0)


@pytest.mark.usefixtures("viewer")
def test_a_bar_passes_its_usual_by_itself_without_a_request(
    stage: Stage, sign_in: Open, live: Live
) -> None:
    flying(stage, 45)
    page = sign_in("viewer")
    listens(live)
    take_clock(page)
    asked = note_requests(page)
    tick = 33
    expect(bar_of(page)).to_have_attribute("data-level", "0")
    assert spent(page) < tick
    pass_time(page, 20)
    assert spent(page) > tick
    expect(bar_of(page)).to_have_attribute("data-level", "0")
    assert asked == []


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize(("seconds", "before", "after"), [(100, "0", "1"), (160, "1", "2")])
def test_a_bar_changes_its_tone_by_itself_without_a_request(
    seconds: float,
    before: str,
    after: str,
    stage: Stage,
    sign_in: Open,
    live: Live,
) -> None:
    flying(stage, seconds)
    page = sign_in("viewer")
    listens(live)
    take_clock(page)
    expect(bar_of(page)).to_have_attribute("data-level", before)
    asked = note_requests(page)
    spent_at_first = bar_of(page).locator(".spent")
    tone = spent_at_first.evaluate("bar => getComputedStyle(bar).fill")
    pass_time(page, 25)
    expect(bar_of(page)).to_have_attribute("data-level", after)
    assert spent_at_first.evaluate("bar => getComputedStyle(bar).fill") != tone
    assert asked == []


@pytest.mark.usefixtures("viewer")
def test_a_bar_ends_at_its_frame(stage: Stage, sign_in: Open) -> None:
    flying(stage, 10_000)
    page = sign_in("viewer")
    expect(bar_of(page)).to_have_attribute("data-level", "2")
    assert spent(page) == 100


@pytest.mark.usefixtures("viewer")
def test_a_mark_comes_by_the_stream_and_is_read_out(stage: Stage, sign_in: Open) -> None:
    flying(stage, 130)
    page = sign_in("viewer", "/board/")
    mark(page)
    cell = page.locator(f"#stage-{stage.pk}")
    expect(cell.locator(".late")).to_have_count(0)
    overdue_checker.mark(timezone.now())
    expect(cell.locator(".late")).to_have_text("Overdue", timeout=SOON)
    expect(page.locator("#said")).to_have_text("Checkout / Production: Overdue")
    expect(page).to_have_title("Overdue · Board · Release flows", timeout=SOON)
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_now_puts_a_run_that_has_become_overdue_first_once_nobody_is_at_work(
    stage: Stage, sign_in: Open
) -> None:
    flying(stage, 130)
    factories.run(stage, "r-2", name="Younger")
    page = sign_in("viewer")
    take_clock(page)
    first = page.locator("tr[data-run] a.title").first
    expect(first).to_have_text("Younger")
    overdue_checker.mark(timezone.now())
    expect(page.locator('tr[data-run="r-1"] .late')).to_have_text("Overdue", timeout=SOON)
    pass_time(page, 9)
    expect(first).to_have_text("Nightly", timeout=SOON)


@pytest.mark.usefixtures("viewer")
def test_a_strip_grows_when_a_run_ends(stage: Stage, sign_in: Open) -> None:
    run = flying(stage, 50)
    factories.run(stage, status="success")
    page = sign_in("viewer", factories.address(stage))
    bars = page.locator(".strip .bar")
    expect(bars).to_have_count(1)
    now = timezone.now()
    factories.change(run, status="failure", concluded=True, in_flight=False, concluded_at=now)
    expect(bars).to_have_count(2, timeout=SOON)
    expect(page.locator(".strip figcaption")).to_contain_text("1 failed")


@pytest.mark.usefixtures("viewer")
def test_without_javascript_the_usual_is_said_in_words(stage: Stage, sign_in: Open) -> None:
    flying(stage, 50)
    page = sign_in("viewer", java_script_enabled=False)
    expect(page.locator(".usually")).to_have_text("usually 60 to 70 s")
    expect(bar_of(page)).to_be_hidden()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("width", [320, 360, 390, 900, 1130])
def test_a_mark_covers_nothing_in_any_room(width: int, stage: Stage, sign_in: Open) -> None:
    flying(stage, 600, status="approval_wait", overdue=2, overdue_why="run")
    page = sign_in("manager", viewport={"width": width, "height": 700})
    row = page.locator('tr[data-run="r-1"]')
    late, took = row.locator(".late").bounding_box(), row.locator("td.took").bounding_box()
    assert late is not None
    assert took is not None
    beside = late["x"] + late["width"] <= took["x"]
    assert beside or late["y"] + late["height"] <= took["y"]
    assert (row.locator("a.title").bounding_box() or {"width": 0})["width"] >= 50
    assert (row.locator("td.status").bounding_box() or {"width": 0})["width"] >= 130


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("width", [320, 390, 900])
def test_no_status_pushes_the_button_out_of_its_card(
    width: int, stage: Stage, sign_in: Open
) -> None:
    flying(stage, 60, status=factories.HOSTILE)
    page = sign_in("manager", viewport={"width": width, "height": 700})
    row = page.locator('tr[data-run="r-1"]')
    card, button = row.bounding_box(), row.locator("[data-abort]").bounding_box()
    assert card is not None
    assert button is not None
    assert button["x"] + button["width"] <= card["x"] + card["width"]


@pytest.mark.usefixtures("viewer")
def test_a_day_long_past_has_room_beside_the_duration(stage: Stage, sign_in: Open) -> None:
    now = timezone.now()
    began = now.replace(year=now.year - 1, month=9, day=30)
    ended = began + timedelta(minutes=7)
    factories.run(
        stage, "old", status="success", created_at=began, started_at=began, concluded_at=ended
    )
    page = sign_in("viewer", factories.address(stage))
    text = page.locator('tr[data-run="old"] .started time').bounding_box()
    took = page.locator('tr[data-run="old"] .took').bounding_box()
    assert text is not None
    assert took is not None
    assert text["x"] + text["width"] <= took["x"]
