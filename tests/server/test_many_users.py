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
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from dashboard.aborts import messages as abort_messages
from dashboard.accounts import permissions
from dashboard.models import Abort, Session
from dashboard.models.accounts.sessions import SessionStore
from dashboard.sandbox import parse_fault
from tests.support import databases
from tests.support.databases import LEDGER, PROCESS_DATABASE
from tests.support.live_runs import notice_text
from tests.support.processes import RunningProcess, manage, run_manage, upstream

pytestmark = pytest.mark.process

CSRF_TOKEN = "a" * 32  # of the forms


def signed_in_browser(name: str, process: RunningProcess) -> httpx.Client:
    """A signed-in client of a new user who may abort."""
    user = User.objects.using(PROCESS_DATABASE).create(username=name)
    user.groups.add(Group.objects.using(PROCESS_DATABASE).get(name=permissions.RELEASE_MANAGERS))
    session = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    row = Session.objects.using(PROCESS_DATABASE).create(
        session_key=f"{name.replace('-', ''):x>32}",
        session_data=SessionStore().encode(session),
        user=user,
        created_at=(now := timezone.now()),
        last_used_at=now,
        ends_at=now + timedelta(days=1),
        expire_date=now + timedelta(days=1),
    )
    browser = process.create_client()
    browser.cookies = httpx.Cookies({"sessionid": row.session_key, "csrftoken": CSRF_TOKEN})
    return browser


def post_abort(client: httpx.Client, run_id: str) -> str:
    """Submit the abort form, and return the notice."""
    return notice_text(
        client.post(
            databases.abort_path(run_id),
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


@pytest.mark.slow
@pytest.mark.postgres
def test_concurrent_aborts_by_50_users_at_two_processes_send_one_request(
    tmp_path: Path, postgres: str
) -> None:
    with contextlib.ExitStack() as stack:
        url, sandbox = stack.enter_context(upstream())
        sandbox.choices["abort-seconds"] = "100000"
        sandbox.faults = [parse_fault("latency:1@/abort")]
        variables = {
            "DATABASE_URL": postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        web = ("serve", "--port", "0", "--no-sync")
        processes = [stack.enter_context(run_manage(tmp_path, *web, **variables)) for _ in range(2)]
        flow = sandbox.world.find_flow(*LEDGER)
        assert flow is not None
        run_id = sandbox.world.start_run(flow, sandbox.clock(), {}).id
        databases.create_run(run_id)
        clients = {
            f"person-{n}": signed_in_browser(f"person-{n}", processes[n % 2]) for n in range(50)
        }
        with ThreadPoolExecutor(50) as executor:
            notices = dict(
                zip(
                    clients,
                    executor.map(lambda client: post_abort(client, run_id), clients.values()),
                    strict=True,
                )
            )
        abort = Abort.objects.using(PROCESS_DATABASE).select_related("run").get()
        message = abort_messages.describe(abort, abort.run).plain_text
        assert "accepted" in message
        assert notices.pop(abort.username) == message
        assert set(notices.values()) == {f"{message} Abort requested by {abort.username}."}
        assert len(notices) == 49
        assert sandbox.abort_request_counts == {run_id: 1}
