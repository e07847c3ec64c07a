"""Take the screenshots in docs/images from a running dashboard: `uv run docs/screenshots.py`."""

import base64
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
STUCK = f"tr[data-status=running]{LATE}[data-location^=Shop] a.title"
ABORTED = {"width": 1100, "height": 450}
# The README's picture: the caption of each still, and its height.
STORY = {
    "now": ("1. The stuck run is first on Now; an alert can link to it directly.", 320),
    "run": ("2. Its page says where it is stuck, since when, and what it blocks.", 455),
    "abort": ("3. Abort, with a reason.", 660),
    "aborted": ("4. The page follows the abort until the run has ended.", 450),
}
STYLE = """<style>
body { margin: 24px; background: #dfe4ea; font: 600 17px system-ui, sans-serif; }
figure { margin: 0 0 24px; } figcaption { padding-bottom: 8px; } img { display: block; }
div { width: fit-content; overflow: hidden; border: 1px solid #b5bec8; border-radius: 6px; }
</style>"""
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
        page.locator("[data-log-line]").last.wait_for(timeout=20_000)
        page.screenshot(path=IMAGES / "run.png")
        page.locator("[data-abort]").click()
        dialog = page.locator("dialog[open]")
        dialog.get_by_label("Stuck").check(force=True)
        dialog.screenshot(path=IMAGES / "abort.png")
        dialog.get_by_role("button", name="Abort run").click()
        page.locator("section.run[data-status=aborted]").wait_for(timeout=60_000)
        page.screenshot(path=IMAGES / "aborted.png", clip={"x": 0, "y": 0, **ABORTED})
        compose(browser.new_page(viewport={"width": 1150, "height": 100}))
        browser.close()


def compose(page: Page) -> None:
    """Write the stills of STORY below one another, each cut to its height, into one picture."""
    html = STYLE
    for name, (caption, height) in STORY.items():
        data = base64.b64encode((IMAGES / f"{name}.png").read_bytes()).decode()
        html += f"<figure><figcaption>{caption}</figcaption><div style='max-height: {height}px'>"
        html += f"<img alt='' src='data:image/png;base64,{data}'></div></figure>"
    page.set_content(html)
    page.screenshot(path=IMAGES / "story.png", full_page=True)


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.fill("[name=username]", "manager")
    page.fill("[name=password]", "manager")
    page.press("[name=password]", "Enter")
    page.locator("tr[data-run]").first.wait_for()


if __name__ == "__main__":
    main()
