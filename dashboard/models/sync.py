"""The sync's bookkeeping: which upstream, what is left of its requests, who is reading."""

from typing import Self

from django.db import connection, models

from dashboard.models.catalog import ListDefects


class RequestCounter(models.Model):
    """One row: the number last given to a question to Northflank, in the order they are put.

    It says which of two answers is newer, whichever process asked, and whatever any clock says.
    """

    value = models.BigIntegerField(default=0)

    @classmethod
    def take_next(cls) -> int:
        """Take the next number, just before its question is put. One statement."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE dashboard_requestcounter SET value = value + 1 WHERE id = 1 RETURNING value"
            )
            rows: list[tuple[int]] = cursor.fetchall()
        if not rows:  # the first question of all
            cls.objects.get_or_create(pk=1)
            return cls.take_next()
        return rows[0][0]

    @classmethod
    def latest(cls) -> int:
        """The number of the newest question; 0 before the first."""
        return cls.objects.filter(pk=1).values_list("value", flat=True).first() or 0


class Upstream(models.Model):
    """One row: which Northflank this database mirrors, and whether it answers."""

    identity = models.TextField(help_text="Base address and team; 'sandbox' for the sandbox.")
    team = models.TextField(blank=True, help_text="Team slug, for links to Northflank.")
    error = models.CharField(max_length=40, blank=True, help_text="Cause of the trouble, if any.")
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    error_seq = models.BigIntegerField(
        default=0, help_text="Number of the newest question when the trouble was noticed."
    )
    last_success_at = models.DateTimeField(
        null=True, help_text="When it last answered as it should."
    )


class RateBudget(models.Model):
    """One row: what the x-ratelimit headers last said, for all processes."""

    limit = models.PositiveIntegerField()
    remaining = models.PositiveIntegerField()
    resets_at = models.DateTimeField()
    synced_at = models.DateTimeField()
    own_requests = models.PositiveIntegerField(
        default=0, help_text="Our own requests in this window."
    )
    others_rate_before = models.FloatField(
        null=True, help_text="Others' requests a second before this window; empty: not known."
    )
    burst = models.FloatField(
        default=0.0, help_text="Requests by which we were ahead of the even rate when last seen."
    )
    backoff_until = models.DateTimeField(null=True, help_text="After a 429: no reading before.")
    refusals = models.PositiveIntegerField(
        default=0, help_text="429s in a row, each after the pause of the one before."
    )
    probe_until = models.DateTimeField(
        null=True, help_text="The lease of the one request that tries after such a pause."
    )


class CatalogSyncQuerySet(models.QuerySet["CatalogSync"]):
    def never_synced(self) -> Self:
        """The lists that were never read, of what is not gone."""
        not_removed = models.Q(project=None) | models.Q(project__removed_at=None)
        return self.filter(not_removed, synced_at=None)


class CatalogSync(ListDefects):
    """When a part of the catalog is listed next: the projects, or one project's pipelines."""

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


class Worker(models.Model):
    """A process that reads Northflank, and when it last said so."""

    name = models.CharField(max_length=255, unique=True)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
