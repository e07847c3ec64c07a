"""The upstream, its rate limit, and the numbers of requests to it."""

from datetime import datetime
from functools import cache

from django.db import connection, models

from dashboard.db.prepared import PreparedQuery


class RequestCounter(models.Model):
    """One row: the last number given to a request to Northflank, in the order of sending.

    The higher number marks the newer of two responses, across processes and whatever their clocks.
    """

    value = models.BigIntegerField(default=0)

    @classmethod
    def take_next(cls) -> int:
        """Return the next number; call it just before sending the request. One statement."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE dashboard_requestcounter SET value = value + 1 WHERE id = 1 RETURNING value"
            )
            rows: list[tuple[int]] = cursor.fetchall()
        if not rows:  # the first request of all
            cls.objects.get_or_create(pk=1)
            return cls.take_next()
        return rows[0][0]

    @classmethod
    def latest(cls) -> int:
        """Return the number of the newest request; 0 before the first."""
        return cls.objects.filter(pk=1).values_list("value", flat=True).first() or 0


class Upstream(models.Model):
    """One row: which Northflank this database mirrors, and its current error, if any."""

    source = models.TextField()  # Base URL and team; 'sandbox' for the sandbox.
    team = models.TextField(blank=True)  # Team slug, for links to Northflank.
    error = models.CharField(max_length=40, blank=True)  # Cause of the current outage, if any.
    error_message = models.TextField(blank=True)
    error_since = models.DateTimeField(null=True)
    # Number of the latest request when the outage began.
    error_seq = models.BigIntegerField(default=0)
    last_success_at = models.DateTimeField(null=True)  # When a request last succeeded.

    @classmethod
    def current_error(cls) -> str | None:
        """Return the cause of the current outage, "" if there is none; None without a row."""
        return next((error for (error,) in _error_query().fetch()), None)

    @classmethod
    def record_success(cls, at: datetime) -> str | None:
        """Record that a request succeeded; return `current_error`. One statement."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE dashboard_upstream SET last_success_at = %s RETURNING error",
                [connection.ops.adapt_datetimefield_value(at)],
            )
            return next((error for (error,) in cursor.fetchall()), None)


@cache
def _error_query() -> PreparedQuery:
    return PreparedQuery(Upstream.objects.order_by("pk").values_list("error")[:1])


class RateBudget(models.Model):
    """One row: the rate limit by the latest x-ratelimit headers, shared by all processes."""

    limit = models.PositiveIntegerField()
    remaining = models.PositiveIntegerField()
    resets_at = models.DateTimeField()
    synced_at = models.DateTimeField()
    # Requests of this dashboard in this window.
    own_requests = models.PositiveIntegerField(default=0)
    # Of these, those for the logs that people look at.
    log_requests = models.PositiveIntegerField(default=0)
    # Requests per second of other clients before this window; empty: unknown.
    others_rate_before = models.FloatField(null=True)
    # Requests sent ahead of an even rate, as of the last response.
    burst = models.FloatField(default=0.0)
    backoff_until = models.DateTimeField(null=True)  # End of the pause after a 429.
    # Consecutive 429s, each after the pause of the previous one.
    refusals = models.PositiveIntegerField(default=0)
