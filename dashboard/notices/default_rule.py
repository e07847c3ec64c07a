"""The rule of a new installation."""

from datetime import datetime

from django.conf import settings
from django.db import transaction

from dashboard.accounts import rights_changes
from dashboard.models import NoticeRule, RightsChange
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.models.catalog import StageName
from dashboard.models.notices import ATTENTION_EVENTS, NoticeEvent

# Of runs that are not read as planned nothing new is told: that itself needs attention.
FIRST_EVENTS = [*ATTENTION_EVENTS, NoticeEvent.SYNC_DOWN, NoticeEvent.BEHIND_PLAN]


def create(now: datetime) -> None:
    """Tell the first channel what needs attention in Production, if there was never a rule."""
    if _had_rule():
        return
    with transaction.atomic():
        rights_changes.lock()
        if _had_rule():
            return
        rule = NoticeRule.objects.create(
            channel=next(iter(settings.NOTIFY_URLS)),
            events=FIRST_EVENTS,
            stage=StageName.PRODUCTION,
            created_at=now,
        )
        rights_changes.record_changes(
            {rights_changes.notice_rule(rule.pk): None},
            "Added at the start.",
            now,
            changed_by=None,
            client_address=None,
        )


def _had_rule() -> bool:
    changes = RightsChange.objects.filter(subject_kind=SubjectKind.NOTICE)
    return NoticeRule.objects.exists() or changes.exists()
