"""Dismissals of runs that Northflank no longer lists: who dismissed them, and when."""

from collections.abc import Collection
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from dashboard.models.runs import Run


class DismissalQuerySet(models.QuerySet["Dismissal"]):
    def open(self) -> "DismissalQuerySet":
        """Dismissals in effect; at most one per run."""
        return self.filter(restored_at=None)

    def end_for_runs(self, run_pks: Collection[int], at: datetime) -> None:
        """End the dismissals of runs that Northflank lists again."""
        if run_pks:
            self.open().filter(run__in=run_pks).update(restored_at=at)


class Dismissal(models.Model):
    """One dismissal of a run, kept even after the run was restored."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="dismissals")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="dismissals"
    )
    username = models.TextField()  # Kept after the account is deleted.
    dismissed_at = models.DateTimeField()
    restored_at = models.DateTimeField(null=True)
    restored_by = models.TextField(blank=True)  # Empty: Northflank listed the run again.

    objects = DismissalQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run"], condition=Q(restored_at=None), name="dismissal_one_open_per_run"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.username} dismissed {self.run_id} at {self.dismissed_at:%Y-%m-%d %H:%M:%S}"
