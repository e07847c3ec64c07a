"""The sync workers."""

from django.db import models


class Worker(models.Model):
    """A sync worker and its last heartbeat."""

    name = models.CharField(max_length=255, unique=True)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
