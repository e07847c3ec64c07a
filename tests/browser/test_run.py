"""A run's page in a real browser: its times are counted, and its incident summary can be copied."""

import re
from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone
from playwright.sync_api import expect

from dashboard.models import ReadRequest, Run, Stage, StageTiming
from tests.support import factories, live_runs
from tests.support.browser import (
    OpenPage,
    advance_time,
    install_clock,
    record_requests,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("viewer")]


@pytest.fixture
def retrying_run(live: Live) -> Run:
    """A run whose step started almost 19 minutes ago, with the next attempt in five and a half."""
    stage = factories.stage()
    StageTiming.objects.create(stage=stage, observed_steps={"migrate": [120, 240]})
    now = timezone.now()
    started_at = now - timedelta(minutes=18, seconds=45)
    step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="retrying", started_at=started_at,
        attempts=2, max_attempts=3, next_attempt_at=now + timedelta(minutes=5, seconds=30),
    )  # fmt: skip
    return factories.run(
        stage,
        "r-1",
        status="retrying",
        started_at=started_at,
        created_at=started_at,
        step="migrate, attempt 2 of 3",
        step_key="migrate",
        step_started_at=started_at,
        steps=msgspec.to_builtins(factories.node("Workflow", steps=(step,))),
        detail_synced_at=now,
    )


@pytest.mark.slow
def test_run_summary_times_advance_without_requests(
    retrying_run: Run, sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("viewer", factories.address(retrying_run))
    wait_for_viewers(live)
    run_summary = page.locator("[data-verdict]")
    expect(run_summary).to_contain_text("step “migrate” for 18 min (usually 2 to 4 min).")
    expect(run_summary).to_contain_text(re.compile(r"Attempt 2 of 3, next in 5 min [23]\d s\."))
    expect(page.locator("[data-unreachable]")).to_be_hidden()
    install_clock(page)
    urls = record_requests(page)
    advance_time(page, 20)
    expect(run_summary).to_contain_text("step “migrate” for 19 min (usually 2 to 4 min).")
    expect(run_summary).to_contain_text(re.compile(r"next in 5 min [01]\d s\."))
    assert urls == []


def test_run_summary_with_overdue_attempt_shows_due_now(
    retrying_run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(retrying_run))
    install_clock(page)
    page.clock.fast_forward(400_000)
    expect(page.locator("[data-verdict]")).to_contain_text("Attempt 2 of 3, next due now.")


def test_run_row_step_time_advances(retrying_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(retrying_run.stage))
    step = page.locator("[data-run] p.step")
    expect(step).to_have_text("migrate, attempt 2 of 3, for 18 min (usually 2 to 4 min)")
    install_clock(page)
    advance_time(page, 20)
    expect(step).to_have_text("migrate, attempt 2 of 3, for 19 min (usually 2 to 4 min)")


def test_incident_summary_button_copies_text(
    retrying_run: Run, sign_in: OpenPage, live: Live
) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = sign_in("viewer", factories.address(retrying_run), permissions=permissions)
    page.get_by_role("button", name="Copy summary").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith("Checkout / Production: step “migrate” for 18 min (usually 2 to 4")
    assert copied.endswith(f"\n{live.base_url}{factories.address(retrying_run)}")


def test_incident_summary_if_copy_fails_is_selected(retrying_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(retrying_run))
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()) }")
    page.get_by_role("button", name="Copy summary").click()
    expect(page.locator("#incident-summary-text")).to_be_visible()
    assert "Location: Shop / Checkout / Production" in page.evaluate("() => String(getSelection())")


@pytest.mark.parametrize("scripted", [True, False])
def test_refresh_now_shows_what_northflank_has(
    live: Live, sign_in: OpenPage, scripted: bool
) -> None:
    run = live_runs.create_run_in_flight(live)
    hour = timezone.now() + timedelta(hours=1)
    Stage.objects.update(synced_at=timezone.now(), next_sync_at=hour, fresh_until=hour)
    factories.leader()
    page = sign_in("viewer", factories.address(run), java_script_enabled=scripted)
    shown_at = page.locator("#data-age").get_attribute("data-as-of")
    button = page.get_by_role("button", name="Refresh now")
    with live.ticking():
        button.click()
        expect(page.locator("#notices")).to_contain_text("Being read from Northflank.")
        read = Run.objects.filter(detail_synced_at__gt=run.synced_at)
        live_runs.wait_until(read.exists)
    if scripted:
        expect(page.locator("#data-age")).not_to_have_attribute("data-as-of", shown_at or "")
        ReadRequest.objects.update(requested_at=timezone.now())
        button.click()
        expect(page.locator("#notices")).to_contain_text("Just requested.")
        assert ReadRequest.objects.count() == 1
