"""Sign in through a second, certified OpenID provider, in Chromium: oidc-provider for Node.js.

    uv run deploy/try_provider.py

npm installs it in var/try-provider/. Unlike the provider of the tests it demands PKCE, and sends
groups for a scope of their own, and all claims but the subject from its userinfo endpoint only.
Prints a line a step; exits with 1 at the first that fails. What this cannot show: https, and what
the four providers of docs/run/sign-in.md do otherwise.
"""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import chromium
from playwright.sync_api import Browser, Page, Route, expect
from processes import ROOT, Bench, scratch, wait_for

PACKAGE = "oidc-provider@9.13.3"
WORK = ROOT / "var" / "try-provider"
PORT, PROVIDER_PORT = 8270, 8271
DASHBOARD = f"http://127.0.0.1:{PORT}"
GROUP = "Release managers"
CLIENT_ID, CLIENT_SECRET = "release-flows", "a-secret-of-the-client"
CLIENT = {
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "redirect_uris": [f"{DASHBOARD}/accounts/oidc/callback/"],
    "post_logout_redirect_uris": [f"{DASHBOARD}/accounts/login/"],
}
VERIFIED = {"email_verified": True}
CLAIMS = {
    "ada": {"email": "ada@example.com", "groups": ["eng-leads", "everyone"], **VERIFIED},
    "bob": {"email": "bob@example.com", "groups": ["everyone"], **VERIFIED},
    "eve": {"email": "eve@example.com", "email_verified": False},
}
SETTINGS = {
    "BASE_URL": DASHBOARD,
    "OIDC_ISSUER": f"http://localhost:{PROVIDER_PORT}",
    "OIDC_CLIENT_ID": CLIENT_ID,
    "OIDC_CLIENT_SECRET": CLIENT_SECRET,
    "OIDC_SCOPES": "openid profile email groups",
    "OIDC_GROUPS_CLAIM": "groups",
    "OIDC_GROUP_MAP": f"eng-leads={GROUP}",
    "OIDC_ALLOWED_DOMAINS": "example.com",
}


@contextlib.contextmanager
def run_provider(folder: Path) -> Iterator[None]:
    """Run the provider until the block ends; install it first where it is missing."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise SystemExit(f"{program} was not found: apt-get install {program}")
    WORK.mkdir(parents=True, exist_ok=True)
    options = ("--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    subprocess.run(["npm", "install", "--prefix", WORK, *options, PACKAGE], check=True)
    settings = {"port": PROVIDER_PORT, "folder": str(WORK), "client": CLIENT, "claims": CLAIMS}
    script = Path(__file__).with_suffix(".mjs")
    with (folder / "provider.log").open("wb") as log:
        process = subprocess.Popen(
            ["node", script, json.dumps(settings)], stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout
        if b"running" not in process.stdout.readline():
            raise SystemExit((folder / "provider.log").read_text())
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def find_run(bench: Bench) -> str:
    """Return the id of a run that the dashboard has read and that can be aborted."""

    def read() -> list[dict[str, Any]]:
        command = [sys.executable, "manage.py", "runs", "--json"]
        output = subprocess.check_output(command, cwd=ROOT, env=bench.environment(SETTINGS))
        runs: list[dict[str, Any]] = json.loads(output)["runs"]
        return [run for run in runs if run["status"] == "running"]

    return str(wait_for(read, "a run that is running", 1)[0]["run_id"])


def press_button(page: Page) -> None:
    page.get_by_role("button", name="Sign in with localhost").click()


def open_signed_out(browser: Browser, link: str) -> Page:
    """Open a link in a browser of its own, and go to the provider.

    It reaches this machine only: the provider's pages ask for fonts.
    """

    def let_through(route: Route) -> None:
        is_here = urlsplit(route.request.url).hostname in {"127.0.0.1", "localhost"}
        route.continue_() if is_here else route.abort()

    page = browser.new_context().new_page()
    page.route("**/*", let_through)
    page.goto(link)
    press_button(page)
    return page


def sign_in_there(page: Page, name: str) -> None:
    """Sign in on the provider's page, which then asks for consent."""
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill(name)
    page.get_by_role("button", name="Sign-in").click()


def consent(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()


def expect_failure(page: Page, reason: str) -> None:
    expect(page.get_by_role("heading", name="Not signed in")).to_be_visible()
    expect(page.locator("[data-reason]")).to_contain_text(reason)


def expect_run(page: Page, run: str) -> None:
    expect(page).to_have_url(re.compile(f"/runs/{run}/.*from=alert"))
    expect(page.locator("section.run").first).to_be_visible()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page).to_have_url(f"{DASHBOARD}/accounts/login/")


def main() -> None:
    start = time.monotonic()

    def ok(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  ok  {text}", flush=True)

    with scratch() as bench, run_provider(bench.folder), chromium.launch() as browser:
        bench.start("serve", "--port", str(PORT), "--scenario", "stuck-production", **SETTINGS)
        run = find_run(bench)
        ok(f"{PACKAGE} and the dashboard are started")
        link = f"{DASHBOARD}/runs/{run}/?from=alert"
        abort = "section.run [data-abort]:not([disabled])"

        page = open_signed_out(browser, link)
        sign_in_there(page, "ada")
        page.get_by_role("link", name="Cancel").click()
        expect_failure(page, "declined")
        ok("consent refused: the page says so")
        page.locator(".next-links a").first.click()
        press_button(page)
        consent(page)
        expect_run(page, run)
        ok(f"signed in from there after all: {page.url}")
        expect(page.locator(abort).first).to_be_visible()
        ok(f"eng-leads of the userinfo is {GROUP} here: may abort")

        sign_out(page)
        page.goto(link)
        press_button(page)
        expect(page.get_by_placeholder("Enter any login")).to_be_visible()
        ok("signed out here and at the provider, which asks who it is")
        sign_in_there(page, "bob")
        consent(page)
        expect_run(page, run)
        expect(page.locator(abort)).to_have_count(0)
        ok("signed in without that group: may not abort")

        page = open_signed_out(browser, link)
        sign_in_there(page, "eve")
        consent(page)
        expect_failure(page, "no verified e-mail address")
        page.locator(".next-links a").first.click()
        press_button(page)
        expect_failure(page, "no verified e-mail address")
        ok("an address that is not verified: refused, also again; the provider does not ask anew")

        page = open_signed_out(browser, link)
        sign_in_there(page, "ada")
        with contextlib.closing(sqlite3.connect(bench.database)) as database, database:
            database.execute("UPDATE dashboard_session SET expire_date = '2000-01-01 00:00:00'")
        consent(page)
        expect_failure(page, "expired")
        ok("finished at the provider more than ten minutes later: the page says so")


if __name__ == "__main__":
    main()
