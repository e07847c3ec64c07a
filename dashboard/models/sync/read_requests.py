"""Requests of users to read from Northflank sooner than planned; the sync answers them."""

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q

from dashboard.db.prepared import Time
from dashboard.models.catalog import ID_LENGTH, Stage

LINK_WAIT = timedelta(seconds=10)  # how long a page waits for the answer to a link
SEARCH_AHEAD = timedelta(seconds=30)  # how long stages are read for a search ahead of the plan


class ReadRequestQuerySet(models.QuerySet["ReadRequest"]):
    def links(self) -> "ReadRequestQuerySet":
        return self.filter(kind=ReadRequest.Kind.LINK)

    def searches(self) -> "ReadRequestQuerySet":
        return self.filter(kind=ReadRequest.Kind.SEARCH)

    def pending(self, now: Time) -> "ReadRequestQuerySet":
        """Links that somebody waits for, and searches for which stages are read ahead."""
        is_link = Q(kind=ReadRequest.Kind.LINK, requested_at__gt=now - LINK_WAIT)
        is_search = Q(kind=ReadRequest.Kind.SEARCH, requested_at__gt=now - SEARCH_AHEAD)
        return self.filter(is_link | is_search, answered_at=None)


class ReadRequest(models.Model):
    """What a user wants to be read; of a link and of a search there is one row for all users.

    A row of “Refresh now” is only counted: the stage or run is due at once.
    """

    class Kind(models.TextChoices):
        LINK = "link", "A run that was never read, in its stage"
        SEARCH = "search", "A run that was never read, somewhere"
        REFRESH = "refresh", "A stage or a run, now"

    kind = models.CharField(max_length=10, choices=Kind)
    run_id = models.CharField(max_length=ID_LENGTH, blank=True)
    # Not of a search.
    stage = models.ForeignKey(Stage, models.CASCADE, null=True, related_name="read_requests")
    # Of a search: keys of the stages that may have the run.
    stages = models.JSONField(default=list)
    requested_at = models.DateTimeField(db_index=True)
    # When it was found, or to be in none of the stages.
    answered_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)  # Why it could not be answered.
    reads = models.PositiveIntegerField(default=0)  # Requests to Northflank in the last hour.

    objects: ClassVar = ReadRequestQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.kind} {self.run_id}"
