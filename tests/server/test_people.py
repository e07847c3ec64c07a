"""Fifty users of two processes request an abort of one run at the same time."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from dashboard.aborts import messages as abort_messages
from dashboard.accounts import permissions
from dashboard.models import Abort
from dashboard.sandbox import parse_fault
from tests.support import databases
from tests.support.databases import LEDGER, PROCESS_DATABASE
from tests.support.live_runs import notice
from tests.support.processes import Running, manage, running, upstream

pytestmark = pytest.mark.process

CSRF_TOKEN = "a" * 32  # of the forms


def signed_in_browser(name: str, process: Running) -> httpx.Client:
    """A browser of somebody new who may abort, and signed in a while ago."""
    user = User.objects.using(PROCESS_DATABASE).create(username=name)
    user.groups.add(Group.objects.using(PROCESS_DATABASE).get(name=permissions.RELEASE_MANAGERS))
    session = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    row = Session.objects.using(PROCESS_DATABASE).create(
        session_key=f"{name:x>32}",
        session_data=SessionStore().encode(session),
        expire_date=timezone.now() + timedelta(days=1),
    )
    browser = process.browser()
    browser.cookies = httpx.Cookies({"sessionid": row.session_key, "csrftoken": CSRF_TOKEN})
    return browser


def post_abort(person: httpx.Client, run_id: str) -> str:
    """Press Abort, and return what is said."""
    return notice(
        person.post(
            databases.address(run_id),
            data={"csrfmiddlewaretoken": CSRF_TOKEN},
            headers={"HX-Request": "true"},
        )
    )


@pytest.fixture
def postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with databases.postgres() as database, django_db_blocker.unblock():
        assert manage("migrate", "-v0", DATABASE_URL=database).returncode == 0
        with databases.connected_to_database(database):
            databases.create_idle_stage()
            yield database


@pytest.mark.postgres
def test_concurrent_aborts_by_50_users_at_two_processes_send_one_request(
    tmp_path: Path, postgres: str
) -> None:
    with contextlib.ExitStack() as stack:
        url, sandbox = stack.enter_context(upstream())
        sandbox.choices["abort-seconds"] = "100000"
        sandbox.faults = [parse_fault("latency:1@/abort")]
        given = {
            "DATABASE_URL": postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        web = ("serve", "--port", "0", "--no-sync")
        both = [stack.enter_context(running(tmp_path, *web, **given)) for _ in range(2)]
        flow = sandbox.world.find_flow(*LEDGER)
        assert flow is not None
        run_id = sandbox.world.start_run(flow, sandbox.clock(), {}).id
        databases.mirrored(run_id)
        people = {f"person-{n}": signed_in_browser(f"person-{n}", both[n % 2]) for n in range(50)}
        with ThreadPoolExecutor(50) as hands:
            told = dict(
                zip(
                    people,
                    hands.map(lambda one: post_abort(one, run_id), people.values()),
                    strict=True,
                )
            )
        act = Abort.objects.using(PROCESS_DATABASE).select_related("run").get()
        story = abort_messages.describe(act, act.run).plain_text
        assert "accepted" in story
        assert told.pop(act.username) == story
        assert set(told.values()) == {f"{story} Abort requested by {act.username}."}
        assert len(told) == 49
        assert sandbox.abort_request_counts == {run_id: 1}
