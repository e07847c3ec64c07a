"""The catalog: projects, their pipelines, and the three stages of each, as in Northflank."""

from typing import ClassVar

from django.db import models

from dashboard.db.prepared import Time
from dashboard.models.fast_loading import FastLoading

# Northflank's ids are slugs; a longer one fits neither an index nor a URL.
ID_LENGTH = 255


class CatalogEntry(FastLoading):
    """Abstract: an entry of a Northflank list, current or removed."""

    synced_at = models.DateTimeField()  # When Northflank last listed it.
    # When it was first missing from a complete list; a later list confirms the removal.
    missing_since = models.DateTimeField(null=True, blank=True)
    # When its removal from Northflank was confirmed.
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class Watched(models.Model):
    """Abstract: what somebody may have open; the sync reads it more often then."""

    last_viewed_at = models.DateTimeField(null=True)  # When a user last viewed it.
    # Since when it has been viewed without a break.
    watched_since = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class Project(CatalogEntry):
    slug = models.CharField(max_length=ID_LENGTH, unique=True)
    name = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.name or self.slug


class Pipeline(CatalogEntry, Watched):
    project = models.ForeignKey(Project, models.CASCADE, related_name="pipelines")
    slug = models.CharField(max_length=ID_LENGTH)
    name = models.TextField(blank=True)
    description = models.TextField(blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "slug"], name="pipeline_unique_slug")
        ]

    def __str__(self) -> str:
        return self.name or self.slug


class StageName(models.TextChoices):
    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"


class StageQuerySet(models.QuerySet["Stage"]):
    def listed(self) -> "StageQuerySet":
        """Stages whose pipeline and project are not removed."""
        return self.filter(pipeline__removed_at=None, pipeline__project__removed_at=None)

    def not_fresh(self, now: Time) -> "StageQuerySet":
        """Stages never read, or whose last read is old or incomplete; no others have a gap."""
        is_old = models.Q(fresh_until__lt=now)
        return self.filter(models.Q(synced_at=None) | is_old | models.Q(in_flight_incomplete=True))

    def due(self, now: Time) -> "StageQuerySet":
        """Stages that the sync should read now, the longest due first."""
        return self.listed().filter(next_sync_at__lte=now).order_by("next_sync_at", "pk")


class Stage(FastLoading, Watched):
    """One stage of a pipeline: its release flow, if any, and the sync's schedule for it."""

    pipeline = models.ForeignKey(Pipeline, models.CASCADE, related_name="stages")
    name = models.CharField(max_length=20, choices=StageName)
    has_flow = models.BooleanField(null=True)  # Empty: not read yet.
    # When its release flow was first missing.
    missing_since = models.DateTimeField(null=True, blank=True)
    concurrency_policy = models.TextField(blank=True)
    paused = models.BooleanField(default=False)
    flow_synced_at = models.DateTimeField(null=True, blank=True)

    next_sync_at = models.DateTimeField(db_index=True)
    fresh_until = models.DateTimeField(null=True)  # Until when its last read counts as fresh.
    synced_at = models.DateTimeField(null=True)  # When its runs were last read.
    # The newest runs were read, but not the older ones in flight.
    in_flight_incomplete = models.BooleanField(default=False)
    last_run_change_at = models.DateTimeField(null=True)  # When one of its runs last changed.
    # When a webhook event last triggered a read.
    last_release_event_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=40, blank=True)  # Cause of the last failure.
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)  # Consecutive failed reads.
    # Next page of past runs to read; empty: all are read.
    next_history_page = models.PositiveIntegerField(null=True, default=2)
    # Runs that ended earlier were deleted, and are not mirrored again.
    pruned_until = models.DateTimeField(null=True)

    objects = StageQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pipeline", "name"], name="stage_unique_name")
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} / {self.name}"
