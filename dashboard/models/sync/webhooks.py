"""Records of the events received by Northflank's webhook."""

from django.db import models


class WebhookStats(models.Model):
    """One row: when webhook events were received, and how many."""

    last_event_at = models.DateTimeField(
        null=True, help_text="When the last authentic event arrived."
    )
    last_release_event_at = models.DateTimeField(
        null=True, help_text="When the last event about a release flow arrived."
    )
    event_count = models.PositiveBigIntegerField(default=0, help_text="All authentic events.")
    last_rejected_at = models.DateTimeField(
        null=True, help_text="When a request with a wrong secret was last recorded."
    )
