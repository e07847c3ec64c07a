"""Fifty people at two processes who press Abort for one run at once."""

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
from tests.support.databases import AFAR, LEDGER
from tests.support.flights import notice
from tests.support.processes import Running, manage, running, upstream

pytestmark = pytest.mark.process

A_TOKEN = "a" * 32  # of the forms


def signed_in(name: str, process: Running) -> httpx.Client:
    """A browser of somebody new who may abort, and signed in a while ago."""
    user = User.objects.using(AFAR).create(username=name)
    user.groups.add(Group.objects.using(AFAR).get(name=permissions.RELEASE_MANAGERS))
    session = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    row = Session.objects.using(AFAR).create(
        session_key=f"{name:x>32}",
        session_data=SessionStore().encode(session),
        expire_date=timezone.now() + timedelta(days=1),
    )
    browser = process.browser()
    browser.cookies = httpx.Cookies({"sessionid": row.session_key, "csrftoken": A_TOKEN})
    return browser


def press(person: httpx.Client, run_id: str) -> str:
    """Press Abort, and return what is said."""
    return notice(
        person.post(
            databases.address(run_id),
            data={"csrfmiddlewaretoken": A_TOKEN},
            headers={"HX-Request": "true"},
        )
    )


@pytest.fixture
def postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with databases.postgres() as database, django_db_blocker.unblock():
        assert manage("migrate", "-v0", DATABASE_URL=database).returncode == 0
        with databases.looking_into(database):
            databases.one_quiet_stage()
            yield database


@pytest.mark.postgres
def test_fifty_people_at_two_processes_send_one_request_and_are_told_the_truth(
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
        flow = sandbox.world.flow(*LEDGER)
        assert flow is not None
        run_id = sandbox.world.start(flow, sandbox.clock(), {}).id
        databases.mirrored(run_id)
        people = {f"person-{n}": signed_in(f"person-{n}", both[n % 2]) for n in range(50)}
        with ThreadPoolExecutor(50) as hands:
            told = dict(
                zip(people, hands.map(lambda one: press(one, run_id), people.values()), strict=True)
            )
        act = Abort.objects.using(AFAR).select_related("run").get()
        story = abort_messages.of(act, act.run).sentence
        assert "accepted" in story
        assert told.pop(act.username) == story
        assert set(told.values()) == {f"{story} It was requested by {act.username}."}
        assert len(told) == 49
        assert sandbox.abort_posts == {run_id: 1}
