"""Pruning: what the last pass deleted."""

from django.db import models


class Pruning(models.Model):
    """One row: the result of the last pass.

    The figures of the database are as of the end of that pass: counting costs too much for a page.
    """

    finished_at = models.DateTimeField(null=True)  # When the last pass was complete.
    deleted_runs = models.PositiveBigIntegerField(default=0)
    # Number of runs whose steps were deleted.
    deleted_steps = models.PositiveBigIntegerField(default=0)
    deleted_access_events = models.PositiveBigIntegerField(default=0)
    run_count = models.PositiveBigIntegerField(default=0)
    oldest_run_at = models.DateTimeField(null=True)  # When the oldest run kept ended.
    database_bytes = models.PositiveBigIntegerField(default=0)
    # The trigger of the access log reads it: see append_only.py.
    # Access events before may be deleted; set only inside the transaction that does.
    access_log_limit = models.DateTimeField(null=True)
