"""Job runs and builds that steps of runs wait for, as last read; of their logs only the time."""

from typing import ClassVar

from django.db import models

from dashboard.models.catalog import ID_LENGTH
from dashboard.models.runs import Run


class Work(models.Model):
    """A job run or build of a step, read because somebody looked at the run."""

    class Kind(models.TextChoices):
        JOB_RUN = "job_run"
        BUILD = "build"

    run = models.ForeignKey(Run, models.CASCADE, related_name="works", db_index=False)
    step_key = models.TextField(help_text="Key of the step, as of `Run.step_key`.")
    kind = models.CharField(max_length=7, choices=Kind)
    owner_kind = models.CharField(max_length=7, help_text="Whose it is: job or service.")
    owner_id = models.CharField(max_length=ID_LENGTH)
    work_id = models.CharField(max_length=ID_LENGTH)
    is_probable = models.BooleanField(
        default=False, help_text="No step names it; it was found by its time. Never aborted."
    )
    name = models.TextField()
    status = models.TextField(help_text="As reported by Northflank.")
    concluded = models.BooleanField(help_text="As reported by Northflank.")
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    last_line_at = models.DateTimeField(
        null=True, help_text="Time of the last line of its log that was read."
    )
    synced_at = models.DateTimeField(help_text="When it was last read.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run", "kind", "owner_id", "work_id"], name="work_unique_in_run"
            )
        ]

    def __str__(self) -> str:
        return self.name
