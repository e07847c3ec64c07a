"""Take the documentation's screenshots of the product as it runs: `uv run docs/screenshots.py`."""

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
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        env = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{scratch}/screenshots.sqlite3",
            "NORTHFLANK_API_TOKEN": "",
        }
        command = [sys.executable, "manage.py", "serve", "--port", "0"]
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = re.search(r"http://\S+/", server.stdout.readline())
        assert address is not None, "the dashboard did not start"
        try:
            time.sleep(8)  # the sync fills the mirror
            shoot(address[0])
        finally:
            server.terminate()
            server.wait()


def shoot(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=ARGS
        )
        for theme, suffix in (("light", ""), ("dark", "-dark")):
            page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
            sign_in(page, address)
            page.screenshot(path=IMAGES / f"now{suffix}.png")
            # The ledger's production stage always has a run that hangs on a step.
            page.locator('tr[data-place="Payments/Ledger/Production"] a.title').first.click()
            page.locator("[data-steps] li").first.wait_for(timeout=20_000)
            page.screenshot(path=IMAGES / f"run{suffix}.png")
            page.locator("[data-abort]").click()
            page.locator("dialog[open]").wait_for()
            page.screenshot(path=IMAGES / f"abort{suffix}.png")
            page.goto(f"{address}board/")
            page.screenshot(path=IMAGES / f"board{suffix}.png")
            page.close()
        phone = browser.new_page(viewport={"width": 390, "height": 800})
        sign_in(phone, address)
        phone.screenshot(path=IMAGES / "now-phone.png")
        browser.close()


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.fill("[name=username]", "manager")
    page.fill("[name=password]", "manager")
    page.press("[name=password]", "Enter")
    page.locator("tr[data-run]").first.wait_for()


if __name__ == "__main__":
    main()
