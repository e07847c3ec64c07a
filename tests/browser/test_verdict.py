"""How a run stands, in a real browser: its times go on, and its story can be copied."""

import re
from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone
from playwright.sync_api import expect

from dashboard.models import Run, Stage, StageTiming
from tests.support import factories
from tests.support.browser import Open, listens, note_requests, pass_time, take_clock
from tests.support.live import Live

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("viewer")]


@pytest.fixture
def retrying(live: Live) -> Run:
    """A run whose step was begun almost 19 minutes ago and is tried again in five and a half."""
    stage = factories.stage()
    StageTiming.objects.create(stage=stage, steps={"migrate": [120, 240]})
    now = timezone.now()
    began = now - timedelta(minutes=18, seconds=45)
    step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="retrying", started_at=began,
        attempts=2, max_attempts=3, next_attempt_at=now + timedelta(minutes=5, seconds=30),
    )  # fmt: skip
    return factories.run(
        stage,
        "r-1",
        status="retrying",
        started_at=began,
        created_at=began,
        step="migrate, attempt 2 of 3",
        step_key="migrate",
        step_since=began,
        steps=msgspec.to_builtins(factories.node("Workflow", steps=(step,))),
        detail_seen_at=now,
    )


def test_a_verdict_goes_on_without_asking_the_server(
    retrying: Run, sign_in: Open, live: Live
) -> None:
    page = sign_in("viewer", factories.address(retrying))
    listens(live)
    verdict = page.locator("[data-verdict]")
    expect(verdict).to_contain_text("step “migrate” for 18 min (usually 2 to 4 min).")
    expect(verdict).to_contain_text(re.compile(r"Attempt 2 of 3, next in 5 min [23]\d s\."))
    expect(page.locator("[data-unreachable]")).to_be_hidden()
    take_clock(page)
    asked = note_requests(page)
    pass_time(page, 20)
    expect(verdict).to_contain_text("step “migrate” for 19 min (usually 2 to 4 min).")
    expect(verdict).to_contain_text(re.compile(r"next in 5 min [01]\d s\."))
    assert asked == []


def test_an_attempt_that_has_not_come_is_due(retrying: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(retrying))
    take_clock(page)
    page.clock.fast_forward(400_000)
    expect(page.locator("[data-verdict]")).to_contain_text("Attempt 2 of 3, next due now.")


def test_a_row_goes_on_too(retrying: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(retrying.stage))
    step = page.locator("[data-run] p.step")
    expect(step).to_have_text("migrate, attempt 2 of 3, for 18 min (usually 2 to 4 min)")
    take_clock(page)
    pass_time(page, 20)
    expect(step).to_have_text("migrate, attempt 2 of 3, for 19 min (usually 2 to 4 min)")


def test_one_press_copies_the_text_to_hand_over(retrying: Run, sign_in: Open, live: Live) -> None:
    may = ["clipboard-read", "clipboard-write"]
    page = sign_in("viewer", factories.address(retrying), permissions=may)
    page.get_by_role("button", name="Hand over").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith("Checkout / Production: step “migrate” for 18 min (usually 2 to 4")
    assert copied.endswith(f"\n{live.base_url}{factories.address(retrying)}")


def test_what_changes_meanwhile_leaves_the_button_its_text(retrying: Run, sign_in: Open) -> None:
    may = ["clipboard-read", "clipboard-write"]
    page = sign_in("viewer", factories.address(retrying), permissions=may)
    take_clock(page)
    page.get_by_role("button", name="Hand over").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    expect(page.locator("#said")).to_contain_text("Copied")
    factories.change(retrying, status="approval_wait")
    expect(page.locator(".headline [data-badge]")).to_have_text("Needs approval")
    pass_time(page, 10)
    expect(page.get_by_role("button", name="Hand over", exact=True)).to_be_visible()


def test_where_the_browser_refuses_to_copy_the_text_is_left_selected(
    retrying: Run, sign_in: Open
) -> None:
    page = sign_in("viewer", factories.address(retrying))
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()) }")
    page.get_by_role("button", name="Hand over").click()
    expect(page.locator("#hand-over-text")).to_be_visible()
    assert "Where: Shop / Checkout / Production" in page.evaluate("() => String(getSelection())")


def test_who_comes_to_wait_behind_it_shows_on_its_open_page(retrying: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(retrying))
    expect(page.locator("[data-around] [data-behind]")).to_have_text("No run waits behind it.")
    factories.run(
        retrying.stage, name="Hotfix", status="queued", started_at=None, created_at=timezone.now()
    )
    expect(page.locator("[data-verdict]")).to_contain_text("1 run waits behind it.")
    expect(page.locator("[data-around] [data-behind]")).to_contain_text("Hotfix")


def test_what_is_skipped_in_its_time_shows_on_its_open_page(retrying: Run, sign_in: Open) -> None:
    Stage.objects.update(concurrency_policy="forbid")
    page = sign_in("viewer", factories.address(retrying))
    swallowed = page.locator("[data-around] [data-swallowed]")
    expect(swallowed).to_contain_text("Northflank tells of none that was skipped")
    factories.run(
        retrying.stage, name="Hotfix", status="skipped", started_at=None, created_at=timezone.now()
    )
    said = "1 run has been skipped since it was created."
    expect(page.locator("[data-verdict]")).to_contain_text(said)
    expect(swallowed).to_contain_text(said)
    expect(swallowed.get_by_role("link", name="Hotfix")).to_be_visible()


def test_without_scripts_there_is_no_button_that_copies(retrying: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(retrying), java_script_enabled=False)
    expect(page.locator(".hand-over summary")).to_be_visible()
    expect(page.locator("[data-copy]")).to_have_count(1)
    expect(page.locator("[data-copy]")).to_be_hidden()
