"""With DEBUG, pages of errors have tracebacks with variables and settings, but no secrets."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from tests.support import handler_views
from tests.support.live import WAIT_TIMEOUT, Live, options, run_live

SECRETS = {
    "NORTHFLANK_API_TOKEN": "s3cret-token",
    "SECRET_KEY": "s3cret-key-" + "x" * 40,
    "NORTHFLANK_WEBHOOK_SECRET": ["s3cret-webhook"],
    "OIDC_CLIENT_SECRET": "s3cret-oidc",
}


@pytest.fixture
def dashboard(transactional_db: None, settings: Settings) -> Iterator[Live]:
    """A dashboard with DEBUG, and with views that fail."""
    for name, value in SECRETS.items():
        setattr(settings, name, value)
    settings.DEBUG = True
    settings.ROOT_URLCONF = handler_views.__name__
    with run_live(replace(options(), token=SECRETS["NORTHFLANK_API_TOKEN"])) as live:
        yield live


@pytest.mark.parametrize("address", ["/broken/", "/upstream-defect/", "/broken-password-form/"])
def test_error_page_with_debug_has_no_secret(dashboard: Live, address: str) -> None:
    # Of the other two views nobody has said that this field is secret.
    field = "password" if address == "/broken-password-form/" else "word"
    cookies = {django_settings.SESSION_COOKIE_NAME: "s3cret-session"}
    with httpx.Client(
        base_url=dashboard.base_url, timeout=WAIT_TIMEOUT, cookies=cookies
    ) as browser:
        answer = browser.post(
            address,
            data={field: "s3cret-password" if field == "password" else "shown"},
            headers={"Authorization": "Bearer s3cret-api"},
        )
    assert answer.status_code == 500
    assert "LookupError" in answer.text
    assert "Traceback" in answer.text
    assert [line.strip() for line in answer.text.splitlines() if "s3cret-" in line] == []
