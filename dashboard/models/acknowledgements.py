"""Acknowledgements: which users have taken on a run that needs attention."""

from collections.abc import Collection
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from dashboard.models.fast_loading import FastLoading
from dashboard.models.runs import Run


class AcknowledgementQuerySet(models.QuerySet["Acknowledgement"]):
    def open(self) -> "AcknowledgementQuerySet":
        """Acknowledgements that have not ended."""
        return self.filter(ended_at=None)

    def end_for_runs(self, run_pks: Collection[int], at: datetime) -> None:
        """End the open acknowledgements of these runs; the caller gives the runs new versions."""
        if run_pks:
            self.open().filter(run__in=run_pks).update(ended_at=at)


class Acknowledgement(FastLoading):
    """One user's acknowledgement of a run, with its start and end."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="acknowledgements")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="acknowledgements"
    )
    username = models.TextField()  # Kept after the account is deleted.
    acknowledged_at = models.DateTimeField()
    # When it was handed back or taken over, or the run ended.
    ended_at = models.DateTimeField(null=True)
    taken_over_by = models.TextField(blank=True)  # User who took it over, if any.

    objects = AcknowledgementQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run", "user"],
                condition=Q(ended_at=None),
                name="acknowledgement_one_open_per_user",
            ),
        ]
