"""Records of the events received by Northflank's webhook."""

from django.db import models


class WebhookStats(models.Model):
    """One row: when webhook events were received, and how many."""

    last_event_at = models.DateTimeField(null=True)  # When the last authentic event arrived.
    # When the last event about a release flow arrived.
    last_release_event_at = models.DateTimeField(null=True)
    event_count = models.PositiveBigIntegerField(default=0)  # All authentic events.
    # When a request with a wrong secret was last recorded.
    last_rejected_at = models.DateTimeField(null=True)
