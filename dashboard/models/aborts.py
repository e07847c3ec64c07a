"""Aborts: each is an act with an author, a reason and an end, and is kept for good."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models

from dashboard.models.runs import Run


class AbortState(models.TextChoices):
    REQUESTED = "requested"  # written down; not answered yet
    ACCEPTED = "accepted"  # Northflank answered 2xx; the run has not concluded yet
    CONCLUDED = "concluded"  # the run has concluded after Northflank accepted
    NOT_SENT = "not_sent"  # it certainly did not reach Northflank
    REFUSED = "refused"  # Northflank answered no
    UNKNOWN = "unknown"  # no answer came back: being checked, or checked in vain
    TOO_LATE = "too_late"  # the run had concluded before the abort arrived


class AbortQuerySet(models.QuerySet["Abort"]):
    def open(self) -> "AbortQuerySet":
        """Aborts of which more is to come; at most one a run."""
        return self.filter(settled_at=None)

    def conclude(self, run_pk: int, outcome: str, at: datetime) -> int:
        """Settle the open abort of a run that has concluded as `outcome`."""
        # One that is still being sent settles itself when it knows what Northflank answered.
        heard = self.open().filter(run=run_pk, state__in=[AbortState.ACCEPTED, AbortState.UNKNOWN])
        return heard.update(state=AbortState.CONCLUDED, outcome=outcome, settled_at=at)

    def stranded(self, before: datetime) -> "AbortQuerySet":
        """Requested aborts whose process has not finished sending since `before`."""
        return self.open().filter(state=AbortState.REQUESTED, claimed_at__lt=before)


class Abort(models.Model):
    """One press of Abort: who, when, why, from where, what Northflank answered, how it ended."""

    run = models.ForeignKey(Run, models.PROTECT, related_name="aborts")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="aborts"
    )
    username = models.TextField(help_text="Kept when the account is deleted.")
    reason = models.TextField(blank=True)
    client_address = models.GenericIPAddressField(null=True)
    state = models.CharField(max_length=12, choices=AbortState, default=AbortState.REQUESTED)
    requested_at = models.DateTimeField()
    claimed_at = models.DateTimeField(help_text="When a process last took it on: its lease.")
    sent_at = models.DateTimeField(
        null=True, help_text="Written just before sending: from then on it may have arrived."
    )
    answered_at = models.DateTimeField(null=True)
    answer = models.TextField(blank=True, help_text="Northflank's answer, in a sentence.")
    answer_status = models.PositiveSmallIntegerField(null=True, help_text="Its HTTP status.")
    retry_at = models.DateTimeField(null=True, help_text="When Northflank takes requests again.")
    outcome = models.TextField(blank=True, help_text="The run's status when it concluded.")
    settled_at = models.DateTimeField(null=True, help_text="When nothing more was to come.")

    objects = AbortQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run"], condition=models.Q(settled_at=None), name="one_open_abort_a_run"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["-requested_at"], name="aborts_by_time")]

    def __str__(self) -> str:
        return f"{self.username} aborted {self.run_id} at {self.requested_at:%Y-%m-%d %H:%M:%S}"
