"""Counters of failed attempts, shared by all processes."""

from django.db import models


class FailureCounter(models.Model):
    """The recent failures of one account, browser or address.

    See accounts/authentication/throttle.py.

    Each failure moves `drained_at` further into the future. Once it has passed, the row says
    nothing and may be deleted.
    """

    key = models.CharField(max_length=64, unique=True)  # Digest of what is counted.
    # When all failures so far will have been forgotten.
    drained_at = models.DateTimeField(db_index=True)
