"""Notify all processes when a session, an account, a group or a grant changes.

The sessions of a deactivated account are deleted, so that none is valid again if it is activated.

What is changed by SQL or by `update()` sends nothing: it is found by the next poll.
"""

from collections.abc import Collection
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, User
from django.db.models.signals import m2m_changed, post_delete, post_save

from dashboard.db import notify as db_notify
from dashboard.models import Grant, Session

_BOOKKEEPING = {"last_login"}  # fields of an account from which nothing follows


def register(app_config: AppConfig) -> None:
    """Notify of each change, and end the sessions of deactivated accounts, from now on."""
    post_save.connect(_end_sessions, User, dispatch_uid=f"{app_config.label}.deactivated")
    for model in (User, Group, Grant):
        post_save.connect(_notify_of_save, model, dispatch_uid=f"{app_config.label}.saved")
    for deleted in (User, Group, Grant, Session):
        post_delete.connect(_notify, deleted, dispatch_uid=f"{app_config.label}.deleted")
    m2m_changed.connect(
        _notify, User.groups.through, dispatch_uid=f"{app_config.label}.groups_changed"
    )


def _end_sessions(instance: User, **_: Any) -> None:
    if not instance.is_active:
        instance.sessions.all().delete()


def _notify_of_save(update_fields: Collection[str] | None, **_: Any) -> None:
    if update_fields is None or not _BOOKKEEPING.issuperset(update_fields):
        _notify()


def _notify(**_: Any) -> None:
    db_notify.send(db_notify.Topic.ACCOUNTS)
