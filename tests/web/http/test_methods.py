"""Which requests change nothing, by their method."""

from contextlib import closing

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.test import Client, RequestFactory

from dashboard.models import Session
from dashboard.models.accounts.sessions import USE_INTERVAL
from dashboard.web.http.database_outage import write_outcome_message
from tests.support.html import HTMX

SAFE = ["GET", "HEAD", "OPTIONS"]
by_method = pytest.mark.parametrize("method", [*SAFE, "POST", "PUT", "PATCH", "DELETE", "PURGE"])


@by_method
def test_signed_out_user_is_told_that_an_unsafe_request_changed_nothing(
    method: str, client: Client, db: None
) -> None:
    answer = client.generic(method, "/board/")
    told = [str(message) for message in get_messages(answer.wsgi_request)]
    assert answer["Location"].startswith("/accounts/login/?next=")
    assert told == ([] if method in SAFE else ["You are signed out. Nothing was changed."])


@by_method
def test_safe_request_of_an_open_page_is_no_use_of_its_session(
    method: str, client: Client, viewer: User
) -> None:
    client.force_login(viewer)
    used_at = Session.objects.get().last_used_at
    with time_machine.travel(used_at + 2 * USE_INTERVAL):
        client.generic(method, "/board/", headers=HTMX)
    assert (Session.objects.get().last_used_at == used_at) is (method in SAFE)


@by_method
def test_outage_reports_of_an_unsafe_request_whether_it_was_saved(method: str) -> None:
    request = RequestFactory().generic(method, "/board/")
    assert bool(write_outcome_message(request)) is (method not in SAFE)


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/live.js", "/nothing/", "/api/runs/"])
def test_trace_is_refused_at_every_address(path: str, client: Client, db: None) -> None:
    answer = client.trace(path)
    assert answer.status_code == 405
    assert answer["Allow"]


def test_refused_trace_takes_one_line_without_the_path(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.trace(f"/{'x' * 300}")
    assert caplog.messages == ["Method Not Allowed (TRACE)"]


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/healthz/sync",
        "/metrics",
        "/static/live.js",
        "/static/dashboard.css",
        "/hooks/northflank/",
        "/api/openapi.json",
        "/accounts/login/",
    ],
)
def test_text_says_that_it_is_utf_8(path: str, client: Client, db: None) -> None:
    with closing(client.post(path) if "hooks" in path else client.get(path)) as answer:
        kind, _, charset = answer["Content-Type"].partition("; ")
    assert charset in {"charset=utf-8", 'charset="utf-8"'} or kind == "application/json"
