"""Aborts as a run's page shows them, with what is known of each."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from dashboard import abort_story
from dashboard.models import Abort


@dataclass(frozen=True, slots=True)
class Act:
    """One abort and its facts."""

    sentence: str
    tone: str
    by: str
    requested_at: datetime
    reason: str
    facts: list[tuple[str, str]]


def act(abort: Abort) -> Act:
    """Prepare one abort for the template."""
    story = abort_story.of(abort)
    facts = [
        ("Requested", _clock(abort.requested_at)),
        ("Sent", _clock(abort.sent_at)),
        ("Answered", _clock(abort.answered_at)),
        ("Northflank’s answer", _answer(abort)),
        ("Ended", _clock(abort.settled_at)),
    ]
    return Act(
        sentence=story.sentence,
        tone=story.tone,
        by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        facts=[(label, value) for label, value in facts if value],
    )


def _answer(abort: Abort) -> str:
    parts = [str(abort.answer_status) if abort.answer_status else "", abort.answer]
    return ": ".join(part for part in parts if part)


def _clock(when: datetime | None) -> str:
    return f"{timezone.localtime(when):%H:%M:%S}" if when else ""
