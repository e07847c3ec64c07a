"""Who reads from Northflank."""

from django.db import models


class Lead(models.Model):
    """One row: the process that leads, the only one that reads; all others stand by."""

    holder = models.CharField(max_length=255, blank=True)  # Empty: no process leads.
    epoch = models.BigIntegerField(default=0)  # Grows with each change of the holder.
    taken_at = models.DateTimeField(null=True)
    renewed_at = models.DateTimeField(null=True)
    # When its holder last looked for due reads without a failure.
    round_ended_at = models.DateTimeField(null=True)
