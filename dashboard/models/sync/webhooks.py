"""Records of the events received by Northflank's webhook."""

from django.db import models


class WebhookStats(models.Model):
    """One row: when webhook events were received, and how many of each kind."""

    last_event_at = models.DateTimeField(
        null=True, help_text="When the last authentic event arrived."
    )
    last_release_event_at = models.DateTimeField(
        null=True, help_text="When the last event about a release flow arrived."
    )
    event_count = models.PositiveBigIntegerField(default=0, help_text="All authentic events.")
    duplicate_count = models.PositiveBigIntegerField(
        default=0, help_text="Duplicates, by event ID."
    )
    unrelated_count = models.PositiveBigIntegerField(
        default=0, help_text="Events not about release flows."
    )
    last_rejected_at = models.DateTimeField(
        null=True, help_text="When a request with a wrong secret was last recorded."
    )
    reads_booked_until = models.DateTimeField(
        null=True, help_text="Until when the share of reads triggered by events is used up."
    )


class WebhookEvent(models.Model):
    """A received event, so that no process handles the same event twice."""

    digest = models.CharField(max_length=32, unique=True, help_text="Digest of the event's ID.")
    received_at = models.DateTimeField(db_index=True)
