"""Bulk aborts: one request for many runs, as a fixed list that is processed run by run."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models

from dashboard.models.fast_loading import FastLoading
from dashboard.models.runs import Run


class Via(models.TextChoices):
    """The interface through which an abort was requested."""

    PAGE = "page"
    API = "api"
    COMMAND = "command"


class AuditedRequest(FastLoading):
    """Abstract: who requested, why, from where, how and when. Subclasses add `user`."""

    username = models.TextField()  # Kept after the account is deleted.
    reason = models.TextField(blank=True)
    client_address = models.GenericIPAddressField(null=True)
    via = models.CharField(max_length=10, choices=Via, default=Via.PAGE)
    token_name = models.TextField(blank=True)  # Name of the API token used, if any.
    requested_at = models.DateTimeField()

    class Meta:
        abstract = True


class BulkAbortQuerySet(models.QuerySet["BulkAbort"]):
    def open(self) -> "BulkAbortQuerySet":
        """Bulk aborts with runs still to process."""
        return self.filter(settled_at=None)

    def lease_expired(self, before: datetime) -> "BulkAbortQuerySet":
        """Open bulk aborts that no process has claimed since `before`."""
        return self.open().filter(claimed_at__lt=before)


class BulkAbort(AuditedRequest):
    """One request to abort many runs: who, when and why, stored once for all."""

    key = models.UUIDField(unique=True)  # Idempotency key of the form.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="bulk_aborts"
    )
    claimed_at = models.DateTimeField()  # When a process last renewed its lease.
    settled_at = models.DateTimeField(null=True)  # When all its runs were processed.

    objects = BulkAbortQuerySet.as_manager()


class BulkAbortItemResult(models.TextChoices):
    WAITING = "waiting"  # not processed yet
    ABORT = "abort"  # became an abort of its own, which has the details
    JOINED = "joined"  # the run had an open abort already
    ENDED = "ended"  # the run was not in flight any more; with a note if its end is unknown
    NOT_ALLOWED = "not_allowed"  # the user lacks or has lost the permission


class BulkAbortItem(FastLoading):
    """One run of a bulk abort, and its result."""

    bulk_abort = models.ForeignKey(BulkAbort, models.PROTECT, related_name="items")
    position = models.PositiveIntegerField()
    run = models.ForeignKey(Run, models.PROTECT, related_name="bulk_abort_items")
    # The run's abort: its own, or the open one it joined.
    abort = models.ForeignKey("Abort", models.PROTECT, null=True, related_name="bulk_abort_items")
    result = models.CharField(
        max_length=12, choices=BulkAbortItemResult, default=BulkAbortItemResult.WAITING
    )
    note = models.TextField(blank=True)  # Explanation of the result.

    class Meta:
        ordering: ClassVar = ["bulk_abort", "position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["bulk_abort", "run"], name="bulk_abort_item_unique_run")
        ]
