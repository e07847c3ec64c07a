"""Who reads from Northflank."""

from django.db import models


class Lead(models.Model):
    """One row: the process that leads, the only one that reads; all others stand by."""

    holder = models.CharField(max_length=255, blank=True, help_text="Empty: no process leads.")
    epoch = models.BigIntegerField(default=0, help_text="Grows with each change of the holder.")
    taken_at = models.DateTimeField(null=True)
    renewed_at = models.DateTimeField(null=True)
    round_ended_at = models.DateTimeField(
        null=True, help_text="When its holder last looked for due reads without a failure."
    )
