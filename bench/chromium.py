"""A real Chromium for the benchmarks that look at pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-headless-shell")


@contextlib.contextmanager
def launch() -> Iterator[Browser]:
    """Start a Chromium, that of $CHROMIUM if it is set; it ends with the block."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        raise SystemExit("No Chromium was found: set CHROMIUM to its path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def sign_in(page: Page, name: str) -> None:
    """Submit the sign-in form, which the page shows; each account's password is its name."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(name)
    page.get_by_role("button", name="Sign in").click()
