"""Sessions end unused or at their maximum age, and are deleted."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.accounts import sessions
from dashboard.accounts.sessions import BATCH_SIZE, delete_expired
from dashboard.models import Session
from dashboard.models.accounts.sessions import USE_INTERVAL, recorded_uses


def test_expired_sessions_are_deleted_at_once(db: None, viewer: User) -> None:
    past = timezone.now() - timedelta(days=1)
    times = {"created_at": past, "last_used_at": past, "ends_at": past, "expire_date": past}
    Session.objects.bulk_create(
        Session(session_key=f"key-{number}", user=viewer if number % 2 else None, **times)
        for number in range(2 * BATCH_SIZE)
    )
    delete_expired(timezone.now())
    assert not Session.objects.exists()


def test_unused_session_is_deleted(client: Client, viewer: User, settings: Any) -> None:
    settings.SESSION_IDLE_TIMEOUT = 3600
    client.force_login(viewer)
    timeout = timedelta(hours=1) + USE_INTERVAL
    delete_expired(timezone.now() + timeout - timedelta(minutes=1))
    assert Session.objects.exists()
    delete_expired(timezone.now() + timeout)
    assert not Session.objects.exists()


def test_used_session_outlives_idle_timeout_but_not_maximum_age(
    client: Client, viewer: User, settings: Any
) -> None:
    settings.SESSION_IDLE_TIMEOUT, settings.SESSION_MAX_AGE = 3600, 7200
    client.force_login(viewer)
    key = client.session.session_key or ""
    start = timezone.now()
    for minutes in (50, 100, 119):
        sessions.record_use(key, start + timedelta(minutes=minutes))
        delete_expired(start + timedelta(minutes=minutes))
    assert Session.objects.count() == 1
    delete_expired(start + timedelta(minutes=121))
    assert not Session.objects.exists()


def test_use_is_recorded_a_minute_after_the_last_one_that_any_process_has_recorded(
    client: Client, viewer: User, settings: Any
) -> None:
    settings.SESSION_IDLE_TIMEOUT = 60
    client.force_login(viewer)
    key, start = client.session.session_key or "", Session.objects.get().last_used_at
    recorded_uses.clear()  # as after a restart
    for seconds in (59, 118):
        sessions.record_use(key, start + timedelta(seconds=seconds))
    assert Session.objects.get().last_used_at == start + timedelta(seconds=118)


@pytest.mark.parametrize("seconds", [60, 3600])
def test_idle_timeout_that_is_removed_ends_no_session_that_is_used(
    client: Client, viewer: User, settings: Any, seconds: int
) -> None:
    settings.SESSION_IDLE_TIMEOUT = seconds
    client.force_login(viewer)
    settings.SESSION_IDLE_TIMEOUT = 0
    sessions.record_use(client.session.session_key or "", timezone.now() + USE_INTERVAL)
    delete_expired(timezone.now() + timedelta(days=13))
    assert Session.objects.count() == 1
