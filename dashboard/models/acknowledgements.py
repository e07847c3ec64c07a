"""Who looks at a run that needs somebody: said by a press, kept with the run."""

from collections.abc import Collection
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from dashboard.models.runs import Run


class LookingQuerySet(models.QuerySet["Looking"]):
    def open(self) -> "LookingQuerySet":
        """Those that nobody and nothing has ended."""
        return self.filter(until=None)

    def over(self, runs: Collection[int], at: datetime) -> None:
        """End all of some runs; whoever calls gives the runs their new versions."""
        if runs:
            self.open().filter(run__in=runs).update(until=at)


class Looking(models.Model):
    """One person who has said that they look at a run, from when to when."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="lookings")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="lookings"
    )
    username = models.TextField(help_text="Kept when the account is deleted.")
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, help_text="When it was handed back, or the run ended.")
    taken_over_by = models.TextField(blank=True, help_text="Who took it over, if that ended it.")

    objects = LookingQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run", "user"], condition=Q(until=None), name="one_open_look_a_person"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.username} looked at {self.run_id} since {self.since:%Y-%m-%d %H:%M:%S}"
