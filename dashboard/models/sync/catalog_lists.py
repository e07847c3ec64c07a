"""When the lists of the catalog were read, and when they are read next."""

from typing import Self

from django.db import models

from dashboard.db.prepared import Time
from dashboard.models.fast_loading import FastLoading


class CatalogSyncQuerySet(models.QuerySet["CatalogSync"]):
    def listed(self) -> Self:
        """Catalog lists without those of removed projects."""
        return self.filter(models.Q(project=None) | models.Q(project__removed_at=None))

    def never_synced(self) -> Self:
        """Listed ones that were never read."""
        return self.listed().filter(synced_at=None)

    def due(self, now: Time) -> Self:
        """Listed ones that the sync should read now, the longest due first."""
        return self.listed().filter(next_sync_at__lte=now).order_by("next_sync_at", "pk")


class CatalogSync(FastLoading):
    """Sync state of one catalog list: the projects, or one project's pipelines."""

    project = models.OneToOneField(
        "Project", models.CASCADE, null=True, related_name="catalog_sync"
    )
    next_sync_at = models.DateTimeField(db_index=True)
    synced_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=40, blank=True)
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)

    objects = CatalogSyncQuerySet.as_manager()
