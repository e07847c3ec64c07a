"""Job runs and builds that steps of runs wait for, as last read; of their logs only the time."""

from datetime import datetime
from typing import ClassVar

from django.db import models

from dashboard.db.prepared import Time
from dashboard.models.catalog import ID_LENGTH
from dashboard.models.runs import Run


class WorkQuerySet(models.QuerySet["Work"]):
    def running(self) -> "WorkQuerySet":
        """What had not ended when it was last read, and is not known to be removed."""
        return self.filter(concluded=False, removed_at=None)

    def due(self, now: Time) -> "WorkQuerySet":
        """What the sync should read now, since an abort may have left it running."""
        return self.filter(next_sync_at__lte=now).order_by("next_sync_at", "pk")


class Work(models.Model):
    """A job run or build of a step, read because somebody looked at the run or aborted it."""

    class Kind(models.TextChoices):
        JOB_RUN = "job_run"
        BUILD = "build"

    run = models.ForeignKey(Run, models.CASCADE, related_name="works", db_index=False)
    step_key = models.TextField()  # Key of the step, as of `Run.step_key`.
    kind = models.CharField(max_length=7, choices=Kind)
    owner_kind = models.CharField(max_length=7)  # Whose it is: job or service.
    owner_id = models.CharField(max_length=ID_LENGTH)
    work_id = models.CharField(max_length=ID_LENGTH)
    # No step names it; it was found by its time. Never aborted.
    is_probable = models.BooleanField(default=False)
    name = models.TextField()
    status = models.TextField()  # As reported by Northflank; empty: not read yet.
    concluded = models.BooleanField()  # As reported by Northflank.
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    # Time of the last line of its log that was read.
    last_line_at = models.DateTimeField(null=True)
    # When it was last read; before that, when its step was found to name it.
    synced_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True)  # When Northflank no longer had it.
    error = models.TextField(blank=True)  # Why the last read failed; empty: it did not.
    # When it is due to be read, as an abort may have left it running.
    next_sync_at = models.DateTimeField(null=True)
    # Severity of its abort being overdue: see aborts/severity.py.
    abort_severity = models.PositiveSmallIntegerField(default=0)

    objects = WorkQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run", "kind", "owner_id", "work_id"], name="work_unique_in_run"
            )
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["next_sync_at"],
                name="work_next_sync_at_idx",
                condition=models.Q(next_sync_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def in_flight(self) -> bool:
        """Whether it had not ended when it was last read, and is not known to be removed."""
        return not self.concluded and self.removed_at is None

    @property
    def concluded_at(self) -> datetime | None:
        """When it ended, as of a run."""
        return self.ended_at

    @property
    def failures(self) -> int:
        """Whether its last read failed, as of a run."""
        return int(bool(self.error))
