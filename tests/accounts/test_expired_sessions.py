"""Expired sessions are deleted, and their end is recorded."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from dashboard.accounts.expired_sessions import BATCH_SIZE, end_expired_sessions
from dashboard.models import AccessEvent
from dashboard.models.access import AccessKind


def test_expired_session_is_recorded_and_deleted(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    Client().get("/accounts/login/")
    later = timezone.now() + timedelta(days=15)
    end_expired_sessions(later)
    end_expired_sessions(later)
    event = AccessEvent.objects.filter(kind=AccessKind.SESSION_ENDED).get()
    assert (event.username, event.occurred_at, event.detail) == ("viewer", later, "Expired.")
    assert not Session.objects.exists()


def test_valid_session_is_kept(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    end_expired_sessions(timezone.now() + timedelta(days=13))
    assert Session.objects.count() == 1


def test_expired_session_of_deleted_account_is_deleted(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    viewer.delete()
    end_expired_sessions(timezone.now() + timedelta(days=15))
    event = AccessEvent.objects.filter(kind=AccessKind.SESSION_ENDED).get()
    assert (event.user, event.username) == (None, "")


def test_unreadable_and_anonymous_sessions_are_deleted_in_batches(db: None) -> None:
    past = timezone.now() - timedelta(days=1)
    Session.objects.bulk_create(
        Session(session_key=f"key-{number}", session_data="nonsense", expire_date=past)
        for number in range(BATCH_SIZE + 1)
    )
    end_expired_sessions(timezone.now())
    assert Session.objects.count() == 1
    assert not AccessEvent.objects.exists()
