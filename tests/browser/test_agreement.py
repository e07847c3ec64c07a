"""An open page agrees with itself after each message, and then with a fresh load of it."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard.models import Run, Stage
from dashboard.runs.overdue import OverdueReason
from tests.support import factories
from tests.support.browser import OpenPage, has_reload_mark, set_reload_mark, wait_for_viewers
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.stream import fast_polling

pytestmark = pytest.mark.browser

# What a document shows of its runs; rows that have left their section are marked as such.
SCRIPT = """
() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const text = (element) => element?.textContent.replace(/\\s+/g, " ").trim() ?? null;
  window.shownState = (root) => ({
    title: root.querySelector("[data-title]").dataset.title,
    headings: all("#live section:not([hidden]) > h2", root).map(text),
    rows: all("#live [data-status]", root).map((row) => [
      row.id, row.dataset.status, row.dataset.overdue, row.closest("section, td")?.id ?? "",
      text(row.querySelector(".in-flight")),
    ]),
    waiting: all("#live .waiting", root).map((row) => [row.id, text(row)]),
    empty: all("#live section:not([hidden]) [data-empty]", root).map(({ id }) => id),
  });
  window.contradictions = [];
  window.messageCount = 0;
  const check = () => {
    messageCount += 1;
    for (const section of all("[data-section]:not([hidden])")) {
      const heading = text(section.querySelector("h2"));
      const [, count, , above] = heading.match(/^\\D+(\\d+)(.*\\((\\d+) listed above\\))?/);
      // Those of one cause are in one row, with links to all but the first.
      const rows = all("tr[data-run], [id^=same-cause] li", section).length;
      const isEmpty = Boolean(section.querySelector("[data-empty]"));
      if (rows + Number(above ?? 0) !== Number(count) || isEmpty !== (rows === 0)) {
        contradictions.push(`${heading}: ${rows} rows, empty: ${isEmpty}`);
      }
    }
    const ids = all("#live [id]").map(({ id }) => id);
    if (new Set(ids).size !== ids.length) contradictions.push("an id is there twice");
  };
  document.querySelector("#stream").addEventListener("htmx:sse:after:message", check);
}
"""
# Whether the page shows what a fresh load shows, once it has shown the changes that it may offer.
AGREES = """
async (mayOffer) => {
  // A load takes the server as long as ten messages: the first one waits for the next message.
  const message = new Promise((arrived) => {
    const stream = document.querySelector("#stream");
    stream.addEventListener("htmx:sse:after:message", arrived, { once: true });
  });
  await Promise.race([message, new Promise((passed) => setTimeout(passed, 250))]);
  const offer = document.querySelector("#new-runs");
  if (mayOffer && !offer.hidden) offer.click();
  const html = await (await fetch(location.href)).text();
  window.shown = JSON.stringify(shownState(document));
  window.fresh = JSON.stringify(shownState(new DOMParser().parseFromString(html, "text/html")));
  return window.shown === window.fresh;
}
"""


def expect_agreement(page: Page, *, may_offer: bool) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not page.evaluate(AGREES, may_offer):
        if time.monotonic() < deadline:
            continue
        pytest.fail(f"shown: {page.evaluate('shown')}\nfresh: {page.evaluate('fresh')}")
    assert page.evaluate("contradictions") == []


# --- Random lives of runs -----------------------------------------------------------------------


def create(stages: list[Stage], choose: random.Random) -> None:
    now = timezone.now()
    factories.run(
        choose.choice(stages),
        status=choose.choice(["queued", "running", "waiting", "approval_wait"]),
        created_at=now - timedelta(minutes=choose.randrange(60)),
    )


def change_run(fields: Callable[[random.Random], dict[str, Any]]) -> Callable[..., None]:
    def change(stages: list[Stage], choose: random.Random) -> None:
        runs = list(Run.objects.filter(in_flight=True).order_by("pk"))
        if runs:
            factories.change(choose.choice(runs), **fields(choose))

    return change


def end(choose: random.Random) -> dict[str, Any]:
    return {
        "status": choose.choice(["success", "failure", "aborted"]),
        "concluded": True,
        "in_flight": False,
        "concluded_at": timezone.now(),
        "overdue_severity": 0,
        "abort_severity": 0,
    }


def read_cause(_stages: list[Stage], choose: random.Random) -> None:
    failed = list(Run.objects.filter(status="failure", failed_step=None).order_by("pk"))
    if failed:
        error = f"exit code {choose.randrange(3)}"
        step = choose.choice(["migrate", "migrate", ""])
        factories.change(choose.choice(failed), failed_step=step, failed_step_error=error)


def become_overdue(choose: random.Random) -> dict[str, Any]:
    reason = choose.choice([OverdueReason.BLOCKED, OverdueReason.QUEUE, OverdueReason.RUN])
    severity = 0 if reason is OverdueReason.BLOCKED else choose.randrange(3)
    return {"overdue_severity": severity, "overdue_reason": reason}


def wait_for_approval(_choose: random.Random) -> dict[str, Any]:
    since = timezone.now() - timedelta(hours=1)
    return {"status": "approval_wait", "approval_since": since}


def age_failures(_stages: list[Stage], _choose: random.Random) -> None:
    """A quarter of an hour passes for all failures: no run changes, they only get older."""
    long_ago = timezone.now() - timedelta(minutes=16)
    Run.objects.filter(status="failure").update(concluded_at=long_ago)


ACTIONS: list[Callable[[list[Stage], random.Random], None]] = [
    create,
    create,
    change_run(end),
    change_run(become_overdue),
    change_run(become_overdue),
    change_run(wait_for_approval),
    change_run(lambda choose: {"status": "aborting", "abort_severity": choose.randrange(3)}),
    change_run(lambda _choose: {"status": "running", "approval_since": None}),
    age_failures,
    read_cause,
]


@pytest.mark.slow
@fast_polling
@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("address", "seed"),
    [("/", 0), ("/board/", 2), ("pipeline", 1)],
)
def test_open_page_agrees_with_fresh_load_through_random_lives(
    address: str, seed: int, live: Live, sign_in: OpenPage
) -> None:
    choose = random.Random(seed)
    stages = [factories.stage(), factories.stage("Staging")]
    stages.append(factories.stage(parent=factories.pipeline("ledger")))
    page = sign_in(
        "manager", factories.address(stages[0].pipeline) if address == "pipeline" else address
    )
    wait_for_viewers(live)
    page.evaluate(SCRIPT)
    set_reload_mark(page)
    for _ in range(25):
        for _ in range(choose.choice([1, 1, 3])):
            choose.choice(ACTIONS)(stages, choose)
        # Pipelines join, leave and move on a board on request.
        expect_agreement(page, may_offer=address.startswith("/board/"))
    assert page.evaluate("messageCount") > 5
    assert has_reload_mark(page)


# --- What a person notices ----------------------------------------------------------------------


@pytest.fixture
def now_page(live: Live, sign_in: OpenPage, manager: Any) -> Page:
    """The Now page with ten runs in flight, open."""
    stage = factories.stage()
    for number in range(10):
        factories.run(stage, f"r-{number}", name=f"Run {number}")
    page = sign_in("manager")
    wait_for_viewers(live)
    page.evaluate(SCRIPT)
    set_reload_mark(page)
    return page


def succeed(run: Run) -> None:
    fields = {"concluded": True, "in_flight": False, "concluded_at": timezone.now()}
    factories.change(run, status="success", **fields)


def top(page: Page, selector: str) -> float:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["y"]


def expect_top(page: Page, selector: str, expected: float) -> None:
    """Wait until an element is where it was; a message is swapped before the page scrolls."""
    page.wait_for_function(
        """([selector, expected]) =>
        Math.abs(document.querySelector(selector).getBoundingClientRect().top - expected) <= 1""",
        arg=[selector, expected],
    )


def test_run_that_needs_attention_appears_in_place_and_is_announced(now_page: Page) -> None:
    factories.change(Run.objects.get(run_id="r-3"), overdue_severity=2, overdue_reason="run")
    expect(now_page.locator("#section-attention tr[data-run]")).to_have_count(1)
    expect(now_page.locator("#attention")).to_have_text("Needs attention 1")
    expect(now_page.locator("#announcements")).to_have_text("Needs attention: Run 3: Overdue 3×")
    expect(now_page.locator("#new-runs")).to_be_hidden()
    assert has_reload_mark(now_page)


@pytest.mark.slow
def test_run_that_ends_stays_for_a_moment_with_its_last_state(now_page: Page) -> None:
    succeed(Run.objects.get(run_id="r-3"))
    # All in one call: the row may be gone before a second one.
    state = now_page.wait_for_function(
        """() => {
          const row = document.querySelector("[data-former-run=run-r-3]");
          return row?.textContent.includes("Succeeded") && {
            controls: row.querySelectorAll("button, input").length,
            inert: row.inert,
            previous: row.previousElementSibling.id,
          };
        }"""
    )
    # In its place, between the same two runs.
    assert state.json_value() == {"controls": 0, "inert": True, "previous": "run-r-4"}
    now_page.mouse.move(1, 1)
    expect(now_page.locator("[data-former-run=run-r-3]")).to_have_count(0)
    assert now_page.evaluate("contradictions") == []


def test_row_under_mouse_stays_when_run_appears_above_and_when_it_leaves(now_page: Page) -> None:
    now_page.locator("#run-r-5").hover()
    before = top(now_page, "#run-r-5")
    factories.run(Stage.objects.get(), "late", overdue_severity=2, overdue_reason="run")
    expect(now_page.locator("#run-late")).to_have_count(1)
    expect_top(now_page, "#run-r-5", before)
    factories.change(
        Run.objects.get(run_id="late"), **end(random.Random(0)) | {"status": "success"}
    )
    expect(now_page.locator("[data-former-run=run-late]")).to_contain_text("Succeeded")
    expect_top(now_page, "#run-r-5", before)


def test_focused_row_stays_when_run_appears_above(now_page: Page) -> None:
    now_page.mouse.move(1, 1)
    now_page.get_by_role("link", name="Run 2").focus()
    before = top(now_page, "#run-r-2")
    factories.run(Stage.objects.get(), "late", overdue_severity=2, overdue_reason="run")
    expect(now_page.locator("#run-late")).to_have_count(1)
    expect_top(now_page, "#run-r-2", before)
    expect(now_page.get_by_role("link", name="Run 2")).to_be_focused()


def test_last_run_of_section_is_seen_to_leave_above_empty_state(
    live: Live, sign_in: OpenPage, manager: Any
) -> None:
    run = factories.run(factories.stage(), "r-1", name="Nightly")
    page = sign_in("manager")
    wait_for_viewers(live)
    succeed(run)
    expect(page.locator("#section-in-flight [data-former-run=run-r-1]")).to_contain_text(
        "Succeeded"
    )
    expect(page.locator("#empty-in-flight")).to_be_visible()
    page.mouse.move(1, 1)
    expect(page.locator("#section-in-flight table")).to_have_count(0)


def test_row_that_page_lacks_is_loaded(now_page: Page) -> None:
    now_page.evaluate("() => document.querySelector('#run-r-4').remove()")
    factories.run(Stage.objects.get(), "r-10")
    expect(now_page.locator("#run-r-4 a.title")).to_have_text("Run 4")
    expect(now_page.locator("[data-unchanged]")).to_have_count(0)
