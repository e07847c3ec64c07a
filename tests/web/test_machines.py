"""What machines, the admin and mishaps get."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.test import Client

from dashboard.models import Run
from tests.support import factories
from tests.support.html import HTMX, one, parsed, words


@pytest.mark.parametrize("place", ["/healthz", "/readyz"])
def test_a_probe_needs_no_session(place: str, client: Client, db: None) -> None:
    answer = client.get(place)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")


def test_a_process_without_its_tables_is_alive_and_not_ready(client: Client, db: None) -> None:
    with connection.cursor() as cursor:  # undone with the test's transaction
        cursor.execute("ALTER TABLE dashboard_upstream RENAME TO elsewhere")
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize("name", ["app.js", "dashboard.css", "icons/calm.svg"])
def test_a_static_file_is_versioned_and_kept_for_a_day(name: str, client: Client) -> None:
    address = static(name)
    answer = client.get(address)
    assert "?v=" in address
    assert answer.status_code == 200
    assert "max-age=86400" in answer["Cache-Control"]
    answer.close()


def test_every_file_that_a_page_names_is_there(at_desk: Client) -> None:
    html = parsed(at_desk.get("/"))
    files = {
        element.attributes.get("src") or element.attributes.get("href") or ""
        for element in html.css("script[src], link[href], img[src]")
    }
    assert all("?v=" in file for file in files)
    for file in files:
        answer = at_desk.get(file)
        assert answer.status_code == 200, file
        answer.close()


def test_a_form_without_its_token_is_refused_with_a_page_that_says_so(
    run: Run, manager: User
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    answer = client.post(factories.address(run, "abort"))
    assert answer.status_code == 403
    assert "Nothing was done." in words(one(parsed(answer), "[data-why]"))
    assert not run.aborts.exists()


def test_a_viewers_abort_is_refused_with_the_reason_and_writes_nothing(
    run: Run, looking_on: Client
) -> None:
    answer = looking_on.post(factories.address(run, "abort"))
    assert answer.status_code == 403
    assert "Release managers" in words(one(parsed(answer), "[data-why]"))
    fragment = looking_on.post(factories.address(run, "abort"), headers=HTMX)
    assert fragment.status_code == 403
    assert fragment["Content-Type"].startswith("text/plain")
    assert "Release managers" in fragment.content.decode()
    assert not run.aborts.exists()


@pytest.mark.parametrize("template", ["500.html", "503.html", "400.html", "403_csrf.html"])
def test_a_mishaps_page_needs_nothing_to_be_rendered(template: str) -> None:
    from selectolax.lexbor import LexborHTMLParser

    html = LexborHTMLParser(render_to_string(template))
    assert one(html, "h1").text().strip()
    assert one(html, "[data-why]").text().strip()


def test_a_foreign_host_is_refused(client: Client) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_the_admin_shows_the_audit_and_changes_nothing(run: Run, client: Client) -> None:
    boss = User.objects.create_superuser("boss", password="boss")
    factories.abort(run, boss, reason="Stuck")
    client.force_login(boss)
    for model in ("abort", "project", "pipeline", "stage"):
        listing = f"/admin/dashboard/{model}/"
        assert client.get(listing).status_code == 200
        assert client.get(f"{listing}add/").status_code == 403
    assert client.get(f"/admin/dashboard/abort/{run.aborts.get().pk}/change/").status_code == 200
    assert client.get("/admin/auth/user/").status_code == 200


def test_the_admin_is_closed_to_others(at_desk: Client) -> None:
    assert at_desk.get("/admin/dashboard/abort/").status_code == 302
