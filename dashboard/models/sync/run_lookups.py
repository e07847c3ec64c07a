"""Run lookups: requests to Northflank for runs that are not in the mirror, in all processes."""

from typing import ClassVar

from django.conf import settings
from django.db import models

from dashboard.models.catalog import ID_LENGTH, Stage


class RunLookup(models.Model):
    """The lookup of one run id in one stage: who requested it, its cost and its result.

    A row is written before its request is sent, so that no two processes send the same one; it is
    deleted once its result has expired.
    """

    run_id = models.CharField(max_length=ID_LENGTH)
    stage = models.ForeignKey(Stage, models.CASCADE, related_name="run_lookups")
    from_search = models.BooleanField(
        default=False, help_text="Whether its requests count against the search budget."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="run_lookups",
        help_text="User who opened the run's full URL.",
    )
    request_count = models.PositiveIntegerField(help_text="Requests sent for it in the last hour.")
    is_repeat = models.BooleanField(
        default=False, help_text="Whether the stage had been queried for this run before."
    )
    requested_at = models.DateTimeField(db_index=True)
    leased_until = models.DateTimeField(
        null=True, help_text="Lease of the process that sends the request."
    )
    answered_at = models.DateTimeField(
        null=True, help_text="When Northflank responded: run not found, unless it is in the mirror."
    )
    error = models.TextField(blank=True, help_text="Error of the last request.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run_id", "stage"], name="run_lookup_unique_run_stage")
        ]

    def __str__(self) -> str:
        return f"{self.run_id} in {self.stage_id}"
