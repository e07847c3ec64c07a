"""Take the screenshots in docs/images from a running dashboard: `uv run docs/screenshots.py`."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
LATE = ":not([data-overdue='0'])"
STUCK = f"tr[data-status=retrying]{LATE}[data-location^=Shop] a.title"
ABORTED = {"width": 1100, "height": 400}
SERVE = [sys.executable, "manage.py", "serve"]
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        env = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{scratch}/screenshots.sqlite3",
            "NORTHFLANK_API_TOKEN": "",
        }
        # At any time of day, the same run is overdue 3× and the same others are in flight.
        now = int(time.time())
        staged = ["--opened", str(now - 300), "--origin", str(now - 600)]
        scenario = ["--scenario", "stuck-production", *staged]
        command = [*SERVE, "--port", "0", *scenario]
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = re.search(r"http://\S+/", server.stdout.readline())
        assert address is not None, "the dashboard did not start"
        try:
            time.sleep(20)  # the sync fills the mirror and marks overdue runs
            shoot(address[0])
        finally:
            server.terminate()
            server.wait()


def shoot(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=ARGS
        )
        page = browser.new_page(viewport={"width": 1100, "height": 660})
        sign_in(page, address)
        page.screenshot(path=IMAGES / "now.png")
        page.goto(f"{address}board/")
        page.screenshot(path=IMAGES / "board.png")
        page.goto(address)
        page.locator(STUCK).click()
        page.locator("[data-steps] li").first.wait_for(timeout=20_000)
        page.screenshot(path=IMAGES / "run.png")
        page.locator("[data-abort]").click()
        dialog = page.locator("dialog[open]")
        dialog.get_by_label("Stuck").check(force=True)
        dialog.screenshot(path=IMAGES / "abort.png")
        dialog.get_by_role("button", name="Abort run").click()
        page.locator("section.run[data-status=aborted]").wait_for(timeout=60_000)
        page.screenshot(path=IMAGES / "aborted.png", clip={"x": 0, "y": 0, **ABORTED})
        browser.close()


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.fill("[name=username]", "manager")
    page.fill("[name=password]", "manager")
    page.press("[name=password]", "Enter")
    page.locator("tr[data-run]").first.wait_for()


if __name__ == "__main__":
    main()
