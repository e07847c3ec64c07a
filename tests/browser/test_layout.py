"""Layout in a real browser: nothing moves under the mouse, and no part of a row covers another."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.browser import OpenPage, wait_for_viewers
from tests.support.live import Live

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def run(live: Live) -> Run:
    """A run that has begun a step, above one that has ended, in a paused stage with an error."""
    stage = factories.stage(
        concurrency_policy="queue", paused=True, error="x", error_message="It broke."
    )
    factories.stage("Staging", synced_at=None, fresh_until=None)
    factories.run(stage, "r-2", status="success", name="Old")
    past = timezone.now() - timedelta(minutes=200)
    times = {"created_at": past, "first_synced_at": past, "step_started_at": timezone.now()}
    return factories.run(stage, "r-1", name="Nightly", step="Run the migrations", **times)


def read_all_stages(run: Run) -> None:
    now = timezone.now()
    Stage.objects.update(synced_at=now, fresh_until=now + timedelta(hours=1))


def resume(run: Run) -> None:
    Stage.objects.update(paused=False)


def read_without_error(run: Run) -> None:
    Stage.objects.update(error="")


def succeed(run: Run) -> None:
    fields = {"concluded": True, "in_flight": False, "concluded_at": timezone.now(), "step": ""}
    factories.change(run, status="success", **fields)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize(
    ("change", "part", "below", "width"),
    [
        (read_all_stages, "[data-incomplete]", "#section-in-flight", 1280),
        (resume, "#policy-notes :text('paused')", "#run-r-1", 1280),
        (read_without_error, "#stage-error :text('It broke.')", "#run-r-1", 1280),
        (succeed, "#run-r-1 .step", "#run-r-2 a.title", 1280),
        (succeed, "#run-r-1 .step", "#run-r-2 a.title", 390),
    ],
)
def test_part_that_goes_moves_nothing_below_it(
    run: Run,
    sign_in: OpenPage,
    live: Live,
    change: Callable[[Run], None],
    part: str,
    below: str,
    width: int,
) -> None:
    address = "/" if change is read_all_stages else factories.address(run.stage)
    # So high that no scrollbar comes, which takes width in Firefox.
    page = sign_in("viewer", address, viewport={"width": width, "height": 900})
    wait_for_viewers(live)
    page.locator("#live").hover()  # while the page is in use nothing is shown automatically
    expect(page.locator(part).first).to_be_visible()
    before = page.locator(below).bounding_box()
    change(run)
    expect(page.locator(part)).to_have_count(0)
    assert page.locator(below).bounding_box() == before
    page.reload()
    assert page.locator(below).bounding_box() != before


OVERLAPS = """() => [...document.querySelectorAll("tr[data-run]")].flatMap((row) => {
  const card = row.getBoundingClientRect();
  const parts = [...row.querySelectorAll(
    "a.title, [data-badge], .overdue, .started time, td.duration, [data-abort]"
  )].filter((part) => part.checkVisibility());
  return parts.flatMap((part, index) => {
    const box = part.getBoundingClientRect();
    const covered = parts.slice(index + 1).filter((other) => {
      const { left, right, top, bottom } = other.getBoundingClientRect();
      return !part.contains(other) && !other.contains(part) && left < box.right - 1
        && box.left < right - 1 && top < box.bottom - 1 && box.top < bottom - 1;
    });
    const messages = covered.map((other) => `${part.className} covers ${other.className}`);
    return box.right > card.right + 1 ? [...messages, `${part.className} leaves`] : messages;
  });
})"""


@pytest.mark.usefixtures("manager")
def test_parts_of_a_row_cover_each_other_at_no_width(run: Run, sign_in: OpenPage) -> None:
    factories.timing(run.stage)
    factories.change(run, status="approval_wait", overdue_severity=2, overdue_reason="run")
    factories.run(run.stage, "r-3", status=factories.HOSTILE)
    last_year = timezone.now().replace(year=timezone.now().year - 1, month=9, day=30)
    times = {"started_at": last_year, "concluded_at": last_year + timedelta(minutes=7)}
    factories.run(run.stage, "old", status="success", created_at=last_year, **times)
    page = sign_in("manager", factories.address(run.stage))
    for width in (320, 360, 390, 900, 1130):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(OVERLAPS) == [], width
        row = page.locator("#run-r-1")
        assert (row.locator("a.title").bounding_box() or {"width": 0})["width"] >= 50
        assert (row.locator("td.status").bounding_box() or {"width": 0})["width"] >= 130
