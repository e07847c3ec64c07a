"""Streams end at once with the session or the permissions that they were opened with."""

import re
from collections.abc import Callable, Iterable
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.base import SessionBase
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.accounts import permissions, sessions
from dashboard.accounts.sessions import SignedInSession
from dashboard.models import Grant, Run, Session
from dashboard.models.accounts.grants import Action
from dashboard.web.live.changes import HEARTBEAT_EVENT, STALE_EVENT
from tests.support import factories
from tests.support.live import WAIT_TIMEOUT, Live, token
from tests.support.stream import (
    Message,
    fast_polling,
    messages,
    next_part,
    open_stream,
    stream_address,
)

# No poll during a test: what ends a stream is a notification.
no_polling = pytest.mark.parametrize("poll_interval", [WAIT_TIMEOUT * 5.0], ids=["no polling"])


@pytest.fixture
def run(db: None) -> Run:
    """A run in flight."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def browser(live: Live, viewer: User) -> httpx.Client:
    return live.sign_in("viewer")


@pytest.fixture
def other_user(live: Live, manager: User) -> httpx.Client:
    return live.sign_in("manager")


def last_messages(stream: Iterable[Message]) -> list[str]:
    """Wait for the end of a stream; return its events but heartbeats and changes of parts."""
    return [message.event for message in stream if message.event not in {"", HEARTBEAT_EVENT}]


def wait_until_checked(live: Live) -> None:
    """Wait until the broadcaster has checked sessions that are open now."""

    async def check() -> None:
        live.feed.accounts_changed = True
        await live.feed.check_sessions()

    live.run(check)


def sign_out(browser: httpx.Client, user: User) -> None:
    browser.post("/accounts/logout/", data={"csrfmiddlewaretoken": token(browser)})


def change_password(browser: httpx.Client, user: User) -> None:
    user.set_password("another")
    user.save()


def deactivate(browser: httpx.Client, user: User) -> None:
    user.is_active = False
    user.save()


def delete_account(browser: httpx.Client, user: User) -> None:
    user.delete()


def end_session_from_elsewhere(browser: httpx.Client, user: User) -> None:
    session = Session.objects.get(user=user)
    assert sessions.end(user, session.public_id, timezone.now(), client_address=None)


ENDS = [sign_out, change_password, deactivate, delete_account, end_session_from_elsewhere]


@no_polling
@pytest.mark.parametrize("end", ENDS)
def test_stream_ends_with_its_session_without_a_poll(
    end: Callable[[httpx.Client, User], None],
    run: Run,
    browser: httpx.Client,
    other_user: httpx.Client,
    viewer: User,
) -> None:
    with open_stream(other_user) as other, open_stream(browser) as stream:
        end(browser, viewer)
        assert last_messages(stream) == []
        answer = browser.get("/live/?page=now", headers={"HX-Request": "true"})
        assert answer.status_code == 401
        factories.change(run, status="retrying")
        next_part(other, "run-r-1", "Retrying")


def withdraw_group(user: User) -> None:
    user.groups.clear()


def withdraw_grant(user: User) -> None:
    Grant.objects.get(group__name="shop").delete()


def delete_group(user: User) -> None:
    Group.objects.get(name="shop").delete()


def narrow_grant(user: User) -> None:
    grant = Grant.objects.get(group__name="shop")
    grant.stage = "Staging"
    grant.save()


@no_polling
@pytest.mark.parametrize("change", [withdraw_group, withdraw_grant, delete_group, narrow_grant])
def test_stream_with_changed_permissions_tells_the_page_to_reload_and_ends(
    change: Callable[[User], None], run: Run, browser: httpx.Client, viewer: User
) -> None:
    Grant.objects.all().delete()
    factories.grant("view", "shop", viewer)
    with open_stream(browser) as stream:
        change(viewer)
        assert last_messages(stream) == [STALE_EVENT]
    assert "Nightly" not in browser.get("/").text  # the session still holds


def opened_stream(
    live: Live, browser: httpx.Client, address: str, event_id: str = ""
) -> tuple[str, list[str]]:
    """Open a stream as a browser does that got `event_id` last, and close it.

    Return the last id that it has got then, and the stream's events but changes of parts.
    """
    headers = {"Last-Event-ID": event_id} if event_id else {}
    with browser.stream("GET", address, headers=headers) as answer:
        stream = messages(answer)
        first_message = next(stream)
        assert "data-age" in first_message.parts

        async def close() -> None:
            live.feed.hub.close_streams(lambda _channel, _session: True)

        live.run(close)
        received = [first_message, *stream]
        ids = [event_id, *(message.id for message in received if message.id)]
        return ids[-1], last_messages(received)


def test_page_of_other_permissions_is_told_to_reload_when_it_opens_a_stream(
    run: Run, live: Live, browser: httpx.Client, viewer: User
) -> None:
    # Without the time of the page: else its first message may be without an id.
    address = re.sub(r"\.\d+-", "-", stream_address(browser))
    event_id, events = opened_stream(live, browser, address)
    assert events == []
    assert opened_stream(live, browser, address, event_id) == (event_id, [])
    factories.grant("abort", "shop", viewer)  # while it has no stream
    new_id, events = opened_stream(live, browser, address, event_id)
    assert events == [STALE_EVENT]
    assert opened_stream(live, browser, address)[1] == [STALE_EVENT]  # it got no message
    # Told once: then it has reloaded.
    assert opened_stream(live, browser, address, new_id) == (new_id, [])
    viewer.groups.clear()
    assert opened_stream(live, browser, address, new_id)[1] == [STALE_EVENT]


@no_polling
def test_streams_of_unchanged_permissions_stay(
    run: Run, live: Live, browser: httpx.Client, viewer: User
) -> None:
    with open_stream(browser) as stream:
        viewer.first_name = "Vera"
        viewer.save()
        viewer.groups.add(Group.objects.create(name="without grants"))
        factories.grant("view", "others", stage="Staging")
        wait_until_checked(live)
        factories.change(run, status="retrying")
        next_part(stream, "run-r-1", "Retrying")


@fast_polling
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM dashboard_session",
        "UPDATE auth_user SET is_active = (1 = 0)",
        "UPDATE auth_user SET password = 'x'",
    ],
)
def test_stream_ends_after_change_by_sql(
    sql: str, run: Run, browser: httpx.Client, viewer: User
) -> None:
    with open_stream(browser) as stream:
        with connection.cursor() as cursor:
            cursor.execute(sql)
        assert last_messages(stream) == []


@fast_polling
def test_stream_ends_when_its_session_expires(
    run: Run, browser: httpx.Client, viewer: User
) -> None:
    with open_stream(browser) as stream:
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
        assert last_messages(stream) == []


@no_polling
def test_stream_ends_in_other_process(run: Run, browser: httpx.Client, viewer: User) -> None:
    """Another process has its own connection, so only PostgreSQL's notification arrives."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite serves one process; others are noticed by the next poll")
    with open_stream(browser) as stream:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM dashboard_session")
            cursor.execute("SELECT pg_notify('dashboard_accounts', '')")
        assert last_messages(stream) == []


@no_polling
def test_sign_in_checks_no_streams(
    run: Run, live: Live, browser: httpx.Client, viewer: User
) -> None:
    with open_stream(browser) as stream:
        wait_until_checked(live)
        live.sign_in("viewer")
        factories.change(run, status="retrying")
        next_part(stream, "run-r-1", "Retrying")
        assert not live.feed.accounts_changed


def test_checking_all_streams_takes_two_statements(db: None, viewer: User, manager: User) -> None:
    stores: list[SessionBase] = []
    factories.grant("view")
    group = Group.objects.create(name="Shop")
    Grant.objects.create(group=group, stage="Staging", action=Action.ABORT)
    viewer.groups.add(group, Group.objects.create(name="Empty"))
    for user in (viewer, viewer, manager, User.objects.create_superuser("root", password="x")):
        client = Client()
        client.force_login(user)
        stores.append(client.session)
    by_key = {session.pk: session for session in Session.objects.select_related("user")}
    opened = {
        SignedInSession(key, session.user.password)
        for key, session in by_key.items()
        if session.user is not None
    }
    with CaptureQueriesContext(connection) as queries:
        current = sessions.current_permissions(opened, timezone.now())
    assert len(queries) == 2
    assert current.keys() == opened
    for session in opened:
        user = by_key[session.key].user
        assert user is not None
        assert current[session] == permissions.for_user(user)


def test_streams_of_all_sessions_of_an_account_are_limited(
    run: Run, browser: httpx.Client, other_user: httpx.Client, live: Live
) -> None:
    live.feed.hub.max_streams_per_account = 1
    other_session = live.sign_in("viewer")
    with open_stream(browser):
        assert other_session.get("/live/?page=now").status_code == 429
        assert other_session.get("/").status_code == 200
        with open_stream(other_user):
            pass
