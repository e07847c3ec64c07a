"""WCAG 2.2 AA as far as a machine can tell, on every page, light and dark."""

from datetime import timedelta

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard import statuses
from dashboard.models import Run
from tests.browser.conftest import Open
from tests.live import Live
from tests.web import factories

pytestmark = pytest.mark.browser
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.fixture
def full(live: Live, manager: User) -> Run:
    """Something of everything that pages can show."""
    stage = factories.stage()
    for status in [*statuses.RUN, "hibernating"]:
        factories.run(stage, status=status)
    factories.stage("Staging", has_flow=False)
    factories.stage(
        "Development", error="x", error_message="No access.", error_since=timezone.now()
    )
    root = factories.node(
        "Workflow",
        steps=(
            factories.node(label="build", status="success"),
            factories.node(label="test", status="failure", error_message="exit 1\n" * 30),
            factories.node(label="wait", status="approval_wait", started_at=timezone.now()),
        ),
    )
    run = factories.run(stage, steps=msgspec.to_builtins(root), detail_seen_at=timezone.now())
    settled = {"settled_at": timezone.now(), "answer": "No.", "reason": "Stuck"}
    factories.abort(run, manager, "refused", **settled)
    factories.abort(
        Run.objects.get(status="aborted"), manager, "concluded", outcome="aborted", **settled
    )
    factories.trouble("It fell over.")
    factories.worker()
    factories.worker("worker-2", beat_at=timezone.now() - timedelta(minutes=5))
    factories.unlisted(stage.pipeline.project)
    return run


@pytest.mark.parametrize(
    ("who", "scheme"), [("manager", "light"), ("manager", "dark"), ("viewer", "dark")]
)
@pytest.mark.usefixtures("viewer")
def test_every_page_is_clean(scheme: str, who: str, full: Run, sign_in: Open, live: Live) -> None:
    page = sign_in(who, color_scheme=scheme, reduced_motion="reduce")
    found = {}
    for address in (
        "/",
        "/board/",
        "/status/",
        factories.address(full.stage.pipeline),
        f"{factories.address(full.stage)}?status=nope&page=x",
        f"{factories.address(full.stage)}?status=skipped",
        factories.address(full),
        factories.address(full, "abort"),
        "/nothing/here/",
    ):
        page.goto(address)
        found[address] = violations(page)
    if who == "manager":
        page.goto("/")
        page.locator("[data-abort]").first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        found["the dialog"] = violations(page)
    else:
        page.context.clear_cookies()
        page.goto("/accounts/login/")
        found["sign in"] = violations(page)
    assert {address: each for address, each in found.items() if each} == {}


@pytest.mark.usefixtures("viewer")
def test_a_phone_is_clean_too(full: Run, sign_in: Open) -> None:
    page = sign_in("viewer", viewport={"width": 390, "height": 800}, has_touch=True)
    found = {}
    for address in (
        "/",
        "/board/",
        "/status/",
        factories.address(full.stage),
        factories.address(full),
    ):
        page.goto(address)
        found[address] = violations(page)
    assert {address: each for address, each in found.items() if each} == {}


@pytest.mark.usefixtures("viewer")
def test_the_skip_link_leads_past_the_header(full: Run, sign_in: Open) -> None:
    page = sign_in("viewer")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
