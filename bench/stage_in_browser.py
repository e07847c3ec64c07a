"""A stage's page in a real browser, for the benchmarks of its runs."""

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

FLOW_PATH = "/projects/payments/pipelines/billing-api/release-flows/development/"


@contextlib.contextmanager
def open_stage_page(url: str) -> Iterator[Page]:
    """Open the stage's page of the dashboard at `url` in Chromium, signed in as a manager."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise SystemExit("No Chromium was found: set CHROMIUM to its path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url + FLOW_PATH)
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("ada")
        page.get_by_role("button", name="Sign in").click()
        page.locator("[data-run]").first.wait_for(timeout=60_000)
        yield page
        browser.close()
