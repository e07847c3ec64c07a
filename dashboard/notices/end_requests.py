"""Requests of users that a channel be told when a run ends; `EndRequest`s, deleted when it was."""

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction

from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter, EndRequest, NoticeRule, Run
from dashboard.models.notices import NoticeEvent
from dashboard.models.runs import mark_changed

log = structlog.get_logger(__name__)


class NotOpen(Exception):
    """The run has ended, or no administrator has opened the channel for it any more."""


def open_channels(run: Run) -> list[str]:
    """Return the channels that administrators have opened for a run that goes on, by name."""
    if not settings.NOTIFY_URLS or not run.is_tracked:
        return []
    rules = [rule for rule in NoticeRule.objects.all() if rule.covers(run.stage)]
    opened = {rule.channel for rule in rules if NoticeEvent.RUN_ENDED in rule.events}
    return sorted(opened & settings.NOTIFY_URLS.keys())


def request(run: Run, user: User, channel: str, *, is_wanted: bool = True) -> None:
    """Have a channel told when a run ends, or not any more; raise PermissionDenied or NotOpen."""
    permission = permissions.for_user(user).acknowledge_permission(run.stage)
    if not permission.allowed:
        raise PermissionDenied(permission.denied_reason)
    with transaction.atomic():
        ChangeCounter.lock()
        requests = EndRequest.objects.filter(run=run, user=user, channel=channel)
        if requests.exists() == is_wanted:
            return
        if not is_wanted:
            requests.delete()
        elif channel in open_channels(Run.objects.with_stage().without_detail().get(pk=run.pk)):
            requests.create(run=run, user=user, channel=channel, requested_at=db_threads.now())
        else:
            raise NotOpen
        mark_changed([run.pk])
    fields = {"run": run.run_id, "channel": channel, "by": user.get_username()}
    log.info("end_request.changed", is_wanted=is_wanted, **fields)
