"""Probes, static files and error pages."""

import gzip
import re
from collections.abc import Callable
from datetime import timedelta

import brotli
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.test import Client

from dashboard.db import health as db_health
from dashboard.db.threads import now
from dashboard.models import Lead, Run, Upstream
from tests.support import factories
from tests.support.html import parse_html, select_one, text_of


@pytest.mark.parametrize("address", ["/healthz", "/readyz"])
def test_health_endpoint_without_session_returns_200(
    address: str, client: Client, db: None
) -> None:
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")


def test_process_without_tables_is_healthy_but_not_ready(client: Client, db: None) -> None:
    with connection.cursor() as cursor:  # rolled back with the test's transaction
        cursor.execute("ALTER TABLE dashboard_upstream RENAME TO elsewhere")
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_readiness_during_known_outage_is_answered_without_the_database(client: Client) -> None:
    # A database that does not respond would occupy a thread for seconds. The test may use none.
    assert db_health.record_failure(OperationalError("gone"))  # the next probe: in a second
    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"database: no_response\n")
    assert db_health.down_since() is not None


def test_dead_sync_has_a_probe_of_its_own(client: Client, db: None) -> None:
    def probe(**lead: timedelta) -> tuple[int, bytes]:
        Lead.objects.all().delete()
        if lead:
            factories.leader(**{name: now() - age for name, age in lead.items()})
        answer = client.get("/healthz/sync")
        return answer.status_code, answer.content

    second = timedelta(seconds=1)
    assert probe() == (503, b"Sync is not running; data is not being updated.\n")
    assert probe(renewed_at=31 * second)[0] == 503
    assert probe(renewed_at=second, round_ended_at=61 * second)[0] == 503
    assert probe(renewed_at=second, round_ended_at=59 * second) == (200, b"ok\n")
    # A pause that ends by itself is no death.
    Upstream.objects.update_or_create(pk=1, defaults={"error": "unreachable"})
    assert probe(renewed_at=second, round_ended_at=second)[0] == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", ["live.js", "dashboard.css", "icons/ok.svg"])
def test_static_file_is_versioned_and_cached_for_one_day(
    name: str, client: Client, db: None
) -> None:
    address = static(name)
    answer = client.get(address)
    assert "?v=" in address
    assert answer.status_code == 200
    assert "max-age=86400" in answer["Cache-Control"]
    answer.close()


@pytest.mark.parametrize("name", ["icons/ok.svg", "vendor/htmx@4.0.1/htmx.min.js"])
@pytest.mark.parametrize(
    ("accepted", "encoding", "decompress"),
    [
        ("gzip, deflate", "gzip", gzip.decompress),
        ("gzip, deflate, br, zstd", "br", brotli.decompress),
    ],
)
def test_static_file_is_compressed_as_a_whole(
    accepted: str,
    encoding: str,
    decompress: Callable[[bytes], bytes],
    name: str,
    client: Client,
    db: None,
) -> None:
    plain = client.get(static(name))
    content = plain.getvalue()
    plain.close()
    for _ in range(2):  # compressed at the first request, from memory at the second
        answer = client.get(static(name), headers={"Accept-Encoding": accepted})
        assert decompress(answer.content) == content
        assert answer["Content-Encoding"] == encoding
        assert int(answer["Content-Length"]) == len(answer.content) < len(content)
        assert answer["Content-Type"] == plain["Content-Type"]
        assert answer["Vary"] == plain["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in plain.headers


def test_script_is_compressed_without_its_comments(client: Client, db: None) -> None:
    answer = client.get(static("live.js"), headers={"Accept-Encoding": "gzip"})
    script = gzip.decompress(answer.content)
    assert b"// " not in script
    assert b"function refresh()" in script
    source = client.get(static("live.js"))
    assert b"// " in source.getvalue()
    source.close()


def test_styles_are_compressed_without_comments_and_indentation(client: Client, db: None) -> None:
    answer = client.get(static("dashboard.css"), headers={"Accept-Encoding": "gzip"})
    styles = gzip.decompress(answer.content)
    assert b"/*" not in styles
    assert b"\n " not in styles
    assert b'&[data-severity="2"]' in styles
    source = client.get(static("dashboard.css"))
    assert re.sub(rb"\s", b"", re.sub(rb"(?s)/\*.*?\*/", b"", source.getvalue())) == re.sub(
        rb"\s", b"", styles
    )
    source.close()


def test_static_file_that_browser_has_is_not_sent_again(client: Client) -> None:
    accepts_gzip = {"Accept-Encoding": "gzip"}
    etag = client.get(static("live.js"), headers=accepts_gzip)["ETag"]
    answer = client.get(static("live.js"), headers=accepts_gzip | {"If-None-Match": etag})
    assert (answer.status_code, answer.getvalue()) == (304, b"")


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("br;q=0, gzip", "gzip"), ("br; q=0.0, gzip;q=0", None), ("br;q=0.5", "br"), ("", None)],
)
def test_static_file_has_no_encoding_that_is_not_accepted(
    client: Client, db: None, header: str, encoding: str | None
) -> None:
    answer = client.get(static("live.js"), headers={"Accept-Encoding": header})
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer["Vary"] == "Accept-Encoding"
    answer.close()


def test_static_file_of_another_version_is_not_cached(client: Client) -> None:
    path = static("live.js").partition("?")[0]
    for query, is_cached in (("", True), ("?v=000000000000", False)):
        answer = client.get(path + query, headers={"Accept-Encoding": "gzip"})
        assert ("max-age=86400" in answer["Cache-Control"]) is is_cached


def test_page_references_only_existing_static_files(operator_client: Client) -> None:
    html = parse_html(operator_client.get("/"))
    files = {
        element.attributes.get("src") or element.attributes.get("href") or ""
        for element in html.css("script[src], link[href], img[src]")
    }
    assert all("?v=" in file for file in files)
    for file in files:
        answer = operator_client.get(file)
        assert answer.status_code == 200, file
        answer.close()


def test_abort_without_csrf_token_returns_403_page(run: Run, manager: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    answer = client.post(factories.address(run, "abort"))
    assert answer.status_code == 403
    assert "Nothing was changed." in text_of(select_one(parse_html(answer), "[data-reason]"))
    assert not run.aborts.exists()


@pytest.mark.parametrize(
    "template", [f"errors/{name}.html" for name in ("400", "403_csrf", "413", "500", "503")]
)
def test_error_page_renders_without_context(template: str) -> None:
    from selectolax.lexbor import LexborHTMLParser

    html = LexborHTMLParser(render_to_string(template))
    assert select_one(html, "h1").text().strip()
    assert select_one(html, "[data-reason]").text().strip()


def test_form_that_is_not_in_utf_8_returns_400(db: None) -> None:
    form = "application/x-www-form-urlencoded; charset=utf-16"
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "t" * 32
    assert client.post("/accounts/login/", b"a=b", content_type=form).status_code == 400


def test_request_with_unknown_host_returns_400(client: Client) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
