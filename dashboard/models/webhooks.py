"""Records of the events received by Northflank's webhook."""

from django.db import models


class WebhookStats(models.Model):
    """One row: when webhook events were received, and how many of each kind."""

    last_event_at = models.DateTimeField(null=True, help_text="When an authentic event last came.")
    last_release_event_at = models.DateTimeField(
        null=True, help_text="When one about a release flow last came."
    )
    event_count = models.PositiveBigIntegerField(default=0, help_text="Authentic ones, all told.")
    duplicate_count = models.PositiveBigIntegerField(default=0, help_text="Known by their id.")
    unrelated_count = models.PositiveBigIntegerField(
        default=0, help_text="Not about release flows."
    )
    last_rejected_at = models.DateTimeField(
        null=True, help_text="When a wrong token was last noted."
    )
    reads_booked_until = models.DateTimeField(
        null=True, help_text="Up to when readings that events asked for have used their share."
    )


class WebhookEvent(models.Model):
    """A received event, so that no process handles the same event twice."""

    digest = models.CharField(max_length=32, unique=True, help_text="Of the event's id.")
    received_at = models.DateTimeField(db_index=True)
