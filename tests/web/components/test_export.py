"""What all exports have in common: their names, their refusals, and harmless cells."""

import csv
import io

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import access_log
from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Author
from dashboard.models.accounts.access import AccessKind
from tests.support import factories
from tests.support.live import Live

FORMULA = "=HYPERLINK(1)"
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
# By address: the name of the file, and a column with the text of somebody else.
EXPORTS = {
    "/aborts/": ("aborts", "reason"),
    "/access/": ("access-log", "detail"),
    "/people/changes/": ("rights-changes", "subject"),
}
of_each = pytest.mark.parametrize("address", EXPORTS)
in_each_format = pytest.mark.parametrize("extension", CONTENT_TYPES)


@pytest.fixture
def client(live: Live) -> httpx.Client:
    """The browser of a superuser, where each export has a formula in its newest row."""
    root = User.objects.create_superuser("root", password="root")
    factories.abort_of_new_run(root, reason=FORMULA)
    group_changes.add_group(Author(root, None), FORMULA)
    browser = live.sign_in("root")
    access_log.record(AccessKind.SIGNED_IN, timezone.now(), detail=FORMULA)
    return browser


@of_each
@in_each_format
def test_export_is_dated_attachment(address: str, extension: str, client: httpx.Client) -> None:
    answer = client.get(f"{address}export.{extension}")
    assert answer.headers["content-type"] == CONTENT_TYPES[extension]
    name = f"{EXPORTS[address][0]}-{timezone.localdate().isoformat()}.{extension}"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


@of_each
@in_each_format
def test_export_rejects_post(address: str, extension: str, client: httpx.Client) -> None:
    origin = {"Origin": str(client.base_url).rstrip("/")}
    token = client.cookies["csrftoken"]
    answer = client.post(
        f"{address}export.{extension}", data={"csrfmiddlewaretoken": token}, headers=origin
    )
    assert answer.status_code == 405


@of_each
@in_each_format
def test_export_with_unknown_filter_is_refused(
    address: str, extension: str, client: httpx.Client
) -> None:
    answer = client.get(f"{address}export.{extension}?person=x")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "Unknown filter “person” ignored.\n"


@of_each
def test_export_escapes_formulas_in_csv_only(address: str, client: httpx.Client) -> None:
    column = EXPORTS[address][1]
    table = client.get(f"{address}export.csv").text
    rows = csv.DictReader(io.StringIO(table, newline=""), strict=True)
    assert next(rows)[column] == f"'{FORMULA}"
    assert client.get(f"{address}export.json").json()[0][column] == FORMULA
