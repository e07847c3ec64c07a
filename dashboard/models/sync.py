"""The sync's bookkeeping: which upstream, what is left of its requests, who is reading."""

from django.db import models

from dashboard.models.catalog import ListReading


class Upstream(models.Model):
    """One row: which Northflank this database mirrors, and whether it answers."""

    identity = models.TextField(help_text="Base address and team; 'sandbox' for the sandbox.")
    team = models.TextField(blank=True, help_text="Team slug, for links to Northflank.")
    error = models.CharField(max_length=40, blank=True, help_text="Cause of the trouble, if any.")
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    answered_at = models.DateTimeField(null=True, help_text="When it last answered as it should.")


class Budget(models.Model):
    """One row: what the x-ratelimit headers last said, for all processes."""

    limit = models.PositiveIntegerField()
    remaining = models.PositiveIntegerField()
    resets_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    ours = models.PositiveIntegerField(default=0, help_text="Our own requests in this window.")
    others_before = models.FloatField(
        null=True, help_text="Others' requests a second before this window; empty: not known."
    )
    ahead = models.FloatField(
        default=0.0, help_text="Requests by which we were ahead of the even rate when last seen."
    )
    refused_until = models.DateTimeField(null=True, help_text="After a 429: no reading before.")
    refusals = models.PositiveIntegerField(
        default=0, help_text="429s in a row, each after the pause of the one before."
    )
    probe_until = models.DateTimeField(
        null=True, help_text="The lease of the one request that tries after such a pause."
    )


class CatalogueSweep(ListReading):
    """When a part of the catalogue is listed next: the projects, or one project's pipelines."""

    project = models.OneToOneField("Project", models.CASCADE, null=True, related_name="sweep")
    next_at = models.DateTimeField(db_index=True)
    swept_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=40, blank=True)
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)


class Worker(models.Model):
    """A process that reads Northflank, and when it last said so."""

    name = models.CharField(max_length=255, unique=True)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
